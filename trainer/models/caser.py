"""Caser (Tang and Wang, Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding, WSDM 2018):
convolutions over the last behaviours as over a picture, L behaviours high and d wide.

Where we leave the paper: there is no user-id embedding P_u, because the users we are asked about are new to the model,
and behaviours are all that it is given of them; the softmax over the whole catalogue, on the one next item (T = 1),
takes the place of binary cross-entropy with sampled negatives; and items are read and matched with the same vectors,
so a linear map takes the place of the output layer's own item matrix W'.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.base import UserEncoder
from trainer.models.layers import drop

LENGTH = 5  # L: the authors' for ML-1M (their code's default); they tried up to 9, so more would not be their model
HORIZONTAL = 16  # n_h filters of each height 1..L; the authors' default
VERTICAL = 4  # n_v filters; the authors' default


class Caser(UserEncoder):
    """Horizontal filters find patterns of adjacent behaviours; vertical ones are weighted sums of the behaviours."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self._length, self._dropout = min(settings.window, LENGTH), settings.dropout
        heights = range(1, self._length + 1)
        self.horizontal = nn.ModuleList(nn.Conv1d(d, HORIZONTAL, height) for height in heights)
        self.vertical = nn.Linear(self._length, VERTICAL, bias=False)
        self.hidden = nn.Linear(HORIZONTAL * self._length + VERTICAL * d, d)
        self.out = nn.Linear(d, d)

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`; a history shorter than L begins with zero vectors, as in the paper."""
        del mask, lag, noise
        missing = max(self._length - sequence.shape[1], 0)
        return self._user(functional.pad(sequence[:, -self._length :], (0, 0, missing, 0)).transpose(1, 2))

    def users_at(self, sequence: Tensor, mask: Tensor, lag: Tensor, at: Tensor) -> Tensor:
        """See `UserEncoder.users_at`."""
        del mask, lag
        pictures = functional.pad(sequence, (0, 0, self._length - 1, 0)).unfold(1, self._length, 1)  # (B, n, d, L)
        return self._user(pictures.flatten(0, 1)[at])

    def _user(self, picture: Tensor) -> Tensor:
        """(B, d, L) to (B, d)."""
        patterns = [functional.relu(filters(picture)).amax(2) for filters in self.horizontal]  # max over time
        sums = self.vertical(picture).flatten(1)
        features = drop(torch.cat((*patterns, sums), 1), self._dropout, training=self.training)
        user: Tensor = self.out(functional.relu(self.hidden(features)))
        return user
