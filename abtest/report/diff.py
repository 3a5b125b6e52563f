"""What changed between two reports: verdicts, effects, checks, users. A pure function of both."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from abtest import format as fmt
from abtest.analyse.results import MetricResult, Report
from abtest.report.wording import DECISIONS, LEVELS, by_plan, judged_by, line, plan_lines, side

Kind = Literal["experiment", "plan", "users", "days", "check", "verdict", "metric", "effect"]
NOTHING = fmt.DASH


@dataclass(frozen=True)
class Change:
    """One thing that the two reports say differently, as they say it.

    `note`: what follows, where something does. `judged`: of an effect, its metric's role, and what is worse.
    """

    kind: Kind
    name: str
    before: str
    after: str
    note: str = ""
    judged: str = ""


@dataclass(frozen=True)
class Diff:
    """Two reports compared. `same_data`: both were made of the same data; None where one does not say of which."""

    same_data: bool | None
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, text and null."""
        return asdict(self)


def diff(before: Report, after: Report) -> Diff:
    """What `after` says differently."""
    comparable = bool(before.data_hash and after.data_hash)
    changes = (
        *_named("experiment", _facts(before), _facts(after)),
        *_named("plan", dict(plan_lines(before)), dict(plan_lines(after))),
        *_named("users", _users(before), _users(after)),
        *_named("days", _days(before), _days(after)),
        *_named("check", _checks(before), _checks(after)),
        *_named("verdict", _verdicts(before), _verdicts(after)),
        *_named("metric", _metrics(before), _metrics(after)),
        *_effects(before, after),
    )
    return Diff(before.data_hash == after.data_hash if comparable else None, changes)


def _named(kind: Kind, before: dict[str, str], after: dict[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        was, now = before.get(name, NOTHING), after.get(name, NOTHING)
        if was != now:
            yield Change(kind, name, was, now)


def _facts(report: Report) -> dict[str, str]:
    models = ", ".join(f"{arm}: {model}" for arm, model in report.models.items())
    return {"name": report.experiment, "hypothesis": report.hypothesis or NOTHING, "models": models}


def _users(report: Report) -> dict[str, str]:
    by_arm = {arm: fmt.number(users) for arm, users in report.split.users.items()}
    return {**by_arm, "in two arms": fmt.number(report.users_in_two_arms)}


def _days(report: Report) -> dict[str, str]:
    last = f", to {report.days[-1].date}" if report.days else ""
    return {"seen": f"{len(report.days)} of {report.days_planned}{last}"}


def _checks(report: Report) -> dict[str, str]:
    return {check.title: f"{LEVELS[check.level][1]}: {check.said}" for check in report.checks}


def _verdicts(report: Report) -> dict[str, str]:
    return {verdict.arm: f"{DECISIONS[verdict.decision][1]}: {verdict.because}" for verdict in report.verdicts}


def _metrics(report: Report) -> dict[str, str]:
    return {result.label: judged_by(result) for result in report.metrics}


def _effects(before: Report, after: Report) -> Iterator[Change]:
    """By the plan, over the whole experiment. An effect of an invalid report is called so."""
    was = {(result.metric, effect.arm): result for result in before.metrics for effect in result.effects}
    now = {(result.metric, effect.arm): result for result in after.metrics for effect in result.effects}
    for key in dict.fromkeys((*was, *now)):
        arm = key[1]
        texts = [_effect(report, results.get(key), arm) for report, results in ((before, was), (after, now))]
        if texts[0] != texts[1]:
            result = now.get(key) or was[key]
            sides = [_side(report, results.get(key), arm) for report, results in ((before, was), (after, now))]
            note = "" if sides[0] == sides[1] else f"{sides[0]} → {sides[1]}"
            yield Change("effect", f"{result.label}, {arm}", texts[0], texts[1], note, judged_by(result))


def _effect(report: Report, result: MetricResult | None, arm: str) -> str:
    effect = line(result, arm) if result else None
    if effect is None:
        return NOTHING
    return f"not valid: {by_plan(effect)}" if report.invalid else str(by_plan(effect))


def _side(report: Report, result: MetricResult | None, arm: str) -> str:
    effect = line(result, arm) if result else None
    if result is None or effect is None:
        return NOTHING
    return "not valid" if report.invalid else side(result, by_plan(effect))
