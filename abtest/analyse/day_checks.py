"""An experiment's period and its days: which it has in part, which are over, what operators did in it. Checks out."""

from collections.abc import Iterator
from datetime import UTC, datetime

from abtest.analyse.results import Check
from abtest.format import counted, instant, listed, share
from contracts.config.calendar import iso_date
from contracts.config.changes import Change, in_force_order, pauses
from contracts.config.experiment import Experiment
from contracts.runtime.clock import HOUR_MS, MINUTE_MS

WHOLE_DAY_MS = HOUR_MS  # the last hour of a day may pass without an event


def idle_days(experiment: Experiment) -> set[int]:
    """The days on which operators had nobody assigned from the first moment to the last."""
    stretches = pauses(experiment.changes, experiment.end_ms)
    return {
        day
        for day in range(experiment.days)
        for begin_ms, end_ms in stretches
        if begin_ms <= _end_ms(experiment, day) - _length_ms(experiment, day) and _end_ms(experiment, day) <= end_ms
    }


def changed(experiment: Experiment) -> Iterator[Check]:
    """What operators did while it ran; nothing where they did nothing.

    All arms alike were paused, ramped or stopped, and nobody changed arm, so arms stay comparable. But its users have
    had less of it, and not all of its days; a plan that looks at a fixed end has none after a stop.
    """
    changes = experiment.changes
    if not changes:
        return

    def told(change: Change) -> str:
        share_ = "the plan's share" if change.share is None else share(change.share)
        what = {"pause": "paused", "resume": "resumed", "stop": "stopped"}.get(change.kind, f"ramped to {share_}")
        at = instant(change.from_ms, experiment.day_offset_ms, experiment.zone)
        notes = ", ".join(filter(None, (f"by {change.by}" if change.by else "", change.why)))
        return f"{what} from {at} on{f' ({notes})' if notes else ''}"

    lost_ms = sum(end - begin for begin, end in pauses(changes, experiment.end_ms))
    text = "; ".join(map(told, in_force_order(changes)))
    text = f"The experiment was {text}. Nobody was assigned for {_span(lost_ms)} of its period; nobody changed arm"
    if stopped(experiment) and experiment.analysis.kind == "fixed":
        text += ". Its plan decides at its end, which is not to come: nothing is decided by what there is"
    numbers = {"changes": len(changes), "unassigned_hours": lost_ms / HOUR_MS}
    yield Check("changes", "What was done to it while it ran", "warning", f"{text}.", numbers)


def part_days(experiment: Experiment) -> Iterator[Check]:
    """Whether the experiment has all of its first and its last day; nothing where it has."""
    parts: dict[int, list[str]] = {}
    for day, time_ms, verb in ((0, experiment.start_ms, "starts"), (experiment.days - 1, experiment.end_ms, "ends")):
        if time_ms != experiment.calendar.midnight_ms(experiment.calendar.date_number(time_ms)):
            parts[day] = [*parts.get(day, []), f"{verb} at {_clock(experiment, time_ms)}"]
    if not parts:
        return
    has = [f"of {date_of(experiment, day)} it has {_span(_length_ms(experiment, day))}" for day in parts]
    when = listed([part for of_day in parts.values() for part in of_day])
    text = f"The experiment {when}: {listed(has)}. Sums per user of a part of a day are smaller than those of a whole "
    text += "one: compare the arms on it, not it with other days."
    numbers = {date_of(experiment, day): _length_ms(experiment, day) / HOUR_MS for day in parts}
    yield Check("part_days", "Days that the experiment has in part", "warning", text, numbers)


def last_day(experiment: Experiment, newest_ms: int) -> Iterator[Check]:
    """Whether the last day is whole: sums per user of a day that goes on are smaller than those of other days."""
    if not newest_ms or newest_ms < experiment.start_ms:
        return
    name, title = "last_day", "The last day"
    newest_ms = min(newest_ms, experiment.end_ms)
    day = day_of(experiment, min(newest_ms, experiment.end_ms - 1))
    ends_ms = _end_ms(experiment, day)
    date, numbers = date_of(experiment, day), {"newest_ms": newest_ms, "ends_ms": ends_ms}
    if ends_ms - newest_ms <= WHOLE_DAY_MS:
        whole = _length_ms(experiment, day) == _day_ms(experiment, day)
        is_whole = "is whole" if whole else f"is over, {_span(_length_ms(experiment, day))} of it"
        yield Check(name, title, "ok", f"{date} {is_whole}.", numbers)
        return
    until = _clock(experiment, newest_ms)
    text = f"{date} is not whole: events go up to {until}. Compare its arms, not it with other days."
    yield Check(name, title, "warning", text, numbers)


