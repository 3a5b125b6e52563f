"""Mixed attention of T2Diff: the session in full, the history in the session's light (Eq. 19–22)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.base import masked_mean
from trainer.models.layers import NEVER, Transformer, heads_for

LAG_SCALE = 0.1  # log1p of seconds reaches 14 in two weeks


class MixedAttention(nn.Module):
    """User vectors from behaviours and, where there is one, a guess x̂ at the next."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self._session = min(settings.session_length, settings.window)
        self.session = Transformer(d, self._session + 1, depth=1, heads=heads_for(d), dropout=settings.dropout)
        self.score_hidden = nn.Linear(4 * d + 1, d)
        self.score = nn.Linear(d, 1)
        self.hidden = nn.Linear(2 * d, 2 * d)
        self.out = nn.Linear(2 * d, d)
        self.skip = nn.Linear(2 * d, d)

    def forward(self, x: Tensor, mask: Tensor, lag: Tensor, guess: Tensor | None) -> Tensor:
        """Behaviours (B, n, d), mask and lag (B, n) and x̂ (B, d) to user vectors (B, d)."""
        k = min(self._session, x.shape[1])
        tokens, present = x[:, -k:], mask[:, -k:]
        if guess is not None:
            tokens = torch.cat((tokens, guess.unsqueeze(1)), 1)
            present = functional.pad(present, (0, 1), value=1.0)
        h_s = masked_mean(self.session(tokens, present), present)  # Eq. 19
        beside = h_s.unsqueeze(1).expand_as(x)
        pairs = torch.cat((x, x - beside, x * beside, beside, LAG_SCALE * lag.unsqueeze(-1)), 2)
        scores = self.score(functional.gelu(self.score_hidden(pairs))).squeeze(-1)  # Eq. 20
        weights = (scores + NEVER * (1 - mask)).softmax(1) * mask
        h_l = (weights.unsqueeze(-1) * x).sum(1)  # Eq. 21
        both = torch.cat((h_l, h_s), 1)
        user: Tensor = self.out(functional.gelu(self.hidden(both))) + self.skip(both)  # Eq. 22
        return user
