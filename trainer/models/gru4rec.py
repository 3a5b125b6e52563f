"""GRU4Rec (Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016): one GRU layer.

Where we leave the paper: the softmax over the whole catalogue takes the place of TOP1 or BPR against the items of the
mini-batch; windows are unrolled whole instead of in session-parallel mini-batches; and items are read and matched with
the same vectors, so a linear layer (the paper's optional feed-forward layer) leads from the state to them.

The cell is written out, since no fused GRU can be told to pass over padding on the left.
"""

import torch
from torch import Tensor, nn

from contracts.config.settings import ModelSettings
from trainer.models.layers import CausalEncoder, drop


class GRU4Rec(CausalEncoder):
    """The GRU's state after the last behaviour, through one linear layer, is the user."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self._dropout = settings.dropout
        self.read = nn.Linear(d, 3 * d)  # W_z, W_r and W, side by side
        self.gates = nn.Linear(d, 2 * d, bias=False)  # U_z and U_r
        self.recall = nn.Linear(d, d, bias=False)  # U
        self.out = nn.Linear(d, d)

    def states(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """See `CausalEncoder.states`; padding leaves the GRU's state as it is."""
        h = torch.zeros_like(sequence[:, 0])
        d = h.shape[1]
        states = []
        for x, present in zip(self.read(sequence).unbind(1), mask.unsqueeze(-1).unbind(1), strict=True):
            z, r = torch.sigmoid(x[:, : 2 * d] + self.gates(h)).chunk(2, 1)  # Eq. 3, 5
            candidate = torch.tanh(x[:, 2 * d :] + self.recall(r * h))  # Eq. 4
            h = h + present * z * (candidate - h)  # Eq. 2
            states.append(h)
        users: Tensor = self.out(drop(torch.stack(states, 1), self._dropout, training=self.training))
        return users
