"""Whether the data are whole: days, arms, events without use, metrics that say nothing. Counts in, checks out.

Thresholds are shares of events. What is said stands in the report whatever the share; a level above "ok" is for shares
that could move a figure by as much as people read from it.
"""

from collections.abc import Iterator, Mapping, Sequence

from abtest.aggregate.aggregate import EXPOSED, Aggregate
from abtest.analyse.day_checks import changed, date_of, day_of, ending, idle_days, last_day, part_days
from abtest.analyse.results import ArmEffect, Check, Level, MetricResult
from abtest.analyse.shown import shown_of
from abtest.collect.observed import Observed
from abtest.collect.records import NOT_OURS_YET, NOTHING, USERS_FORGOTTEN, Unused
from abtest.format import counted, listed, number, part, share, words
from abtest.format import least as asked
from abtest.stats.columns import Column
from abtest.stats.split import SRM_ALPHA
from contracts.config.experiment import Experiment
from contracts.messages.events import Reason

UNREADABLE = 0.001  # one event in a thousand: no figure moves by what is read from it unless these users differ wildly
SKEWED = 0.001  # as above: events whose clock is wrong, or whose feedback comes before its exposure
REPEATED = 0.05  # at-least-once delivery repeats some events after a restart; a twentieth of all is too many for that
LOST = 0.01  # a user without exposure is in no arm: this many lost, and arms may have lost different users
LATE = 0.05  # some people do come back to an item after hours; more than these, and the window is too short
VOID = 0.1  # above this share of events without use, those that are left need not be like those that are not
IMPLAUSIBLE = 0.2  # a fifth: a change of recall that moves a metric by more would be seen without an experiment


def quality_of(
    aggregate: Aggregate, experiment: Experiment, observed: Observed, metrics: Sequence[MetricResult]
) -> tuple[Check, ...]:
    """Every check of the data.

    Args:
        aggregate: of the experiment's users.
        experiment: its file.
        observed: what was counted beside; nothing is said of events where no event was counted.
        metrics: over the whole experiment.

    """
    return (
        empty_arms(aggregate.users, experiment),
        missing_days(aggregate, experiment, observed.newest_ms),
        *part_days(experiment),
        *last_day(experiment, observed.newest_ms),
        *changed(experiment),
        *ending(experiment, observed.newest_ms, aggregate.days),
        *events(observed.counts),
        *shown_of({arm: observed.arms.get(arm, NOTHING) for arm in experiment.arms}, observed.counts),
        *forgotten(observed.counts, sum(aggregate.users.values())),
        *rows(observed.counts, sum(aggregate.users.values())),
        *(check for checks in (estimable(metrics), power(metrics)) for check in checks),
    )


def empty_arms(users: Mapping[str, int], experiment: Experiment) -> Check:
    """Whether every arm has users.

    With n users elsewhere, an arm of share s has none with probability (1 − s)ⁿ: that is how a small start is told from
    an arm that is not served.
    """
    name, title = "empty_arms", "Arms without users"
    empty = [arm for arm, count in users.items() if not count]
    n = sum(users.values())
    if not empty:
        return Check(name, title, "ok", f"None: each of {counted(len(users), 'arm')} has users.", users)
    if not n:
        return Check(name, title, "unknown", "No user has been seen in any arm.", users)
    text = f"No user has been seen in {listed(empty)}, {number(n)} in the other arms."
    return Check(name, title, _by_chance(empty, n, experiment), text, users)


def missing_days(aggregate: Aggregate, experiment: Experiment, newest_ms: int = 0) -> Check:
    """Whether each day up to the last one seen has exposures in every arm. Before a ramp's first step none has to.

    A day that one arm lacks makes the arms incomparable: their users have had different days.
    """
    one, many = ("row", "rows") if experiment.assignment == "external" else ("exposure", "exposures")
    name, title = "missing_days", f"Days without {many}"
    begin = next((step.from_ms for step in experiment.ramp if step.share), experiment.start_ms)
    last_ms = min(max(newest_ms, experiment.start_ms), experiment.end_ms - 1)
    idle = idle_days(experiment)
    days = range(day_of(experiment, begin), max(aggregate.days, day_of(experiment, last_ms) + 1))
    seen = {
        day: {
            arm: round(m.total(Column(EXPOSED, day))) if day < aggregate.days else 0
            for arm, m in aggregate.moments.items()
        }
        for day in days
        if day not in idle
    }
    none = [day for day, users in seen.items() if not any(users.values())]
    lacking = {day: [arm for arm, n in users.items() if not n] for day, users in seen.items() if day not in none}
    lacking = {day: arms for day, arms in lacking.items() if arms}
    numbers = {"days": len(seen), "without_exposures": len(none), "without_exposures_in_an_arm": len(lacking)}
    if not sum(aggregate.users.values()):
        return Check(name, title, "unknown", f"No {one} has been seen on any day.", numbers)
    if not none and not lacking:
        was = "has rows" if one == "row" else "was shown"
        return Check(name, title, "ok", f"None of {counted(len(seen), 'day')}: every arm {was} on each.", numbers)
    levels = {_by_chance(arms, sum(seen[day].values()), experiment) for day, arms in lacking.items()}
    clauses = [f"Nothing was seen on {listed([date_of(experiment, day) for day in none])}"] if none else []
    clauses += [f"nothing in {listed(arms)} on {date_of(experiment, day)}" for day, arms in lacking.items()]
    text = "; ".join(clauses)
    return Check(name, title, "invalid" if "invalid" in levels else "warning", f"{text[0].upper()}{text[1:]}.", numbers)


