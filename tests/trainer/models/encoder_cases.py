"""Histories and requests that the encoders' tests share."""

import torch
from torch import Tensor

from contracts.config.settings import ModelSettings

LONG = ModelSettings(dim=8, window=7, session_length=3)
LONG_FULL, LONG_NOW = torch.ones(1, 7), torch.zeros(1, 7)
SHORT = ModelSettings(dim=8, window=6, session_length=3)
FULL, LAG = torch.ones(2, 6), torch.zeros(2, 6)


def walk(users: int, seed: int = 0) -> Tensor:
    """Full histories (users, 7, 8)."""
    return torch.randn(users, LONG.window, LONG.dim, generator=torch.Generator().manual_seed(seed))


def serve(encoder: torch.nn.Module, sequence: Tensor) -> Tensor:
    """User vectors of full histories that happened now."""
    nothing = sequence.new_zeros(sequence.shape[:2])
    user: Tensor = encoder(sequence, nothing + 1, nothing, torch.empty(len(sequence)))
    return user


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
