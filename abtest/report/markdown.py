"""The report as Markdown, to be pasted into a ticket: verdict, checks, scorecard, days. Names from data are escaped."""

import re
from collections.abc import Iterable, Sequence

from abtest import format as fmt
from abtest.analyse.context import ReportContext
from abtest.analyse.results import ArmEffect, MetricResult, Report, Verdict
from abtest.report.html import is_simulated
from abtest.report.wording import (
    CORRECTIONS,
    DECISIONS,
    LEVELS,
    ROLES,
    Relative,
    by_gravity,
    by_plan,
    checks_summary,
    cried_wolf,
    dated,
    decides,
    least_error,
    line,
    overrun,
    period,
    plan_lines,
    side,
    to_do,
    trend_sentence,
    warnings_summary,
)

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#!])")


def text(words: str) -> str:
    r"""What data says, as Markdown that shows just that.

    >>> text("a|b <i>*c*</i>")
    'a\\|b \\<i\\>\\*c\\*\\</i\\>'
    """
    return _SPECIAL.sub(r"\\\1", " ".join(words.split()))


def markdown(report: Report, context: ReportContext) -> str:
    """The report; effects of an invalid one are struck."""
    parts = [f"# {text(report.experiment)}", *_lead(report, context)]
    warned = warnings_summary(report.checks)
    for verdict in report.verdicts:
        symbol, word = DECISIONS[verdict.decision]
        parts.append(f"## {symbol} {word}: {text(verdict.arm)}")
        parts.append(f"{text(verdict.because)} **{text(to_do(report, verdict))}**")
        parts += _decides(report, verdict)
        parts.append(f"{text(warned)}. [See the checks](#checks)." if warned else "")
    parts.append(cried_wolf(context.false_alarms) if context.false_alarms else "")
    parts.append(
        "By the plan: " + "; ".join(f"{name.lower()}: {text(value)}" for name, value in plan_lines(report)) + "."
    )
    parts.append(f"## Checks\n\n{checks_summary(report.checks)}.")
    levels = [(f"{LEVELS[check.level][0]} {LEVELS[check.level][1]}", check) for check in by_gravity(report.checks)]
    parts.append(_table(["", "Check", "Finding"], [[level, text(c.title), text(c.said)] for level, c in levels]))
    parts.append(_split(report))
    for verdict in report.verdicts:
        parts.append(f"## Scorecard: {text(verdict.arm)} against {text(report.control)}")
        parts.append(_scorecard(report, verdict.arm))
        parts += _days(report, verdict.arm)
    parts.append(_foot(report, context))
    return "\n\n".join(part for part in parts if part) + "\n"


def _decides(report: Report, verdict: Verdict) -> Iterable[str]:
    """What the verdict rests on, corrected for the number of arms; struck where the report is invalid."""
    shown = [
        decides(result, line(result, verdict.arm))
        for result in report.metrics
        if (result.label in verdict.broken if verdict.broken else result.role == "primary")
    ]
    yield from (f"Decided on: {f'~~{text(each)}~~' if report.invalid else text(each)}." for each in shown if each)


def _lead(report: Report, context: ReportContext) -> Iterable[str]:
    if is_simulated(report, context):
        yield "**Simulated responses**: a simulator, not people, answered what was shown."
    if report.hypothesis:
        yield f"> {text(report.hypothesis)}"
    models = {arm: f" ({text(report.models.get(arm, '?'))})" if report.models else "" for arm in report.arms}
    arms = fmt.listed([f"{text(arm)}{models[arm]}" for arm in report.arms])
    users = fmt.counted(sum(report.split.users.values()), "user")
    owner = f" Owner: {text(report.owner)}." if report.owner else ""
    days = f"; {period(report)}, {len(report.days)} of {fmt.counted(report.days_planned, 'day')} seen"
    yield f"Arms {arms}; {users}{days if dated(report) else ''}.{owner}"


def _split(report: Report) -> str:
    rows = [
        [text(arm), fmt.number(users), fmt.number(report.split.expected.get(arm))]
        for arm, users in report.split.users.items()
    ]
    return _table(["Arm", "Users", "Expected"], rows)


def _scorecard(report: Report, arm: str) -> str:
    correction = str(report.plan.get("correction", "none"))
    level = fmt.level(float(report.plan.get("alpha", 0.05)))
    heads = [
        "Metric",
        text(report.control),
        text(arm),
        f"By the plan, {level}",
        "p",
        "Corrected p",
        "Plain, 95 %",
        "CUPED",
    ]
    heads[5] = f"{CORRECTIONS.get(correction, correction)} p" if correction != "none" else heads[5]
    rows = []
    for result in report.metrics:
        effect = line(result, arm)
        if effect is None:
            continue
        values = {value.arm: value.value for value in result.arms}
        error = least_error(result, report.control, arm)
        planned = by_plan(effect)
        adjusted = effect.planned.adjusted_p_value if effect.planned else None
        rows.append(
            [
                f"{text(result.label)} ({_role(result)})",
                fmt.value(values.get(report.control), result.unit, error),
                fmt.value(values.get(arm), result.unit, error),
                _by_plan(report, result, effect),
                fmt.p_value(planned.p_value),
                fmt.p_value(adjusted),
                _effect(report, Relative.of(effect.effect)),
                _effect(report, Relative.of(effect.adjusted)) if effect.adjusted else fmt.DASH,
            ]
        )
    return _table(heads, rows)


def _days(report: Report, arm: str) -> Iterable[str]:
    if not report.days:
        return
    names = {result.metric: result for result in report.days[0].daily}
    shown = [result for result in names.values() if result.role != "diagnostic"] or list(names.values())
    yield f"### Day by day: {text(arm)}"
    rows = [
        [
            day.date,
            fmt.number(sum(day.new_users.values())),
            *(_of_day(report, day.cumulative, result, arm) for result in shown),
        ]
        for day in report.days
    ]
    yield _table(["Through", "New users", *(text(result.label) for result in shown)], rows)
    for curve in report.courses:
        if curve.arm == arm and curve.metric in {result.metric for result in shown}:
            yield f"- {text(names[curve.metric].label)}: {text(trend_sentence(curve.trend))}"


def _of_day(report: Report, results: Sequence[MetricResult], metric: MetricResult, arm: str) -> str:
    result = next((each for each in results if each.metric == metric.metric), None)
    effect = line(result, arm) if result else None
    return _effect(report, Relative.of(effect.effect)) if effect else fmt.DASH


def _effect(report: Report, relative: Relative) -> str:
    return f"~~{text(str(relative))}~~" if report.invalid else text(str(relative))


def _by_plan(report: Report, result: MetricResult, effect: ArmEffect) -> str:
    planned, later = by_plan(effect), overrun(effect)
    if report.invalid:
        return _effect(report, planned)
    return f"{_effect(report, planned)} {side(result, planned)}{f' ({text(later)})' if later else ''}".strip()


def _role(result: MetricResult) -> str:
    name = ROLES[result.role].lower().removesuffix("s")
    return name if result.direction == "increase" else f"{name}, less is better"


def _foot(report: Report, context: ReportContext) -> str:
    facts = [
        ("data", report.data_hash[:12]),
        ("commit", context.commit or ""),
        ("seed", "" if context.seed is None else str(context.seed)),
        ("days cut at midnight", fmt.zone(report.day_offset_ms, report.zone) if dated(report) else ""),
        ("report format", str(report.schema_version)),
    ]
    return "; ".join(f"{name} {text(value)}" for name, value in facts if value) + "."


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
