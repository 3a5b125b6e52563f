"""A report to look at while the experiment runs: whatever its plan, every interval holds at all moments at once.

A plain interval, or one of a plan with few looks, holds for the looks that were planned. Who watches it all week sees
it exclude zero by chance far more often than stated. So none of them is in here: they come with the report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from abtest.analyse.analysis import analyse
from abtest.analyse.checks import ModelFacts
from abtest.analyse.day_checks import has_ended
from abtest.analyse.results import ArmEffect, Course, Day, Look, MetricResult, Planned, Report, Verdict
from abtest.collect.state import CollectorState, plan_of
from abtest.format import instant
from abtest.stats.effects import Effect
from contracts.config.experiment import AnalysisPlan, Experiment

LATER = "comes with the report"
MOVES = "its cap, a quantile of all users, is known when all have come"
MAKE = "driftline experiment report"
Looks = Mapping[tuple[str, str, int], Look]


def live_report(state: CollectorState, models: Sequence[ModelFacts] = ()) -> Report:
    """The report on a state so far, by confidence sequences; `state` is not changed."""
    experiment = state.rules.experiment
    rules = state.rules._replace(experiment=watched(experiment))
    report = analyse(replace(state, rules=rules, plan=plan_of(rules.experiment)), models)
    return always_valid_only(report, experiment.analysis, ended=ended(state, report))


def watched(experiment: Experiment) -> Experiment:
    """The experiment as if its plan were confidence sequences."""
    always = experiment.analysis.model_copy(update={"kind": "confidence-sequence", "looks": ()})
    return experiment.model_copy(update={"analysis": always})


def ended(state: CollectorState, report: Report) -> bool:
    """Whether all days are in, as the report counts them: by the newest event, not by the clock."""
    return has_ended(state.rules.experiment, state.newest_ms, len(report.days))


def decided_elsewhere(plan: AnalysisPlan) -> bool:
    """Whether intervals that hold at all moments are not what the plan goes by: its verdict is the report's alone."""
    return plan.kind != "confidence-sequence"


def always_valid_only(report: Report, plan: AnalysisPlan, *, ended: bool = False) -> Report:
    """A report by confidence sequences, without any interval or p-value of another kind.

    Args:
        report: made as if the plan were confidence sequences.
        plan: what the experiment's own plan is; where it is another one, a verdict waits for it.
        ended: whether all days are in, so that the verdict waits no longer: it is in the report.

    """
    report = _without_moving_caps(report)
    looks = {(course.metric, course.arm, look.day): look for course in report.courses for look in course.looks}
    return replace(
        report,
        plan=plan.model_dump(mode="json"),
        verdicts=tuple(
            _verdict(verdict, plan, instant(report.end_ms, report.day_offset_ms, report.zone), ended)
            for verdict in report.verdicts
        ),
        metrics=tuple(_stripped(result) for result in report.metrics),
        days=tuple(_day(day, looks) for day in report.days),
        courses=tuple(_course(course) for course in report.courses),
        slices=(),
        sources=tuple(replace(row, evr_std_error=None, evr_effect=None) for row in report.sources),
    )


def _without_moving_caps(report: Report) -> Report:
    """No look at a metric whose cap is a pooled quantile: users who come later move it, so no interval holds over days.

    Such an experiment's plan has one look at the end; its verdict waits for that.
    """
    moving = {cap.metric: cap.label for cap in report.winsorized if cap.of == "pooled"}
    if not moving:
        return report
    return replace(
        report,
        verdicts=tuple(
            replace(verdict, broken=tuple(label for label in verdict.broken if label not in moving.values()))
            for verdict in report.verdicts
        ),
        metrics=tuple(
            replace(result, effects=tuple(_waiting(line) for line in result.effects))
            if result.metric in moving
            else result
            for result in report.metrics
        ),
        courses=tuple(
            replace(course, looks=(), p_value=None, stopped_on=None, reason=MOVES)
            if course.metric in moving
            else course
            for course in report.courses
        ),
    )


def _waiting(line: ArmEffect) -> ArmEffect:
    waits = Planned("confidence-sequence", by_cuped=False, reason=MOVES)
    return replace(line, planned=waits, deciding=None)


def _verdict(verdict: Verdict, plan: AnalysisPlan, end: str, ended: bool) -> Verdict:
    if verdict.decision == "invalid" or not decided_elsewhere(plan):
        return verdict
    when = "at its looks" if plan.kind == "group-sequential" else "after the last day"
    text = f"The experiment is being watched; its plan decides {when}, in the report ({MAKE})."
    if ended:
        text = f"The experiment has ended at {end}; the verdict by its plan is in the report ({MAKE})."
    return Verdict(verdict.arm, "inconclusive", text, verdict.broken)


def _stripped(result: MetricResult) -> MetricResult:
    """With planned comparisons alone."""
    effects = tuple(ArmEffect(line.arm, _later(), line.cautions, planned=line.planned) for line in result.effects)
    arms = tuple(replace(arm, std_error=None) for arm in result.arms)
    return replace(result, arms=arms, effects=effects)


def _day(day: Day, looks: Looks) -> Day:
    """All days so far by that day's look; nothing of the day alone."""
    return replace(
        day,
        daily=tuple(_stripped(result) for result in day.daily),
        cumulative=tuple(
            replace(
                _stripped(result),
                effects=tuple(
                    ArmEffect(line.arm, _of_look(looks.get((result.metric, line.arm, day.day))), line.cautions)
                    for line in result.effects
                ),
            )
            for result in day.cumulative
        ),
    )


def _course(course: Course) -> Course:
    days = len(course.cumulative_band)
    waits = replace(
        course.trend, slope=None, std_error=None, low=None, high=None, p_value=None, start=None, reason=LATER
    )
    return replace(course, daily_band=(None,) * days, cumulative_band=(None,) * days, looks=(), trend=waits)


def _of_look(look: Look | None) -> Effect:
    if look is None or look.relative is None or look.low is None or look.high is None:
        return Effect(reason="no interval yet")
    return Effect(relative=look.relative, ci_low=look.low, ci_high=look.high)


def _later() -> Effect:
    return Effect(reason=LATER)
