"""Metrics over the days: bands that hold for all days at once, a plan's looks, and whether an effect wears off."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from abtest.aggregate.aggregate import EXPOSED, Aggregate
from abtest.analyse.results import Course, Look
from abtest.stats.columns import Column
from abtest.stats.confidence_sequence import always_valid, critical_values
from abtest.stats.cumulative import so_far
from abtest.stats.cuped import Adjustment
from abtest.stats.estimates import Estimate
from abtest.stats.group_sequential import boundaries, fractions, group_sequential, sequential_p_value
from abtest.stats.metrics import Mean, Ratio, Role
from abtest.stats.moments import Floats, Moments
from abtest.stats.novelty import Course as Effects
from abtest.stats.novelty import course, course_of, on_day, trend
from abtest.stats.simultaneous_bands import Band, bands
from contracts.config.experiment import AnalysisPlan, Experiment


@dataclass(frozen=True)
class _Drawn:
    """A metric's effects in one arm: by day, so far by day, and so far at the plan's looks (by CUPED if it is)."""

    metric: Mean | Ratio
    arm: str
    daily: Effects
    cumulative: Effects
    looked: Effects


def courses_of(
    aggregate: Aggregate, metrics: Sequence[Mean | Ratio], experiment: Experiment, days_over: int
) -> Iterator[Course]:
    """One for each metric and treatment arm. A look is after a day that is among the first `days_over`."""
    plan = experiment.analysis
    at = looks_at(experiment, aggregate.days, days_over)
    all_drawn = list(_drawn(aggregate, metrics, experiment.control, at, by_cuped=plan.cuped))
    around = bands(
        [(effects.effects, effects.covariance) for drawn in all_drawn for effects in (drawn.daily, drawn.cumulative)],
        plan.alpha,
    )
    bounds = _bounds(all_drawn, at, experiment) if plan.kind == "group-sequential" else []
    for place, drawn in enumerate(all_drawn):
        curve = Course(
            drawn.metric.name,
            drawn.arm,
            _band(drawn.daily, around[2 * place], aggregate.days),
            _band(drawn.cumulative, around[2 * place + 1], aggregate.days),
            trend(drawn.daily),
            by_cuped=plan.cuped and bool(aggregate.covariates),
        )
        if plan.kind == "group-sequential":
            curve = _group_sequential(curve, drawn.looked, at, bounds[place], experiment, drawn.metric.role)
        elif plan.kind == "confidence-sequence":
            curve = _confidence_sequence(
                curve, drawn.looked, at, aggregate, plan, level_of(experiment, drawn.metric.role)
            )
        yield curve


def _drawn(
    aggregate: Aggregate, metrics: Sequence[Mean | Ratio], control: str, at: Sequence[int], *, by_cuped: bool
) -> Iterator[_Drawn]:
    days = range(aggregate.days)
    jointly = aggregate.looks(days)
    cuped = [_adjustment(aggregate, jointly, day) for day in at] if by_cuped else []
    for metric in metrics:
        daily, so_far_by_day = [on_day(metric, day) for day in days], [so_far(metric, day) for day in days]
        judged = _estimates(jointly, [so_far(metric, day) for day in at], cuped)
        for arm in aggregate.arms:
            if arm != control:
                yield _Drawn(
                    metric,
                    arm,
                    course(daily, aggregate.moments[arm], aggregate.moments[control]),
                    course(so_far_by_day, jointly[arm], jointly[control]),
                    course_of([(e[arm], e[control]) for e in judged], jointly[arm], jointly[control]),
                )


def level_of(experiment: Experiment, role: str) -> float:
    """The error level of one comparison in a sequential plan: Bonferroni's share of the plan's, over the arms of the
    primary metric, or over the guardrails of all arms; a diagnostic metric has the plan's own.
    """
    arms = len(experiment.arms) - 1
    guardrails = sum(metric.role == "guardrail" for metric in experiment.metrics)
    shares = {"primary": arms, "guardrail": arms * guardrails}
    return experiment.analysis.alpha / max(shares.get(role, 1), 1)


def critical_of(aggregate: Aggregate, experiment: Experiment, days_over: int, role: str, day: int) -> float | None:
    """The standard errors that a difference of all days so far has to span at a look; for what has no log ratio. None
    where nothing may be concluded from it.

    Of bounds, those of independent increments: the widest, since users who come back make looks more alike.
    """
    plan, level = experiment.analysis, level_of(experiment, role)
    if plan.kind == "confidence-sequence":
        visits = _visits(aggregate, day)
        return float(critical_values(np.array([visits]), level, plan.tuned_at)[0]) if visits else None
    at = looks_at(experiment, aggregate.days, days_over)
    share = fractions([day + 1 for day in at], experiment.days)
    bound = float(boundaries(1 / np.maximum.outer(share, share), share, level)[at.index(day)])
    return bound if math.isfinite(bound) else None


def looks_at(experiment: Experiment, seen: int, over: int) -> Sequence[int]:
    """Days, counted from 0, at which has been looked: by bounds after whole days, by a confidence sequence any time."""
    limit = seen if experiment.analysis.kind == "confidence-sequence" else over
    return [day for day in experiment.look_days if day < limit]


def _adjustment(aggregate: Aggregate, jointly: Mapping[str, Moments], day: int) -> Adjustment:
    """By what the users seen by the end of a day did before."""
    return Adjustment.of(jointly, [so_far(Mean(c, c, "", "", c), day) for c in aggregate.covariates])


def _estimates(
    jointly: Mapping[str, Moments], metrics: Sequence[Ratio], cuped: Sequence[Adjustment]
) -> list[dict[str, Estimate]]:
    """By look and arm, by CUPED where there is one a look."""
    if not cuped:
        return [{arm: metric.estimate(moments) for arm, moments in jointly.items()} for metric in metrics]
    return [by.of_metric(metric).estimates for metric, by in zip(metrics, cuped, strict=True)]


def _band(effects: Effects, around: Band, days: int) -> tuple[tuple[float, float] | None, ...]:
    """Of each day; None where it has no effect."""
    band: list[tuple[float, float] | None] = [None] * days
    for day, low, high in zip(effects.days, around.ci_low.tolist(), around.ci_high.tolist(), strict=True):
        band[int(day)] = (low, high)
    return tuple(band)


def _days(effects: Effects, at: Sequence[int]) -> tuple[int, ...]:
    """Those of the looks `at` that have an effect, counted from 1."""
    return tuple(at[int(place)] + 1 for place in effects.days)


def _bounds(all_drawn: Sequence[_Drawn], at: Sequence[int], experiment: Experiment) -> list[Floats]:
    """Critical values at the looks of each; those with the same looks and level are solved together."""
    bounds = [np.empty(0)] * len(all_drawn)
    each = [drawn.looked for drawn in all_drawn]
    cases = [(_days(drawn.looked, at), level_of(experiment, drawn.metric.role)) for drawn in all_drawn]
    for days, level in sorted(set(cases)):
        if not days:
            continue
        alike = [place for place, case in enumerate(cases) if case == (days, level)]
        covariances = np.stack([each[place].covariance for place in alike])
        solved = boundaries(covariances, fractions(days, experiment.days), level)
        for place, critical in zip(alike, solved, strict=True):
            bounds[place] = critical
    return bounds


def _group_sequential(
    curve: Course, effects: Effects, at: Sequence[int], critical: Floats, experiment: Experiment, role: Role
) -> Course:
    """The looks that have an effect, judged together by their bounds.

    The primary metric's p-value holds at every look up to the first that crossed its bound, which is what is decided
    on. It costs as much as all bounds, so that the others' is told when their looks have ended.
    """
    days = _days(effects, at)
    if not days:
        return replace(curve, reason="no look so far could estimate it" if at else "the plan has not looked yet")
    alpha = level_of(experiment, role)
    judged = group_sequential(days, effects.effects, effects.covariance, experiment.days, alpha, critical=critical)
    looks = tuple(
        Look(look.day - 1, look.relative, look.ci_low, look.ci_high, look.critical, look.crossed)
        if np.isfinite(look.critical)
        else Look(look.day - 1, look.relative, None, None, None, look.crossed)
        for look in judged.looks
    )
    p_value = judged.p_value
    if role == "primary":
        upto = len(days) if judged.stopped_at is None else days.index(judged.stopped_at) + 1
        z, covariance = effects.effects / np.sqrt(np.diag(effects.covariance)), effects.covariance[:upto, :upto]
        p_value = sequential_p_value(z[:upto], covariance, fractions(days[:upto], experiment.days))
    stopped = None if judged.stopped_at is None else judged.stopped_at - 1
    return replace(curve, looks=looks, p_value=p_value, stopped_on=stopped)


def _confidence_sequence(
    curve: Course, effects: Effects, at: Sequence[int], aggregate: Aggregate, plan: AnalysisPlan, level: float
) -> Course:
    """Every day's interval, and within those before it: all hold at once, so what one has excluded stays excluded.

    They hold for an effect that stays the same. Of such a one hardly an estimate lies outside what the days before have
    left (it would have to be missed by them, at `level`): where one does, the effect has changed. From then on looks
    are days' own intervals and conclude nothing. What is counted are recalls, or days on which users came where recalls
    are not known.
    """
    looks: list[Look] = []
    p_value, changed = None, False
    errors = np.sqrt(np.diag(effects.covariance))
    for place, effect, error in zip(effects.days, effects.effects.tolist(), errors.tolist(), strict=True):
        day = at[int(place)]
        valid = always_valid(effect, error, _visits(aggregate, day), level, plan.tuned_at)
        low, high = valid.ci_low, valid.ci_high
        last = looks[-1] if looks else None
        if last is not None and last.low is not None and last.high is not None and valid.relative is not None:
            changed = changed or not last.low <= valid.relative <= last.high
            if not changed and low is not None and high is not None:
                low, high = max(low, last.low), min(high, last.high)
        if not changed:
            p_value = min((p for p in (p_value, valid.p_value) if p is not None), default=None)
        crossed = p_value is not None and p_value <= level
        looks.append(Look(day, valid.relative, low, high, valid.critical, crossed, changed))
    stopped = next((look.day for look in looks if look.crossed), None)
    reason = None if looks else "no day yet has an effect"
    return replace(curve, looks=tuple(looks), p_value=p_value, stopped_on=stopped, reason=reason)


def _visits(aggregate: Aggregate, day: int) -> float:
    column = "recalls" if "recalls" in aggregate.columns else EXPOSED
    return sum(moments.total(Column(column, i)) for moments in aggregate.moments.values() for i in range(day + 1))
