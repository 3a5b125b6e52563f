"""A whole model: a user encoder and the item tower it shares, from rows of a catalogue to scores and losses.

The online learner and the offline evaluation both hold one; neither Kafka nor epochs are known here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.settings import ModelSettings
from trainer.models import create
from trainer.models.base import Inputs, ItemTower
from trainer.softmax import catalogue_loss


class Model(nn.Module):
    """A user encoder and an item tower whose initial weights are a function of the seed."""

    def __init__(self, name: str, settings: ModelSettings, seed: int) -> None:
        """Make the model on the CPU.

        Raises:
            ValueError: there is no model of that name.

        """
        super().__init__()
        self.precision = torch.float32  # of the softmax's matrix products
        self.encoder = create(name, settings, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.items = ItemTower(settings, seed)

    def vectors(self) -> Tensor:
        """The catalogue as the encoder matches and reads it, (N, d)."""
        return self.encoder.shape_items(self.items())

    def users(self, inputs: Inputs, vectors: Tensor, noise: Tensor) -> Tensor:
        """User vectors (B, d) as they are served; noise is (B, *noise_shape)."""
        return self.encoder(_gather(inputs, vectors), inputs.mask, inputs.lag, noise)  # type: ignore[no-any-return]

    def loss(self, inputs: Inputs, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Softmax over the whole catalogue at every place that the encoder learns from, plus its extra loss; ().

        Args:
            inputs: B users.
            targets: (B,) rows of the next positive items.
            generator: on the CPU; the encoder's only source of randomness, dropout apart.

        """
        vectors = self.vectors()
        step = self.encoder.training_step(
            _gather(inputs, vectors), inputs.mask, inputs.lag, functional.embedding(targets, vectors), generator
        )
        wanted = targets
        if step.places is not None:
            wanted = torch.cat((inputs.rows, targets.unsqueeze(1)), 1).flatten()[step.places]
        return catalogue_loss(step.user, vectors, wanted, self.precision) + step.extra_loss


def _gather(inputs: Inputs, vectors: Tensor) -> Tensor:
    return functional.embedding(inputs.rows, vectors) * inputs.mask.unsqueeze(-1)
