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
    told = bool(before.data_hash and after.data_hash)
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
    return Diff(before.data_hash == after.data_hash if told else None, changes)


def _named(kind: Kind, before: dict[str, str], after: dict[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        was, now = before.get(name, NOTHING), after.get(name, NOTHING)
        if was != now:
            yield Change(kind, name, was, now)


def _facts(of: Report) -> dict[str, str]:
    models = ", ".join(f"{arm}: {model}" for arm, model in of.models.items())
    return {"name": of.experiment, "hypothesis": of.hypothesis or NOTHING, "models": models}


def _users(of: Report) -> dict[str, str]:
    by_arm = {arm: fmt.number(users) for arm, users in of.split.users.items()}
    return {**by_arm, "in two arms": fmt.number(of.users_in_two_arms)}


def _days(of: Report) -> dict[str, str]:
    last = f", to {of.days[-1].date}" if of.days else ""
    return {"seen": f"{len(of.days)} of {of.days_planned}{last}"}


def _checks(of: Report) -> dict[str, str]:
    return {check.title: f"{LEVELS[check.level][1]}: {check.said}" for check in of.checks}


def _verdicts(of: Report) -> dict[str, str]:
    return {verdict.arm: f"{DECISIONS[verdict.decision][1]}: {verdict.because}" for verdict in of.verdicts}


def _metrics(of: Report) -> dict[str, str]:
    return {result.label: judged_by(result) for result in of.metrics}


def _effects(before: Report, after: Report) -> Iterator[Change]:
    """By the plan, over the whole experiment. An effect of an invalid report is called so."""
    was = {(result.metric, found.arm): result for result in before.metrics for found in result.effects}
    now = {(result.metric, found.arm): result for result in after.metrics for found in result.effects}
    for key in dict.fromkeys((*was, *now)):
        arm = key[1]
        said = [_effect(of, found.get(key), arm) for of, found in ((before, was), (after, now))]
        if said[0] != said[1]:
            result = now.get(key) or was[key]
            sides = [_side(of, found.get(key), arm) for of, found in ((before, was), (after, now))]
            note = "" if sides[0] == sides[1] else f"{sides[0]} → {sides[1]}"
            yield Change("effect", f"{result.label}, {arm}", said[0], said[1], note, judged_by(result))


def _effect(of: Report, result: MetricResult | None, arm: str) -> str:
    found = line(result, arm) if result else None
    if found is None:
        return NOTHING
    return f"not valid: {by_plan(found)}" if of.invalid else str(by_plan(found))


def _side(of: Report, result: MetricResult | None, arm: str) -> str:
    found = line(result, arm) if result else None
    if result is None or found is None:
        return NOTHING
    return "not valid" if of.invalid else side(result, by_plan(found))
