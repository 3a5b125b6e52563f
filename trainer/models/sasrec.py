"""SASRec (Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018): a causal transformer.

Trained with the softmax over the whole catalogue at every place instead of the paper's one sampled negative, which is
known to be worth more than most of its successors (Klenitskiy and Vasilev, RecSys 2023).
"""

import torch
from torch import Tensor

from contracts.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder
from trainer.models.layers import Transformer, heads_for, next_places


class SASRec(UserEncoder):
    """The state at the last behaviour is the user."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self.body = Transformer(
            d, settings.window, depth=settings.depth, heads=heads_for(d), dropout=settings.dropout, causal=True
        )

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        del lag, noise
        return self.body(sequence, mask)[:, -1]  # type: ignore[no-any-return]

    def training_step(
        self, sequence: Tensor, mask: Tensor, lag: Tensor, target: Tensor, generator: torch.Generator
    ) -> TrainingStep:
        """See `UserEncoder.training_step`."""
        del lag, target, generator
        at, places = next_places(mask)
        return TrainingStep(self.body(sequence, mask).flatten(0, 1)[at], sequence.new_zeros(()), places)