def events(counts: Mapping[str, int]) -> Iterator[Check]:
    """What became of events that no figure has."""
    exposures, feedback = counts.get("exposures", 0), counts.get("feedback", 0)
    bad = {name.removeprefix("bad_"): n for name, n in sorted(counts.items()) if name.startswith("bad_") and n}
    future = bad.pop(Reason.FUTURE_TIMESTAMP, 0)
    unreadable, everything = sum(bad.values()), exposures + feedback + future + sum(bad.values())
    if not everything:
        return
    why = f": {', '.join(f'{number(n)} {words(reason)}' for reason, n in bad.items())}" if bad else ""
    text = f"{part(unreadable, everything, 'event')} could not be read{why}"
    yield _graded("unreadable", "Events that could not be read", unreadable, everything, text, UNREADABLE, VOID, bad)

    other = counts.get(Unused.OTHER_DEFINITION, 0)
    if other:
        text = f"{part(other, exposures, 'exposure', ('is', 'are'))} from replicas that had another definition of the "
        text += "experiment, and in no figure"
        title = "Exposures of another definition"
        yield _graded(str(Unused.OTHER_DEFINITION), title, other, exposures, text, UNREADABLE, VOID)

    outside = counts.get(NOT_OURS_YET, 0)
    skewed = future + outside
    text = f"{part(skewed, everything, 'event', ('has', 'have'))} a wrong time: {number(future)} later than received, "
    text += f"{counted(outside, 'exposure')} outside the period of the experiment named"
    numbers = {"future": future, NOT_OURS_YET: outside}
    yield _graded("clock", "Clocks", skewed, everything, text, SKEWED, VOID, numbers)

    numbers = {str(name): counts.get(name, 0) for name in (Unused.DUPLICATE_EXPOSURE, Unused.DUPLICATE_FEEDBACK)}
    repeated = sum(numbers.values())
    text = f"{part(repeated, exposures + feedback, 'event', ('was a repeat', 'were repeats'))}; each event counts once"
    yield _graded("duplicates", "Repeated events", repeated, exposures + feedback, text, REPEATED, None, numbers)

    responses = feedback - counts.get(Unused.DUPLICATE_FEEDBACK, 0)
    if responses:
        early = counts.get(Unused.BEFORE_EXPOSURE, 0)
        text = f"{part(early, responses, 'feedback event', ('is', 'are'))} from before the exposure, and in no figure"
        title = "Feedback before its exposure"
        yield _graded(str(Unused.BEFORE_EXPOSURE), title, early, responses, text, SKEWED, VOID)

        lost = counts.get(Unused.NO_EXPOSURE, 0)
        text = f"{part(lost, responses, 'feedback event')} had no exposure, or came after all was counted for it"
        yield _graded(str(Unused.NO_EXPOSURE), "Feedback without exposure", lost, responses, text, LOST)

        wrong = {str(name): counts.get(name, 0) for name in (Unused.NOT_SHOWN, Unused.OTHER_USER)}
        names = "names", "name"
        text = (
            f"{part(sum(wrong.values()), responses, 'feedback event', names)} an item or a user that the exposure lacks"
        )
        title = "Feedback that does not match"
        yield _graded("mismatched_feedback", title, sum(wrong.values()), responses, text, UNREADABLE, VOID, wrong)
    late = {str(name): counts.get(name, 0) for name in (Unused.TOO_LATE, Unused.LATE_FEEDBACK, Unused.LATE_EXPOSURE)}
    late_feedback = late[Unused.TOO_LATE] + late[Unused.LATE_FEEDBACK]
    text = f"{counted(late_feedback, 'feedback event')} came late or after the attribution window, "
    text += f"{counted(late[Unused.LATE_EXPOSURE], 'exposure')} after that time had been counted; no figure has them"
    worst = max(
        (late_feedback / responses if responses else 0.0) / LATE,
        (late[Unused.LATE_EXPOSURE] / exposures if exposures else 0.0) / LOST,
    )
    yield Check("late", "Late events", "ok" if worst <= 1 else "warning", f"{text}.", late)


