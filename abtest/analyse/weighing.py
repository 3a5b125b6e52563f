"""What a comparison rests on and what may speak against it, chosen before the effect is looked at: docs/verdict.md.

Sources: see docs/verdict.md.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from abtest.analyse.results import ArmEffect, MetricResult
from abtest.format import few_events
from abtest.format import share as percent
from abtest.stats.cuped import Adjustment
from abtest.stats.effects import Effect, compare, quantile
from abtest.stats.evidence import Evidence, evidence
from abtest.stats.jackknife import Buckets, jackknife
from abtest.stats.largest import Largest, without
from abtest.stats.metrics import FEW, LARGEST_SHARE, Declared, Metric, Quantile
from abtest.stats.moments import Moments

ONE_USER = 1 / FEW  # of the squared error of a difference: as if it rested on `FEW` users


@dataclass(frozen=True)
class Users:
    """What is known of the arms' users over the days that are judged: `moments` of columns and covariates, and those
    who stand out (empty where they are not known; buckets of users are left out in their place).
    """

    moments: Mapping[str, Moments]
    largest: Mapping[str, Largest]
    buckets: Mapping[str, Buckets]
    covariates: Sequence[str] = ()


@dataclass(frozen=True)
class Statistic:
    """An estimate on the scale that it is judged on, log ratio or difference, with its standard error."""

    estimate: float
    std_error: float
    on_log: bool
    control: float  # the control's value

    def beyond(self, relative: float) -> float:
        """By how many standard errors it lies above a relative difference."""
        bound = math.log1p(relative) if self.on_log else relative * abs(self.control)
        return (self.estimate - bound) / self.std_error


@dataclass(frozen=True)
class Weighed:
    """A metric in one arm before its level is known."""

    result: MetricResult
    line: ArmEffect
    statistic: Statistic | None
    agreeing: Callable[[], Iterator[tuple[str, Statistic]]]
    reason: str | None  # why nothing can be judged
    ship_reason: str | None  # why it cannot carry a "ship"
    by_arm: Mapping[str, Evidence]

    @cached_property
    def others(self) -> tuple[tuple[str, Statistic], ...]:
        """By name, what has to agree; made when it is asked for, since most comparisons claim nothing."""
        return tuple(self.agreeing())

    @property
    def sign(self) -> int:
        return 1 if self.result.direction == "increase" else -1

    def statistic_of(self, claim: str) -> float:
        """How far past the claim's bound the deciding statistic lies; minus infinity where there is none."""
        return -math.inf if self.statistic is None else past(self.statistic, claim, self.result, self.sign)


def weigh(
    result: MetricResult,
    line: ArmEffect,
    metric: Declared,
    users: Users,
    control: str,
    alpha: float,
    *,
    by_cuped: bool,
) -> Weighed:
    """Choose the deciding statistic by the evidence.

    Args:
        result: the metric over some days.
        line: of these results, the arm that is judged.
        metric: what it is made of.
        users: those of the same days.
        control: the arm it is judged against.
        alpha: the two-sided level of the intervals in `line`.
        by_cuped: whether CUPED's estimates decide, where there are any.

    """
    by_cuped = by_cuped and line.adjusted is not None
    effect = line.adjusted if by_cuped and line.adjusted is not None else line.effect
    if isinstance(metric, Quantile):
        statistic = _of_log(effect, alpha, 1.0)
        reason = None if statistic else effect.reason or "it cannot be estimated"
        return Weighed(result, line, statistic, _nothing, reason, None, {})
    arms = (line.arm, control)
    by_arm = {arm: evidence(metric, users.moments[arm], users.largest.get(arm)) for arm in arms}
    value = metric.estimate(users.moments[control]).value
    if value is None or effect.difference is None:
        return Weighed(result, line, None, _nothing, effect.reason or "it cannot be estimated", None, by_arm)
    if effect.difference_std_error is None:
        return Weighed(result, line, None, _nothing, effect.reason or "it cannot be estimated", None, by_arm)
    if not effect.difference_std_error:
        return _alike(result, line, effect.difference, value, by_arm, min(users.moments[arm].n for arm in arms))
    on_log = _of_log(effect, alpha, value)
    difference = Statistic(effect.difference, effect.difference_std_error, on_log=False, control=value)
    events = min(each.events for each in by_arm.values())
    by_log = on_log is not None and events >= FEW
    statistic = on_log if by_log and on_log is not None else difference

    def agreeing() -> Iterator[tuple[str, Statistic]]:
        if by_log:
            yield "the difference", difference
        elif on_log is not None and events > quantile(alpha / 2) ** 2:  # else a value is not told from 0: no ratio
            yield "the log ratio", on_log
        yield from _jackknifed(metric, line, statistic, users, arms)
        yield from _without_one(metric, by_arm, statistic, users, arms, alpha, by_cuped=by_cuped)

    reason, ship_reason = _one_user(by_arm, by_log=by_log)
    if not by_log and ship_reason is None and not users.largest and events < FEW:
        ship_reason = few_events(events)
    return Weighed(result, line, statistic, agreeing, reason, ship_reason, by_arm)


