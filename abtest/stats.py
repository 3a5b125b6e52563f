"""The statistics: one mergeable accumulator, estimates per arm, and comparisons between two arms.

Every estimate is over users, so an interval is clustered on the user by construction. Intervals and p-values are
large-sample normal ones and come from one statistic, so that p < .05 exactly where the 95 % interval excludes zero.

Sources:
    [D18] Deng, Knoblich, Lu: Applying the Delta Method in Metric Analytics. KDD 2018, arXiv 1803.06336.
    [C83] Chan, Golub, LeVeque: Algorithms for Computing the Sample Variance. The American Statistician 37(3), 1983.
    [F19] Fabijan et al.: Diagnosing Sample Ratio Mismatch in Online Controlled Experiments. KDD 2019.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import chisquare, norm

Floats: TypeAlias = npt.NDArray[np.float64]

ALPHA = 0.05
POWER = 0.8
SRM_ALPHA = 0.001  # [F19]: a check on every report needs a threshold that rarely cries wolf


@dataclass(frozen=True)
class Moments:
    """Count, means and centred cross-products of k columns over users. `a + b` is as if all users had been in one.

    Centred products instead of sums of squares: these lose digits where a mean is large against its spread.
    """

    columns: tuple[str, ...]
    n: int
    means: Floats  # (k,)
    products: Floats  # (k, k) sum over users of (x - mean)(x - mean)ᵀ

    @classmethod
    def of(cls, columns: tuple[str, ...], values: Floats) -> "Moments":
        """Moments of `values` (users, k).

        >>> Moments.of(("x",), np.array([[1.0], [3.0]])).covariance("x", "x")
        2.0
        """
        if not len(values):
            return cls(columns, 0, np.zeros(len(columns)), np.zeros((len(columns), len(columns))))
        means = values.mean(axis=0)
        centred = values - means
        return cls(columns, len(values), means, centred.T @ centred)

    def __add__(self, other: "Moments") -> "Moments":
        """Pairwise update, [C83] eq. 2.1."""
        if self.columns != other.columns:
            raise ValueError(f"moments of {self.columns} and of {other.columns} do not merge")
        n = self.n + other.n
        if n == 0:
            return self
        shift = other.means - self.means
        return Moments(
            self.columns,
            n,
            self.means + shift * (other.n / n),
            self.products + other.products + np.outer(shift, shift) * (self.n * other.n / n),
        )

    def mean(self, column: str) -> float:
        """Mean over users. Zero users: 0."""
        return float(self.means[self.columns.index(column)])

    def total(self, column: str) -> float:
        """Sum over users."""
        return self.n * self.mean(column)

    def covariance(self, a: str, b: str) -> float:
        """Unbiased covariance over users; needs two of them."""
        return float(self.products[self.columns.index(a), self.columns.index(b)]) / (self.n - 1)


@dataclass(frozen=True)
class Estimate:
    """A metric in one arm. `variance` is that of the estimate itself, not of a user's value.

    `value` or `variance` is None where it cannot be had; `reason` then says why, in a few words.
    """

    users: int
    value: float | None
    variance: float | None
    reason: str | None = None

    @property
    def std_error(self) -> float | None:
        """Standard error of the value."""
        return None if self.variance is None else math.sqrt(self.variance)


@dataclass(frozen=True)
class Effect:
    """Treatment against control. A number that cannot be had is None, and `reason` says why.

    `relative`, `ci_low`, `ci_high`, `minimum_detectable` are fractions of the control's value (0.01 is +1 %).
    `difference` is treatment minus control in the metric's unit.
    """

    difference: float | None = None
    difference_std_error: float | None = None
    relative: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    minimum_detectable: float | None = None
    reason: str | None = None


def mean_estimate(moments: Moments, column: str) -> Estimate:
    """Mean of a column over users.

    >>> mean_estimate(Moments.of(("x",), np.array([[1.0], [3.0]])), "x")
    Estimate(users=2, value=2.0, variance=1.0, reason=None)
    """
    if moments.n == 0:
        return Estimate(0, None, None, "no users")
    if moments.n < 2:
        return Estimate(moments.n, moments.mean(column), None, "fewer than 2 users")
    return Estimate(moments.n, moments.mean(column), moments.covariance(column, column) / moments.n)


def ratio_estimate(moments: Moments, numerator: str, denominator: str) -> Estimate:
    """Sum of one column over the sum of another, clustered on the user by the delta method.

    With R = ȳ/x̄ over n users: Var(R) ≈ (s²_y − 2 R s_xy + R² s²_x) / (n x̄²)   ([D18], clustered randomisation).

    >>> users = np.array([[2.0, 1.0], [4.0, 1.0], [2.0, 2.0]])
    >>> ratio_estimate(Moments.of(("views", "ev"), users), "ev", "views").value
    0.5
    """
    if moments.n == 0:
        return Estimate(0, None, None, "no users")
    x = moments.mean(denominator)
    if x == 0:
        return Estimate(moments.n, None, None, f"no {denominator.replace('_', ' ')}")
    ratio = moments.mean(numerator) / x
    if moments.n < 2:
        return Estimate(moments.n, ratio, None, "fewer than 2 users")
    spread = (
        moments.covariance(numerator, numerator)
        - 2 * ratio * moments.covariance(numerator, denominator)
        + ratio**2 * moments.covariance(denominator, denominator)
    )
    return Estimate(moments.n, ratio, max(spread, 0.0) / (moments.n * x**2))  # rounding may fall below zero


def compare(treatment: Estimate, control: Estimate, names: tuple[str, str] = ("treatment", "control")) -> Effect:
    """Relative difference with its 95 % interval and two-sided p-value, by the delta method on the log ratio.

    log(T/C) is asymptotically normal with variance V_T/T² + V_C/C² ([D18], percent change; on the log scale the
    interval cannot reach below −100 % and treats the two arms alike). The p-value is the survival function's: taking
    a cdf from 1 would lose every digit of a small one.

    >>> effect = compare(Estimate(100, 11.0, 0.04), Estimate(100, 10.0, 0.04))
    >>> round(effect.relative, 3), round(effect.ci_low, 3), round(effect.ci_high, 3), effect.p_value < 0.05
    (0.1, 0.043, 0.16, True)
    """
    for estimate, name in ((treatment, names[0]), (control, names[1])):
        if estimate.value is None:
            return Effect(reason=f"{estimate.reason} in arm {name}")
    t, c = _known(treatment.value), _known(control.value)
    for estimate, name in ((treatment, names[0]), (control, names[1])):
        if estimate.variance is None:
            relative = t / c - 1 if c > 0 else None
            return Effect(t - c, None, relative, reason=f"not estimable: {estimate.reason} in arm {name}")
    v_t, v_c = _known(treatment.variance), _known(control.variance)
    difference, std_error = t - c, math.sqrt(v_t + v_c)
    for value, name in ((t, names[0]), (c, names[1])):
        if value <= 0:
            return Effect(difference, std_error, reason=f"not estimable: the value is 0 in arm {name}")
    log_ratio, log_error = math.log(t / c), math.sqrt(v_t / t**2 + v_c / c**2)
    if log_error == 0:
        return Effect(difference, std_error, t / c - 1, reason="not estimable: all users alike, no variance")
    margin = _quantile(ALPHA / 2) * log_error
    return Effect(
        difference=difference,
        difference_std_error=std_error,
        relative=t / c - 1,
        ci_low=math.expm1(log_ratio - margin),
        ci_high=math.expm1(log_ratio + margin),
        p_value=2 * float(norm.sf(abs(log_ratio) / log_error)),
        minimum_detectable=minimum_detectable(log_error),
    )


def minimum_detectable(log_error: float, power: float = POWER) -> float:
    """The relative lift that a two-sided test at 5 % would have found with probability `power`.

    Solves Φ(δ/σ − z_{.975}) = power for the log ratio δ, σ its standard error; the far tail is left out (below 1e-6).

    >>> round(minimum_detectable(0.01), 4)
    0.0284
    """
    return math.expm1((_quantile(ALPHA / 2) + _quantile(1 - power)) * log_error)


@dataclass(frozen=True)
class Split:
    """Whether users fell into the arms as the weights say. `p_value` None: not testable, `reason` says why."""

    users: dict[str, int]
    expected: dict[str, float]
    p_value: float | None
    mismatch: bool
    reason: str | None = None


def split_check(users: Mapping[str, int], weights: Mapping[str, float]) -> Split:
    """χ² test of users per arm against the arms' weights ([F19]); a mismatch at p < .001.

    >>> split_check({"a": 5000, "b": 5000}, {"a": 1, "b": 1}).p_value
    1.0
    >>> split_check({"a": 5000, "b": 5500}, {"a": 1, "b": 1}).mismatch
    True
    """
    total, weight = sum(users.values()), sum(weights.values())
    if total == 0:
        return Split(dict(users), dict.fromkeys(weights, 0.0), None, mismatch=False, reason="no users in any arm")
    expected = {arm: total * weights[arm] / weight for arm in weights}
    observed = np.array([users.get(arm, 0) for arm in weights], np.float64)
    p_value = float(chisquare(observed, np.array(list(expected.values()))).pvalue)
    return Split({arm: users.get(arm, 0) for arm in weights}, expected, p_value, mismatch=p_value < SRM_ALPHA)


def _quantile(tail: float) -> float:
    return float(norm.isf(tail))


def _known(value: float | None) -> float:
    if value is None:
        raise ValueError("an estimate without a reason lacks a number")
    return value
