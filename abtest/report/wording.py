"""How results read: the words that the page, Markdown and the terminal share. Pure functions of a report's values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from abtest import format as fmt
from abtest.analyse.capping import by_plan as capped_by_plan
from abtest.analyse.context import FalseAlarms
from abtest.analyse.results import ArmEffect, Check, Decision, Level, MetricResult, Planned, Report, Verdict
from abtest.stats.effects import Effect
from abtest.stats.novelty import Trend
from contracts.config.calendar import Calendar
from contracts.snapshots.parts import Part

Side = Literal["better", "worse", "unclear"]

DECISIONS: dict[Decision, tuple[str, str]] = {
    "ship": ("▲", "Ship"),
    "hold": ("▼", "Hold"),
    "inconclusive": ("◆", "Inconclusive"),
    "invalid": ("✕", "Invalid"),
}
ENDED = ("■", "Ended")
LEVELS: dict[Level, tuple[str, str]] = {
    "ok": ("✓", "Fine"),
    "unknown": ("?", "Not known"),
    "warning": ("!", "Warning"),
    "invalid": ("✕", "Invalid"),
}
GRAVEST: tuple[Level, ...] = ("invalid", "warning", "unknown", "ok")
SIDES: dict[Side, str] = {"better": "✓", "worse": "!", "unclear": "◆"}
ROLES = {"primary": "Primary", "guardrail": "Guardrails", "diagnostic": "Diagnostics"}
LEAST = {"primary": "worth shipping from", "guardrail": "may lose", "diagnostic": "worth knowing from"}
CORRECTIONS = {"holm": "Holm", "bh": "Benjamini–Hochberg", "none": "none"}
PARTS = {
    "segment": "Segments of users",
    "age": "By age of the model",
    "model_age": "By age of the model",
    "version": "By snapshot version",
    "snapshot": "By snapshot version",
}


@dataclass(frozen=True)
class Relative:
    """A relative difference and its interval, as fractions; what a person reads of an effect or a plan's comparison."""

    relative: float | None
    low: float | None
    high: float | None
    p_value: float | None = None
    reason: str | None = None

    @classmethod
    def of(cls, effect: Effect | Planned) -> "Relative":
        """The relative difference of either."""
        if isinstance(effect, Planned):
            return cls(effect.relative, effect.low, effect.high, effect.p_value, effect.reason)
        return cls(effect.relative, effect.ci_low, effect.ci_high, effect.p_value, effect.reason)

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return self.relative is not None and self.low is not None and self.high is not None

    @property
    def digits(self) -> int:
        """Decimals of the percentage that its interval bears."""
        if self.low is None or self.high is None:
            return 1
        return fmt.digits((self.high - self.low) / 2)

    @property
    def estimate(self) -> str:
        """The difference.

        >>> Relative(0.02, 0.011, 0.029).estimate
        '+2.00 %'
        """
        return fmt.signed(self.relative, self.digits)

    @property
    def interval(self) -> str:
        """The interval in brackets; nothing where there is none.

        >>> Relative(0.02, 0.011, 0.029).interval
        '[+1.10 %, +2.90 %]'
        """
        if self.low is None or self.high is None:
            return ""
        return f"[{fmt.signed(self.low, self.digits)}, {fmt.signed(self.high, self.digits)}]"

    def __str__(self) -> str:
        if not self.has_interval:
            estimate = "" if self.relative is None else f"{self.estimate}; "
            return f"{estimate}{self.reason or 'not known'}"
        return f"{self.estimate} {self.interval}"


def side(result: MetricResult, relative: Relative) -> Side:
    """Which side of zero the whole interval lies on, as good or bad for this metric.

    >>> latency = MetricResult("latency", "Latency", "ms", "", "diagnostic", "decrease", 0.0, (), ())
    >>> side(latency, Relative(-0.02, -0.03, -0.01)), side(latency, Relative(0.01, -0.01, 0.03))
    ('better', 'unclear')
    """
    if relative.low is None or relative.high is None or relative.low <= 0 <= relative.high:
        return "unclear"
    return "better" if (relative.low > 0) == (result.direction == "increase") else "worse"


