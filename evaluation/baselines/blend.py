"""A weighted sum of baselines."""

from dataclasses import dataclass

import numpy as np

from contracts.features import Floats
from evaluation.baselines.base import Baseline, Fitted
from evaluation.data import Sequence


@dataclass(frozen=True)
class Blend:
    """Σ weight · scores."""

    parts: tuple[tuple[float, Baseline], ...]

    def fit(self, sequences: list[Sequence], items: int) -> "FittedBlend":
        return FittedBlend(tuple((weight, part.fit(sequences, items)) for weight, part in self.parts), items)


@dataclass(frozen=True)
class FittedBlend:
    parts: tuple[tuple[float, Fitted], ...]
    items: int

    def scores(self, histories: list[Sequence]) -> Floats:
        total = np.zeros((len(histories), self.items), np.float32)
        for weight, part in self.parts:
            total += np.float32(weight) * part.scores(histories)
        return total
