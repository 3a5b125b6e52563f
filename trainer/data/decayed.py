"""A random sample of a stream that prefers what is recent by event time, in bounded memory."""

import heapq
import math
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

Value = TypeVar("Value")


class Entry(NamedTuple, Generic[Value]):
    """A sampled value. Entries compare by key, and by serial where keys are equal."""

    key: float
    serial: int
    value: Value


class DecayedSample(Generic[Value]):
    """At most `size` values; one that is a half-life older than another is half as likely to be here.

    Weighted sampling without replacement (Efraimidis and Spirakis, 2006) under forward decay (Cormode et al., ICDE
    2009): the weight 2^(t / half-life) never has to be touched again, as only ratios of weights count. A value's key is
    log₂ weight + a Gumbel draw that is a function of (seed, serial number); the `size` largest keys stay.

    >>> sample = DecayedSample[int](size=100, half_life_ms=1000, seed=0)
    >>> for serial in range(10_000):
    ...     sample.offer(serial, 10 * serial, serial)
    >>> len(sample), all(value > 8500 for value in sample.values()), sum(value < 9900 for value in sample.values()) > 40
    (100, True, True)
    """

    def __init__(self, size: int, half_life_ms: int, seed: int) -> None:
        self._size = size
        self._half_life_ms = half_life_ms
        self._seed = seed
        self._heap: list[Entry[Value]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def offer(self, serial: int, time_ms: int, value: Value) -> None:
        """Take the value with this serial number, or don't."""
        draw = np.random.Generator(np.random.Philox(key=[serial, self._seed])).gumbel()
        self._push(Entry(time_ms / self._half_life_ms + draw / math.log(2), serial, value))

    def values(self) -> list[Value]:
        """What is in the sample, by serial number."""
        return [value for _, value in self.entries()]

    def entries(self) -> list[tuple[int, Value]]:
        """The same with the serial numbers."""
        return sorted(((entry.serial, entry.value) for entry in self._heap), key=lambda entry: entry[0])

    def absorb(self, other: "DecayedSample[Value]") -> None:
        """Become the sample of what both were offered; the other one is empty afterwards."""
        for entry in other._heap:  # noqa: SLF001
            self._push(entry)
        other.clear()

    def remove(self, is_gone: Callable[[Value], bool]) -> set[int]:
        """Let go of the values that are gone, and have room for others; their serial numbers."""
        gone = {entry.serial for entry in self._heap if is_gone(entry.value)}
        self._heap = [entry for entry in self._heap if entry.serial not in gone]
        heapq.heapify(self._heap)
        return gone

    def clear(self) -> None:
        """Forget everything."""
        self._heap = []

    def state(self) -> dict[str, Any]:
        """The entries, as they lie in the heap."""
        return {"entries": [tuple(entry) for entry in self._heap]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._heap = [Entry(*entry) for entry in state["entries"]]

    def _push(self, entry: Entry[Value]) -> None:
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)
