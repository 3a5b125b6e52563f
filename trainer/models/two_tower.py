"""The control: a regular two-tower model. Pooled views of the history → MLP → user vector.

Where it learns at several places of a window, the views of each place are of what was there by then.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.base import UserEncoder, masked_mean
from trainer.models.places import lags_by_then, means_by_then, there_by_then

LAG_SCALE = 0.1  # log1p of seconds reaches 14 in two weeks


class TwoTower(UserEncoder):
    """Mean of the history, recency-weighted mean, mean of the session and the last item, through one hidden layer.

    The recency weight of a behaviour is exp(−w·log1p(seconds)) with a learnt w = exp(decay): a power law of its age.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self._session = min(settings.session_length, settings.window)
        d = settings.dim
        self.decay = nn.Parameter(torch.tensor([-1.0]))
        self.hidden = nn.Linear(4 * d + 2, 2 * d)
        self.out = nn.Linear(2 * d, d)
        self.skip = nn.Linear(4 * d + 2, d)

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`; the noise is ignored."""
        del noise
        k = self._session
        recency = mask * torch.exp(-self.decay.exp() * lag)
        features = torch.cat(
            (
                masked_mean(sequence, mask),
                masked_mean(sequence, recency),
                masked_mean(sequence[:, -k:], mask[:, -k:]),
                sequence[:, -1],
                LAG_SCALE * lag[:, -1:],
                mask[:, -1:],
            ),
            1,
        )
        return self._tower(features)

    def users_at(self, sequence: Tensor, mask: Tensor, lag: Tensor, at: Tensor) -> Tensor:
        """See `UserEncoder.users_at`."""
        return self._tower(self._features_by_then(sequence, mask, lag).flatten(0, 1)[at])

    def _features_by_then(self, sequence: Tensor, mask: Tensor, lag: Tensor) -> Tensor:
        """At each place what `forward` makes of the history up to there, (B, n, 4 d + 2)."""
        lags, there = lags_by_then(lag), there_by_then(mask)
        recency = there * torch.exp(-self.decay.exp() * lags)
        since_last = lags.diagonal(dim1=1, dim2=2) * mask
        return torch.cat(
            (
                means_by_then(sequence, there),
                means_by_then(sequence, recency),
                means_by_then(sequence, there_by_then(mask, self._session)),
                sequence,
                LAG_SCALE * since_last.unsqueeze(2),
                mask.unsqueeze(2),
            ),
            2,
        )

    def _tower(self, features: Tensor) -> Tensor:
        user: Tensor = self.out(functional.gelu(self.hidden(features))) + self.skip(features)
        return user