def judged_by(result: MetricResult) -> str:
    """A metric's role, what is worse, and how much of it counts.

    >>> judged_by(MetricResult("latency", "Latency", "ms", "", "guardrail", "decrease", 0.05, (), ()))
    'guardrail; more is worse; may rise by 5.0 %'
    """
    words = [result.role, "less is worse" if result.direction == "increase" else "more is worse"]
    if result.minimum_effect:
        rises = result.role == "guardrail" and result.direction == "decrease"
        words.append(f"{'may rise by' if rises else LEAST[result.role]} {fmt.least(result.minimum_effect)}")
    return "; ".join(words)


def line(result: MetricResult, arm: str) -> ArmEffect | None:
    """The comparison of one arm; None where the metric has none."""
    return next((each for each in result.effects if each.arm == arm), None)


def least_error(result: MetricResult, *arms: str) -> float | None:
    """The smaller of the arms' standard errors, so that their values are shown with as many decimals; None: none has
    any.
    """
    errors = [each.std_error for each in result.arms if each.arm in arms and each.std_error]
    return min(errors, default=None)


def by_plan(effect: ArmEffect) -> Relative:
    """What the plan goes by, or the plain comparison where none is planned."""
    return Relative.of(effect.planned or effect.effect)


def overrun(effect: ArmEffect) -> str:
    """What a sequential plan's last look shows after the decision; nothing where the decision is of the last look."""
    now = effect.planned.now if effect.planned else None
    if now is None or effect.planned is None or effect.planned.decided_on is None:
        return ""
    shown = Relative(now.relative, now.low, now.high)
    return f"of day {effect.planned.decided_on + 1}; overrun, after day {now.day + 1}: {shown}"


def decides(result: MetricResult, effect: ArmEffect | None) -> str:
    """The interval that the verdict rests on, corrected for the number of arms; nothing where there is none.

    >>> from abtest.analyse.results import Deciding
    >>> deciding = Deciding("log ratio", 0.02, 0.011, 0.029, level=0.0125)
    >>> decides(MetricResult("e", "EVR", "%", "", "primary", "increase", 0.0, (), ()), ArmEffect("a", Effect(),
    ...     deciding=deciding))
    'EVR +2.00 % [+1.10 %, +2.90 %] at 98.75 %, by the log ratio'
    """
    by = effect.deciding if effect else None
    if by is None or by.method is None or by.estimate is None or by.low is None or by.high is None:
        return ""
    at = f"at {fmt.level(by.level)}, by the {by.method}"
    if by.method == "log ratio":
        return f"{result.label} {Relative(by.estimate, by.low, by.high)} {at}"
    estimate, low, high = (fmt.difference(end, result.unit) for end in (by.estimate, by.low, by.high))
    return f"{result.label} {estimate} [{low}, {high}] {at}"


def cried_wolf(alarms: FalseAlarms) -> str:
    """How often the verdict was wrong on shuffled users, in a sentence.

    >>> cried_wolf(FalseAlarms(200, 0.02, (0.01, 0.05), 0.05, (0.02, 0.1), 0.0, (0.0, 0.03), 9000))[:83]
    'The verdict on 200 weeks of 9,000 shuffled users of this experiment, in which no ar'
    """
    parts = [
        f"{word} in {fmt.share(rate)} ({fmt.share(low)} to {fmt.share(high)})"
        for word, rate, (low, high) in (
            ("ship", alarms.ship, alarms.ship_interval),
            ("hold", alarms.hold, alarms.hold_interval),
            ("a broken guardrail", alarms.broken, alarms.broken_interval),
        )
    ]
    weeks, users = fmt.counted(alarms.replicates, "week"), fmt.counted(alarms.users, "shuffled user")
    weeks = f"The verdict on {weeks} of {users} of this experiment, in which no arm differs, in one look"
    return f"{weeks}: {fmt.listed(parts)}."


def period(report: Report) -> str:
    """From when to when the experiment runs, on its own clock."""
    zone = fmt.zone(report.day_offset_ms, report.zone)
    begin, end = (fmt.instant(at_ms, report.day_offset_ms, report.zone) for at_ms in (report.start_ms, report.end_ms))
    return f"{begin.removesuffix(zone).strip()} to {end}"


def dated(report: Report) -> bool:
    """Whether days are dates: a table that numbers them, or has none, begins on day 0 of the calendar."""
    return bool(report.models) or Calendar(report.day_offset_ms, report.zone).date_number(report.start_ms) != 0


