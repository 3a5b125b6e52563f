"""Values of a partition's state that are kept in memory between commits, and numbers as sortable keys. Pure."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K", str, int)
V = TypeVar("V")


class Cached(Generic[K, V]):
    """Values that were used last, and those that changed since the last commit; None stands for "there is none"."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[K, V | None] = OrderedDict()  # longest unused first
        self._changed: dict[K, None] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._known

    def __getitem__(self, key: K) -> V | None:
        self._known.move_to_end(key)
        return self._known[key]

    def names(self) -> list[K]:
        """Keys of the values that are known."""
        return list(self._known)

    def learn(self, key: K, value: V | None) -> None:
        self._known[key] = value

    def change(self, key: K, value: V | None) -> None:
        self._known[key] = value
        self._changed[key] = None

    def changes(self) -> Iterator[tuple[K, V | None]]:
        for key in self._changed:
            yield key, self._known[key]

    def settle(self) -> None:
        """Everything has been committed: forget what is over the limit."""
        self._changed.clear()
        while len(self._known) > self._limit:
            self._known.popitem(last=False)


def sortable(number: int) -> bytes:
    """Eight bytes that sort as the signed number does."""
    return (number + (1 << 63)).to_bytes(8, "big")


def number_of(stored: bytes) -> int:
    """The number that such bytes stand for.

    >>> number_of(sortable(-7))
    -7
    """
    return int.from_bytes(stored, "big") - (1 << 63)
