"""What is known of an experiment's metrics before it is planned: from its own days, from the days before, or as stated.

`abtest.plan.power` plans with it; this module gives it the shape that it asks for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from abtest.aggregate.aggregate import EXPOSED, Aggregate
from abtest.aggregate.user_days import Ints, earlier
from abtest.aggregate.winsorize import capped_sums
from abtest.collect.rules import PRE_DAYS
from abtest.collect.state import CollectorState
from abtest.plan.power import Baseline, measured, steady
from abtest.stats.cuped import adjust
from abtest.stats.estimates import SMALLEST, Estimate
from abtest.stats.metrics import STREAMED_BEFORE, Capped, Mean, Ratio
from abtest.stats.moments import Floats, Moments
from contracts.config.experiment import Experiment

RECALLS = "recalls"


@dataclass(frozen=True)
class Known:
    """A metric as it is now. What is missing is None, and `reason` says why it cannot be planned for.

    `value`: in the metric's unit, over `users` of all arms and `days`. `events`: a ratio's numerator, summed.
    `variance_removed`: what CUPED took of the variance. `baseline`: for as many days as are planned.
    """

    users: int
    days: int
    value: float | None = None
    events: int | None = None
    variance_removed: float | None = None
    baseline: Baseline | None = None
    reason: str | None = None
    rate: float | None = None  # where the metric is a share of users who do something


def during(metric: Mean | Ratio, past: Aggregate, days: int, users_per_day: float | None = None) -> Known:
    """From the days of an experiment that runs or has run, all arms together.

    Args:
        metric: to be planned for.
        past: that experiment's.
        days: to be planned.
        users_per_day: whom each day will bring for the first time; None: as in the experiment.

    """
    moments = reduce(add, past.moments.values())
    missing = [str(column) for column in metric.columns if column not in past.columns]
    if missing:
        return Known(moments.n, past.days, reason=f"the data have no column '{missing[0]}'")
    whole = reduce(add, past.through(past.days - 1).values())
    known = _known(metric, metric.estimate(whole), whole, past.days)
    if known.reason:
        return known
    removed = adjust({"all": whole}, metric, past.covariates).variance_removed if past.covariates else None
    traffic = users_per_day * past.days / moments.n if users_per_day else 1.0
    try:
        baseline = measured(metric, moments, past.days, traffic, RECALLS if RECALLS in past.columns else EXPOSED)
    except ValueError:  # on some day there is nothing yet
        return replace(known, variance_removed=removed, baseline=_even(known, metric, whole, traffic, past.days, days))
    return replace(known, variance_removed=removed, baseline=lasting(baseline, days))


def before(
    metric: Mean | Ratio,
    state: CollectorState,
    days: int,
    share: float,
    users_per_day: float | None = None,
    to_cap: Sequence[Capped] = (),
) -> Known:
    """From what users did in the `PRE_DAYS` days before an experiment, whichever of these a user came on.

    How users come back is not known: each day is taken to bring a seventh of the week's users, and none twice. CUPED
    cannot be judged, for nothing is known from before these days.

    Args:
        metric: to be planned for.
        state: a collector's, every request folded.
        days: to be planned.
        share: of these users who will be in the experiment.
        users_per_day: whom each day will bring for the first time; None: a seventh of them.
        to_cap: columns that metrics cap; a quantile, pooled or not, is that of these users.

    """
    moments = Moments.of(*capped_sums(STREAMED_BEFORE, earlier(state), to_cap))
    missing = [column for column in metric.columns if column not in moments.columns]
    if missing:
        return Known(moments.n, PRE_DAYS, reason=f"nothing is known of {missing[0]} before the start")
    known = _known(metric, metric.estimate(moments), moments, PRE_DAYS)
    if known.reason:
        return known
    traffic = users_per_day * PRE_DAYS / moments.n if users_per_day else share
    return replace(known, baseline=_even(known, metric, moments, traffic, PRE_DAYS, days))


def stated(mean: float, sd: float, users_per_day: float, days: int, rate: float | None = None) -> Known:
    """From a user's mean and standard deviation over the experiment; `rate`: where these are those of a share.

    Raises:
        ValueError: a number is not above 0.

    """
    return Known(0, 0, mean, baseline=steady(mean, sd**2, users_per_day, days), rate=rate)


def share_of(experiment: Experiment) -> float:
    """Share of all users whom an experiment takes once it is fully ramped.

    >>> from contracts.config.experiment import Arm
    >>> arms = {"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="t2diff")}
    >>> share_of(Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="a", slots=(0.25, 0.75)))
    0.5
    """
    low, high = experiment.slots
    held = experiment.holdout.share if experiment.holdout else 0.0
    ramped = experiment.ramp[-1].share if experiment.ramp else 1.0
    return (high - low) * (1 - held) * ramped


def lasting(baseline: Baseline, days: int) -> Baseline:
    """A baseline of another number of days. Those beyond its own bring as many new users as its last day did.

    A user's values are taken to vary as they do over all of its days; more days of the same users would make them vary
    less, so that the plan errs on the careful side. Looks that are not in the baseline are taken to be correlated as
    the information says.
    """
    if days <= baseline.days:
        return Baseline(
            baseline.users[:days], baseline.visits[:days], baseline.spread[:days], baseline.correlations[:days, :days]
        )
    more = np.arange(1, days - baseline.days + 1)
    users, visits = (_going_on(totals, more) for totals in (baseline.users, baseline.visits))
    spread = np.concatenate([baseline.spread, np.full(len(more), baseline.spread[-1])])
    information = users / spread
    correlations = np.sqrt(np.minimum.outer(information, information) / np.maximum.outer(information, information))
    return Baseline(users, visits, spread, correlations)


def days_for(users: int, baseline: Baseline) -> int | None:
    """Days until so many users have come, at the pace of the last day; None where that brings none.

    >>> days_for(5000, steady(1.0, 1.0, 1000, 3))
    5
    """
    reached = np.flatnonzero(baseline.users >= users)
    if len(reached):
        return int(reached[0]) + 1
    pace = float(baseline.users[-1] - (baseline.users[-2] if baseline.days > 1 else 0))
    return baseline.days + math.ceil((users - baseline.users[-1]) / pace) if pace > 0 else None


def _going_on(totals: Floats, more: Ints) -> Floats:
    pace = totals[-1] - (totals[-2] if len(totals) > 1 else 0)
    return np.concatenate([totals, totals[-1] + pace * more])


def _known(metric: Mean | Ratio, estimate: Estimate, moments: Moments, days: int) -> Known:
    events = round(moments.total(metric.numerator)) if isinstance(metric, Ratio) and moments.n else None
    known = Known(moments.n, days, estimate.value, events)
    if estimate.value is None or estimate.variance is None:
        return replace(known, reason=estimate.reason)
    if estimate.value < SMALLEST or estimate.variance <= 0:
        return replace(known, reason="it has no value above 0" if estimate.value < SMALLEST else "all users are alike")
    return known


def _even(known: Known, metric: Mean | Ratio, moments: Moments, traffic: float, seen: int, days: int) -> Baseline:
    """Every day brings as many users, and none twice."""
    estimate = metric.estimate(moments)
    if estimate.value is None or estimate.variance is None:
        raise ValueError(f"{metric.name} has no value")
    spread = estimate.variance * estimate.users / estimate.value**2
    return steady(1.0, spread, traffic * known.users / seen, days)
