"""What trainer and serving know of a model: a user encoder over item vectors.

The user encoder never sees an item id: its inputs are item vectors, so its exported graph holds no catalogue.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.models.places import next_places


class TrainingStep(NamedTuple):
    """What a user encoder hands over when it trains: vectors, and which item each of them should have found."""

    user: Tensor  # (M, d)
    extra_loss: Tensor  # () added to the softmax loss
    # (M,) places of the wanted items in the flattened (B, n + 1) of behaviours and, last, target; None: M = B targets.
    # A model that learns at several places of its window names what follows them.
    places: Tensor | None = None
    extra_of_each: Tensor | None = None  # (M,) what each vector adds to `extra_loss`, their mean; None: all add 0


class Inputs(NamedTuple):
    """What a user encoder is asked with; B users, n behaviours, all on the model's device."""

    rows: Tensor  # (B, n) rows of the behaviours' items in the catalogue, 0 where there is none
    mask: Tensor  # (B, n) 1 where there is a behaviour
    lag: Tensor  # (B, n) log1p of the seconds between the behaviour and the request


class UserEncoder(nn.Module):
    """A user tower: a behaviour sequence in, a user vector out; the score of an item is the inner product.

    Subclasses define `forward`, and `training_step` where training differs from inference. Padding is on the left
    and its amount must not change the result; an empty history must give a finite vector.
    """

    noise_shape: tuple[int, ...] = ()  # of one user's sampling noise; () where the encoder takes none
    optional_part = ""  # that it may be served without, by its name in `settings.ablate`; "" where there is none
    left_out = False  # whether `forward` goes without that part; training never does

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """User vectors (B, d), as they are served.

        Args:
            sequence: (B, n, d) item vectors of the behaviours, oldest first, zeros where there is none.
            mask: (B, n) 1 where there is a behaviour.
            lag: (B, n) log1p of the seconds between the behaviour and the request.
            noise: (B, *noise_shape) standard normal.

        """
        raise NotImplementedError

    def training_step(
        self,
        sequence: Tensor,
        mask: Tensor,
        lag: Tensor,
        target: Tensor,
        generator: torch.Generator,
        learn: Tensor | None = None,
    ) -> TrainingStep:
        """User vectors and extra losses of a training step.

        Args:
            sequence: as in `forward`; so are `mask` and `lag`.
            mask: (B, n).
            lag: (B, n).
            target: (B, d) vectors of the next positive items.
            generator: on the CPU; the only source of randomness.
            learn: (B, n), true at the places to learn at (`trainer.models.places`), the last one among them; None: at
                the last one alone. Only of models that have a vector at each place: not of those in `ONE_VECTOR`.

        """
        del target
        if learn is not None:
            at, places = next_places(learn)
            return TrainingStep(self.users_at(sequence, mask, lag, at), sequence.new_zeros(()), places)
        noise = normal((len(sequence), *self.noise_shape), generator, sequence)
        return TrainingStep(self(sequence, mask, lag, noise), sequence.new_zeros(()))

    def users_at(self, sequence: Tensor, mask: Tensor, lag: Tensor, at: Tensor) -> Tensor:
        """User vectors (M, d) at places (M,) of the flattened (B, n): at the last one of a window what `forward` gives.

        Of models that learn at several places by `UserEncoder.training_step`.
        """
        raise NotImplementedError

    def weights(self) -> dict[str, Tensor]:
        """The weights that `forward` uses, by name."""
        return self.state_dict()

    def shape_items(self, vectors: Tensor) -> Tensor:
        """The item tower's vectors as this model matches and reads them, (N, d) to (N, d); mostly as they are.

        Each by itself: training may shape no more items than a step needs.
        """
        return vectors


def normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal noise, drawn on the CPU so that every device gets the same, then moved to `like`'s device."""
    return torch.randn(shape, generator=generator).to(like)


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the second axis: (B, n, d) by (B, n) gives (B, d), zeros where all weights are 0.

    >>> masked_mean(torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[1.0, 1.0, 0.0]])).tolist()
    [[3.0]]
    """
    total = weight.sum(1, keepdim=True)
    return (values * weight.unsqueeze(-1)).sum(1) / total.clamp(min=1e-6)