def forgotten(counts: Mapping[str, int], users: int) -> Iterator[Check]:
    """How many users asked to be forgotten, who were in the experiment; said where any has.

    Arms may have lost different users by it, where the arms themselves made them ask.
    """
    gone = counts.get(USERS_FORGOTTEN, 0)
    if gone:
        are = ("was", "were")
        text = f"{part(gone, gone + users, 'user', are)} forgotten on request, and in no figure over users"
        numbers = {USERS_FORGOTTEN: gone}
        yield _graded(USERS_FORGOTTEN, "Forgotten users", gone, gone + users, text, LOST, numbers=numbers)


def rows(counts: Mapping[str, int], users: int) -> Iterator[Check]:
    """What became of a table's rows of users and days that no figure has (`abtest.read.rows`); nothing of events."""
    read = counts.get("rows", 0)
    if not read:
        return
    outside, testers = counts.get("rows_outside_days", 0), counts.get("rows_of_testers", 0)
    text = f"{part(outside, read, 'row', ('is', 'are'))} on days that the experiment does not have, "
    text += f"{number(testers)} of testers; "
    numbers = {"rows_of_testers": testers}
    yield _graded("rows", "Rows left out", outside, read, f"{text}no figure has them", SKEWED, VOID, numbers)
    late = counts.get("rows_late", 0)
    if late:
        text = f"{part(late, read + late, 'row')} came after the day had been kept; no figure has them"
        yield _graded("rows_late", "Late rows", late, read + late, text, SKEWED, VOID, {})
    unknown, strangers = counts.get("users_without_pre", 0), counts.get("pre_users_without_rows", 0)
    if unknown or strangers:
        text = f"Of {part(unknown, users, 'user')} nothing is known from before, which CUPED is told; "
        text += f"{counted(strangers, 'user')} known from before {'was' if strangers == 1 else 'were'} not seen."
        numbers = {"users_without_pre": unknown, "pre_users_without_rows": strangers}
        yield Check("covariates", "Users without a past", "ok", text, numbers)
    columns = [name for name in ("arm", "day") if counts.get(f"pre_{name}_left_out")]
    if columns:
        text = f"Left out of the table of covariates: {' and '.join(columns)}; "
        text += "such a column describes a row and not a user."
        yield Check("no_covariates", "Columns that are no covariates", "ok", text, dict.fromkeys(columns, 1))


def estimable(metrics: Sequence[MetricResult]) -> Iterator[Check]:
    """Metrics that have no value or no interval, such as those with nothing in their denominator."""
    if not metrics:
        return
    why = {
        f"{result.metric}:{line.arm}": f"{result.label}: {line.effect.reason}"
        for result in metrics
        for line in result.effects
        if line.effect.reason
    }
    title = "Metrics that can be estimated"
    if not why:
        yield Check("estimable", title, "ok", f"All: {counted(len(metrics), 'metric')}.")
        return
    yield Check("estimable", title, "unknown", f"Not all. {'. '.join(dict.fromkeys(why.values()))}.", why)


def power(metrics: Sequence[MetricResult]) -> Iterator[Check]:
    """Metrics that would miss any difference one could expect, or the least that the plan asks for: no news is no news.

    A metric's minimum detectable effect is what the experiment would have found with the stated power.
    """
    lines = [(result, line, _detectable(line)) for result in metrics for line in result.effects]
    estimable = [(result, line, least) for result, line, least in lines if least is not None]
    if not estimable:
        return
    blind: dict[str, float] = {}
    clauses = []
    for result, line, least in estimable:
        wanted = min(result.minimum_effect or IMPLAUSIBLE, IMPLAUSIBLE)
        if least > wanted:
            blind[f"{result.metric}:{line.arm}"] = least
            clauses.append(f"{result.label} of {line.arm} from ±{share(least)} only ({asked(wanted)} would matter)")
    title = "Differences that would be found"
    if not blind:
        yield Check("power", title, "ok", f"All metrics would show {share(IMPLAUSIBLE, 0)} or less.")
        return
    text = f"{'; '.join(clauses)}. Where no difference shows there may still be one."
    yield Check("power", title, "unknown", text, blind)


def _by_chance(empty: Sequence[str], users: int, experiment: Experiment) -> Level:
    """A warning where arms may be empty by chance, with so many users in the others; else invalid."""
    weight = sum(spec.weight for spec in experiment.arms.values())
    left = 1 - sum(experiment.arms[arm].weight for arm in empty) / weight
    return "warning" if left**users >= SRM_ALPHA else "invalid"


def _graded(
    name: str,
    title: str,
    count: int,
    total: int,
    text: str,
    warns: float,
    voids: float | None = None,
    numbers: Mapping[str, int] | None = None,
) -> Check:
    of = count / total if total else 0.0
    level: Level = "ok" if of <= warns else "warning" if voids is None or of <= voids else "invalid"
    return Check(name, title, level, f"{text}.", {"events": count, "share": of, **(numbers or {})})


def _detectable(line: ArmEffect) -> float | None:
    by_cuped = line.planned is not None and line.planned.by_cuped and line.adjusted is not None
    return (line.adjusted if by_cuped and line.adjusted else line.effect).minimum_detectable
