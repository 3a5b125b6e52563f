"""Whether an effect wears off or grows over the days, and whether the arms differed before the experiment began.

A user comes on several days, so the days' effects are not independent: the slope over them is a generalised least
squares one, given their joint covariance.

Sources:
    [A36] Aitken: On Least Squares and Linear Combinations of Observations. Proceedings of the Royal Society of
        Edinburgh 55, 1936.
    [K20] Kohavi, Tang, Xu: Trustworthy Online Controlled Experiments. Cambridge 2020, chapters 3 and 23.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from abtest.format import counted
from abtest.stats.columns import Column
from abtest.stats.effects import ALPHA, Effect, compare, quantile, two_sided
from abtest.stats.estimates import SMALLEST, Estimate, mean_estimate
from abtest.stats.metrics import Mean, Metric, Ratio
from abtest.stats.moments import Floats, Moments

ROUNDING = 1e-15  # a variance of a log ratio below this is none but by rounding: where all users are alike
BIAS_ALPHA = 0.001  # as for a split: a check on every report needs a threshold that rarely cries wolf


@dataclass(frozen=True)
class Course:
    """Daily effects as log ratios of treatment over control: `effects` (T,) on `days` (T,), `covariance` (T, T).

    Days on which an arm has no value above 0, or no variance, are left out.
    """

    days: Floats
    effects: Floats
    covariance: Floats


@dataclass(frozen=True)
class Trend:
    """Change of the effect per day, in log points (0.01 is about +1 % of the control more each day).

    What cannot be had is None, and `reason` says why. `start`: the effect on day 0 by the line.
    """

    days: int
    slope: float | None = None
    std_error: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    start: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class PrePeriod:
    """One arm against the control before the experiment: `effects` by column, and whether they differ all in all.

    `p_value`: Wald's test that no column's mean differs, χ² with `degrees` of freedom. `biased`: it is below the
    threshold, so the arms were not alike before anyone was treated. None and a `reason` where it cannot be told.
    """

    arm: str
    effects: dict[str, Effect]
    p_value: float | None
    degrees: int
    biased: bool
    reason: str | None = None


def on_day(metric: Mean | Ratio, day: int) -> Ratio:
    """The metric of one day, as an estimate over the users of all days, which gives days a joint covariance.

    A mean over the users exposed on that day is then a ratio of sums: they are a random number of all.

    >>> on_day(Mean("play", "Play", "s", "", "play_s"), 2).columns
    (<play_s@2>, <exposed@2>)
    """
    above, below = metric.columns if isinstance(metric, Ratio) else (metric.column, "exposed")
    numerator, denominator = (Column(str(column), day) for column in (above, below))
    return Ratio(f"{metric.name}@{day}", metric.label, metric.unit, metric.about, numerator, denominator)


def course(metrics: Sequence[Metric], treatment: Moments, control: Moments) -> Course:
    """The effect by each of T metrics, one a day, with their covariance."""
    return course_of([(metric.estimate(treatment), metric.estimate(control)) for metric in metrics], treatment, control)


def course_of(pairs: Sequence[tuple[Estimate, Estimate]], treatment: Moments, control: Moments) -> Course:
    """The effect by each of T pairs of estimates (treatment, control), one a day, with their covariance.

    With W (T, k) the influences over the values in one arm, cov log = W Σ Wᵀ / n; the arms share no user and add up.
    """
    days = [day for day, pair in enumerate(pairs) if all(_usable(estimate) for estimate in pair)]
    effects, covariance = np.zeros(len(days)), np.zeros((len(days), len(days)))
    for side, (moments, sign) in enumerate(((treatment, 1.0), (control, -1.0))):
        if not days:
            break
        estimates = [pairs[day][side] for day in days]
        values = np.array([estimate.value for estimate in estimates], np.float64)
        W = np.stack([estimate.influence for estimate in estimates if estimate.influence is not None])
        W = W / values[:, None]
        effects += sign * np.log(values)
        covariance += W @ moments.covariances @ W.T / moments.n
    covariance = (covariance + covariance.T) / 2
    varies = np.diag(covariance) > ROUNDING
    return Course(np.array(days, np.float64)[varies], effects[varies], covariance[np.ix_(varies, varies)])


def trend(course: Course, alpha: float = ALPHA) -> Trend:
    """The slope of the days' effects by generalised least squares, their covariance known ([A36]).

    The covariance is estimated from many users, so the slope is taken as normal and no scale is fitted to the few days.

    >>> found = trend(Course(np.arange(3.0), np.array([0.3, 0.2, 0.1]), 0.01 * np.eye(3)))
    >>> round(found.slope, 4), round(found.std_error, 4), round(found.start, 4)
    (-0.1, 0.0707, 0.3)
    """
    size = len(course.days)
    if size < 3:
        return Trend(size, reason=f"{counted(size, 'day')} with an effect; a slope that can be judged needs 3")
    if np.linalg.matrix_rank(course.covariance, hermitian=True) < size:
        return Trend(size, reason="the days' effects have no covariance of full rank")
    from statsmodels.regression.linear_model import GLS  # slow to import, and only this needs it

    X = np.stack([np.ones(size), course.days], axis=1)
    try:
        fitted = GLS(course.effects, X, sigma=course.covariance).fit(cov_type="fixed scale", cov_kwds={"scale": 1.0})
    except np.linalg.LinAlgError:  # days that repeat each other but for the last digits pass the test of rank
        return Trend(size, reason="the days' effects have no covariance of full rank")
    slope, error = float(fitted.params[1]), float(fitted.bse[1])
    margin = quantile(alpha / 2) * error
    p_value, _ = two_sided(slope / error)
    return Trend(size, slope, error, slope - margin, slope + margin, p_value, float(fitted.params[0]))


def pre_period(
    moments: Mapping[str, Moments],
    columns: Sequence[str],
    control: str,
    threshold: float = BIAS_ALPHA,
    alpha: float = ALPHA,
) -> tuple[PrePeriod, ...]:
    """Every arm against `control` on columns from before the experiment, in the order of `moments`.

    Wald's statistic is dᵀ (Σ_T/n_T + Σ_C/n_C)⁺ d for the differences d of the columns' means, on the scale of their
    standard errors; columns that say the same count once.

    Raises:
        KeyError: `control` or a column is not there.

    """
    reference = {column: mean_estimate(moments[control], column) for column in columns}
    return tuple(
        _pre_period(arm, arm_moments, moments[control], reference, control, threshold, alpha)
        for arm, arm_moments in moments.items()
        if arm != control
    )


def _pre_period(
    arm: str,
    moments: Moments,
    against: Moments,
    reference: Mapping[str, Estimate],
    control: str,
    threshold: float,
    alpha: float,
) -> PrePeriod:
    effects = {
        column: compare(mean_estimate(moments, column), estimate, (arm, control), alpha)
        for column, estimate in reference.items()
    }
    varying = [column for column, effect in effects.items() if effect.difference_std_error]
    if not varying:
        reason = next((effect.reason for effect in effects.values() if effect.reason), "no columns from before")
        return PrePeriod(arm, effects, None, 0, biased=False, reason=reason)
    errors = np.array([effects[column].difference_std_error for column in varying], np.float64)
    z = np.array([effects[column].difference for column in varying], np.float64) / errors
    places = [moments.place(column) for column in varying]
    joint = sum(m.covariances[np.ix_(places, places)] / m.n for m in (moments, against)) / np.outer(errors, errors)
    degrees = int(np.linalg.matrix_rank(joint, tol=1e-10, hermitian=True))
    statistic = float(z @ np.linalg.pinv(joint, rcond=1e-10, hermitian=True) @ z)
    p_value = float(chdtrc(degrees, statistic))
    return PrePeriod(arm, effects, p_value, degrees, biased=p_value < threshold)


def _usable(estimate: Estimate) -> bool:
    return estimate.value is not None and estimate.variance is not None and estimate.value >= SMALLEST
