"""How an experiment cuts time into days: at midnight of a zone by name, or of a clock a fixed time ahead of UTC.

Days of a named zone have 23 or 25 hours where its clocks change. A date is the number of its day from 1970-01-01.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from contracts.runtime.clock import DAY_MS, MINUTE_MS, SECOND_MS

EPOCH = date(1970, 1, 1).toordinal()
MAX_TIME_MS = 7_258_118_400_000  # 2200-01-01
SECONDS_BEGIN, SECONDS_END = 10**9, 10**11  # as seconds 2001 to 5138, as milliseconds 1970 to early 1973


@dataclass(frozen=True)
class Calendar:
    """Days that begin at midnight in `zone`, or, where that is None, `offset_ms` before midnight in UTC.

    >>> berlin = Calendar(zone="Europe/Berlin")
    >>> (berlin.midnight_ms(20_752) - berlin.midnight_ms(20_751)) // 3_600_000  # 2026-10-25, the end of summer time
    25
    """

    offset_ms: int = 0
    zone: str | None = None

    def date_number(self, time_ms: int) -> int:
        """The date at a moment in Unix milliseconds, in days from 1970-01-01."""
        if self.zone is None:
            return (time_ms + self.offset_ms) // DAY_MS
        return datetime.fromtimestamp(time_ms // SECOND_MS, _zone(self.zone)).toordinal() - EPOCH

    def midnight_ms(self, number: int) -> int:
        """The first moment of a date, in Unix milliseconds; where midnight itself is skipped, the first one after."""
        if self.zone is None:
            return number * DAY_MS - self.offset_ms
        day = date.fromordinal(EPOCH + number)
        # Of a midnight that comes twice this is the first, and one that is skipped is counted by the clock before.
        return round(datetime(day.year, day.month, day.day, tzinfo=_zone(self.zone)).timestamp()) * SECOND_MS

    def offset_at_ms(self, time_ms: int) -> int:
        """How far its clock is ahead of UTC at a moment, in milliseconds."""
        if self.zone is None:
            return self.offset_ms
        ahead = datetime.fromtimestamp(time_ms // SECOND_MS, _zone(self.zone)).utcoffset() or timedelta()
        return ahead // timedelta(milliseconds=1)


def iso_date(number: int) -> str:
    """A date by its number.

    >>> iso_date(20_513)
    '2026-03-01'
    """
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()


def zone_name(value: Any) -> str:
    """The name of a time zone, if it is one.

    Raises:
        ValueError: it is not.

    """
    try:
        if isinstance(value, str) and value:
            _zone(value)
            return value
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ValueError(f"zone '{value}' is not the name of a time zone, such as Europe/Berlin")


def offset_ms(value: Any) -> int:
    """An offset from UTC as a file gives it, such as ``'+08:00'``, in milliseconds.

    Raises:
        ValueError: it is none.

    """
    match = re.fullmatch(r"([+-])(\d\d):([0-5]\d)", value) if isinstance(value, str) else None
    if match is None:  # without quotes YAML reads +10:00 as 600
        hint = "; a zone by its name is given as zone" if isinstance(value, str) and "/" in value else ""
        raise ValueError(f"day_offset '{value}' is not an offset from UTC in quotes, such as '+08:00'{hint}")
    minutes = int(match[2]) * 60 + int(match[3])
    return (minutes if match[1] == "+" else -minutes) * MINUTE_MS


def unit_hint(time_ms: int) -> str:
    """What is wrong with a number of milliseconds that must be of another unit; empty where nothing speaks for that.

    >>> unit_hint(1_772_323_200)
    '1772323200 is in 1970; are these seconds?'
    >>> unit_hint(1_772_323_200_000_000), unit_hint(1_772_323_200_000)
    ('1772323200000000 is past the year 2199; are these microseconds?', '')
    """
    if SECONDS_BEGIN <= time_ms < SECONDS_END:
        year = datetime.fromtimestamp(time_ms // SECOND_MS, UTC).year
        return f"{time_ms} is in {year}; are these seconds?"
    if time_ms < MAX_TIME_MS:
        return ""
    unit = "microseconds" if time_ms // 10**3 < MAX_TIME_MS else "nanoseconds"
    is_other = time_ms // 10**6 < MAX_TIME_MS
    return f"{time_ms} is past the year 2199{f'; are these {unit}?' if is_other else ''}"


@lru_cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
