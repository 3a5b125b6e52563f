"""The queue before the answering thread, without gRPC: what waits is answered together, late or too much is refused."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from contracts.runtime.clock import ManualClock
from serving.batcher import Batcher, BatchSize, Expired, Overloaded


class Desk:
    """Answers `n` with `10 n`, and notes down what it was handed together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, asks: Sequence[int]) -> list[int]:
        self.batches.append(list(asks))
        if 13 in asks:
            raise RuntimeError("a fault of ours")
        return [10 * ask for ask in asks]


def batcher_of(desk: Desk, clock: ManualClock, room: int = 8) -> Batcher[int, int]:
    return Batcher(desk, BatchSize(4, budget_s=10), room, 0.0, clock)


def ask(batcher: Batcher[int, int], *asks: int, timeout_s: float | None = None) -> asyncio.Task[list[int]]:
    return asyncio.create_task(batcher.submit(asks, timeout_s))


@asynccontextmanager
async def at_work(batcher: Batcher[int, int]) -> AsyncIterator[None]:
    """What was asked before has come to wait; from here on it is answered."""
    await asyncio.sleep(0)
    running = asyncio.create_task(batcher.run())
    yield
    running.cancel()


def test_what_waits_is_answered_together_up_to_the_limit() -> None:
    async def scene() -> None:
        desk = Desk()
        batcher = batcher_of(desk, ManualClock())
        calls = [ask(batcher, n) for n in range(1, 7)]
        async with at_work(batcher):
            assert batcher.waiting == 6
            assert await asyncio.gather(*calls) == [[10 * n] for n in range(1, 7)]
        assert desk.batches == [[1, 2, 3, 4], [5, 6]]

    asyncio.run(scene())


def test_more_than_may_wait_are_turned_away_at_once() -> None:
    async def scene() -> None:
        batcher = batcher_of(Desk(), ManualClock(), room=2)
        waiting = ask(batcher, 2, 3)
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 requests are waiting, and 2 may"):
            await batcher.submit([4], None)
        async with at_work(batcher):
            assert await waiting == [20, 30]
            assert await batcher.submit([5, 6, 7], None) == [50, 60, 70], "where nothing waits there is room for any"

    asyncio.run(scene())


def test_what_nobody_waits_for_any_more_is_not_worked_on() -> None:
    async def scene() -> None:
        desk, clock = Desk(), ManualClock()
        batcher = batcher_of(desk, clock)
        late, gone, well = ask(batcher, 2, timeout_s=0.5), ask(batcher, 3), ask(batcher, 4, timeout_s=2)
        await asyncio.sleep(0)
        gone.cancel()
        clock.advance(1000)
        async with at_work(batcher):
            assert await well == [40]
            with pytest.raises(Expired):
                await late
        assert desk.batches == [[4]]

    asyncio.run(scene())


def test_a_fault_reaches_those_it_concerns_and_the_next_are_answered() -> None:
    async def scene() -> None:
        batcher = batcher_of(Desk(), ManualClock())
        async with at_work(batcher):
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
