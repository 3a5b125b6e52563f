"""How often each row of a catalogue has lately been a target: what in-batch negatives are drawn by."""

from typing import Any

import torch
from torch import Tensor

from trainer.data.row_tables import moved
from trainer.data.vocabulary import Changes

HEAVIEST = 2.0**512  # of one event's weight, before all are scaled down; float64 ends at 2¹⁰²⁴


class Frequency:
    """One exponentially decayed count a row, exact, and no row's count is touched but where it is a target.

    Instead of older events losing weight, newer ones get more: event t weighs 2^(t / half-life).

    >>> import numpy as np
    >>> frequency = Frequency(half_life=2)
    >>> frequency.follow(Changes(3, *(np.arange(3), np.full(3, -1), np.arange(3))))
    >>> frequency.add(torch.tensor([0, 0])), frequency.add(torch.tensor([1, 1]))
    (None, None)
    >>> [round(share, 3) for share in frequency.shares(torch.tensor([0, 1, 2])).tolist()]
    [0.333, 0.667, 0.0]
    """

    def __init__(self, half_life: int) -> None:
        self._half_life = half_life  # in events
        self._counts = torch.zeros(0, dtype=torch.float64)
        self._total = 0.0
        self._weight = 1.0  # of the next event

    def follow(self, changes: Changes) -> None:
        """Move the counts as a catalogue moved its rows; who is gone is no part of the total."""
        sources = torch.from_numpy(changes.sources[changes.sources >= 0])
        left = torch.from_numpy(changes.left(len(self._counts)))
        self._total += float(self._counts[sources].sum() - self._counts[left].sum())
        self._counts = moved(self._counts, changes)

    def add(self, rows: Tensor) -> None:
        """Note a batch's targets, (B,); within it they weigh the same."""
        self._counts.index_add_(0, rows, torch.full(rows.shape, self._weight, dtype=torch.float64))
        self._total += self._weight * len(rows)
        self._weight *= 2.0 ** (len(rows) / self._half_life)
        if self._weight > HEAVIEST:
            self._counts /= self._weight
            self._total /= self._weight
            self._weight = 1.0

    def shares(self, rows: Tensor) -> Tensor:
        """The share of each row among all targets, (M,) float64; zeros before the first."""
        return self._counts[rows] / max(self._total, 1e-300)

    def state(self) -> dict[str, Any]:
        """All of it."""
        return {"counts": self._counts.clone(), "total": self._total, "weight": self._weight}

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` described."""
        self._counts = state["counts"].clone()
        self._total, self._weight = state["total"], state["weight"]
