"""SASRec (Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018): a causal transformer.

Trained with the softmax over the whole catalogue, at the places that are named, instead of the paper's one sampled
negative, which is known to be worth more than most of its successors (Klenitskiy and Vasilev, RecSys 2023).
"""

from torch import Tensor

from contracts.config.settings import ModelSettings
from trainer.models.layers import CausalEncoder, Transformer, heads_for


class SASRec(CausalEncoder):
    """The state at the last behaviour is the user."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self.body = Transformer(
            d, settings.window, depth=settings.depth, heads=heads_for(d), dropout=settings.dropout, causal=True
        )

    def states(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """See `CausalEncoder.states`."""
        states: Tensor = self.body(sequence, mask)
        return states
