"""The diffusion process over drifts: schedule, forward process, few deterministic reverse steps (Eq. 13–18).

All of it is free of networks; z is any tensor whose first axis is the batch.
"""

import torch
from torch import Tensor

STEPS = 50  # T
SCALE = 0.01  # a
GROWTH = 4.5  # b


def betas(steps: int = STEPS, scale: float = SCALE, growth: float = GROWTH) -> Tensor:
    """The exponential schedule β_r = a·exp(b·r/T), r = 1..T; (T,), float64.

    >>> [round(float(b), 4) for b in betas()[[0, 49]]]
    [0.0109, 0.9002]
    """
    r = torch.arange(1, steps + 1, dtype=torch.float64)
    return scale * torch.exp(growth * r / steps)


def alpha_bars(schedule: Tensor) -> Tensor:
    """ᾱ_0..ᾱ_T of a schedule (T,): ᾱ_0 = 1, ᾱ_r = ∏_{i≤r} (1 − β_i); (T + 1,).

    >>> alpha_bars(torch.tensor([0.5, 0.5])).tolist()
    [1.0, 0.5, 0.25]
    """
    return torch.cat((torch.ones_like(schedule[:1]), torch.cumprod(1 - schedule, 0)))


def diffuse(z_0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_r = √ᾱ_r z_0 + √(1 − ᾱ_r) ε  (Eq. 13–14). `alpha_bar` broadcasts against `z_0`."""
    return alpha_bar.sqrt() * z_0 + (1 - alpha_bar).sqrt() * noise


def reverse_step(z: Tensor, z_0: Tensor, alpha_bar: float, alpha_bar_next: float) -> Tensor:
    """One deterministic step from z at ᾱ to ᾱ_next > ᾱ, given the predicted ẑ_0.

    Eq. 16–18 with its fresh noise replaced by the noise that z already holds (DDIM, η = 0), which also allows
    steps to be left out: ε̂ = (z − √ᾱ ẑ_0) / √(1 − ᾱ), then Eq. 14 at ᾱ_next.
    """
    noise = (z - alpha_bar**0.5 * z_0) / (1 - alpha_bar) ** 0.5
    stepped: Tensor = alpha_bar_next**0.5 * z_0 + (1 - alpha_bar_next) ** 0.5 * noise
    return stepped


def ladder(steps: int, evaluations: int) -> list[int]:
    """The steps r at which the network is asked on the way from T to 0, evenly spread.

    >>> ladder(50, 4)
    [50, 38, 25, 12]
    """
    return [round(steps * (evaluations - i) / evaluations) for i in range(evaluations)]
