"""Tensors with a row an id that follow a vocabulary: rows move, go, and arrive, in place where there is room."""

from typing import Any

import torch
from torch import Tensor

from trainer.data.vocabulary import Changes, Vocabulary

ROOM = 1.5  # times the rows that are needed, when a table has to be laid out anew


class Follower:
    """How far somebody has followed a vocabulary, and which arrivals the rows of its tables hold."""

    def __init__(self) -> None:
        self._version = 0
        self._serials = torch.empty(0, dtype=torch.int64)

    def follow(self, vocabulary: Vocabulary) -> Changes:
        """What changed since the last time."""
        changes = vocabulary.since(self._version, self._serials.numpy())
        self._version = vocabulary.version
        self._serials = resized(self._serials, changes.size)
        self._serials[torch.from_numpy(changes.rows)] = torch.from_numpy(changes.serials)
        return changes

    def state(self) -> dict[str, Any]:
        """All of it."""
        return {"version": self._version, "serials": self._serials.clone()}

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` described."""
        self._version, self._serials = state["version"], state["serials"].clone()


def moved(table: Tensor, changes: Changes) -> Tensor:
    """A table (N, …) after changes, zeros where an id is new; it may share the old one's memory.

    >>> import numpy as np
    >>> table = torch.tensor([[1.0], [2.0], [3.0]])
    >>> changes = Changes(3, np.array([0, 2]), np.array([2, -1]), np.array([2, 3]))
    >>> moved(table, changes).tolist()
    [[3.0], [2.0], [0.0]]
    """
    has_source = changes.sources >= 0
    rows, sources = (torch.from_numpy(index).to(table.device) for index in (changes.rows, changes.sources[has_source]))
    content = table[sources]
    table = resized(table, changes.size)
    table[rows] = 0
    table[rows[torch.from_numpy(has_source).to(table.device)]] = content
    return table


def resized(table: Tensor, rows: int) -> Tensor:
    """A table's first `rows` rows, with others after them where it has fewer; their content is anything.

    What the memory behind a table can hold is used, so rows that arrive one by one do not copy the table each time.
    """
    room = table.untyped_storage().nbytes() // (table.element_size() * table.shape[1:].numel())
    if rows > room or rows * 4 < room:
        head = table[:rows]
        spare = rows if not len(table) else int(rows * ROOM)
        table = table.new_empty(spare, *table.shape[1:])
        table[: len(head)] = head
    return table.as_strided((rows, *table.shape[1:]), table.stride(), 0)