def plan_lines(report: Report) -> list[tuple[str, str]]:
    """How the experiment is analysed, as names and values."""
    plan = report.plan
    primary = next((result for result in report.metrics if result.metric == report.primary), None)
    least = primary.minimum_effect if primary else 0.0
    alpha = float(plan.get("alpha", 0.05))
    kind, looks = _analysis(plan, report.days_planned)
    caps = "; ".join(f"{cap.label}: {capped_by_plan(cap)}" for cap in report.winsorized)
    return [
        ("Analysis", kind),
        ("Looks", looks),
        ("Error level", f"{100 * alpha:.6g} % two-sided, so intervals at {fmt.level(alpha)}"),
        ("CUPED", "yes, where users are known from before" if plan.get("cuped") else "no"),
        ("Correction for several metrics", CORRECTIONS.get(str(plan.get("correction")), str(plan.get("correction")))),
        ("Least effect worth shipping", f"{fmt.least(least)} of {primary.label}" if least and primary else "any"),
        *([("Arms' training data", "pooled" if plan.get("pooled_training") else "apart")] if report.models else []),
        *([("Arms' freshness", "meant to differ")] if plan.get("unlike_freshness") else []),
        *([("Caps", caps)] if caps else []),
    ]


def _analysis(plan: Mapping[str, Any], days: int) -> tuple[str, str]:
    if plan.get("kind") == "group-sequential":
        looks = [str(day) for day in plan.get("looks", ())]
        every = f"after each of {days} days" if days > 1 else "after its one day"
        after = f"after day {fmt.listed(looks)} of {days}" if looks else every
        return "group-sequential", f"{after}, and no others"
    if plan.get("kind") == "confidence-sequence":
        return "confidence sequence", "at any time: the intervals hold at all moments at once"
    return "fixed horizon", f"one, after day {days}"


def to_do(report: Report, verdict: Verdict) -> str:
    """What to do after a verdict."""
    if verdict.decision == "invalid":
        faults = [check.title for check in report.checks if check.level == "invalid"]
        where = f" ({fmt.listed(faults)})" if faults else ""
        salt = " with a new salt" if report.models else ""
        return f"Use no effect below. Mend what the checks name{where}, and run the experiment again{salt}."
    if verdict.decision == "ship":
        return _shipped(report, verdict)
    if verdict.decision == "hold":
        return f"Keep {report.control}; do not ship {verdict.arm}."
    left = report.days_planned - len(report.days)
    if left > 0:
        of = fmt.counted(report.days_planned, "day")
        wait = f"Let it run: {left} of {of} {'is' if left == 1 else 'are'} still to come."
        broken = f" But look at {fmt.listed(verdict.broken)} now." if verdict.broken else ""
        return wait + broken
    if any(check.level == "warning" and check.name.startswith("interference") for check in report.checks):
        apart = "Let each model learn from its own arm’s users alone, or from all by weight, and run it again."
        return f"Keep {report.control} for now. {apart}"
    return f"Keep {report.control} for now. To decide, run it with more users or for longer."


def _shipped(report: Report, verdict: Verdict) -> str:
    weigh = any(check.level == "warning" for check in report.checks)
    others = [other.arm for other in report.verdicts if other.decision == "ship" and other.arm != verdict.arm]
    if others and not verdict.beside:
        return f"Give {verdict.arm} to everyone, or {fmt.listed(others)}: the one that improved most."
    if verdict.beside.endswith("improved less than " + _best(report) + "."):
        return f"Give {_best(report)} to everyone instead: {verdict.beside}"
    if verdict.beside:
        return f"Give one arm to everyone. {verdict.beside}"
    return f"Give {verdict.arm} to everyone{', once you have weighed the warnings below' if weigh else ''}."


def _best(report: Report) -> str:
    """Of several arms that would ship, the one that improved most."""
    for each in report.verdicts:
        if each.beside.startswith((f"Ship {each.arm};", f"{each.arm} improved most")):
            return each.arm
    return ""


def headed(verdict: Verdict, *, over: bool) -> tuple[str, str]:
    """Symbol and word of a verdict. `over`: the experiment has ended, and this view is not what its plan goes by.

    >>> headed(Verdict("a", "inconclusive", "."), over=True)[1], headed(Verdict("a", "invalid", "."), over=True)[1]
    ('Ended', 'Invalid')
    """
    return ENDED if over and verdict.decision == "inconclusive" else DECISIONS[verdict.decision]


