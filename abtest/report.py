"""The report as files: `report.html`, one page that needs no network, and `report.json` with every digit."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from abtest import format as fmt
from abtest.checks import INTERFERENCE, ModelFacts
from abtest.novelty import BIAS_ALPHA
from abtest.plots import Point, course, forest
from abtest.results import ArmEffect, MetricResult, Report
from abtest.state import PRE_DAYS
from abtest.stats import SRM_ALPHA, Effect
from abtest.verdict import RULE


@dataclass(frozen=True)
class ReportContext:
    """What the state cannot know. Everything has a default; what is left out is not shown.

    `response_quality`: auc, log_loss, predicted_mean, observed_mean, expected_calibration_error, play_mae_s,
    play_mae_constant_s, play_median_abs_error_s, rows; any of them may be missing.
    """

    simulated: bool = False
    world: str = ""
    response_quality: Mapping[str, float | None] | None = None
    models: tuple[ModelFacts, ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    seed: int | None = None
    commit: str | None = None


def write(report: Report, context: ReportContext, out: Path) -> None:
    """Write `report.html` and `report.json` into the directory `out`, which is made where it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text(html(report, context), encoding="utf-8")
    text = json.dumps(to_json(report, context), indent=2, allow_nan=False, ensure_ascii=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")


def to_json(report: Report, context: ReportContext) -> dict[str, Any]:
    """The report and its context as plain values. A context number that is not finite becomes null."""
    return {**report.to_json(), "simulated": is_simulated(report, context), "context": _finite(asdict(context))}


def is_simulated(report: Report, context: ReportContext) -> bool:
    """Whether any response was a simulator's: said by the caller or by the events themselves."""
    return context.simulated or report.counts.get("simulated_events", 0) > 0


def html(report: Report, context: ReportContext) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2")
    return page.render(
        report=report,
        context=_Shown(context),
        simulated=is_simulated(report, context),
        invalid=report.invalid,
        rule=RULE,
        srm_alpha=SRM_ALPHA,
        bias_alpha=BIAS_ALPHA,
        pre_days=PRE_DAYS,
        interference=INTERFERENCE,
        treatments=[verdict.arm for verdict in report.verdicts],
        fmt=fmt,
        interval=interval,
        relative=relative,
        forest=_forest,
        course=lambda index, arm: _course(report, index, arm),
        line=_line,
    )


def relative(effect: Effect) -> str:
    """The relative difference, with as many digits as its interval bears."""
    return fmt.signed(effect.relative, _digits(effect))


def interval(effect: Effect) -> str:
    """The 95 % interval in brackets.

    >>> interval(Effect(relative=0.02, ci_low=0.011, ci_high=0.029))
    '[+1.10 %, +2.90 %]'
    """
    if effect.ci_low is None or effect.ci_high is None:
        return ""
    decimals = _digits(effect)
    return f"[{fmt.signed(effect.ci_low, decimals)}, {fmt.signed(effect.ci_high, decimals)}]"


class _Shown:
    """The context with every number finite or None, for the template."""

    def __init__(self, context: ReportContext) -> None:
        self.world = context.world
        self.quality: dict[str, float | None] | None = _finite(context.response_quality)
        self.models = context.models
        self.configuration = json.dumps(_finite(context.configuration), indent=2, default=str, ensure_ascii=False)
        self.counts = context.counts
        self.seed = context.seed
        self.commit = context.commit


def _digits(effect: Effect) -> int:
    if effect.ci_low is None or effect.ci_high is None:
        return 1
    return fmt.digits((effect.ci_high - effect.ci_low) / 2)


def _line(result: MetricResult, arm: str) -> ArmEffect:
    return next(line for line in result.effects if line.arm == arm)


def _point(effect: Effect) -> Point | None:
    if effect.relative is None or effect.ci_low is None or effect.ci_high is None:
        return None
    return Point(effect.relative, effect.ci_low, effect.ci_high)


def _forest(result: MetricResult, line: ArmEffect) -> Markup:
    title = f"{result.label}: {relative(line.effect)}, 95 % interval {interval(line.effect)}"
    return Markup(forest(_point(line.effect), title))  # noqa: S704 (our own drawing, its texts escaped)


def _course(report: Report, index: int, arm: str) -> Markup:
    daily = [_line(day.daily[index], arm).effect for day in report.days]
    cumulative = [_line(day.cumulative[index], arm).effect for day in report.days]
    result = report.metrics[index]
    title = (
        f"{result.label}, {arm} against {report.control}: relative difference of each day and of all days so far; "
        f"after the last day {relative(cumulative[-1])} {interval(cumulative[-1])}"
    )
    points = [_point(effect) for effect in daily], [_point(effect) for effect in cumulative]
    return Markup(course([day.date for day in report.days], *points, title))  # noqa: S704 (as above)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
