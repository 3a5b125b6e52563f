"""Estimate of a quantile over users, with its error, from a histogram: what a bootstrap of endless resamples would say,
in closed form.

The quantile q of n users is their order statistic (n + 1) q, below which a share q of all people is expected. In a
resample it is the value that a share U of the n users does not exceed, with U ~ Beta(a, b), a = (n + 1) q,
b = (n + 1)(1 − q) ([M78]; the exact bootstrap of an order statistic, [H00]). So its variance is an integral of the
inverse distribution function over that Beta, and with a histogram's steps a sum of incomplete beta functions. It is
taken of the logarithm: for heavy tails the log of a high quantile is far closer to normal, and an effect is stated as a
ratio. The variance on the plain scale follows by the delta method.

The order-statistic interval of [W52] (as in [D18], section 4) costs less, but its implied error is that of the two
ends alone: for counts, whose quantile jumps from one whole number to the next, it finds no error at all.
`benchmarks.abtest.quantiles` has both.

Limits:
    The unit is the user. Nothing here fits a quantile over events, whose users would be clusters.
    Where few values carry most users, the quantile of an arm jumps between them: intervals then hold more than stated.
    Differences below the histogram's accuracy are not told apart when all users of a bin share one value.

Sources:
    [W52] Woodruff: Confidence Intervals for Medians and Other Position Measures. JASA 47, 1952.
    [M78] Maritz, Jarrett: A Note on Estimating the Variance of the Sample Median. JASA 73, 1978.
    [H00] Hutson, Ernst: The Exact Bootstrap Mean and Variance of an L-estimator. JRSS B 62, 2000.
    [D18] Deng, Knoblich, Lu: Applying the Delta Method in Metric Analytics. KDD 2018, arXiv 1803.06336.
"""

import math

import numpy as np
from scipy.special import betainc

from abtest.stats.estimates import Estimate
from abtest.stats.histogram import EDGES, LARGE, SMALL, Histogram
from abtest.stats.moments import Floats

BEYOND = 5  # users that must lie on either side of the quantile: a tail is not known from fewer
NEAR = 1e-3  # of all resamples; where more of them end up at 0, or outside of the bins, there is no log to speak of
_SPREADS = 12.0  # standard deviations of U, beyond which its weight is none


def quantile_estimate(histogram: Histogram, q: float) -> Estimate:
    """The value that a share `q` of users does not exceed, and its variance ([M78], on the log scale).

    Args:
        histogram: of the column over one arm's users.
        q: between 0 and 1.

    Raises:
        ValueError: `q` is not between 0 and 1.

    >>> found = quantile_estimate(Histogram.of(np.arange(1.0, 1001.0)), 0.5)
    >>> round(found.value), round(found.std_error)  # 1000 √(q (1 − q) / n) = 15.8, of an even spread
    (501, 16)
    >>> quantile_estimate(Histogram.of(np.array([0.0] * 80 + [5.0] * 20)), 0.5).reason
    'the quantile is 0'

    """
    if not 0 < q < 1:
        raise ValueError(f"the quantile {q} does not lie between 0 and 1")
    users = histogram.n
    if not users:
        return Estimate(0, None, None, "no users")
    rank = (users + 1) * q - 0.5  # a user's rank is the middle of the user's share
    value = float(histogram.quantiles(np.array(min(max(rank / users, 0.0), 1.0))))
    if math.isinf(value):
        return Estimate(users, None, None, f"the quantile is above {EDGES[-1]:.0f}, where the histogram ends")
    if value == 0:
        return Estimate(users, 0.0, None, "the quantile is 0")
    if round(users * min(q, 1 - q), 6) < BEYOND:
        return Estimate(users, value, None, f"fewer than {BEYOND} users beyond the quantile")
    return _estimate(histogram, q, value)


def _estimate(histogram: Histogram, q: float, value: float) -> Estimate:
    users = histogram.n
    shares = np.cumsum(histogram.counts, dtype=np.int64) / users
    spread = _SPREADS * math.sqrt(q * (1 - q) / users)
    first, last = np.searchsorted(shares, [q - spread, q + spread])
    cells = first + np.flatnonzero(histogram.counts[first : last + 1])
    ends = np.concatenate([[shares[first - 1] if first else 0.0], shares[cells]])  # of the cells, as shares of users
    weights = _weights(users, q, ends)
    if weights[0, cells <= SMALL].sum() > NEAR:
        return Estimate(users, value, None, "the quantile is too near 0 for its error")
    if weights[0, cells >= LARGE].sum() > NEAR:
        return Estimate(users, value, None, f"the quantile is too near {EDGES[-1]:.0f}, where the histogram ends")
    inside = (cells > SMALL) & (cells < LARGE)
    cells, weights, begins, widths = cells[inside], weights[:, inside], ends[:-1][inside], np.diff(ends)[inside]
    lower, upper = np.log(EDGES[cells - SMALL] / value), np.log(EDGES[cells - SMALL + 1] / value)
    slope = (upper - lower) / widths  # inside a cell the log is level + slope (U − q)
    level = lower - slope * (begins - q)
    whole = weights[0].sum()
    mean = (level @ weights[0] + slope @ weights[1]) / whole
    square = (level**2 @ weights[0] + 2 * (level * slope) @ weights[1] + slope**2 @ weights[2]) / whole
    return Estimate(users, value, value**2 * max(float(square - mean**2), 0.0))


def _weights(users: int, q: float, ends: Floats) -> Floats:
    """∫ (U − q)^k over U's density between neighbouring `ends` (m + 1,), for k = 0, 1, 2: (3, m).

    With I_u(a, b) the regularised incomplete beta function, ∫ U^k over [0, u] is E[U^k] I_u(a + k, b).
    """
    a, b = (users + 1) * q, (users + 1) * (1 - q)
    raw = [np.diff(betainc(a + k, b, ends)) for k in range(3)]
    one, two = q * raw[1], q * (a + 1) / (a + b + 1) * raw[2]
    return np.stack([raw[0], one - q * raw[0], two - 2 * q * one + q**2 * raw[0]])
