"""The comparison that a verdict rests on, as the plan has it: one look at the end, bounds at each look, or any time."""

from collections.abc import Sequence
from dataclasses import replace

from abtest.analyse.results import ArmEffect, Course, Look, MetricResult, Now, Planned
from abtest.stats.effects import Effect
from abtest.stats.multiplicity import adjust
from contracts.config.experiment import AnalysisPlan


def planned(results: Sequence[MetricResult], courses: Sequence[Course], plan: AnalysisPlan) -> tuple[MetricResult, ...]:
    """The results with their planned comparisons, p-values corrected.

    Two families are corrected, each for its own number of comparisons: the primary metric over the treatment arms, and
    all other metrics over the arms. A verdict rests on the primary metric, so the others do not blunt it.
    """
    by_course = {(course.metric, course.arm): course for course in courses}
    lines = {
        (result.metric, line.arm): _by_plan(result, line, by_course.get((result.metric, line.arm)), plan)
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


def _by_plan(result: MetricResult, line: ArmEffect, course: Course | None, plan: AnalysisPlan) -> Planned:
    if plan.kind == "fixed":
        by_cuped = plan.cuped and line.adjusted is not None and line.adjusted.ci_low is not None
        effect: Effect = line.adjusted if by_cuped and line.adjusted else line.effect
        bounds = effect.relative, effect.ci_low, effect.ci_high, effect.p_value
        return Planned(plan.kind, by_cuped, *bounds, reason=effect.reason)
    if course is None:
        return Planned(plan.kind, by_cuped=False, reason="a quantile has no sequential interval")
    if not course.looks:
        return Planned(plan.kind, course.by_cuped, reason=course.reason or "the plan has not looked yet")
    look, last = _that_decides(result, course.looks, course.stopped_on), course.looks[-1]
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


def _that_decides(result: MetricResult, looks: Sequence[Look], stopped_on: int | None) -> Look:
    """The look whose numbers the verdict goes by: a decision once made stays, and what comes after is overrun.

    Of the primary metric the first that says ship or hold, else the first that crossed its bound; of a guardrail the
    first that shows that it has lost more than the plan allows. Else the last.
    """
    if result.role == "primary":
        deciding = next((look for look in looks if _says_ship_or_hold(result, look)), None)
        return deciding or next((look for look in looks if look.day == stopped_on), looks[-1])
    if result.role == "guardrail":
        return next((look for look in looks if _has_lost(result, look)), looks[-1])
    return looks[-1]


def _says_ship_or_hold(result: MetricResult, look: Look) -> bool:
    gains = _gains(result, look)
    if gains is None:
        return False
    estimate, low, high = gains
    return high < max(result.minimum_effect, 0.0) or (low > 0 and estimate >= result.minimum_effect)


def _has_lost(result: MetricResult, look: Look) -> bool:
    gains = _gains(result, look)
    return gains is not None and gains[2] < -result.minimum_effect


def _gains(result: MetricResult, look: Look) -> tuple[float, float, float] | None:
    """Estimate and interval with the good direction upwards."""
    if look.relative is None or look.low is None or look.high is None:
        return None
    if result.direction == "increase":
        return look.relative, look.low, look.high
    return -look.relative, -look.high, -look.low
