"""What offline protocols work on: a catalogue of rows, sequences to learn from, queries to answer."""

from dataclasses import dataclass

import numpy as np

from contracts.features import Floats, Ints, Positives, TowerInputs, tower_inputs


class DataError(Exception):
    """A dataset folder is not what it should be."""


@dataclass(frozen=True)
class ItemTable:
    """N items in rows; row i is the item `item_ids[i]`."""

    item_ids: Ints  # (N,) sorted
    categories: tuple[tuple[int, ...], ...]  # N


@dataclass(frozen=True)
class Sequence:
    """One user's positive behaviours, oldest first; both arrays (m,)."""

    rows: Ints
    times_ms: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def until(self, end: int) -> "Sequence":
        """The first `end` behaviours."""
        return Sequence(self.rows[:end], self.times_ms[:end])


@dataclass(frozen=True)
class Query:
    """A request and the item that should be found: who had seen what, when the request came, what was watched."""

    user_id: int
    history: Sequence
    time_ms: int
    target: int  # row
    masked: Ints  # rows that do not compete, though the target always does


@dataclass(frozen=True)
class Examples:
    """W training windows (or queries) as a user encoder takes them."""

    rows: Ints  # (W, n) 0 where there is no behaviour
    mask: Floats  # (W, n)
    lag: Floats  # (W, n)
    targets: Ints  # (W,)

    def __len__(self) -> int:
        return len(self.targets)


def encode(histories: list[Sequence], times_ms: Ints, targets: Ints, window: int) -> Examples:
    """The last `window` behaviours of each history, seen from the request's time."""
    n = max((int(s.rows.max(initial=-1)) for s in histories), default=-1) + 1
    cut = [Positives(s.rows[-window:], s.times_ms[-window:]) for s in histories]
    inputs: TowerInputs = tower_inputs(cut, times_ms, np.arange(n), window)
    return Examples(np.maximum(inputs.rows, 0), inputs.mask, inputs.lag, targets)
