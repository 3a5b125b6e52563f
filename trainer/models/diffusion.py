"""The diffusion process: schedules, the forward process, reverse steps with and without fresh noise (Eq. 13–18).

All of it is free of networks; z is any tensor whose first axis is the batch.
"""

import math

import torch
from torch import Tensor

from contracts.config.settings import DiffusionSchedule

SCALE = 0.01  # a
GROWTH = 4.5  # b


def betas(steps: int, kind: DiffusionSchedule = "exponential") -> Tensor:
    """β_r, r = 1..T; (T,), float64.

    "exponential" is the paper's a·exp(b·r/T); "linear" and "log" rise to the same β_T from the same β at r = 0, evenly
    and with the logarithm of r: of Table 3 the paper prints no formulas.

    >>> [[round(float(b), 4) for b in betas(50, kind)[[0, 24, 49]]] for kind in ("exponential", "linear", "log")]
    [[0.0109, 0.0949, 0.9002], [0.0278, 0.4551, 0.9002], [0.1669, 0.7476, 0.9002]]
    """
    r = torch.arange(1, steps + 1, dtype=torch.float64)
    if kind == "exponential":
        return SCALE * torch.exp(GROWTH * r / steps)
    share = r / steps if kind == "linear" else torch.log1p(r) / math.log1p(steps)
    return SCALE + share * (SCALE * math.exp(GROWTH) - SCALE)


def alpha_bars(schedule: Tensor) -> Tensor:
    """ᾱ_0..ᾱ_T of a schedule (T,): ᾱ_0 = 1, ᾱ_r = ∏_{i≤r} (1 − β_i); (T + 1,).

    >>> alpha_bars(torch.tensor([0.5, 0.5])).tolist()
    [1.0, 0.5, 0.25]
    """
    return torch.cat((torch.ones_like(schedule[:1]), torch.cumprod(1 - schedule, 0)))


def diffuse(z_0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_r = √ᾱ_r z_0 + √(1 − ᾱ_r) ε  (Eq. 13–14). `alpha_bar` broadcasts against `z_0`."""
    return alpha_bar.sqrt() * z_0 + (1 - alpha_bar).sqrt() * noise


class Schedule:
    """β of T steps and what follows from it, as plain numbers."""

    def __init__(self, steps: int, kind: DiffusionSchedule = "exponential") -> None:
        self.steps = steps
        every = betas(steps, kind)
        self.betas = [0.0, *every.tolist()]
        self.alpha_bars: list[float] = alpha_bars(every).tolist()

    def alpha_bar(self, r: Tensor) -> Tensor:
        """ᾱ_r of steps r (B,); (B,), float64."""
        return torch.tensor(self.alpha_bars, dtype=torch.float64, device=r.device)[r]

    def posterior_step(self, z: Tensor, z_0: Tensor, noise: Tensor, r: int) -> Tensor:
        """z_{r−1} = μ̃_r(z_r, ẑ_0) + √β̃_r ε′  (Eq. 16–18)."""
        beta, bar, before = self.betas[r], self.alpha_bars[r], self.alpha_bars[r - 1]
        mean = (before**0.5 * beta * z_0 + (1 - beta) ** 0.5 * (1 - before) * z) / (1 - bar)
        stepped: Tensor = mean + (beta * (1 - before) / (1 - bar)) ** 0.5 * noise
        return stepped

    def straight_step(self, z: Tensor, z_0: Tensor, r: int, after: int) -> Tensor:
        """One deterministic step from r to `after` < r, given the predicted ẑ_0.

        Eq. 16–18 with their fresh noise replaced by the noise that z already holds (DDIM, η = 0; Song et al., ICLR
        2021), which also allows steps to be left out: ε̂ = (z − √ᾱ ẑ_0) / √(1 − ᾱ), then Eq. 14 at `after`.
        """
        bar, bar_after = self.alpha_bars[r], self.alpha_bars[after]
        noise = (z - bar**0.5 * z_0) / (1 - bar) ** 0.5
        stepped: Tensor = bar_after**0.5 * z_0 + (1 - bar_after) ** 0.5 * noise
        return stepped

    def ladder(self, evaluations: int) -> list[tuple[int, int]]:
        """The steps at which the network is asked on the way from T to 0, evenly spread, each with the one after.

        >>> Schedule(50).ladder(4)
        [(50, 38), (38, 25), (25, 12), (12, 0)]
        """
        levels = [round(self.steps * (evaluations - i) / evaluations) for i in range(evaluations)]
        return list(zip(levels, [*levels[1:], 0], strict=True))
