"""What most people view, for everybody."""

from dataclasses import dataclass

import numpy as np

from contracts.features import Floats
from contracts.runtime.clock import DAY_MS
from evaluation.baselines import base
from evaluation.data import Sequence


@dataclass(frozen=True)
class Popularity:
    """Number of behaviours of an item.

    >>> a, b = Sequence(np.array([0, 2]), np.array([0, 0])), Sequence(np.array([2]), np.array([0]))
    >>> Popularity().fit([a, b], 3).scores([a]).tolist()
    [[1.0, 0.0, 2.0]]
    """

    days: float | None = None  # before the newest behaviour, which count; None counts all

    def fit(self, sequences: list[Sequence], items: int) -> "FittedPopularity":
        if self.days is not None:
            newest = max((int(s.times_ms.max(initial=0)) for s in sequences), default=0)
            since = newest - self.days * DAY_MS
            sequences = [Sequence(s.rows[s.times_ms > since], s.times_ms[s.times_ms > since]) for s in sequences]
        return FittedPopularity(base.popularity(sequences, items).astype(np.float32))


@dataclass(frozen=True)
class FittedPopularity:
    counts: Floats  # (N,)

    def scores(self, histories: list[Sequence]) -> Floats:
        return np.tile(self.counts, (len(histories), 1))
