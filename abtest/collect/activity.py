"""Sessions as unions of activity intervals: order-free, so late and repeated events change nothing but themselves."""

from collections.abc import Iterable
from typing import TypeAlias

Interval: TypeAlias = tuple[int, int]  # start and end, Unix milliseconds, start <= end


def join(intervals: Iterable[Interval], gap_ms: int) -> list[Interval]:
    """Join intervals that overlap or lie no further than `gap_ms` apart; sorted by start.

    Joining is idempotent, and joining joined parts gives what joining everything at once gives: sessions are the
    connected components under "at most a gap apart", and a component's span is all that its neighbours need.

    >>> join([(50, 60), (0, 10), (15, 20)], gap_ms=5)
    [(0, 20), (50, 60)]
    """
    joined: list[Interval] = []
    for start, end in sorted(intervals):
        if joined and start - joined[-1][1] <= gap_ms:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined
