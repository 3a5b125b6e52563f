"""What trainer and serving know of a model: a shared item tower and a user encoder over item vectors.

The user encoder never sees an item id: its inputs are item vectors, so its exported graph holds no catalogue.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.features import sampling_noise
from contracts.settings import ModelSettings
from trainer.catalogue import Catalogue

ID_STREAM, CATEGORY_STREAM = 0, 1  # keep an item and a category of the same number from starting alike
INITIAL_SCALE = 0.05  # of embeddings: an item that nobody has watched yet weighs little in a history


class TrainingStep(NamedTuple):
    """What a user encoder hands over when it trains: vectors, and which item each of them should have found."""

    user: Tensor  # (M, d)
    extra_loss: Tensor  # () added to the softmax loss
    # (M,) places of the wanted items in the flattened (B, n + 1) of behaviours and, last, target; None: M = B targets.
    # A model that learns from every behaviour of its window names those; padding is no place.
    places: Tensor | None = None


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
        self, sequence: Tensor, mask: Tensor, lag: Tensor, target: Tensor, generator: torch.Generator
    ) -> TrainingStep:
        """User vectors and extra losses of a training step.

        Args:
            sequence: as in `forward`; so are `mask` and `lag`.
            mask: (B, n).
            lag: (B, n).
            target: (B, d) vectors of the next positive items.
            generator: on the CPU; the only source of randomness.

        """
        del target
        noise = normal((len(sequence), *self.noise_shape), generator, sequence)
        return TrainingStep(self(sequence, mask, lag, noise), sequence.new_zeros(()))

    def shape_items(self, vectors: Tensor) -> Tensor:
        """The item tower's vectors as this model matches and reads them, (N, d) to (N, d); mostly as they are."""
        return vectors


class ItemTower(nn.Module):
    """e_i = W [id embedding ‖ mean of category embeddings] + b.

    Tables follow a catalogue: rows are added at the end and stay where they are. A new row starts as a function of
    (seed, id), so neither the order nor the moment of its arrival matters.
    """

    def __init__(self, settings: ModelSettings, seed: int) -> None:
        super().__init__()
        dim, ids = settings.dim, settings.id_dim or settings.dim
        self._seed = seed
        self._category_row: dict[int, int] = {}
        self.ids = nn.Parameter(torch.empty(0, ids))
        self.categories = nn.Parameter(torch.empty(0, settings.category_dim))
        self.mix = nn.Linear(ids + settings.category_dim, dim)
        with torch.no_grad():
            # An item starts at its own embedding, so that the very first gradients already move items apart.
            self.mix.weight[:, :ids] = torch.eye(dim, ids)
            self.mix.bias.zero_()
        self.register_buffer("_bag", torch.empty(0, dtype=torch.long), persistent=False)
        self.register_buffer("_starts", torch.empty(0, dtype=torch.long), persistent=False)
        self._bag: Tensor
        self._starts: Tensor

    def follow(self, catalogue: Catalogue) -> None:
        """Grow the tables to the catalogue's rows and take its categories over."""
        new_ids = catalogue.ids_by_row[len(self.ids) :]
        fresh = {c: None for of_item in catalogue.categories for c in of_item if c not in self._category_row}
        for category in fresh:
            self._category_row[category] = len(self._category_row)
        _append(self.ids, [_initial(i, self._seed, ID_STREAM, self.ids.shape[1]) for i in new_ids])
        width = self.categories.shape[1]
        _append(self.categories, [_initial(c, self._seed, CATEGORY_STREAM, width) for c in fresh])
        lengths = torch.tensor([len(of_item) for of_item in catalogue.categories], dtype=torch.long)
        flat = [self._category_row[c] for of_item in catalogue.categories for c in of_item]
        self._bag = torch.tensor(flat, dtype=torch.long, device=self.ids.device)
        self._starts = (lengths.cumsum(0) - lengths).to(self.ids.device)

    def forward(self) -> Tensor:
        """Vectors of the whole catalogue in rows of arrival, (N, d)."""
        categories = functional.embedding_bag(self._bag, self.categories, self._starts, mode="mean")
        return functional.linear(torch.cat((self.ids, categories), 1), self.mix.weight, self.mix.bias)


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


def _initial(number: int, seed: int, stream: int, dim: int) -> Tensor:
    return torch.from_numpy(sampling_noise(number, 2 * seed + stream, (dim,))) * INITIAL_SCALE


def _append(table: nn.Parameter, rows: list[Tensor]) -> None:
    """Add rows in place: the parameter stays the same object, so an optimizer goes on with it."""
    if rows:
        table.data = torch.cat((table.data, torch.stack(rows).to(table.data)))
        table.grad = None
