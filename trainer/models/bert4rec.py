"""BERT4Rec: a transformer that reads both ways and is asked what stands under a mask.

Sun et al., BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer, CIKM 2019.

Where we leave the paper: the layers are pre-norm, as SASRec's here; an item has no bias, since a score is an inner
product; and the target, the only place that serving asks for, is masked in every window beside whatever else is, where
the paper adds windows in which nothing but the last item is.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder
from trainer.models.layers import Transformer, heads_for

DEPTH = 2
MASKED = 0.2  # ρ, the share of behaviours masked in training; the paper's for ML-1M


class BERT4Rec(UserEncoder):
    """The state at a mask that follows the last behaviour is the user."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self.masked = nn.Parameter(0.02 * torch.randn(d))
        self.body = Transformer(d, settings.window + 1, depth=DEPTH, heads=heads_for(d), dropout=settings.dropout)
        self.head = nn.Linear(d, d)

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        del lag, noise
        only_last = functional.pad(torch.zeros_like(mask), (0, 1), value=1.0)
        return self._project(self._states(sequence, mask, only_last)[:, -1])

    def training_step(
        self,
        sequence: Tensor,
        mask: Tensor,
        lag: Tensor,
        target: Tensor,
        generator: torch.Generator,
        learn: Tensor | None = None,
    ) -> TrainingStep:
        """See `UserEncoder.training_step`; learns at masked behaviours and at the target, always masked."""
        del lag, target, learn
        drawn = (torch.rand(mask.shape, generator=generator) < MASKED).to(mask)
        hidden = functional.pad(drawn * mask, (0, 1), value=1.0)
        at = hidden.flatten().nonzero().squeeze(1)
        states = self._states(sequence, mask, hidden).flatten(0, 1)
        return TrainingStep(self._project(states[at]), sequence.new_zeros(()), at)

    def _states(self, sequence: Tensor, mask: Tensor, hidden: Tensor) -> Tensor:
        """(B, n + 1, d) over the behaviours and what follows them; `hidden` (B, n + 1) is 1 where the mask stands."""
        tokens = functional.pad(sequence, (0, 0, 0, 1))
        behind = hidden.unsqueeze(-1)
        shown = (1 - behind) * tokens + behind * self.masked
        states: Tensor = self.body(shown, functional.pad(mask, (0, 1), value=1.0))
        return states

    def _project(self, states: Tensor) -> Tensor:
        """GELU(h W^P + b^P) of Eq. 7."""
        user: Tensor = functional.gelu(self.head(states))
        return user