def _nothing() -> Iterator[tuple[str, Statistic]]:
    return iter(())


def _alike(
    result: MetricResult, line: ArmEffect, difference: float, control: float, by_arm: Mapping[str, Evidence], users: int
) -> Weighed:
    """All users of an arm have one value: where the arms' values differ, users enough make that certain."""
    if not difference:
        return Weighed(result, line, None, _nothing, "all users are alike", None, by_arm)
    if users < FEW:
        return Weighed(result, line, None, _nothing, f"all users of an arm are alike, and only {users}", None, by_arm)
    certain = Statistic(difference, abs(difference) * 1e-9, on_log=False, control=control)
    return Weighed(result, line, certain, _nothing, None, None, by_arm)


def _one_user(by_arm: Mapping[str, Evidence], *, by_log: bool) -> tuple[str | None, str | None]:
    """Why nothing may be judged, and why nothing may ship, because one user has too much of it.

    What worsens is stopped on less than what ships: there a user counts against the users of both arms together.
    """
    reason = ship_reason = None
    together = sum(each.total for each in by_arm.values())
    for arm, each in by_arm.items():
        if each.share is None or each.share <= LARGEST_SHARE:
            continue
        few = f"{few_events(each.events)} in arm {arm}, where " if each.events < FEW else ""
        there = "" if few else f" in arm {arm}"
        ship_reason = f"{few}one user has {percent(each.share)} of {_words(each.column)}{there}"
        if together and each.share * each.total > LARGEST_SHARE * together:
            reason = ship_reason
    if by_log:
        return reason, ship_reason
    variance = sum(each.squared_error / each.error_share for each in by_arm.values() if each.error_share)
    for arm, each in by_arm.items():
        if each.error_share is None:
            continue
        few = f"{few_events(each.events)} in arm {arm}, and one user has"
        few = few if each.events < FEW else f"one user of arm {arm} has"
        if each.error_share > ONE_USER or each.error_share == 0:
            ship_reason = ship_reason or (
                f"{few} {percent(each.error_share)} of its squared error"
                if each.error_share
                else f"no effective events in arm {arm}"
            )
        if variance and each.squared_error > ONE_USER * variance:
            reason = reason or f"{few} {percent(each.squared_error / variance)} of the difference's squared error"
    return reason, ship_reason or reason


def past(statistic: Statistic, claim: str, result: MetricResult, sign: int) -> float:
    """Standard errors by which a claim's bound is passed: better than none, worse than is allowed, short of the least
    that is worth shipping.
    """
    least = result.minimum_effect
    if claim == "better":
        return sign * statistic.beyond(0.0)
    bound = least if claim == "short" else -least if result.role == "guardrail" else 0.0
    bound = max(sign * bound, -1 + 1e-12)
    return -sign * statistic.beyond(bound)


def _of_log(effect: Effect, alpha: float, control: float) -> Statistic | None:
    if effect.relative is None or effect.ci_low is None or effect.ci_high is None:
        return None
    return of_interval(effect.ci_low, effect.ci_high, quantile(alpha / 2), control)


