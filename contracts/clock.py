"""The one place that reads the wall clock.

Logic takes the time as an argument. Shells hold a `Clock`; tests hold a `ManualClock`.
"""

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Unix time in milliseconds."""

    def now_ms(self) -> int: ...


class SystemClock:
    """The machine's wall clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


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

    def advance(self, by_ms: int) -> None:
        self.at_ms += by_ms
