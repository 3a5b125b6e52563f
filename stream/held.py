"""Whether feedback waits for exposures that do not come. Pure: the worker tells the time and says what is due.

For a moment that is usual: the two come by different ways. For minutes it means that exposures are not sent, lie in
another partition, or have other request ids, and nothing else would say so before the feedback is given up, which is
hours later.
"""

from collections.abc import Mapping

WARN_AFTER_S = 60.0
WARN_EVERY_S = 300.0


class HeldFeedback:
    """What waits of each partition, and since when without a break.

    >>> held = HeldFeedback()
    >>> [held.look({0: 3, 1: 0}, now_s) for now_s in (0.0, 59.0, 60.0, 100.0)]
    [{}, {}, {0: 3}, {}]
    >>> held.seconds(100.0)
    100.0
    >>> held.look({0: 0, 1: 2}, 110.0), held.seconds(120.0), held.look({1: 1}, 360.0)
    ({}, 10.0, {1: 1})
    """

    def __init__(self) -> None:
        self._since_s: dict[int, float] = {}
        self._warned_s = -WARN_EVERY_S

    def look(self, held: Mapping[int, int], now_s: float) -> dict[int, int]:
        """Take in how many records each partition holds; those to warn of, where a warning is due."""
        self._since_s = {
            partition: self._since_s.get(partition, now_s) for partition, records in held.items() if records > 0
        }
        if now_s - self._warned_s < WARN_EVERY_S:
            return {}
        long = {each: held[each] for each, since_s in self._since_s.items() if now_s - since_s >= WARN_AFTER_S}
        if long:
            self._warned_s = now_s
        return long

    def seconds(self, now_s: float) -> float:
        """For how long some partition has held feedback without a break; 0 where none holds any."""
        return max((now_s - since_s for since_s in self._since_s.values()), default=0.0)
