"""One arm against another: absolute and relative difference, their intervals and p-values. A pure function of two
estimates, whatever metric they are of.

Each interval goes with a p-value from the same statistic, so that p < alpha exactly where the interval excludes zero.
By default statistics are taken as normal: users are many, and a t quantile at 1,000 degrees of freedom is only 0.1 %
wider. `"t"` takes Student's t at Welch's degrees of freedom instead.

Sources:
    [D18] Deng, Knoblich, Lu: Applying the Delta Method in Metric Analytics. KDD 2018, arXiv 1803.06336.
    [F54] Fieller: Some Problems in Interval Estimation. Journal of the Royal Statistical Society B 16(2), 1954.
    [W47] Welch: The generalization of "Student's" problem when several different population variances are involved.
        Biometrika 34, 1947.
    [A72] Abramowitz, Stegun: Handbook of Mathematical Functions. 1972.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from scipy.special import betaln, log_ndtr, ndtr, ndtri, stdtr, stdtrit

from abtest.stats.estimates import SMALLEST, Estimate

ALPHA = 0.05
POWER = 0.8
LARGEST_LOG = 700.0  # a float ends at exp(709); no relative difference that anyone could use is near it

Distribution = Literal["normal", "t"]


@dataclass(frozen=True)
class Effect:
    """Treatment against control. A number that cannot be had is None, and `reason` says why.

    `difference` is treatment minus control in the metric's unit, `difference_low` to `difference_high` its interval,
    `difference_p_value` the p-value of no difference.
    `relative`, `ci_low`, `ci_high`, `minimum_detectable`, `fieller_low`, `fieller_high` are fractions of the control's
    value (0.01 is +1 %). `ci_low` to `ci_high` and `p_value` are those of the log ratio by the delta method.
    `fieller_reason` says why Fieller's interval is missing. All intervals cover with probability 1 - `alpha`. The
    `log10_` numbers stay told where a p-value is too small for a float.
    """

    difference: float | None = None
    difference_std_error: float | None = None
    relative: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    minimum_detectable: float | None = None
    reason: str | None = None
    log10_p: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    difference_p_value: float | None = None
    difference_log10_p: float | None = None
    fieller_low: float | None = None
    fieller_high: float | None = None
    fieller_reason: str | None = None
    alpha: float = ALPHA


@dataclass(frozen=True)
class _Arm:
    value: float
    variance: float
    users: int
    name: str


def compare(
    treatment: Estimate,
    control: Estimate,
    names: tuple[str, str] = ("treatment", "control"),
    alpha: float = ALPHA,
    distribution: Distribution = "normal",
) -> Effect:
    """Differences between two arms of different users, with intervals at 1 - `alpha` and two-sided p-values.

    Args:
        treatment: the estimate in the arm that is judged.
        control: the estimate in the arm it is judged against.
        names: of the two arms, for reasons.
        alpha: the intervals miss the truth with this probability.
        distribution: of the statistics.

    Raises:
        ValueError: `alpha` is not between 0 and 1.

    >>> effect = compare(Estimate(100, 11.0, 0.04), Estimate(100, 10.0, 0.04))
    >>> round(effect.relative, 3), round(effect.ci_low, 3), round(effect.ci_high, 3), effect.p_value < 0.05
    (0.1, 0.043, 0.16, True)

    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    for estimate, name in ((treatment, names[0]), (control, names[1])):
        if estimate.value is None:
            return Effect(reason=f"{estimate.reason} in arm {name}", alpha=alpha)
    t, c = _known(treatment.value), _known(control.value)
    for estimate, name in ((treatment, names[0]), (control, names[1])):
        if estimate.variance is None:
            reason = f"not estimable: {estimate.reason} in arm {name}"
            return Effect(t - c, None, t / c - 1 if c >= SMALLEST else None, reason=reason, alpha=alpha)
    if 0 < max(abs(t), abs(c)) < SMALLEST:
        return Effect(t - c, reason="not estimable: the values are too near 0", alpha=alpha)
    arms = (
        _Arm(t, _known(treatment.variance), treatment.users, names[0]),
        _Arm(c, _known(control.variance), control.users, names[1]),
    )
    return _relative(_absolute(*arms, alpha, distribution), *arms, distribution)


