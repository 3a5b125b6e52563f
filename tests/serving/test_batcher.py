"""The queue before the answering thread, without gRPC: what waits is answered together, late or too much is refused."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from contracts.clock import ManualClock
from serving.batcher import Batcher, BatchSize, Expired, Overloaded


class Desk:
    """Answers `n` with `10 n`, and the first batch only when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.let = threading.Event()
        self.begun = threading.Event()

    def __call__(self, asks: Sequence[int]) -> list[int]:
        self.batches.append(list(asks))
        self.begun.set()
        self.let.wait(10)
        if 13 in asks:
            raise RuntimeError("a fault of ours")
        return [10 * ask for ask in asks]


@asynccontextmanager
async def at(desk: Desk, clock: ManualClock, room: int = 8, most: int = 4) -> AsyncIterator[Batcher[int, int]]:
    batcher = Batcher(desk, BatchSize(most, budget_s=10), room, 0.0, clock)
    running = asyncio.create_task(batcher.run())
    try:
        yield batcher
    finally:
        desk.let.set()
        running.cancel()
        batcher.close()


async def busy(desk: Desk, batcher: Batcher[int, int]) -> asyncio.Task[list[int]]:
    """A first request, which the thread is at."""
    first = asyncio.create_task(batcher.submit([1], None))
    await asyncio.to_thread(desk.begun.wait)
    return first


def ask(batcher: Batcher[int, int], *asks: int, timeout_s: float | None = None) -> asyncio.Task[list[int]]:
    return asyncio.create_task(batcher.submit(asks, timeout_s))


async def turn() -> None:
    """Let what has been started come to where it waits."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_what_waits_is_answered_together_up_to_the_limit() -> None:
    async def scene() -> None:
        desk = Desk()
        async with at(desk, ManualClock()) as batcher:
            first = await busy(desk, batcher)
            others = [ask(batcher, n) for n in range(2, 8)]
            await turn()
            assert batcher.waiting == 6
            desk.let.set()
            assert await asyncio.gather(first, *others) == [[10 * n] for n in range(1, 8)]
        assert desk.batches == [[1], [2, 3, 4, 5], [6, 7]]

    asyncio.run(scene())


def test_more_than_may_wait_are_turned_away_at_once() -> None:
    async def scene() -> None:
        desk = Desk()
        async with at(desk, ManualClock(), room=2) as batcher:
            await busy(desk, batcher)
            waiting = ask(batcher, 2, 3)
            await turn()
            with pytest.raises(Overloaded, match="2 requests are waiting, and 2 may"):
                await batcher.submit([4], None)
            desk.let.set()
            assert await waiting == [20, 30]

    asyncio.run(scene())


def test_what_nobody_waits_for_any_more_is_not_worked_on() -> None:
    async def scene() -> None:
        desk, clock = Desk(), ManualClock()
        async with at(desk, clock) as batcher:
            await busy(desk, batcher)
            late, gone, well = ask(batcher, 2, timeout_s=0.5), ask(batcher, 3), ask(batcher, 4, timeout_s=2)
            await turn()
            gone.cancel()
            await turn()
            clock.advance(1000)
            desk.let.set()
            assert await well == [40]
            with pytest.raises(Expired):
                await late
        assert desk.batches == [[1], [4]]

    asyncio.run(scene())


def test_a_fault_reaches_those_it_concerns_and_the_next_are_answered() -> None:
    async def scene() -> None:
        desk = Desk()
        desk.let.set()
        async with at(desk, ManualClock()) as batcher:
            with pytest.raises(RuntimeError, match="a fault of ours"):
                await batcher.submit([13], None)
            assert await batcher.submit([2], None) == [20]

    asyncio.run(scene())


def test_the_size_of_a_batch_recovers_when_the_machine_does() -> None:
    size = BatchSize(most=32, budget_s=0.010)
    for _ in range(20):
        size.took(requests=1, seconds=0.1)
    assert size.limit == 1, "a budget that cannot be kept still answers"
    for _ in range(40):
        size.took(requests=size.limit, seconds=0.0001 * size.limit)
    assert size.limit == 32