def days_over(experiment: Experiment, newest_ms: int, seen: int) -> int:
    """How many of the `seen` days nothing more is to come of, by the newest event; all of them where that is not known.

    A look of a plan, and the end of an experiment, are after whole days: a day that goes on would be looked at twice.
    """
    if not newest_ms:
        return seen
    return sum(_end_ms(experiment, day) - newest_ms <= WHOLE_DAY_MS for day in range(seen))


def stopped(experiment: Experiment) -> bool:
    """Whether an operator has stopped it before its end."""
    return any(change.kind == "stop" for change in experiment.changes)


def has_ended(experiment: Experiment, newest_ms: int, seen: int) -> bool:
    """Whether it has come to its end, by the newest event, or where that is not known by the `seen` days; on the last
    day there need not have been anybody. One that was stopped has not, and will not.
    """
    if stopped(experiment):
        return False
    past = bool(newest_ms) and experiment.end_ms - newest_ms <= WHOLE_DAY_MS
    return past or days_over(experiment, newest_ms, seen) >= experiment.days


def ending(experiment: Experiment, newest_ms: int, seen: int) -> Iterator[Check]:
    """What an experiment that has not ended waits for; nothing where it has ended, or was stopped.

    A last day of a sliver is none that anybody planned: a fixed offset cuts days an hour off where clocks changed.
    """
    over = days_over(experiment, newest_ms, seen)
    if has_ended(experiment, newest_ms, seen) or stopped(experiment):
        return
    name, title = "end", "The end"
    last = experiment.days - 1
    begins_ms = experiment.calendar.midnight_ms(experiment.first_date + last)
    sliver_ms = experiment.end_ms - begins_ms
    waited = [date_of(experiment, day) for day in dict.fromkeys((over, last))]
    end = instant(experiment.end_ms, experiment.day_offset_ms, experiment.zone)
    of = f"{over} of {counted(experiment.days, 'day')} {'is' if over == 1 else 'are'} over"
    if over and _length_ms(experiment, 0) != _day_ms(experiment, 0):
        of += f", the first of them with {_span(_length_ms(experiment, 0))} only"
    text = f"{of}; what is waited for is {' to '.join(waited)}, up to {end}"
    numbers = {"over": over, "days": experiment.days, "end_ms": experiment.end_ms}
    if experiment.days > 1 and sliver_ms <= WHOLE_DAY_MS:
        text += f". Of {waited[-1]} the experiment has {_span(sliver_ms)}: if its days are those of a "
        text += "place whose clocks change, name that (zone: Europe/Berlin) instead of an offset"
        yield Check(name, title, "warning", f"{text}.", numbers)
        return
    yield Check(name, title, "ok", f"{text}.", numbers)


def _end_ms(experiment: Experiment, day: int) -> int:
    return min(experiment.calendar.midnight_ms(experiment.first_date + day + 1), experiment.end_ms)


def _length_ms(experiment: Experiment, day: int) -> int:
    """How much of a day the experiment has."""
    begins_ms = experiment.calendar.midnight_ms(experiment.first_date + day)
    return _end_ms(experiment, day) - max(begins_ms, experiment.start_ms)


def _day_ms(experiment: Experiment, day: int) -> int:
    """How long a day is: 23 or 25 hours where clocks change."""
    date = experiment.first_date + day
    return experiment.calendar.midnight_ms(date + 1) - experiment.calendar.midnight_ms(date)


def _clock(experiment: Experiment, time_ms: int) -> str:
    local_ms = time_ms + experiment.calendar.offset_at_ms(time_ms)
    return datetime.fromtimestamp(local_ms / 1000, UTC).strftime("%H:%M")


def _span(length_ms: int) -> str:
    """A length of time.

    >>> _span(9 * HOUR_MS), _span(HOUR_MS + 30 * MINUTE_MS), _span(30_000)
    ('9 hours', '1 hour and 30 minutes', 'less than a minute')
    """
    hours, minutes = divmod(length_ms // MINUTE_MS, 60)
    parts = [counted(n, name) for n, name in ((hours, "hour"), (minutes, "minute")) if n]
    return " and ".join(parts) or "less than a minute"


def day_of(experiment: Experiment, time_ms: int) -> int:
    """Day of the experiment, 0 being the one that it starts on."""
    return experiment.day_of(time_ms)


def date_of(experiment: Experiment, day: int) -> str:
    """A day's date as the experiment cuts days, ISO 8601; of a table whose rows have no date, its number from 1."""
    if experiment.assignment == "external" and experiment.first_date == 0:
        return f"day {day + 1}"
    return iso_date(experiment.first_date + day)
