"""Dropping duplicates by event id, with bounded memory. Pure.

What bounds it: ids are kept for `horizon_ms` of event time behind the newest event of one topic, and the horizon is no
shorter than the allowed lateness in that topic. A duplicate that arrives after that is no longer known as one, but it
is too late as well, and goes to the dead-letter topic: it still has no effect.
"""

from collections import deque


class SeenIds:
    """Event ids seen within the horizon.

    >>> seen = SeenIds(horizon_ms=10)
    >>> [seen.add("a", 0), seen.add("a", 0), seen.add("b", 11), seen.add("a", 11)]
    [True, False, True, True]
    """

    def __init__(self, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self._ids: set[str] = set()
        self._order: deque[tuple[int, str]] = deque()  # by newest event time at arrival, so non-decreasing
        self._newest_ms = 0

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, event_id: str, time_ms: int) -> bool:
        """Remember an id; False where it is known already."""
        if event_id in self._ids:
            return False
        self._newest_ms = max(self._newest_ms, time_ms)
        self._ids.add(event_id)
        self._order.append((self._newest_ms, event_id))
        while self._order[0][0] < self._newest_ms - self._horizon_ms:
            self._ids.remove(self._order.popleft()[1])
        return True
