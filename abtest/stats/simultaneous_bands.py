"""A band that holds the effects of all days at once.

Pointwise intervals each miss with probability alpha, so that one of seven does quite often; whoever looks for a
striking day needs the band.

Sources:
    [MP19] Montiel Olea, Plagborg-Møller: Simultaneous confidence bands: Theory, implementation, and an application to
        SVARs. Journal of Applied Econometrics 34(1), 2019.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from abtest.stats.effects import ALPHA, LARGEST_LOG
from abtest.stats.moments import Floats
from abtest.stats.multinormal import correlation, falling_root, rectangle


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


def sup_t(covariance: Floats, alpha: float = ALPHA) -> Floats:
    """The c with P(max |Z_d| ≤ c) = 1 − alpha, Z normal with the correlations of `covariance` (T, T): [MP19] section 2.

    It lies between the pointwise value and Bonferroni's. Solved by quadrature, not by their simulation, so that the
    same data has the same band. Of several covariances (A, T, T) it is (A,), each as if it were alone.

    Raises:
        ValueError: the covariance is none, or alpha is not between 0 and 1.

    >>> sup_t(np.stack([np.eye(7), np.ones((7, 7))])).round(2).tolist()
    [2.68, 1.96]

    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    correlations = correlation(covariance)
    size, several = correlations.shape[-1], correlations.shape[:-2]
    low, high = np.full((2, math.prod(several)), -ndtri([[alpha / 2], [alpha / 2 / size]]))
    if size == 1:
        return low.reshape(several)

    def missed(c: Floats) -> Floats:
        limits = np.broadcast_to(c, (size, len(c)))
        return np.log(np.maximum(1 - rectangle(correlations, -limits, limits), 1e-12) / alpha)

    return falling_root(missed, low, high, missed(high)).reshape(several)


def band(effects: Floats, covariance: Floats, alpha: float = ALPHA) -> Band:
    """The band around daily or cumulative log ratios (T,) with their joint covariance (T, T), [MP19] section 2.

    Raises:
        ValueError: as for `sup_t`.

    >>> band(np.array([0.01, 0.02]), 1e-4 * np.eye(2)).ci_low.round(4).tolist()
    [-0.0123, -0.0024]

    """
    return bands([(effects, covariance)], alpha)[0]


def bands(each: Sequence[tuple[Floats, Floats]], alpha: float = ALPHA) -> list[Band]:
    """The bands around several effects with their covariances, as `band`; those of as many days are solved together.

    A band around no day at all is empty.
    """
    by_place: dict[int, Band] = {}
    for size in sorted({len(effects) for effects, _ in each}):
        alike = [place for place, (effects, _) in enumerate(each) if len(effects) == size]
        critical = sup_t(np.stack([each[place][1] for place in alike]), alpha) if size else np.zeros(len(alike))
        by_place |= {place: _band(*each[place], c, alpha) for place, c in zip(alike, critical.tolist(), strict=True)}
    return [by_place[place] for place in range(len(each))]


def _band(effects: Floats, covariance: Floats, critical: float, alpha: float) -> Band:
    margin = critical * np.sqrt(np.diag(covariance))
    low, high = effects - margin, effects + margin
    ci_low, ci_high = np.expm1(np.clip([low, high], -LARGEST_LOG, LARGEST_LOG))
    return Band(critical, low, high, ci_low, ci_high, alpha)
