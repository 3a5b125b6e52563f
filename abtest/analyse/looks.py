"""What a sequential plan decides: every look is judged by what was known after it, and a decision once made stays.

A look has its own users, its own evidence and its own interval, so nothing that comes after it can take it back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from abtest.analyse.deciding import judge
from abtest.analyse.results import ArmEffect, Course, Day, Deciding, Look, MetricResult
from abtest.analyse.verdict import not_judged, of_primary
from abtest.analyse.weighing import Users, Weighed, of_interval, weigh
from abtest.stats.metrics import Declared
from contracts.config.experiment import Experiment

NO_LOOKS = "a quantile has no sequential interval"
NOT_YET = "the plan has not looked yet"
NOTHING = "nothing may be concluded from this look"
CHANGED = "the effect has changed: its estimate has left what the days before allow"

Key = tuple[str, str]  # metric, arm


@dataclass(frozen=True)
class History:
    """An experiment as it was after each day.

    `metrics`: what is compared. `days`: with the comparisons of all days so far. `courses`: with the looks.
    `users_through`: those of all days up to one, counted from 0. `criticals`: by role and look, the critical value of a
    comparison that has no log ratio. `level_of`: a role's level of one comparison.
    """

    experiment: Experiment
    metrics: Sequence[Declared]
    days: Sequence[Day]
    courses: Sequence[Course]
    users_through: Callable[[int], Users]
    criticals: Mapping[str, Mapping[int, float]]
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
        found = _judged(primary, line.arm, history)
        decisive = next((by for by in found if of_primary(primary, by)[0] != "inconclusive"), None)
        crossed = (by for by in found if by.better.holds or by.worse.holds)
        since[line.arm] = decisive.look if decisive else None
        decided[primary.metric, line.arm] = _with_last(decisive or next(crossed, found[-1]), found[-1])
    for result in results:
        for line in result.effects if result.role == "guardrail" else ():
            found = _judged(result, line.arm, history)
            decided[result.metric, line.arm] = _with_last(_of_guardrail(found, since[line.arm]), found[-1])
    return decided


def _judged(result: MetricResult, arm: str, history: History) -> list[Deciding]:
    """At each look, at least one."""
    level, criticals = history.level_of(result.role), history.criticals[result.role]
    course = next((each for each in history.courses if (each.metric, each.arm) == (result.metric, arm)), None)
    if course is None:
        return [Deciding(reason=NO_LOOKS, level=level)]
    looks = {look.day: look for look in course.looks}
    days = sorted({*looks, *criticals})
    if not days:
        return [Deciding(reason=course.reason or NOT_YET, level=level)]
    metric = next(metric for metric in history.metrics if metric.name == result.metric)
    control, plan = history.experiment.control, history.experiment.analysis
    found = []
    for day in days:
        users = history.users_through(day)
        so_far, line = _through(history.days[day], result.metric, arm)
        weighed = weigh(so_far, line, metric, users, control, plan.alpha, by_cuped=plan.cuped)
        found.append(replace(_at_look(weighed, looks.get(day), criticals.get(day), level), look=day))
    return found


def _of_guardrail(found: Sequence[Deciding], decided_on: int | None) -> Deciding:
    broken = next((by for by in found if by.worse.holds and not by.worse.doubt), None)
    if broken or decided_on is None:
        return broken or found[-1]
    after = (by for by in found if by.look is not None and by.look >= decided_on and not_judged(by) is None)
    return next(after, found[-1])


def _with_last(by: Deciding, last: Deciding) -> Deciding:
    """With the last look where it is a later one, and its estimate where that lies outside the deciding interval."""
    if by.look == last.look:
        return by
    now = last.estimate if last.method in (None, by.method) else None
    if now is None or by.low is None or by.high is None or by.low <= now <= by.high:
        return replace(by, last=last.look)
    return replace(by, last=last.look, since=now)


def _through(day: Day, metric: str, arm: str) -> tuple[MetricResult, ArmEffect]:
    """A comparison over all days up to one."""
    result = next(result for result in day.cumulative if result.metric == metric)
    return result, next(line for line in result.effects if line.arm == arm)


def _at_look(weighed: Weighed, look: Look | None, critical: float | None, level: float) -> Deciding:
    """`critical`: of a comparison by the difference; one by the log ratio has the look's."""
    statistic = weighed.statistic
    if statistic is None:
        return Deciding(reason=weighed.reason, level=level)
    if look is not None and look.changed:
        return Deciding(reason=CHANGED, level=level, estimate=look.relative)
    if not statistic.on_log:
        return judge(weighed, level, critical) if critical is not None else Deciding(reason=NOTHING, level=level)
    looked = None if look is None or look.critical is None else of_interval(look.low, look.high, look.critical)
    if look is None or look.critical is None or looked is None:
        return Deciding(reason=NOTHING, level=level)
    looked = replace(looked, control=statistic.control)
    others = tuple(
        (
            name,
            replace(
                looked,
                estimate=looked.estimate + other.estimate - statistic.estimate,
                std_error=looked.std_error * other.std_error / statistic.std_error,
            )
            if other.on_log
            else other,
        )
        for name, other in weighed.others
    )
    judged = judge(replace(weighed, statistic=looked, others=others), level, look.critical)
    return replace(judged, estimate=look.relative)  # a running intersection need not lie evenly about it
