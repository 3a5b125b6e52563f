"""How long an item plays, drawn from what was observed, so that heavy tails survive."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contracts.features import Ints
from world.base import Bools, Doubles

EFFECTIVE_MS = 18_000
_EDGES_MS = np.array([1, 7_000, 12_000, 18_001, 30_000, 60_000, 120_000, 240_000])  # the first bucket is "unknown"
_ENOUGH = 20  # fewer observations than this are not a distribution; all durations together are
_GRID = (np.arange(51) + 0.5) / 51


def threshold_ms(durations_ms: Ints) -> Ints:
    """Play time from which a view is effective, by KuaiRand's rule: the whole of a video of up to 18 s, else 18 s.

    >>> threshold_ms(np.array([9000, 60000, 0])).tolist()
    [9000, 18000, 18000]
    """
    return np.where(durations_ms > 0, np.minimum(durations_ms, EFFECTIVE_MS), EFFECTIVE_MS)


@dataclass(frozen=True)
class PlayTimes:
    """Observed play times by bucket of duration and by whether the view was effective.

    Cell 2b + e holds bucket b, effective e.
    """

    pool: Ints  # all play times, cell after cell, ascending within each, ms
    starts: Ints  # (cells,) where each cell begins in the pool
    sizes: Ints  # (cells,)
    means_ms: Doubles  # (cells,)
    quantiles_ms: Doubles  # (cells, 51)

    @classmethod
    def fit(cls, durations_ms: Ints, plays_ms: Ints, effective: Bools) -> "PlayTimes":
        """Sort observations, all (n,), into cells."""
        bucket = np.digitize(durations_ms, _EDGES_MS)
        cells = []
        for cell in range(2 * (_EDGES_MS.size + 1)):
            kind = effective == bool(cell % 2)
            here = plays_ms[kind & (bucket == cell // 2)]
            cells.append(np.sort(here if here.size >= _ENOUGH else plays_ms[kind]))
        sizes = np.array([cell.size for cell in cells])
        return cls(
            np.concatenate(cells),
            np.concatenate([[0], np.cumsum(sizes)[:-1]]),
            sizes,
            np.array([cell.mean() for cell in cells]),
            np.stack([np.quantile(cell, _GRID) for cell in cells]),
        )

    def draw(self, durations_ms: Ints, effective: Bools, chance: Doubles) -> Ints:
        """One observed play time for each of n impressions, `chance` (n,) in (0, 1) choosing which.

        The published rule is then applied to the item's own duration: an effective view plays at least as long as the
        rule asks, another one less.
        """
        cell = 2 * np.digitize(durations_ms, _EDGES_MS) + effective
        plays = self.pool[self.starts[cell] + (chance * self.sizes[cell]).astype(np.int64)]
        limit = threshold_ms(durations_ms)
        return np.where(effective, np.maximum(plays, limit), np.minimum(plays, limit - 1))

    def mean_ms(self, durations_ms: Ints, probability: Doubles) -> Doubles:
        """Expected play time of n impressions whose views are effective with `probability` (n,)."""
        bucket = np.digitize(durations_ms, _EDGES_MS)
        return probability * self.means_ms[2 * bucket + 1] + (1 - probability) * self.means_ms[2 * bucket]

    def median_ms(self, durations_ms: Ints, probability: Doubles) -> Doubles:
        """Median of the same mixture of two distributions, on a grid of 51 quantiles each."""
        bucket = np.digitize(durations_ms, _EDGES_MS)
        values = np.concatenate([self.quantiles_ms[2 * bucket], self.quantiles_ms[2 * bucket + 1]], axis=1)
        weights = np.repeat(np.stack([1 - probability, probability], axis=1) / _GRID.size, _GRID.size, axis=1)
        order = np.argsort(values, axis=1)
        below = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
        middle = (below < 0.5).sum(axis=1, keepdims=True).clip(max=values.shape[1] - 1)
        chosen: npt.NDArray[np.float64] = np.take_along_axis(np.take_along_axis(values, order, axis=1), middle, axis=1)
        return chosen[:, 0]
