"""The report as one page that needs no network and no script. Pure: a report and its context in, HTML out."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from abtest import format as fmt
from abtest.analyse.context import ReportContext
from abtest.analyse.results import ArmEffect, Course, Day, MetricResult, Report, Slice
from abtest.analyse.verdict import RULE, RULE_WITHOUT_MODELS
from abtest.report import glossary, wording
from abtest.report.svg.forest import forest
from abtest.report.svg.over_days import Lines, course
from abtest.report.svg.scales import Point, reach
from abtest.report.wording import Relative, by_plan, line
from contracts.config.calendar import Calendar

MARKED = 12  # characters of a hash that a page shows


@dataclass(frozen=True)
class Live:
    """Of a page on an experiment that runs: when it was made and when the state was saved, and how often it renews.

    `refresh_s`: None where it will not be made again. `over`: the experiment has ended, and its verdict is in the
    report alone.
    """

    at_ms: int
    saved_ms: int
    refresh_s: int | None = None
    over: bool = False


def html(report: Report, context: ReportContext, live: Live | None = None) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = _Shown(report, context)
    return environment.get_template("report.html.j2").render(
        report=report,
        context=shown,
        live=live,
        simulated=is_simulated(report, context),
        invalid=report.invalid,
        treatments=[verdict.arm for verdict in report.verdicts],
        rule=RULE if report.models else RULE_WITHOUT_MODELS,
        marked=MARKED,
        fmt=fmt,
        wording=wording,
        terms=glossary.used,
        Relative=Relative,
        by_plan=by_plan,
        headed=lambda verdict: wording.headed(verdict, over=live is not None and live.over),
        line=line,
        card=lambda arm: _card(report, arm),
        panels=lambda arm: _panels(report, context, arm),
        parts=lambda: _parts(report),
    )


def is_simulated(report: Report, context: ReportContext) -> bool:
    """Whether any response was a simulator's: said by the caller or by the events themselves."""
    return context.simulated or report.counts.get("simulated_events", 0) > 0


def finite(value: Any) -> Any:
    """Plain values with null in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


class _Shown:
    """The context with every number finite or None, for the template."""

    def __init__(self, report: Report, context: ReportContext) -> None:
        self.world = context.world
        self.quality: dict[str, float | None] | None = finite(context.response_quality)
        self.models = context.models
        self.configuration = json.dumps(finite(context.configuration), indent=2, default=str, ensure_ascii=False)
        self.counts = context.counts
        self.false_alarms = context.false_alarms
        self.seed = context.seed
        self.commit = context.commit
        self.command = context.command
        self.marked = any(_days_of(report, mark.at_ms) is not None for mark in context.marks)


@dataclass(frozen=True)
class _Row:
    """One metric of a scorecard."""

    result: MetricResult
    line: ArmEffect
    planned: Relative
    plain: Relative
    control: float | None
    treatment: float | None
    std_error: float | None
    side: wording.Side
    plot: Markup


@dataclass(frozen=True)
class _Card:
    """A treatment arm's scorecard: rows by role, in the order of the roles."""

    groups: list[tuple[str, list[_Row]]]
    clipped: bool


def _card(report: Report, arm: str) -> _Card:
    lines = [(result, effect) for result in report.metrics if (effect := line(result, arm)) is not None]
    judged = [point for _, effect in lines if (point := _point(by_plan(effect))) is not None]
    plain = [point for _, effect in lines if (point := _point(Relative.of(effect.effect))) is not None]
    scale = reach(judged or plain, *(result.minimum_effect for result, _ in lines))
    rows = [_row(report, result, effect, scale) for result, effect in lines]
    groups = [
        (title, [row for row in rows if row.result.role == role])
        for role, title in wording.ROLES.items()
        if any(row.result.role == role for row in rows)
    ]
    return _Card(groups, any(max(-point.low, point.high) > scale for point in (*judged, *plain)))


def _row(report: Report, result: MetricResult, effect: ArmEffect, scale: float) -> _Row:
    values = {value.arm: value.value for value in result.arms}
    planned, plain = by_plan(effect), Relative.of(effect.effect)
    beside = _point(plain) if (plain.low, plain.high) != (planned.low, planned.high) else None
    good_sign = 1 if result.direction == "increase" else -1
    least = result.minimum_effect * (-good_sign if result.role == "guardrail" else good_sign)
    side = wording.side(result, planned)
    title = f"{result.label}, {effect.arm} against {report.control}: {planned}; {side}"
    title = f"Not valid. {title}" if report.invalid else title
    plot = forest(_point(planned), beside, scale, title, good=result.direction, least=least or None)
    return _Row(
        result,
        effect,
        planned,
        plain,
        values.get(report.control),
        values.get(effect.arm),
        wording.least_error(result, report.control, effect.arm),
        side,
        Markup(plot),  # noqa: S704 (our own drawing, its texts escaped)
    )


