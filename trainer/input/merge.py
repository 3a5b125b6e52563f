"""One order out of several partitions: by event time, the same however the polls fell.

A partition's own order is kept. A record is released once every partition shows its next one, so none can still come
that belongs before it; only a partition that has been read to its end and stays silent is not waited for.
"""

from collections import deque
from collections.abc import Collection, Iterator
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Entry(NamedTuple, Generic[T]):
    """A record on its way: partitions are told apart by number, `time_ms` is event time."""

    partition: int
    offset: int
    time_ms: int
    value: T


class Merge(Generic[T]):
    """Merges partitions by (event time, partition).

    >>> merge = Merge[str](partitions=[0, 1])
    >>> merge.push(Entry(0, 0, 5, "b"))
    >>> merge.push(Entry(0, 1, 9, "d"))
    >>> [entry.value for entry in merge.release(silent=[])]
    []
    >>> merge.push(Entry(1, 0, 3, "a"))
    >>> merge.push(Entry(1, 1, 7, "c"))
    >>> [entry.value for entry in merge.release(silent=[])]
    ['a', 'b', 'c']
    >>> [entry.value for entry in merge.release(silent=[1])]
    ['d']
    """

    def __init__(self, partitions: Collection[int]) -> None:
        self._waiting: dict[int, deque[Entry[T]]] = {partition: deque() for partition in sorted(partitions)}

    def push(self, entry: Entry[T]) -> None:
        """Take in a partition's next record."""
        self._waiting[entry.partition].append(entry)

    def waiting(self, partition: int) -> int:
        """How many of a partition's records have not been released."""
        return len(self._waiting[partition])

    def first_offset(self, partition: int) -> int | None:
        """Offset of a partition's first record that has not been released; None where there is none."""
        queue = self._waiting[partition]
        return queue[0].offset if queue else None

    def release(self, silent: Collection[int]) -> Iterator[Entry[T]]:
        """Release records in order until a partition that is not `silent` has none left."""
        while True:
            heads = [queue[0] for queue in self._waiting.values() if queue]
            missing = [p for p, queue in self._waiting.items() if not queue and p not in silent]
            if missing or not heads:
                return
            first = min(heads, key=lambda entry: (entry.time_ms, entry.partition))
            yield self._waiting[first.partition].popleft()