def of_interval(low: float | None, high: float | None, critical: float, control: float = 1.0) -> Statistic | None:
    """From an interval, which lies evenly about its estimate on the log scale."""
    if low is None or high is None or low <= -1 or not high > low:
        return None
    below, above = math.log1p(low), math.log1p(high)
    return Statistic((below + above) / 2, (above - below) / (2 * critical), on_log=True, control=control)


def _jackknifed(
    metric: Metric, line: ArmEffect, statistic: Statistic, users: Users, arms: tuple[str, str]
) -> Iterator[tuple[str, Statistic]]:
    """The deciding estimate with its error as many times larger as the jackknife's is than the plain one."""
    compared = line.jackknife
    if compared is None and users.buckets:
        compared = jackknife(metric, users.buckets[arms[0]], users.buckets[arms[1]])
    plain = line.effect.difference_std_error
    if compared is None or compared.difference_std_error is None or not plain:
        return
    inflation = compared.difference_std_error / plain
    if statistic.on_log and compared.log_std_error:
        inflation = max(inflation, compared.log_std_error / (_plain_log_error(line.effect) or math.inf))
    if inflation > 1:
        yield "the jackknife", replace(statistic, std_error=statistic.std_error * inflation)


def _plain_log_error(effect: Effect) -> float | None:
    log = _of_log(effect, effect.alpha, 1.0)
    return log.std_error if log else None


def _without_one(
    metric: Metric,
    by_arm: Mapping[str, Evidence],
    statistic: Statistic,
    users: Users,
    arms: tuple[str, str],
    alpha: float,
    *,
    by_cuped: bool,
) -> Iterator[tuple[str, Statistic]]:
    """The comparison without each user who stands out, or without the bucket that moves it most."""
    if not users.largest:
        yield from _without_bucket(metric, statistic, users, arms)
        return
    for arm in arms:
        standouts = by_arm[arm].standouts
        for user in standouts if standouts is not None else ():
            left = {**users.moments, arm: without(users.moments[arm], user)}
            if by_cuped:
                estimates = Adjustment.of(left, users.covariates).of_metric(metric).estimates
            else:
                estimates = {name: metric.estimate(left[name]) for name in arms}
            effect = compare(estimates[arms[0]], estimates[arms[1]], arms, alpha)
            value = estimates[arms[1]].value or 0.0
            name = f"without one user of arm {arm}{_has(by_arm[arm])} that cannot be told"
            log = _of_log(effect, alpha, value) if statistic.on_log else None
            if log is not None:
                yield name, log
            elif effect.difference is not None and effect.difference_std_error:
                yield name, Statistic(effect.difference, effect.difference_std_error, on_log=False, control=value)


def _without_bucket(
    metric: Metric, statistic: Statistic, users: Users, arms: tuple[str, str]
) -> Iterator[tuple[str, Statistic]]:
    """Where no user is known by name: without the hundredth of the users of an arm that moves its value most."""
    for arm, sign in zip(arms, (1, -1), strict=True):
        if arm not in users.buckets:
            continue
        buckets = users.buckets[arm]
        counts = buckets.counts.sum() - buckets.counts
        sums = (buckets.sums.sum(axis=0) - buckets.sums)[counts > 0]
        values = metric.values(buckets.columns, sums / counts[counts > 0, None])
        value = metric.estimate(users.moments[arm]).value
        if value is None or not len(values) or not np.isfinite(values).all():
            continue
        moved = float(values[np.argmax(np.abs(values - value))])
        if statistic.on_log and moved <= 0:
            continue
        shift = math.log(moved / value) if statistic.on_log else moved - value
        name = f"without one hundredth of the users of arm {arm} that cannot be told"
        yield name, replace(statistic, estimate=statistic.estimate + sign * shift)


def _has(arm: Evidence) -> str:
    return "" if arm.share is None else f", who has {percent(arm.share)} of {_words(arm.column)},"


def _words(column: str) -> str:
    return column.replace("_", " ")
