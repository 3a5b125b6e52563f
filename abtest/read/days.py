"""What a table calls a day, as days of the experiment: dates, midnights, ISO 8601 text, or numbers from 0.

Nothing is guessed: a moment that is no midnight, a number that cannot be counted from the start (20260301, Unix time)
and other text are refused.
"""

import re
from datetime import date, datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from abtest.aggregate.user_days import Ints
from abtest.read.problems import Fault
from contracts.config.calendar import EPOCH, Calendar
from contracts.runtime.clock import DAY_MS

FURTHEST = 10_000  # days from the start: 27 years, beyond which a number counts from elsewhere
ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ]00:00(?::00(?:\.0+)?)?(?:Z|[+-]\d\d(?::?\d\d)?| UTC)?)?")
_FAR = "not counted from the experiment's first day, 0; a date is given as a date or as ISO 8601"
FAR = Fault(f"number that is {_FAR}", f"numbers that are {_FAR}")
NO_MIDNIGHT = Fault("time that is no midnight, though a day is wanted", "times that are no midnight, though days are")
NO_DATE = Fault(
    "text that is no date of ISO 8601, such as 2026-03-01", "texts that are no date of ISO 8601, such as 2026-03-01"
)
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class Dated(Protocol):
    """What days are counted from: an experiment, or anything with a first date and a calendar."""

    @property
    def first_date(self) -> int:
        """The date that is day 0, in days from 1970-01-01."""
        ...

    @property
    def calendar(self) -> Calendar:
        """What cuts days."""
        ...


class Days(NamedTuple):
    """Days of the experiment (n,), and which of them are none by `what` (n,); both are 0 where a value is missing."""

    numbers: Ints
    unusable: npt.NDArray[np.bool_]
    what: Fault


def days_of(column: pa.Array, experiment: Dated) -> Days:
    """The days that a column has, counted from 0 at the date on which the experiment starts by its own calendar."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    first, kind = experiment.first_date, column.type
    none = np.zeros(len(column), bool)
    if pa.types.is_date(kind):
        numbers: Any = pc.fill_null(column.cast(pa.date32()).cast(pa.int32()), first).to_numpy()
        return Days(numbers.astype(np.int64) - first, none, FAR)
    if pa.types.is_timestamp(kind):
        return _midnights(column, experiment)
    if not pa.types.is_integer(kind):
        return _texts(column, first)
    numbers = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    far = (numbers >= FURTHEST) | ((numbers <= -FURTHEST) if pa.types.is_signed_integer(kind) else False)
    usable = np.where(far, 0, numbers) if far.any() else numbers
    return Days(usable.astype(np.int64, copy=False), far, FAR)


def _midnights(column: pa.Array, experiment: Dated) -> Days:
    """A midnight in UTC is its date; one by the experiment's calendar too, if the column's moments have a zone."""
    per_s = UNITS[column.type.unit]
    since = column.cast(pa.timestamp(column.type.unit)).cast(pa.int64())
    values = pc.fill_null(since, 0).to_numpy(zero_copy_only=False)
    distinct, place = np.unique(values, return_inverse=True)
    dates, per_day = distinct // (DAY_MS // 1000 * per_s), DAY_MS // 1000 * per_s
    unusable = distinct % per_day != 0
    if column.type.tz is not None:
        for at in np.flatnonzero(unusable):
            time_ms, rest = divmod(int(distinct[at]) * 1000, per_s)
            number = experiment.calendar.date_number(time_ms)
            if not rest and experiment.calendar.midnight_ms(number) == time_ms:
                dates[at], unusable[at] = number, False
    numbers = np.where(unusable, 0, dates - experiment.first_date)[place]
    numbers[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return Days(numbers.astype(np.int64), unusable[place], NO_MIDNIGHT)


def _texts(column: pa.Array, first: int) -> Days:
    distinct = column.dictionary_encode()
    each = [_date_number(str(value)) for value in distinct.dictionary.to_pylist()]
    numbers = np.array([0 if number is None else number - first for number in each] or [0], np.int64)
    unusable = np.array([number is None for number in each] or [False], bool)
    place = pc.fill_null(distinct.indices, 0).to_numpy(zero_copy_only=False)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    return Days(np.where(missing, 0, numbers[place]), unusable[place] & ~missing, NO_DATE)


def _date_number(text: str) -> int | None:
    match = ISO.fullmatch(text.strip())
    try:
        return date.fromisoformat(match[1]).toordinal() - EPOCH if match else None
    except ValueError:  # such as the 30th of February
        return None


def is_day(text: str) -> bool:
    """Whether a text is a date of ISO 8601, or a number.

    >>> [is_day(text) for text in ("2026-03-01", "3", "-1", "01.03.2026")]
    [True, True, True, False]
    """
    return _date_number(text) is not None or text.strip().removeprefix("-").isdecimal()


def shown(value: Any) -> str:
    """A value of a table as a person would write it."""
    if value is None:
        return "missing"
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
