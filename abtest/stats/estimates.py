"""Estimates of a metric in one arm, from moments over its users, with the influence that each column has on them.

Sources:
    [D18] Deng, Knoblich, Lu: Applying the Delta Method in Metric Analytics. KDD 2018, arXiv 1803.06336.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from abtest.stats.columns import AnyColumn
from abtest.stats.moments import Floats, Moments


@dataclass(frozen=True)
class Estimate:
    """A metric in one arm. `variance` is that of the estimate itself, not of a user's value.

    `value` or `variance` is None where it cannot be had; `reason` then says why, in a few words. `influence` (k,): the
    estimate's error is, to first order, influence · (means − expected means), so that the covariance of two estimates
    a, b of one arm is influence_a · covariances · influence_b / users.
    """

    users: int
    value: float | None
    variance: float | None
    reason: str | None = None
    influence: Floats | None = None

    @property
    def std_error(self) -> float | None:
        """Standard error of the value."""
        return None if self.variance is None else math.sqrt(self.variance)


SMALLEST = 1e-100  # the square of a value nearer to 0 has not all its digits in a double, nor has its variance


def mean_estimate(moments: Moments, column: AnyColumn) -> Estimate:
    """Mean of a column over users.

    >>> found = mean_estimate(Moments.of(("x",), np.array([[1.0], [3.0]])), "x")
    >>> found.value, found.variance
    (2.0, 1.0)
    """
    if moments.n == 0:
        return Estimate(0, None, None, "no users")
    influence = np.zeros(len(moments.columns))
    influence[moments.place(column)] = 1.0
    return _estimate(moments, moments.mean(column), influence, [(column, 1.0)])


def ratio_estimate(moments: Moments, numerator: AnyColumn, denominator: AnyColumn) -> Estimate:
    """Sum of one column over the sum of another, clustered on the user by the delta method.

    With R = ȳ/x̄ over n users: Var(R) ≈ (s²_y − 2 R s_xy + R² s²_x) / (n x̄²)   ([D18], clustered randomisation).

    >>> users = np.array([[2.0, 1.0], [4.0, 1.0], [2.0, 2.0]])
    >>> ratio_estimate(Moments.of(("views", "ev"), users), "ev", "views").value
    0.5
    """
    if moments.n == 0:
        return Estimate(0, None, None, "no users")
    x = moments.mean(denominator)
    named = str(denominator).replace("_", " ")
    if abs(x) < SMALLEST:
        return Estimate(moments.n, None, None, f"{named} too near 0" if x else f"no {named}")
    ratio = moments.mean(numerator) / x
    influence = np.zeros(len(moments.columns))
    influence[moments.place(numerator)] += 1 / x
    influence[moments.place(denominator)] -= ratio / x
    return _estimate(moments, ratio, influence, [(numerator, 1 / x), (denominator, -ratio / x)])


def effective_events(estimate: Estimate) -> float:
    """value² / variance; 0 where there is none of either, infinite where all users are alike and not 0.

    >>> effective_events(Estimate(1000, 0.02, 0.00002)), effective_events(Estimate(10, 0.0, 0.0))
    (20.0, 0.0)
    """
    if not estimate.value or estimate.variance is None:
        return 0.0
    return estimate.value**2 / estimate.variance if estimate.variance else math.inf


def covariance(moments: Moments, a: Estimate, b: Estimate) -> float:
    """Covariance of two estimates made from the same moments; both must have an influence, and users be two or more."""
    if a.influence is None or b.influence is None:
        raise ValueError("an estimate without a value has no covariance")
    return float(a.influence @ moments.covariances @ b.influence) / moments.n


def _estimate(
    moments: Moments, value: float, influence: Floats, weights: Sequence[tuple[AnyColumn, float]]
) -> Estimate:
    """`weights`: what of `influence` is not 0; few columns' covariances are quicker than a product of all."""
    if moments.n < 2:
        return Estimate(moments.n, value, None, "fewer than 2 users", influence)
    whole = sum(a * b * moments.covariance(x, y) for x, a in weights for y, b in weights)
    return Estimate(moments.n, value, max(whole / moments.n, 0.0), None, influence)  # rounding may fall below zero
