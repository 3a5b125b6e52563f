"""What a sequential plan decides: every look is judged by what was known after it, and a decision once made stays.

A look has its own users, its own evidence and its own interval, so nothing that comes after it can take it back.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from abtest.analyse.deciding import judge
from abtest.analyse.results import Course, Day, Deciding, Look, MetricResult
from abtest.analyse.verdict import decides, not_judged
from abtest.analyse.weighing import Statistic, Users, Weighed, of_interval, weigh
from abtest.stats.metrics import Declared
from contracts.config.experiment import Experiment

NO_LOOKS = "a quantile has no sequential interval"
NOT_YET = "the plan has not looked yet"
NOTHING = "nothing may be concluded from this look"
CHANGED = "the effect has changed: its estimate has left what the days before allow"

Key = tuple[str, str]  # metric, arm


class _Look(Protocol):
    """What decides by one look; `hidden` costs more, see `judge`."""

    def __call__(self, *, hidden: bool) -> Deciding: ...


@dataclass(frozen=True)
class History:
    """An experiment as it was after each day.

    `metrics`: what is compared. `days`: with the comparisons of all days so far. `at`: the looks so far, from day 0.
    `courses`: with the looks of log ratios. `users_through`: those of all days up to one. `critical_of`: at a role's
    look, of a comparison that has no log ratio; None where there is none. `level_of`: a role's level of one comparison.
    """

    experiment: Experiment
    metrics: Sequence[Declared]
    days: Sequence[Day]
    at: Sequence[int]
    courses: Sequence[Course]
    users_through: Callable[[int], Users]
    critical_of: Callable[[str, int], float | None]
    level_of: Callable[[str], float]


def decided_at_looks(results: Sequence[MetricResult], history: History) -> dict[Key, Deciding]:
    """By metric and arm what decides, of the look at which it was decided.

    Of the primary metric that is the first look that says ship or hold, else the first that crossed its bound. Of a
    guardrail the first that shows that it has lost more than the plan allows, else the first from the primary metric's
    decision on at which it can be judged. Else the last.

    Args:
        results: over the whole experiment.
        history: the same after each day.

    """
    decided: dict[Key, Deciding] = {}
    since: dict[str, int | None] = {}
    primary = next(result for result in results if result.role == "primary")
    for line in primary.effects:
        looks, found = _looks(primary, line.arm, history), list[Deciding]()
        for look in looks:
            found.append(look(hidden=False))
            if decides(primary, found[-1]):
                break
        by, last = found[-1], found[-1] if len(found) == len(looks) else looks[-1](hidden=False)
        since[line.arm] = by.look if decides(primary, by) else None
        if since[line.arm] is None:
            by = next((by for by in found if by.better.holds or by.worse.holds), by)
        decided[primary.metric, line.arm] = _with_last(by, last)
    for result in results:
        for line in result.effects if result.role == "guardrail" else ():
            decided[result.metric, line.arm] = _of_guardrail(_looks(result, line.arm, history), since[line.arm])
    return decided


def _looks(result: MetricResult, arm: str, history: History) -> "list[_Look]":
    """In order, at least one."""
    level = history.level_of(result.role)
    course = next((each for each in history.courses if (each.metric, each.arm) == (result.metric, arm)), None)
    if course is None or not history.at:
        reason = NO_LOOKS if course is None else course.reason or NOT_YET
        return [lambda *, hidden: Deciding(reason=reason, level=level)]  # noqa: ARG005 no look knows more
    metric = next(metric for metric in history.metrics if metric.name == result.metric)
    looks = {look.day: look for look in course.looks}
    return [partial(_judged, metric, arm, history, day, looks.get(day)) for day in history.at]


def _judged(metric: Declared, arm: str, history: History, day: int, look: Look | None, *, hidden: bool) -> Deciding:
    plan = history.experiment.analysis
    result = next(result for result in history.days[day].cumulative if result.metric == metric.name)
    line = next(line for line in result.effects if line.arm == arm)
    users = history.users_through(day)
    weighed = weigh(result, line, metric, users, history.experiment.control, plan.alpha, by_cuped=plan.cuped)
    return replace(_at_look(weighed, look, day, history, hidden=hidden), look=day)


def _of_guardrail(looks: "Sequence[_Look]", decided_on: int | None) -> Deciding:
    found = [look(hidden=False) for look in looks]
    broken = next((by for by in found if by.worse.holds and not by.worse.doubt), None)
    if broken:
        return _with_last(broken, found[-1])
    if decided_on is not None:
        for look, by in zip(looks, found, strict=True):
            if by.look is None or by.look < decided_on:
                continue
            judged = look(hidden=True)
            if not_judged(judged) is None:
                return _with_last(judged, found[-1])
    return looks[-1](hidden=True)


def _with_last(by: Deciding, last: Deciding) -> Deciding:
    """With the last look where it is a later one, and its estimate where that lies outside the deciding interval."""
    if by.look == last.look:
        return by
    now = last.estimate if last.method in (None, by.method) else None
    if now is None or by.low is None or by.high is None or by.low <= now <= by.high:
        return replace(by, last=last.look)
    return replace(by, last=last.look, since=now)


def _at_look(weighed: Weighed, look: Look | None, day: int, history: History, *, hidden: bool) -> Deciding:
    """By the difference with a bound of its own; by the log ratio with the look's interval."""
    statistic, role = weighed.statistic, weighed.result.role
    level = history.level_of(role)
    if statistic is None:
        return Deciding(reason=weighed.reason, level=level)
    if look is not None and look.changed:
        return Deciding(reason=CHANGED, level=level, estimate=look.relative)
    if not statistic.on_log:
        critical = history.critical_of(role, day)
        if critical is None:
            return Deciding(reason=NOTHING, level=level)
        return judge(weighed, level, critical, hidden=hidden)
    looked = None if look is None or look.critical is None else of_interval(look.low, look.high, look.critical)
    if look is None or look.critical is None or looked is None:
        return Deciding(reason=NOTHING, level=level)
    by_look = replace(looked, control=statistic.control)

    def agreeing() -> Iterator[tuple[str, Statistic]]:
        for name, other in weighed.others:
            estimate = by_look.estimate + other.estimate - statistic.estimate
            error = by_look.std_error * other.std_error / statistic.std_error
            yield name, replace(by_look, estimate=estimate, std_error=error) if other.on_log else other

    judged = judge(replace(weighed, statistic=by_look, agreeing=agreeing), level, look.critical, hidden=hidden)
    return replace(judged, estimate=look.relative)  # a running intersection need not lie evenly about it
