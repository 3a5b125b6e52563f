"""Mamba4Rec (Liu et al., Mamba4Rec: Towards Efficient Sequential Recommendation with Selective State Space Models,
arXiv 2403.03900, 2024): a selective state-space layer in the place of attention.

The state-space layer is that of Mamba (Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces,
2023), in plain torch operations, so that it runs and exports everywhere; its recurrence is a loop over the window.

Where we leave the paper: it learns at the places of the window that `learn_at` names, as the other causal models here.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.config.settings import ModelSettings
from trainer.models.layers import CausalEncoder, drop

STATE = 32  # numbers that each channel remembers
WIDTH = 4  # of the convolution
EXPAND = 2  # channels for each dimension
SHORTEST, LONGEST = 1e-3, 0.1  # of the time steps Δ that channels start with


class Mamba(nn.Module):
    """A gated selective state-space layer; padding on the left leaves its state as it is."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        channels = EXPAND * dim
        self._rank = math.ceil(dim / 16)  # of the projection to Δ
        self.inward = nn.Linear(dim, 2 * channels, bias=False)
        self.convolution = nn.Conv1d(channels, channels, WIDTH, groups=channels)
        self.select = nn.Linear(channels, self._rank + 2 * STATE, bias=False)
        self.step = nn.Linear(self._rank, channels)
        self.log_decay = nn.Parameter(torch.arange(1.0, STATE + 1).log().repeat(channels, 1))
        self.skip = nn.Parameter(torch.ones(channels))
        self.outward = nn.Linear(channels, dim, bias=False)
        with torch.no_grad():
            nn.init.uniform_(self.step.weight, -(self._rank**-0.5), self._rank**-0.5)
            start = torch.exp(torch.empty(channels).uniform_(math.log(SHORTEST), math.log(LONGEST)))
            self.step.bias.copy_(start + torch.log(-torch.expm1(-start)))  # softplus takes it back to Δ

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, n, d) and mask (B, n) to (B, n, d)."""
        present = mask.unsqueeze(-1)
        u, gate = self.inward(x).chunk(2, dim=-1)
        padded = functional.pad((u * present).transpose(1, 2), (WIDTH - 1, 0))
        u = functional.silu(self.convolution(padded).transpose(1, 2))
        rough, b, c = self.select(u).split((self._rank, STATE, STATE), dim=-1)
        # Δ = 0 under the padding: time stands still there, and nothing is taken in.
        delta = functional.softplus(self.step(rough)) * present
        y = scan(delta, u, -torch.exp(self.log_decay), b, c) + self.skip * u
        out: Tensor = self.outward(y * functional.silu(gate))
        return out


class Mamba4Rec(CausalEncoder):
    """One Mamba layer and a feed-forward network, which is the paper's model; the state at the last behaviour."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        d = settings.dim
        self._dropout = settings.dropout
        self.norm_in = nn.LayerNorm(d)
        self.mamba = Mamba(d)
        self.norm_mamba = nn.LayerNorm(d)
        self.hidden = nn.Linear(d, 4 * d)
        self.out = nn.Linear(4 * d, d)
        self.norm_out = nn.LayerNorm(d)

    def states(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """See `CausalEncoder.states`."""
        h = self.norm_in(self._drop(sequence))
        h = self.norm_mamba(self._drop(self.mamba(h, mask)))  # a single layer has no residual path
        out: Tensor = self.norm_out(h + self._drop(self.out(self._drop(functional.gelu(self.hidden(h))))))
        return out

    def _drop(self, x: Tensor) -> Tensor:
        return drop(x, self._dropout, training=self.training)


def scan(delta: Tensor, u: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """y_t = C_t h_t with h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t u_t and h_0 = 0 (Mamba, Eq. 2a–2b, B by Euler's rule).

    Args:
        delta: (B, n, e) time steps Δ, at least 0.
        u: (B, n, e) inputs.
        a: (e, s) A, negative.
        b: (B, n, s).
        c: (B, n, s).

    Returns:
        (B, n, e).

    """
    outputs = []
    state = u.new_zeros(())
    for delta_t, fed_t, b_t, c_t in zip(*(x.unbind(1) for x in (delta, delta * u, b, c)), strict=True):
        taken = fed_t.unsqueeze(2) * b_t.unsqueeze(1)
        state = torch.exp(delta_t.unsqueeze(2) * a) * state + taken
        outputs.append((state @ c_t.unsqueeze(2)).squeeze(2))
    return torch.stack(outputs, 1)