def sentence(verdict: Verdict) -> str:
    """A verdict in a line, for a terminal.

    >>> sentence(Verdict("treatment", "hold", "Play duration fell by more than the plan allows."))
    'Hold: treatment. Play duration fell by more than the plan allows.'
    """
    return f"{DECISIONS[verdict.decision][1]}: {verdict.arm}. {verdict.because} {verdict.beside}".rstrip()


def by_gravity(checks: Sequence[Check]) -> list[Check]:
    """The gravest first, else as they were.

    >>> [check.name for check in by_gravity([Check("a", "A", "ok", "."), Check("b", "B", "invalid", ".")])]
    ['b', 'a']
    """
    return sorted(checks, key=lambda check: GRAVEST.index(check.level))


def warnings_summary(checks: Sequence[Check]) -> str:
    """How many warnings there are, and of what; nothing where there are none.

    >>> warnings_summary([Check("a", "Clocks", "ok", "."), Check("b", "Late events", "warning", ".")])
    '1 warning: Late events'
    """
    titles = [check.title for check in checks if check.level == "warning"]
    return f"{fmt.counted(len(titles), 'warning')}: {fmt.listed(titles)}" if titles else ""


def checks_summary(checks: Sequence[Check]) -> str:
    """How many checks stand how.

    >>> checks_summary([Check("a", "A", "ok", "."), Check("b", "B", "ok", "."), Check("c", "C", "warning", ".")])
    '3 checks: 2 fine, 1 warning'
    """
    levels = [check.level for check in checks]
    counts = [(levels.count(level), LEVELS[level][1].lower()) for level in reversed(GRAVEST)]
    by_level = ", ".join(f"{count} {word}" for count, word in counts if count)
    return f"{fmt.counted(len(checks), 'check')}{': ' + by_level if by_level else ''}"


def trend_sentence(trend: Trend) -> str:
    """Whether an effect wears off over the days, in a sentence.

    >>> trend_sentence(Trend(7, -0.01, 0.003, -0.016, -0.004, 0.001, 0.05))
    'The effect wears off: −1.00 % a day [−1.60 %, −0.40 %], p = .001.'
    """
    if trend.slope is None or trend.low is None or trend.high is None or trend.p_value is None:
        return f"No trend told: {trend.reason}."
    decimals = fmt.digits((trend.high - trend.low) / 2)
    change = f"{fmt.signed(trend.slope, decimals)} a day"
    interval = f"[{fmt.signed(trend.low, decimals)}, {fmt.signed(trend.high, decimals)}], {fmt.p_value(trend.p_value)}"
    if trend.low <= 0 <= trend.high:
        return f"No clear trend over the days: {change} {interval}."
    return f"The effect {_over_days(trend.start, trend.slope, trend.days)}: {change} {interval}."


def _over_days(start: float | None, slope: float, days: int) -> str:
    """What a straight line over the days does to an effect.

    >>> [_over_days(start, 0.01, 7) for start in (-0.1, -0.02, -0.001, 0.02)]
    ['wears off', 'turns around', 'grows', 'grows']
    """
    end = (start or 0.0) + slope * (days - 1)
    if start is None or abs(end) > abs(start):
        return "turns around" if start is not None and start * end < 0 and abs(start) > abs(slope) else "grows"
    return "wears off"


def jackknife_ratio(effect: ArmEffect) -> str:
    """The jackknife's standard error beside the delta method's, as a ratio: far from 1, one of them is wrong."""
    jackknife, error = effect.jackknife, effect.effect.difference_std_error
    if jackknife is None:
        return fmt.DASH
    if jackknife.difference_std_error is None or not error:
        return jackknife.reason or fmt.DASH
    return f"{jackknife.difference_std_error / error:.2f} × ({fmt.counted(jackknife.buckets, 'bucket')})"


def part_worth(model: str, part: Part) -> str:
    """What a part of a model is worth, in a sentence.

    >>> part_worth("t2diff", Part("guess", False, -0.001, -0.004, 0.002))
    'Recall@20 of t2diff with its guess, beside without: −0.1 % (−0.4 % to +0.2 %); it is served without.'
    >>> part_worth("t2diff", Part("guess", False))
    'What the guess of t2diff is worth is not known yet; it is served without.'
    """
    served = "it is served with it" if part.served else "it is served without"
    if part.worth is None:
        return f"What the {part.name} of {model} is worth is not known yet; {served}."
    worth, low, high = (fmt.signed(each, 1) for each in (part.worth, part.low, part.high))
    return f"Recall@20 of {model} with its {part.name}, beside without: {worth} ({low} to {high}); {served}."
