"""The one place that reads a clock, and the lengths of time in milliseconds.

Logic takes the time as an argument. Shells hold a `Clock`; tests hold a `ManualClock`.
"""

import time
from dataclasses import dataclass
from typing import Protocol

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Clock(Protocol):
    """Tells the time of day and measures durations."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""

    def elapsed_s(self) -> float:
        """Seconds since some fixed moment; never goes back."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed_s(self) -> float:
        return time.perf_counter()


@dataclass
class ManualClock:
    """A clock that moves only when told to.

    >>> clock = ManualClock(5)
    >>> clock.advance(10)
    >>> clock.now_ms()
    15
    """

    at_ms: int = 0

    def now_ms(self) -> int:
        return self.at_ms

    def elapsed_s(self) -> float:
        return self.at_ms / 1000

    def advance(self, by_ms: int) -> None:
        self.at_ms += by_ms
