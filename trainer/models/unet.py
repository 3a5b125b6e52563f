"""A small 1-D U-Net over positions, blind to padding.

Tensors are channels-last, (B, n, c): a convolution of width 3 is then one matrix product over three shifted copies,
which on the CPU beats a convolution kernel at these sizes. Sequences end at the right edge, so halves are paired from
there, and every convolution reads zeros where there is no behaviour: the amount of padding cannot be told.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Conv(nn.Module):
    """Convolution of width 3 over positions that counts as zero what is masked."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * channels_in, channels_out)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, n, channels_in) and mask (B, n, 1) to (B, n, channels_out)."""
        x = x * mask
        left = functional.pad(x[:, :-1], (0, 0, 1, 0))
        right = functional.pad(x[:, 1:], (0, 0, 0, 1))
        out: Tensor = self.linear(torch.cat((left, x, right), 2))
        return out


class Block(nn.Module):
    """Two convolutions around the step embedding, with a residual path."""

    def __init__(self, channels_in: int, channels: int, step_dim: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(channels_in)
        self.conv_in = Conv(channels_in, channels)
        self.step = nn.Linear(step_dim, channels)
        self.norm_out = nn.LayerNorm(channels)
        self.conv_out = Conv(channels, channels)
        self.skip = nn.Linear(channels_in, channels) if channels_in != channels else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor, step: Tensor) -> Tensor:
        """(B, n, channels_in), mask (B, n, 1), step embedding (B or 1, step_dim) to (B, n, channels)."""
        h = self.conv_in(functional.silu(self.norm_in(x)), mask) + self.step(step).unsqueeze(1)
        h = self.conv_out(functional.silu(self.norm_out(h)), mask)
        out: Tensor = h + self.skip(x)
        return out


class UNet(nn.Module):
    """ẑ_0 = UNet(concat[z_r, X] along channels, + step embedding)  (Eq. 15)."""

    def __init__(self, dim: int, channels: int, steps: int) -> None:
        super().__init__()
        self.register_buffer("_sinusoids", sinusoids(steps + 1, channels), persistent=False)
        self._sinusoids: Tensor
        self.step = nn.Linear(channels, channels)
        self.enter = nn.Linear(2 * dim, channels)
        self.fine = Block(channels, channels, channels)
        self.down = nn.Linear(2 * channels, channels)
        self.coarse = Block(channels, channels, channels)
        self.up = nn.Linear(channels, 2 * channels)
        self.merge = Block(2 * channels, channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.leave = nn.Linear(channels, dim)

    def forward(self, z: Tensor, x: Tensor, mask: Tensor, step: Tensor) -> Tensor:
        """Predict z_0, (B, n, d).

        Args:
            z: (B, n, d) noised drifts.
            x: (B, n, d) the condition.
            mask: (B, n) 1 where there is a behaviour.
            step: (B,) or (1,) the step r of each.

        """
        n = z.shape[1]
        odd = n % 2
        z, x = functional.pad(z, (0, 0, odd, 0)), functional.pad(x, (0, 0, odd, 0))
        present = functional.pad(mask, (odd, 0)).unsqueeze(-1)
        step = functional.silu(self.step(self._sinusoids[step]))
        fine = self.fine(self.enter(torch.cat((z, x), 2)), present, step)
        pairs = (fine * present).reshape(-1, (n + odd) // 2, 2 * fine.shape[2])
        either = present.reshape(-1, (n + odd) // 2, 2).amax(2, keepdim=True)
        coarse = self.coarse(self.down(pairs), either, step)
        coarse = self.up(coarse).reshape(fine.shape)
        merged = self.merge(torch.cat((fine, coarse), 2), present, step)
        out: Tensor = self.leave(functional.silu(self.norm(merged)))[:, odd:]
        return out


def sinusoids(positions: int, width: int) -> Tensor:
    """Sinusoidal embeddings of 0..positions−1, (positions, width); width is even.

    >>> sinusoids(2, 4)[0].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    rate = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    angle = torch.arange(positions).unsqueeze(1) * rate
    return torch.cat((angle.sin(), angle.cos()), 1)
