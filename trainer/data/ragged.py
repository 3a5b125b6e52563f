"""Rows of any number of integers each, all in one flat array: a compact list of tuples that is gathered fast."""

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from contracts.features import Ints

SLACK = 1024  # numbers that nothing refers to any more, below which nobody tidies up


class Bags(NamedTuple):
    """The integers of some rows, one row after the other."""

    flat: Ints
    lengths: Ints  # of each row; they add up to the length of `flat`


class Ragged:
    """Rows 0 … N − 1; a row can be replaced, the last one can be moved to another's place.

    >>> ragged = Ragged()
    >>> for row, numbers in enumerate([(7, 8), (), (9,)]):
    ...     ragged.put(row, numbers)
    >>> ragged.remove(0)
    >>> ragged.get(0), len(ragged)
    ((9,), 2)
    >>> bags = ragged.gather(np.array([1, 0, 0]))
    >>> bags.flat.tolist(), bags.lengths.tolist()
    ([9, 9], [0, 1, 1])
    """

    def __init__(self) -> None:
        self._flat, self._starts, self._lengths = array("q"), array("q"), array("q")
        self._used = 0  # numbers that a row refers to

    def __len__(self) -> int:
        return len(self._starts)

    def get(self, row: int) -> tuple[int, ...]:
        """The numbers of a row."""
        start = self._starts[row]
        return tuple(self._flat[start : start + self._lengths[row]])

    def put(self, row: int, numbers: Sequence[int]) -> None:
        """Replace a row, or add the next one."""
        if row == len(self):
            self._starts.append(0)
            self._lengths.append(0)
        self._used += len(numbers) - self._lengths[row]
        self._starts[row], self._lengths[row] = len(self._flat), len(numbers)
        self._flat.extend(numbers)
        self._tidy()

    def remove(self, row: int) -> None:
        """Remove a row; the last one takes its place."""
        self._used -= self._lengths[row]
        start, length = self._starts.pop(), self._lengths.pop()
        if row < len(self):
            self._starts[row], self._lengths[row] = start, length
        self._tidy()

    def gather(self, rows: Ints) -> Bags:
        """The numbers of some rows, in their order."""
        starts, lengths = (np.asarray(column)[rows] for column in (self._starts, self._lengths))
        ends = lengths.cumsum()
        total = int(ends[-1]) if ends.size else 0
        at = np.arange(total) + np.repeat(starts - ends + lengths, lengths)
        return Bags(np.asarray(self._flat)[at], lengths)

    def state(self) -> dict[str, Any]:
        """All of it, as arrays."""
        return self.gather(np.arange(len(self)))._asdict()

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` described."""
        flat, lengths = state["flat"], state["lengths"]
        self._flat, self._lengths = array("q", flat.tobytes()), array("q", lengths.tobytes())
        self._starts = array("q", (lengths.cumsum() - lengths).tobytes())
        self._used = len(self._flat)

    def _tidy(self) -> None:
        if len(self._flat) > 2 * self._used + SLACK:
            self.restore(self.state())
