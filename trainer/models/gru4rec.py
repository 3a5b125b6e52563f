"""GRU4Rec (Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016): one GRU layer.

Where we leave the paper: the softmax over the whole catalogue takes the place of TOP1 or BPR against the items of the
mini-batch; windows are unrolled whole instead of in session-parallel mini-batches; and items are read and matched with
the same vectors, so a linear layer (the paper's optional feed-forward layer) leads from the state to them.

The cell is written out, since no fused GRU can be told to pass over padding on the left.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.settings import ModelSettings
from trainer.models.base import TrainingStep, UserEncoder
from trainer.models.layers import next_places


class GRU4Rec(UserEncoder):
    """The GRU's state after the last behaviour, through one linear layer, is the user."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self._dropout = settings.dropout
        self.read = nn.Linear(d, 3 * d)  # W_z, W_r and W, side by side
        self.gates = nn.Linear(d, 2 * d, bias=False)  # U_z and U_r
        self.recall = nn.Linear(d, d, bias=False)  # U
        self.out = nn.Linear(d, d)

    def forward(self, sequence: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
        """See `UserEncoder.forward`."""
        del lag, noise
        return self._user(self._states(sequence, mask)[-1])

    def training_step(
        self, sequence: Tensor, mask: Tensor, lag: Tensor, target: Tensor, generator: torch.Generator
    ) -> TrainingStep:
        """See `UserEncoder.training_step`; learns at every behaviour, and from empty histories what comes first."""
        del lag, target, generator
        asked = torch.cat((mask[:, :-1], torch.ones_like(mask[:, -1:])), 1)
        at, places = next_places(asked)
        states = torch.stack(self._states(sequence, mask), 1).flatten(0, 1)
        return TrainingStep(self._user(states[at]), sequence.new_zeros(()), places)

    def _states(self, sequence: Tensor, mask: Tensor) -> list[Tensor]:
        """h_1..h_n, each (B, d); padding leaves the state as it is."""
        h = torch.zeros_like(sequence[:, 0])
        d = h.shape[1]
        states = []
        for x, present in zip(self.read(sequence).unbind(1), mask.unsqueeze(-1).unbind(1), strict=True):
            z, r = torch.sigmoid(x[:, : 2 * d] + self.gates(h)).chunk(2, 1)  # Eq. 3, 5
            candidate = torch.tanh(x[:, 2 * d :] + self.recall(r * h))  # Eq. 4
            h = h + present * z * (candidate - h)  # Eq. 2
            states.append(h)
        return states

    def _user(self, states: Tensor) -> Tensor:
        user: Tensor = self.out(functional.dropout(states, self._dropout, self.training))
        return user
