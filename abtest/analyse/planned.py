"""The comparison that a verdict rests on, as the plan has it: one look at the end, bounds at each look, or any time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from abtest.analyse.results import ArmEffect, Course, Deciding, MetricResult, Now, Planned
from abtest.stats.effects import Effect
from abtest.stats.multiplicity import adjust
from contracts.config.experiment import AnalysisPlan


def planned(
    results: Sequence[MetricResult],
    courses: Sequence[Course],
    plan: AnalysisPlan,
    decided: Mapping[tuple[str, str], Deciding] = MappingProxyType({}),
) -> tuple[MetricResult, ...]:
    """The results with their planned comparisons, p-values corrected.

    Of a sequential plan with the numbers of the look that `decided` has, by metric and arm; else of the last.

    Two families are corrected, each for its own number of comparisons: the primary metric over the treatment arms, and
    all other metrics over the arms. A verdict rests on the primary metric, so the others do not blunt it.
    """
    by_course = {(course.metric, course.arm): course for course in courses}
    lines = {
        (result.metric, line.arm): _by_plan(
            line, by_course.get((result.metric, line.arm)), plan, decided.get((result.metric, line.arm))
        )
        for result in results
        for line in result.effects
    }
    adjusted: dict[tuple[str, str], float | None] = {}
    for primary in (True, False):
        family = {result.metric for result in results if (result.role == "primary") is primary}
        p_values = {key: line.p_value for key, line in lines.items() if key[0] in family}
        adjusted |= adjust(p_values, plan.correction)
    return tuple(
        replace(
            result,
            effects=tuple(
                replace(
                    line,
                    planned=replace(lines[result.metric, line.arm], adjusted_p_value=adjusted[result.metric, line.arm]),
                )
                for line in result.effects
            ),
        )
        for result in results
    )


def _by_plan(line: ArmEffect, course: Course | None, plan: AnalysisPlan, decided: Deciding | None) -> Planned:
    if plan.kind == "fixed":
        by_cuped = plan.cuped and line.adjusted is not None and line.adjusted.ci_low is not None
        effect: Effect = line.adjusted if by_cuped and line.adjusted else line.effect
        bounds = effect.relative, effect.ci_low, effect.ci_high, effect.p_value
        return Planned(plan.kind, by_cuped, *bounds, reason=effect.reason)
    if course is None:
        return Planned(plan.kind, by_cuped=False, reason="a quantile has no sequential interval")
    if not course.looks:
        return Planned(plan.kind, course.by_cuped, reason=course.reason or "the plan has not looked yet")
    last = course.looks[-1]
    look = next((look for look in course.looks if decided is not None and look.day == decided.look), last)
    return Planned(
        plan.kind,
        course.by_cuped,
        look.relative,
        look.low,
        look.high,
        course.p_value,
        critical=look.critical,
        stopped_on=course.stopped_on,
        reason=None if look.low is not None else "nothing may be concluded from this look",
        decided_on=look.day,
        now=None if look.day == last.day else Now(last.day, last.relative, last.low, last.high),
    )
