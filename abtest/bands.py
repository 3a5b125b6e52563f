"""A band that holds the effects of all days at once.

Pointwise intervals each miss with probability alpha, so that one of seven does quite often; whoever looks for a
striking day needs the band.

Sources:
    [MP19] Montiel Olea, Plagborg-Møller: Simultaneous confidence bands: Theory, implementation, and an application to
        SVARs. Journal of Applied Econometrics 34(1), 2019.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from abtest.effects import ALPHA, LARGEST_LOG
from abtest.moments import Floats
from abtest.multinormal import correlation, falling_root, rectangle

POINTS = 512


@dataclass(frozen=True)
class Band:
    """Per day `low` to `high` on the log scale, and `ci_low` to `ci_high` as fractions of the control's value (T,).

    All T hold the truth at once with probability 1 − `alpha`. `critical`: half the width in standard errors.
    """

    critical: float
    low: Floats
    high: Floats
    ci_low: Floats
    ci_high: Floats
    alpha: float


def sup_t(covariance: Floats, alpha: float = ALPHA) -> float:
    """The c with P(max |Z_d| ≤ c) = 1 − alpha, Z normal with the correlations of `covariance` (T, T): [MP19] section 2.

    It lies between the pointwise value and Bonferroni's. Solved by quadrature, not by their simulation, so that the
    same data has the same band.

    Raises:
        ValueError: the covariance is none, or alpha is not between 0 and 1.

    >>> round(sup_t(np.eye(7)), 2), round(sup_t(np.ones((7, 7))), 2)
    (2.68, 1.96)

    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    correlations = correlation(covariance)
    size = len(correlations)
    low, high = -ndtri(alpha / 2), -ndtri(alpha / 2 / size)
    if size == 1:
        return float(low)

    def missed(c: Floats) -> Floats:
        limits = np.broadcast_to(c, (size, len(c)))
        return np.log(np.maximum(1 - rectangle(correlations, -limits, limits, POINTS), 1e-12) / alpha)

    ends = np.array([high])
    return float(falling_root(missed, np.array([low]), ends, missed(ends))[0])


def band(effects: Floats, covariance: Floats, alpha: float = ALPHA) -> Band:
    """The band around daily or cumulative log ratios (T,) with their joint covariance (T, T), [MP19] section 2.

    Raises:
        ValueError: as for `sup_t`.

    >>> band(np.array([0.01, 0.02]), 1e-4 * np.eye(2)).ci_low.round(4).tolist()
    [-0.0123, -0.0024]

    """
    critical = sup_t(covariance, alpha)
    margin = critical * np.sqrt(np.diag(covariance))
    low, high = effects - margin, effects + margin
    ci_low, ci_high = np.expm1(np.clip([low, high], -LARGEST_LOG, LARGEST_LOG))
    return Band(critical, low, high, ci_low, ci_high, alpha)
