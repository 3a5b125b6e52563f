"""A whole model: a user encoder and the item tower it shares, from rows of a catalogue to scores and losses.

The online learner and the offline evaluation both hold one; neither Kafka nor epochs are known here.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.learn.full_softmax import catalogue_loss
from trainer.learn.item_tower import ItemTower
from trainer.learn.sampled_softmax import Negatives, sampled_loss
from trainer.models import create
from trainer.models.base import Inputs


class Loss(NamedTuple):
    """Of a batch."""

    mean: Tensor  # ()
    places: int  # that the softmax was taken at


class Model(nn.Module):
    """A user encoder and an item tower whose initial weights are a function of the seed."""

    def __init__(self, name: str, settings: ModelSettings, seed: int, admit_after: int = 0) -> None:
        """Make the model on the CPU; `admit_after` is the item tower's.

        Raises:
            ValueError: there is no model of that name.

        """
        super().__init__()
        self.precision = torch.float32  # of the softmax's matrix products
        self.encoder = create(name, settings, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.items = ItemTower(settings, seed, admit_after)

    def vectors(self) -> Tensor:
        """The catalogue as the encoder matches and reads it, (N, d)."""
        return self.encoder.shape_items(self.items())

    def users(self, inputs: Inputs, vectors: Tensor, noise: Tensor) -> Tensor:
        """User vectors (B, d) as they are served; noise is (B, *noise_shape)."""
        return self.encoder(_gather(inputs, vectors), inputs.mask, inputs.lag, noise)  # type: ignore[no-any-return]

    def loss(
        self, inputs: Inputs, targets: Tensor, generator: torch.Generator, negatives: Negatives | None = None
    ) -> Loss:
        """Softmax at every place that the encoder learns from, plus its extra loss.

        Args:
            inputs: B users.
            targets: (B,) rows of the next positive items.
            generator: on the CPU; the encoder's only source of randomness, dropout apart.
            negatives: what the wanted items compete with; None: the whole catalogue. With these, only vectors of rows
                that the step needs are made.

        """
        if negatives is None:
            vectors = self.vectors()
        else:
            rows, inputs, targets, candidates = _renumbered(inputs, targets, negatives.rows)
            vectors = self.encoder.shape_items(self.items(rows))
        step = self.encoder.training_step(
            _gather(inputs, vectors), inputs.mask, inputs.lag, functional.embedding(targets, vectors), generator
        )
        wanted = targets
        if step.places is not None:
            wanted = torch.cat((inputs.rows, targets.unsqueeze(1)), 1).flatten()[step.places]
        if negatives is None:
            loss = catalogue_loss(step.user, vectors, wanted, self.precision)
        else:
            loss = sampled_loss(step.user, vectors, wanted, candidates, negatives.log_weight.to(vectors.device))
        return Loss(loss + step.extra_loss, len(wanted))


def _renumbered(inputs: Inputs, targets: Tensor, candidates: Tensor) -> tuple[Tensor, Inputs, Tensor, Tensor]:
    """The rows that are needed, each once, and the inputs, targets and candidates as places among these."""
    parts = (inputs.rows.flatten(), targets, candidates.to(targets.device))
    rows, places = torch.unique(torch.cat(parts), return_inverse=True)
    window, wanted, drawn = places.split([len(part) for part in parts])
    return rows, inputs._replace(rows=window.view_as(inputs.rows)), wanted, drawn


def _gather(inputs: Inputs, vectors: Tensor) -> Tensor:
    return functional.embedding(inputs.rows, vectors) * inputs.mask.unsqueeze(-1)
