"""Requests that wait, and what answers together whatever waits.

waiting ──taken──► answered            a batch is what waits: alone, a request is answered at once
   │ └──deadline passed──► dropped     nobody waits for it any more, so it is not worked on
   └──no room──► turned away           at once and in words, rather than late
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from contracts.runtime.clock import Clock

A = TypeVar("A")  # what is asked
R = TypeVar("R")  # what is replied

CUT = 0.9  # what is left of the limit after a batch that took too long


class Overloaded(Exception):
    """More requests wait than may."""


class Expired(Exception):
    """The deadline passed before the work began."""


class BatchSize:
    """How many requests fit the latency budget, by what the last batches took.

    One more after each full batch within the budget, a tenth fewer after each beyond it (Crankshaw et al., Clipper,
    NSDI 2017, section 4.3.1). Costs per request say less: together they are lower, so that small batches would stay
    small.

    >>> size = BatchSize(most=32, budget_s=0.010)
    >>> size.limit
    32
    >>> for _ in range(30):
    ...     size.took(requests=size.limit, seconds=0.004 + 0.001 * size.limit)
    >>> size.limit
    6

    """

    def __init__(self, most: int, budget_s: float) -> None:
        self._budget_s = budget_s
        self._most = self._limit = float(most)

    @property
    def limit(self) -> int:
        """At least one: a budget below what one request takes cannot be kept."""
        return int(self._limit)

    def took(self, requests: int, seconds: float) -> None:
        """Learn from a batch."""
        if seconds > self._budget_s:
            self._limit = max(CUT * min(self._limit, requests), 1.0)
        elif requests >= self.limit:
            self._limit = min(self._limit + 1, self._most)


@dataclass
class _Waiting(Generic[A, R]):
    ask: A
    deadline_s: float | None  # by the clock's elapsed time
    reply: asyncio.Future[R]


class Batcher(Generic[A, R]):
    """Answers what is submitted, many at a time, on the event loop.

    Meanwhile the loop takes nothing in, for as long as the latency budget says. A thread beside it would wait for its
    turn at Python as the loop would for its own, and replicas scale by processes anyway.
    """

    def __init__(
        self, answer: Callable[[Sequence[A]], Sequence[R]], size: BatchSize, room: int, wait_s: float, clock: Clock
    ) -> None:
        """Make it, not yet running.

        Args:
            answer: gives a reply for each of what it is handed; it must not raise.
            size: of a batch.
            room: how many may wait.
            wait_s: how long a batch waits for company, if the one before had some.
            clock: for deadlines.

        """
        self._answer = answer
        self._size = size
        self._room = room
        self._wait_s = wait_s
        self._clock = clock
        self._queue: deque[_Waiting[A, R]] = deque()
        self._arrived = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return len(self._queue)

    async def submit(self, asks: Sequence[A], timeout_s: float | None) -> list[R]:
        """The replies, in order.

        Raises:
            Overloaded: there is no room for all of them.
            Expired: the time was over before the work on one of them began.

        """
        if len(self._queue) + len(asks) > max(self._room, len(asks)):
            raise Overloaded(f"{len(self._queue)} requests are waiting, and {self._room} may")
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_s is None else self._clock.elapsed_s() + timeout_s
        waiting = [_Waiting[A, R](ask, deadline_s, loop.create_future()) for ask in asks]
        self._queue.extend(waiting)
        self._arrived.set()
        try:
            return [await each.reply for each in waiting]
        finally:
            for each in waiting:
                each.reply.cancel()  # of a caller who has gone away, or of the rest of a batch that has failed

    async def run(self) -> None:
        """Answer until cancelled."""
        company = False
        while True:
            await self._arrived.wait()
            # Without a wait, too, the loop has its turn: it brings in what came meanwhile, and sends replies.
            await asyncio.sleep(self._wait_s if company and len(self._queue) < self._size.limit else 0)
            batch = self._take()
            company = len(batch) > 1
            if not self._queue:
                self._arrived.clear()
            if batch:
                self._settle(batch)

    def _settle(self, batch: Sequence[_Waiting[A, R]]) -> None:
        began = self._clock.elapsed_s()
        try:
            replies = self._answer([each.ask for each in batch])
        except Exception as error:  # noqa: BLE001  (a fault of ours must not leave callers waiting, nor end the worker)
            for each in batch:
                each.reply.set_exception(error)
            return
        self._size.took(len(batch), self._clock.elapsed_s() - began)
        for each, reply in zip(batch, replies, strict=True):
            each.reply.set_result(reply)

    def _take(self) -> list[_Waiting[A, R]]:
        now, limit = self._clock.elapsed_s(), self._size.limit
        batch: list[_Waiting[A, R]] = []
        while self._queue and len(batch) < limit:
            each = self._queue.popleft()
            if each.reply.done():
                continue
            if each.deadline_s is not None and each.deadline_s <= now:
                each.reply.set_exception(Expired("the deadline passed while the request was waiting"))
            else:
                batch.append(each)
        return batch
