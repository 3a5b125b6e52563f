"""Ids that come and go, in dense rows, and what became of the rows since somebody last looked.

A table with a row an id (embeddings, moments, counts) follows a vocabulary by `Vocabulary.since`: it is told the rows
that changed, whatever the size of the table, and moves its own as the vocabulary moved the ids.
"""

from array import array
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from contracts.features import Ints


class Changes(NamedTuple):
    """What a follower's rows are to become. C rows changed; all others stay as they are."""

    size: int  # rows there are now
    rows: Ints  # (C,) sorted
    sources: Ints  # (C,) the row in which the follower has what belongs there, -1 for an id that is new to it
    serials: Ints  # (C,) which arrival each row holds now

    def left(self, size: int) -> Ints:
        """The rows, of the `size` that a follower has, whose content may move or go."""
        return np.concatenate((self.rows[self.rows < size], np.arange(self.size, size)))


class Vocabulary:
    """Ids in rows 0 … N − 1: a new one goes to the end, and the last one moves into the hole that a removed one leaves.

    An id that comes back is another arrival with another serial number, so nothing of its former life follows it.

    >>> vocabulary = Vocabulary()
    >>> [vocabulary.put(number) for number in (30, 10, 20)]
    [0, 1, 2]
    >>> serials, version = vocabulary.serials, vocabulary.version
    >>> vocabulary.remove(30)
    0
    >>> vocabulary.put(40), vocabulary.ids.tolist()
    (2, [20, 10, 40])
    >>> changes = vocabulary.since(version, serials)
    >>> changes.size, changes.rows.tolist(), changes.sources.tolist()
    (3, [0, 2], [2, -1])
    """

    def __init__(self) -> None:
        self._row: dict[int, int] = {}
        self._ids, self._serials = array("q"), array("q")
        self._arrivals = 0
        self._changed: dict[int, int] = {}  # row -> version that changed it, in the order of versions
        self.version = 0  # rises with every change

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Ints:
        """(N,) the id of each row."""
        return np.array(self._ids, np.int64)

    @property
    def serials(self) -> Ints:
        """(N,) the arrival that each row holds, numbered from 0."""
        return np.array(self._serials, np.int64)

    def get(self, number: int) -> int:
        """The row of an id; -1 where it is not there."""
        return self._row.get(number, -1)

    def rows(self, ids: Ints) -> Ints:
        """The rows of any ids, of the same shape; -1 where an id is not there."""
        rows = (self._row.get(number, -1) for number in ids.ravel().tolist())
        return np.fromiter(rows, np.int64, ids.size).reshape(ids.shape)

    def ids_at(self, rows: Ints) -> list[int]:
        """The ids of some rows."""
        return [self._ids[row] for row in rows.tolist()]

    def put(self, number: int) -> int:
        """The row of an id, which is added if it is not there."""
        row = self._row.get(number)
        if row is None:
            row = self._row[number] = len(self._ids)
            self._ids.append(number)
            self._serials.append(self._arrivals)
            self._arrivals += 1
            self.mark(row)
        return row

    def mark(self, row: int) -> None:
        """Have followers look at a row again."""
        self.version += 1
        self._changed.pop(row, None)  # so that it goes to the end
        self._changed[row] = self.version

    def remove(self, number: int) -> int:
        """Remove an id; the row that is the last one's now, or N if it was the last.

        Raises:
            KeyError: it is not there.

        """
        row = self._row.pop(number)
        last, serial = self._ids.pop(), self._serials.pop()
        self._changed.pop(len(self._ids), None)
        if row < len(self._ids):
            self._ids[row], self._serials[row] = last, serial
            self._row[last] = row
            self.mark(row)
        else:
            self.version += 1
        return row

    def since(self, version: int, followed: Ints) -> Changes:
        """What changed since a version, for a follower whose rows held the arrivals `followed` then; O(changes)."""
        newest_first = takewhile(lambda change: change[1] > version, reversed(self._changed.items()))
        rows = np.array(sorted(row for row, _ in newest_first), np.int64)
        # An arrival that moved has left a row that changed, or that is no more.
        serials = np.array([self._serials[row] for row in rows.tolist()], np.int64)
        changes = Changes(len(self), rows, np.full_like(rows, -1), serials)
        left = changes.left(followed.size)
        source = dict(zip(followed[left].tolist(), left.tolist(), strict=True))
        sources = [source.get(serial, -1) for serial in serials.tolist()]
        return changes._replace(sources=np.array(sources, np.int64))

    def state(self) -> dict[str, Any]:
        """All of it, as plain values and arrays."""
        return {
            "ids": self.ids,
            "serials": self.serials,
            "changed": np.array([*self._changed.items()], np.int64).reshape(-1, 2),
            "arrivals": self._arrivals,
            "version": self.version,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` described."""
        self._ids, self._serials = (array("q", state[name].tobytes()) for name in ("ids", "serials"))
        self._row = {number: row for row, number in enumerate(self._ids)}
        self._changed = dict(state["changed"].tolist())
        self._arrivals, self.version = state["arrivals"], state["version"]
