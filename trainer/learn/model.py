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
from trainer.learn.page_softmax import page_loss
from trainer.learn.sampled_softmax import Negatives, sampled_loss
from trainer.models import create
from trainer.models.base import Inputs, TrainingStep
from trainer.models.places import last_places, learned_places


class Loss(NamedTuple):
    """Of a batch."""

    mean: Tensor  # ()
    places: int  # that the softmax was taken at


class Model(nn.Module):
    """A user encoder and an item tower whose initial weights are a function of the seed."""

    def __init__(self, name: str, settings: ModelSettings, seed: int, admit_after: int = 0) -> None:
        """Make the model on the CPU; `admit_after` is the item tower's.

        Raises:
            ValueError: there is no model of that name, or it cannot learn where the settings say.

        """
        super().__init__()
        self.precision = torch.float32  # of the softmax's matrix products
        self.page_weight = settings.page_loss
        self._settings = settings
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
        self,
        inputs: Inputs,
        targets: Tensor,
        generator: torch.Generator,
        negatives: Negatives | None = None,
        passed: Tensor | None = None,
        weight: Tensor | None = None,
        last: Tensor | None = None,
    ) -> Loss:
        """Softmax at every place that the encoder learns from, plus its extra loss, plus the loss within the page.

        Args:
            inputs: B users.
            targets: (B,) rows of the next positive items.
            generator: on the CPU; the encoder's only source of randomness, dropout apart.
            negatives: what the wanted items compete with; None: the whole catalogue. With these, only vectors of rows
                that the step needs are made.
            passed: (B, m) rows of what stood on the target's page and was not watched, -1 where there is no more; None:
                nothing is learned from the page.
            weight: (B,) that all losses of an example are multiplied by, of a model whose extra loss is the mean of
                `TrainingStep.extra_of_each`; None: 1.
            last: (B,) at how many of its last places each window is learned from, at least 1, whatever there is; None:
                where `trainer.model.learn_at` says.

        """
        if negatives is None:
            vectors = self.vectors()
        else:
            rows, inputs, targets, candidates, passed = _renumbered(inputs, targets, negatives.rows, passed)
            vectors = self.encoder.shape_items(self.items(rows))
        mask = inputs.mask
        learn = learned_places(mask, self._settings) if last is None else last_places(last, mask.shape[1])
        step = self.encoder.training_step(
            _gather(inputs, vectors), inputs.mask, inputs.lag, functional.embedding(targets, vectors), generator, learn
        )
        wanted = targets
        if step.places is not None:
            wanted = torch.cat((inputs.rows, targets.unsqueeze(1)), 1).flatten()[step.places]
        by_place = None if weight is None else _of_places(weight, step, inputs)
        if negatives is None:
            loss = catalogue_loss(step.user, vectors, wanted, self.precision, by_place)
        else:
            log_weight = negatives.log_weight.to(vectors.device)
            loss = sampled_loss(step.user, vectors, wanted, candidates, log_weight, by_place)
        if passed is not None:
            loss = loss + self.page_weight * page_loss(_at_targets(step, inputs), vectors, targets, passed, weight)
        extra = step.extra_loss
        if by_place is not None and step.extra_of_each is not None:
            extra = (by_place * step.extra_of_each).mean()
        return Loss(loss + extra, len(wanted))


def _at_targets(step: TrainingStep, inputs: Inputs) -> Tensor:
    """Of a training step's user vectors those that look for the targets, (B, d) in their order."""
    if step.places is None:
        return step.user
    width = inputs.rows.shape[1] + 1
    at = step.places % width == width - 1
    return step.user[at][: len(inputs.rows)]  # an encoder may look twice for each


def _of_places(weight: Tensor, step: TrainingStep, inputs: Inputs) -> Tensor:
    """The weight of the example that each of a training step's user vectors belongs to; (B,) to (M,)."""
    return weight if step.places is None else weight[step.places // (inputs.rows.shape[1] + 1)]


def _renumbered(
    inputs: Inputs, targets: Tensor, candidates: Tensor, passed: Tensor | None
) -> tuple[Tensor, Inputs, Tensor, Tensor, Tensor | None]:
    """The rows that are needed, each once, and all that was given as places among these."""
    beside = targets.new_empty(0) if passed is None else passed.clamp(min=0).flatten()
    parts = (inputs.rows.flatten(), targets, candidates.to(targets.device), beside)
    rows, places = torch.unique(torch.cat(parts), return_inverse=True)
    window, wanted, drawn, at = places.split([len(part) for part in parts])
    if passed is not None:
        passed = torch.where(passed >= 0, at.view_as(passed), -1)
    return rows, inputs._replace(rows=window.view_as(inputs.rows)), wanted, drawn, passed


def _gather(inputs: Inputs, vectors: Tensor) -> Tensor:
    return functional.embedding(inputs.rows, vectors) * inputs.mask.unsqueeze(-1)
