"""What a table calls a day, as an expression of the engine's, and the period that its rows have.

A value is taken for a day by the rules of `abtest.read.days`; of events, a moment is cut into days by the calendar.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from abtest.read.csv_files import first_that
from abtest.read.days import days_of, is_day, shown
from abtest.read.engines import first_row
from abtest.read.problems import DataError
from contracts.config.calendar import EPOCH, Calendar, iso_date
from contracts.config.experiment import Experiment
from contracts.config.external import External
from contracts.runtime.clock import DAY_MS, SECOND_MS

if TYPE_CHECKING:
    import ibis.expr.types as ir

LONGEST = 366  # days of a period that nobody stated; a stray date would make it longer


@dataclass(frozen=True)
class Period:
    """The day of a row, as `abtest.read.rows` takes it, and the experiment's start and end in Unix milliseconds."""

    day: "ir.Value"
    start_ms: int
    end_ms: int


class _FromEpoch(NamedTuple):
    """Days are counted from 1970-01-01."""

    calendar: Calendar
    first_date: int = 0


def period_of(table: "ir.Table", plan: External) -> Period:
    """The plan's period, or that from the first day of the rows to the last.

    Raises:
        DataError: what is called a day is none, or the rows' days are too many to be meant.

    """
    own = str(plan.columns.day)
    column = table[own]
    kind = column.type()
    if not (kind.is_integer() or kind.is_date() or kind.is_timestamp() or kind.is_string()):
        raise DataError(
            f"Column '{own}' is {kind}; a day must be a date, a midnight, text of ISO 8601, or a number from 0."
        )
    wrong = first_that(table, own, lambda text: not is_day(text)) if kind.is_string() else None
    if wrong is not None:
        raise DataError(f"{wrong.place}: column '{own}' has '{wrong.text}', which is no day; write 2026-03-01.")
    of_moments = plan.row_is == "event" and kind.is_timestamp()
    numbered = of_moments and kind.timezone is not None
    day = _date_number(column, plan) if numbered else column.date() if of_moments else column
    if plan.start_ms is not None and plan.end_ms is not None:
        first, start_ms, end_ms = plan.calendar.date_number(plan.start_ms), plan.start_ms, plan.end_ms
    else:
        first, last = _met(day, own, plan, numbered=numbered)
        begin = 0 if kind.is_integer() else first  # a number says no date; the first one is the first day
        start_ms, end_ms = plan.calendar.midnight_ms(begin), plan.calendar.midnight_ms(begin + last - first + 1)
        numbered |= kind.is_integer()
    return Period(day - first if numbered else day, start_ms, end_ms)


def days_in(day: Any, experiment: Experiment) -> "ir.BooleanValue":
    """Whether a row's day is one of the experiment's, by the type of the column."""
    import ibis

    first, last = experiment.first_date, experiment.first_date + experiment.days - 1
    kind = day.type()
    if kind.is_integer():
        return day.between(0, experiment.days - 1)
    if kind.is_string():  # a date of ISO 8601, perhaps with a midnight behind it
        return (day >= iso_date(first)) & (day < iso_date(last + 1))
    if kind.is_date():
        return day.between(ibis.literal(_date(first)), ibis.literal(_date(last)))
    begins_s, ends_s = (experiment.calendar.midnight_ms(number) // SECOND_MS for number in (first, last + 1))
    if kind.timezone is not None:
        return (day.epoch_seconds() >= begins_s) & (day.epoch_seconds() < ends_s)
    return (day >= ibis.literal(_midnight(first))) & (day < ibis.literal(_midnight(last + 1)))


def _met(day: Any, own: str, plan: External, *, numbered: bool) -> tuple[int, int]:
    """The dates of the first and the last day, in days from 1970-01-01.

    Raises:
        DataError: there are no days, or they are no days, or too many.

    """
    days = day.name("day").as_table()
    low, high = first_row(days.aggregate(low=days["day"].min(), high=days["day"].max()))
    if low is None:
        raise DataError(f"Column '{own}' has no value in any row, so there is no period; give start and end.")
    if numbered:
        first, last = int(low), int(high)
    else:
        ends = pa.array([low, high])
        numbers, unusable, what = days_of(ends, _FromEpoch(plan.calendar))
        if unusable.any():
            bad = shown((low, high)[int(unusable.argmax())])
            hint = "; of events, say row: event" if pa.types.is_timestamp(ends.type) else ""
            raise DataError(f"The data cannot be used: column '{own}' has a {what.one} (first: {bad}){hint}.")
        first, last = (int(number) for number in numbers)
    if last - first >= LONGEST:
        as_dates = not day.type().is_integer() or numbered
        first_met, last_met = (iso_date(first), iso_date(last)) if as_dates else (first, last)
        raise DataError(
            f"Column '{own}' goes from {first_met} to {last_met}, {last - first + 1:,} days; if that is "
            "meant, or some rows are of another time, give start and end."
        )
    return first, last


def _date_number(moment: Any, plan: External) -> "ir.Value":
    """The date of a moment with a zone by the plan's calendar, in days from 1970-01-01.

    Raises:
        DataError: days are those of a zone by name, which this engine does not tell.

    """
    import ibis

    if plan.zone is None:
        return (moment.epoch_seconds() * SECOND_MS + plan.day_offset_ms) // DAY_MS
    if ibis.get_backend(moment).name not in {"duckdb", "postgres"}:
        raise DataError(f"zone: {plan.zone} cannot be had from this engine; give day_offset, or local dates.")

    @ibis.udf.scalar.builtin(name="timezone", signature=(("string", "timestamp('UTC')"), "timestamp"))
    def local(zone, moment):  # type: ignore[no-untyped-def]
        """The clock of a zone at a moment."""

    return (local(plan.zone, moment).epoch_seconds() * SECOND_MS) // DAY_MS


def _date(number: int) -> date:
    return date.fromordinal(number + EPOCH)


def _midnight(number: int) -> datetime:
    return datetime.combine(_date(number), datetime.min.time())