@dataclass(frozen=True)
class _Panel:
    """A metric over the days: the figure, the same in figures, and its trend.

    `last`: all days, as the line is drawn. `planned`: by the plan, where that says something else; `by_cuped`: whether
    the plan goes by CUPED.
    """

    result: MetricResult
    plot: Markup
    rows: list[tuple[Day, Relative, Relative, Course | None]]
    course: Course | None
    last: Relative
    planned: Relative | None
    by_cuped: bool
    trend: str


def _panels(report: Report, context: ReportContext, arm: str) -> list[_Panel]:
    marks = [_days_of(report, mark.at_ms) for mark in context.marks if mark.arm == arm]
    inside = [mark for mark in marks if mark is not None]
    panels = (_panel(report, result, arm, inside) for result in report.metrics)
    return [panel for panel in panels if panel is not None]


def _panel(report: Report, result: MetricResult, arm: str, marks: Sequence[float]) -> _Panel | None:
    days = [
        (day, daily, cumulative)
        for day in report.days
        if (daily := _on(day.daily, result.metric, arm)) and (cumulative := _on(day.cumulative, result.metric, arm))
    ]
    if not days:
        return None
    curve = next((each for each in report.courses if (each.metric, each.arm) == (result.metric, arm)), None)
    looks = [
        (look.day, point, look.crossed)
        for look in (curve.looks if curve else ())
        if (point := _point(Relative(look.relative, look.low, look.high))) is not None
    ]
    lines = Lines(
        [day.date for day, _, _ in days],
        [_point(daily) for _, daily, _ in days],
        [_point(cumulative) for _, _, cumulative in days],
        curve.daily_band if curve else (),
        curve.cumulative_band if curve else (),
        looks,
        marks,
    )
    last = days[-1][2]
    judged = next((each.planned for each in result.effects if each.arm == arm), None)
    planned = Relative.of(judged) if judged else last
    title = (
        f"{'Not valid. ' if report.invalid else ''}{result.label}, {arm} against {report.control}: relative "
        f"difference of each day and of all days so far; after the last day {last}. In figures below."
    )
    return _Panel(
        result,
        Markup(course(lines, title)),  # noqa: S704 (as above)
        [(day, daily, cumulative, curve) for day, daily, cumulative in days],
        curve,
        last,
        planned if planned.has_interval and str(planned) != str(last) else None,
        judged is not None and judged.by_cuped,
        wording.trend_sentence(curve.trend) if curve else "",
    )


@dataclass(frozen=True)
class _Part:
    """A kind of parts, such as segments, for one treatment arm; a drawing of the first metric for each slice.

    `note`: where every slice has the same.
    """

    title: str
    arm: str
    note: str
    slices: list[tuple[Slice, list[tuple[MetricResult, Relative]], Markup]]


def _parts(report: Report) -> Iterable[_Part]:
    for kind in dict.fromkeys(part.kind for part in report.slices):
        of_kind = [part for part in report.slices if part.kind == kind]
        for verdict in report.verdicts:
            lines = [(part, judged) for part in of_kind if (judged := _judged(part, verdict.arm))]
            if not lines:
                continue
            notes = {part.note for part, _ in lines}
            heads = [point for _, judged in lines if (point := _point(judged[0][1])) is not None]
            scale = reach(heads)
            yield _Part(
                wording.PARTS.get(kind, fmt.words(kind).capitalize()),
                verdict.arm,
                notes.pop() if len(notes) == 1 else "",
                [(part, judged, _head(report, part, judged, scale)) for part, judged in lines],
            )


def _judged(part: Slice, arm: str) -> list[tuple[MetricResult, Relative]]:
    """The primary metric and the guardrails; all metrics where a part has neither."""
    comparisons = [(result, Relative.of(effect.effect)) for result in part.metrics if (effect := line(result, arm))]
    return [(result, effect) for result, effect in comparisons if result.role != "diagnostic"] or comparisons


def _head(report: Report, part: Slice, judged: list[tuple[MetricResult, Relative]], scale: float) -> Markup:
    result, difference = judged[0]
    title = f"{'Not valid. ' if report.invalid else ''}{result.label}, {part.name}: {difference}"
    plot = forest(_point(difference), None, scale, title, good=result.direction)
    return Markup(plot)  # noqa: S704 (as above)


def _on(results: Sequence[MetricResult], metric: str, arm: str) -> Relative | None:
    result = next((each for each in results if each.metric == metric), None)
    effect = line(result, arm) if result else None
    return Relative.of(effect.effect) if effect else None


def _point(relative: Relative) -> Point | None:
    if relative.relative is None or relative.low is None or relative.high is None:
        return None
    return Point(relative.relative, relative.low, relative.high)


def _days_of(report: Report, at_ms: int) -> float | None:
    """Days from the start of the first one shown to a moment; None where it lies outside those shown."""
    calendar = Calendar(report.day_offset_ms, report.zone)
    number = calendar.date_number(at_ms)
    begin, end = calendar.midnight_ms(number), calendar.midnight_ms(number + 1)
    days = number - calendar.date_number(report.start_ms) + (at_ms - begin) / (end - begin)
    return days if 0 <= days <= len(report.days) else None
