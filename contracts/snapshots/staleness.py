"""When what serves has gone stale. The one definition that the demo, the report and the alerts go by.

A model is stale while the newest snapshot that is live has learned nothing for more than a day of event time, although
there was something to learn. A day, because a snapshot a day is the least of any trainer, and because what people do
at one hour of the day says little of another. What is on trial does not count: half of the users do not have it.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from contracts.runtime.clock import DAY_MS

STALE_MS = DAY_MS


class Publication(NamedTuple):
    """A snapshot that went live, in event time: when, and of when the newest example is that it has learned from."""

    at_ms: int
    learned_ms: int


def is_stale(learned_ms: int, now_ms: int) -> bool:
    """Whether what is live is stale.

    >>> is_stale(0, DAY_MS), is_stale(0, DAY_MS + 1)
    (False, True)

    Args:
        learned_ms: event time of the newest example that it has learned from.
        now_ms: event time of the newest example that there is.

    """
    return now_ms - learned_ms > STALE_MS


def longest_without(times_ms: Iterable[int], begin_ms: int, end_ms: int) -> int:
    """The longest stretch of a period in which nothing happened, in ms; `times_ms` are the moments when something did.

    >>> longest_without([30, 40, 90, 200], 20, 100), longest_without([], 20, 100)
    (50, 80)
    """
    inside = sorted(time_ms for time_ms in times_ms if begin_ms <= time_ms <= end_ms)
    return max(after - before for before, after in pairwise([begin_ms, *inside, end_ms]))


def stale_ms(live: Sequence[Publication], begin_ms: int, end_ms: int) -> int:
    """For how much of a period what was live was stale.

    >>> stale_ms([Publication(0, 0), Publication(3 * DAY_MS, 2 * DAY_MS)], DAY_MS, 4 * DAY_MS) / DAY_MS
    3.0
    >>> stale_ms([Publication(0, 0), Publication(DAY_MS, DAY_MS)], 0, 2 * DAY_MS)
    0

    Args:
        live: in the order in which they went live.
        begin_ms: the period's begin.
        end_ms: and its end.

    """
    until_ms = [each.at_ms for each in live[1:]] + [end_ms]
    return sum(
        max(min(until, end_ms) - max(each.at_ms, each.learned_ms + STALE_MS, begin_ms), 0)
        for each, until in zip(live, until_ms, strict=True)
    )
