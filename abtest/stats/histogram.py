"""How one column is spread over the users of one arm: counts in bins of fixed relative width, for quantiles.

A bin is 1/128 of a power of two wide, so that its middle is within 0.39 % of every value in it, and any point within
0.78 %. Unlike the logarithmic bins of [M19], whose accuracy this has, the bin is read off a float's own bits (as
HdrHistogram and [M19]'s linear interpolation do): no logarithm is taken, and every machine finds the same bin.
Integers up to 256 have a bin each. Bins go from 1/64 to 2²⁶ (67 million); what is smaller shares one bin down to 0, and
so is known to 1/64; what is larger is counted, no more. Zeros have their own cell.

Counts are whole numbers, so sums are exact and order-free. Cells: 4,099 of 4 bytes, 16 KB per arm and column.

Sources:
    [M19] Masson, Rim, Lee: DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees.
          VLDB 2019, arXiv 1908.10693.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from abtest.stats.moments import Floats

Counts: TypeAlias = npt.NDArray[np.uint32]

BITS = 7  # of the mantissa: 128 bins per power of two
ACCURACY = 2.0 ** -(BITS + 1)  # relative, of a bin's middle
LOWEST, HIGHEST = 2.0**-6, 2.0**26
BINS = 32 << BITS
ZEROS, SMALL, LARGE = 0, 1, BINS + 2  # cells of what is in no bin
CELLS = BINS + 3
_SHIFT = 52 - BITS  # a float has 52 bits of mantissa
_FIRST = int(np.float64(LOWEST).view(np.int64)) >> _SHIFT  # where the bins begin among all floats
_CHUNK = 1 << 15  # values at a time: what is in between stays in the processor's cache
# Lower end of each cell from SMALL on, and the upper end of the last bin, (BINS + 2,).
EDGES: Floats = np.concatenate([[0.0], ((_FIRST + np.arange(BINS + 1)) << _SHIFT).view(np.float64)])


@dataclass(frozen=True)
class Histogram:
    """Users per cell (CELLS,): zeros, smaller than any bin, the bins, larger than any bin."""

    counts: Counts

    @classmethod
    def of(cls, values: Floats) -> "Histogram":
        """Histogram of a column's `values` (users,).

        Raises:
            ValueError: a value is negative, infinite or not a number.

        >>> Histogram.of(np.array([0.0, 3.0, 3.0])).n
        3

        """
        counts = np.zeros(CELLS, np.int64)
        values = np.ascontiguousarray(values, np.float64)
        for begin in range(0, values.size, _CHUNK):
            chunk = values[begin : begin + _CHUNK]
            if not (chunk.min() >= 0 and chunk.max() < np.inf):  # NaN fails either
                raise ValueError("a histogram counts values from 0 upwards; one is negative, infinite or not a number")
            cells = (chunk.view(np.int64) >> _SHIFT) - (_FIRST - SMALL - 1)
            counts += np.bincount(np.clip(cells, SMALL, LARGE, out=cells), minlength=CELLS)
            zeros = chunk.size - np.count_nonzero(chunk)
            counts[ZEROS] += zeros
            counts[SMALL] -= zeros
        return cls(_narrow(counts))

    def __add__(self, other: "Histogram") -> "Histogram":
        """As if all users had been in one.

        Raises:
            ValueError: a cell would hold more than 4,294,967,295 users.

        """
        return Histogram(_narrow(self.counts.astype(np.int64) + other.counts))

    @property
    def n(self) -> int:
        """Users."""
        return int(self.counts.sum(dtype=np.int64))

    def quantiles(self, shares: Floats) -> Floats:
        """The values that the given shares (0 to 1) of users do not exceed, as the users' order has them.

        Users of a bin are spread evenly over it. Where the density is smooth this loses next to nothing; at worst, with
        one value repeated in a bin, the answer is off by that bin's width, 2 `ACCURACY`.
        Above the highest bin the answer is infinite; without users it is NaN.

        >>> Histogram.of(np.arange(1.0, 1001.0)).quantiles(np.array([0.5, 0.9])).round()
        array([501., 901.])
        """
        shares = np.asarray(shares, np.float64)
        if not self.n:
            return np.full(shares.shape, np.nan)
        below = np.cumsum(self.counts, dtype=np.int64)
        ranks = shares * self.n
        cells = np.minimum(np.searchsorted(below, ranks), LARGE)
        counts = np.maximum(self.counts[cells], 1)
        inside = np.clip(1 - (below[cells] - ranks) / counts, 0.0, 1.0)
        lower = np.minimum(np.maximum(cells - SMALL, 0), BINS)
        values = EDGES[lower] + inside * (EDGES[lower + 1] - EDGES[lower])
        return np.where(cells == ZEROS, 0.0, np.where(cells == LARGE, np.inf, values))


def _narrow(counts: npt.NDArray[np.int64]) -> Counts:
    if counts.max() > np.iinfo(np.uint32).max:
        raise ValueError("a histogram's cell holds at most 4,294,967,295 users")
    return counts.astype(np.uint32)
