"""The control: a regular two-tower model. Pooled views of the history → MLP → user vector."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.base import UserEncoder, masked_mean

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
        user: Tensor = self.out(functional.gelu(self.hidden(features))) + self.skip(features)
        return user