def minimum_detectable(log_error: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """The relative lift that a two-sided test would have found with probability `power`.

    Solves Φ(δ/σ − z_{1−α/2}) = power for the log ratio δ, σ its standard error; the far tail is left out (below 1e-6
    at the default level and power).

    >>> round(minimum_detectable(0.01), 4)
    0.0284
    """
    return math.expm1((quantile(alpha / 2) + quantile(1 - power)) * log_error)


@lru_cache(maxsize=1024)  # a report asks for the same few a thousand times
def quantile(tail: float, df: float = math.inf) -> float:
    """The value that a standard normal variable, or Student's t with `df`, exceeds with probability `tail`.

    >>> round(quantile(0.025), 4), round(quantile(0.025, 10), 4)
    (1.96, 2.2281)
    """
    return -float(ndtri(tail) if math.isinf(df) else stdtrit(df, tail))


def two_sided(statistic: float, df: float = math.inf) -> tuple[float, float]:
    """P(|Z| ≥ |statistic|) and its log10, for a standard normal Z or Student's t with `df`.

    Both come from the lower tail: taking a cdf from 1 would lose every digit of a small one. Where t's is too small
    for a float, its logarithm comes from the incomplete beta function I_x(df/2, 1/2), x = df / (df + statistic²).

    >>> two_sided(40.0)[0], round(two_sided(60.0)[1], 4)
    (0.0, -783.6064)
    """
    tail = -abs(statistic)
    if math.isinf(df):
        return 2 * float(ndtr(tail)), (float(log_ndtr(tail)) + math.log(2)) / math.log(10)
    p_value = 2 * float(stdtr(df, tail))
    if p_value > 1e-300:
        return p_value, math.log10(p_value)
    a, ratio = df / 2, statistic**2 / df
    log_p = 0.5 * math.log(ratio) - (a + 0.5) * math.log1p(ratio) - math.log(a) - float(betaln(a, 0.5))
    log_p += math.log(_beta_fraction(a, 0.5, 1 / (1 + ratio)))
    return math.exp(log_p), log_p / math.log(10)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """I_x(a, b) a B(a, b) / (x^a (1 − x)^b), the continued fraction [A72] 26.5.8 from its 60th term backwards.

    As far out in t's tail as a float's smallest number, ten terms give all digits.
    """
    rest = 1.0
    for m in range(30, 0, -1):
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        rest = 1 + m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)) / (1 + odd / rest)
    return 1 / (1 - (a + b) * x / (a + 1) / rest)


def _absolute(t: _Arm, c: _Arm, alpha: float, distribution: Distribution) -> Effect:
    """The difference, and Fieller's interval, which goes with its p-value."""
    difference, error = t.value - c.value, math.sqrt(t.variance + c.variance)
    if error == 0:
        return Effect(difference, error, alpha=alpha, fieller_reason="all users alike, no variance")
    df = _welch(t.variance, c.variance, t, c, distribution)
    q = quantile(alpha / 2, df)
    p_value, log10_p = two_sided(difference / error, df)
    fieller_low, fieller_high, fieller_reason = _fieller(t, c, q)
    return Effect(
        difference,
        error,
        alpha=alpha,
        difference_low=difference - q * error,
        difference_high=difference + q * error,
        difference_p_value=p_value,
        difference_log10_p=log10_p,
        fieller_low=fieller_low,
        fieller_high=fieller_high,
        fieller_reason=fieller_reason,
    )


def _fieller(t: _Arm, c: _Arm, q: float) -> tuple[float | None, float | None, str | None]:
    """All ratios ρ with (T − ρC)² ≤ q² (V_T + ρ² V_C), [F54] section 3, for arms that share no user.

    The set is an interval exactly where C² > q² V_C. Its half width is then q √(V_T (C² − q² V_C) + T² V_C) over
    C² − q² V_C: the quadratic's discriminant without its cancelling terms. Student's t has the degrees of freedom of
    the plain difference.
    """
    denominator = c.value**2 - q**2 * c.variance
    if denominator <= 0:
        reason = f"the value in arm {c.name} is not significantly different from 0: any relative difference is possible"
        return None, None, reason
    half = q * math.sqrt(t.variance * denominator + t.value**2 * c.variance)
    ratio = t.value * c.value
    return (ratio - half) / denominator - 1, (ratio + half) / denominator - 1, None


def _relative(effect: Effect, t: _Arm, c: _Arm, distribution: Distribution) -> Effect:
    """The log ratio's interval, back on the scale of relative differences.

    log(T/C) is asymptotically normal with variance V_T/T² + V_C/C² ([D18], percent change); on the log scale the
    interval cannot reach below −100 % and treats the two arms alike.
    """
    for arm in (t, c):
        if arm.value <= 0:
            what = "0" if arm.value == 0 else "negative"
            return replace(effect, reason=f"not estimable: the value is {what} in arm {arm.name}")
        if arm.value < SMALLEST:
            return replace(effect, reason=f"not estimable: the value is too near 0 in arm {arm.name}")
    relative, ratio = t.value / c.value - 1, math.log(t.value / c.value)
    parts = t.variance / t.value**2, c.variance / c.value**2
    error = math.sqrt(sum(parts))
    if error == 0:
        return replace(effect, relative=relative, reason="not estimable: all users alike, no variance")
    df = _welch(*parts, t, c, distribution)
    margin = quantile(effect.alpha / 2, df) * error
    if abs(ratio) + margin + error > LARGEST_LOG:
        return replace(effect, relative=relative, reason="not estimable: the values are too near 0 for their errors")
    p_value, log10_p = two_sided(ratio / error, df)
    return replace(
        effect,
        relative=relative,
        ci_low=math.expm1(ratio - margin),
        ci_high=math.expm1(ratio + margin),
        p_value=p_value,
        log10_p=log10_p,
        minimum_detectable=minimum_detectable(error, alpha=effect.alpha),
    )


def _welch(v_t: float, v_c: float, t: _Arm, c: _Arm, distribution: Distribution) -> float:
    """Degrees of freedom, [W47] (Satterthwaite's approximation); infinite for the normal distribution."""
    if distribution == "normal":
        return math.inf
    whole = v_t + v_c
    return 1 / ((v_t / whole) ** 2 / (t.users - 1) + (v_c / whole) ** 2 / (c.users - 1))


def _known(value: float | None) -> float:
    if value is None:
        raise ValueError("an estimate without a reason lacks a number")
    return value
