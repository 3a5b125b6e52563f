"""Who may ask now: visits in time order, each user's one after the other, no visit far ahead of the others. Pure.

A visit goes through: admitted (its time has come) → ready (its user's earlier visits have settled) → answered →
settled (what the user did is stored, so the user may ask again).
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence

from world.base import Visit


class Agenda:
    """The visits of an experiment, handed out as they become ready.

    >>> agenda = Agenda([Visit(0, 7, 0, 4), Visit(1, 8, 5, 4), Visit(2, 7, 9, 4), Visit(3, 9, 90, 4)], window_ms=20)
    >>> [visit.index for visit in agenda.ready(10)]  # 2 waits for its user, 3 for its time
    [0, 1]
    >>> agenda.answered(0); agenda.settled(0)
    >>> [visit.index for visit in agenda.ready(10)]
    [2]
    >>> agenda.answered(1); agenda.answered(2)
    >>> [visit.index for visit in agenda.ready(10)]
    [3]
    """

    def __init__(self, visits: Sequence[Visit], window_ms: int) -> None:
        """`visits` are in time order and their indices count up from 0."""
        self._visits = visits
        self._window_ms = window_ms
        self._answered = bytearray(len(visits))
        self._oldest = 0  # index of the oldest visit that is not answered
        self._next = 0  # index of the next visit to admit
        self._queues: dict[int, deque[int]] = {}  # of a user who has an unsettled visit: the ones behind it
        self._ready: list[int] = []  # heap of indices, which are in time order

    @property
    def horizon_ms(self) -> float:
        """How far simulated time may be ahead: a window after the oldest visit that is not answered."""
        if self._oldest == len(self._visits):
            return math.inf
        return self._visits[self._oldest].time_ms + self._window_ms

    @property
    def now_ms(self) -> int:
        """Simulated time: that of the oldest visit that is not answered, or of the last."""
        return self._visits[min(self._oldest, len(self._visits) - 1)].time_ms if self._visits else 0

    @property
    def all_answered(self) -> bool:
        """Whether nobody is left to ask."""
        return self._oldest == len(self._visits)

    def ready(self, limit: int) -> list[Visit]:
        """Up to `limit` visits that may be asked now, in time order, no user twice. They are handed out once."""
        while self._next < len(self._visits) and self._visits[self._next].time_ms <= self.horizon_ms:
            queue = self._queues.get(self._visits[self._next].user_id)
            if queue is None:
                self._queues[self._visits[self._next].user_id] = deque()
                heapq.heappush(self._ready, self._next)
            else:
                queue.append(self._next)
            self._next += 1
        return [self._visits[heapq.heappop(self._ready)] for _ in range(min(limit, len(self._ready)))]

    def answered(self, index: int) -> None:
        """A visit got its reply and its exposure is stored; the horizon may move."""
        self._answered[index] = 1
        while self._oldest < len(self._visits) and self._answered[self._oldest]:
            self._oldest += 1

    def settled(self, index: int) -> None:
        """What the user did on this visit is stored; the user's next visit may be asked."""
        user = self._visits[index].user_id
        queue = self._queues[user]
        if queue:
            heapq.heappush(self._ready, queue.popleft())
        else:
            del self._queues[user]
