"""The items that can be recommended: which there are, their rows and categories. No vectors: those are the models'.

Items come, go and expire. Their rows stay dense: a removed item's row goes to the last one, and models follow by the
rows that changed (`trainer.data.vocabulary`). Snapshots want sorted ids; `Catalogue.arrival` leads from a place in the
sorted ids to the row.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from contracts.features import Ints
from contracts.wire.events_pb2 import Item
from trainer.data.ragged import Bags, Ragged
from trainer.data.vocabulary import Vocabulary

NEVER_MS = 2**62


class Announced(NamedTuple):
    """What a record of the items topic says; no item: it is deleted."""

    item_id: int
    item: Item | None


class Catalogue:
    """Item ids, their categories, and when each was last heard of.

    A category is there for as long as an item has it, so memory is bounded by the items.

    >>> catalogue = Catalogue()
    >>> for time_ms, item_id in enumerate((30, 10, 20)):
    ...     catalogue.put(item_id, [], time_ms)
    >>> catalogue.item_ids.tolist(), catalogue.arrival.tolist()
    ([10, 20, 30], [1, 2, 0])
    >>> catalogue.touch(catalogue.rows(np.array([30])), np.array([7]))
    >>> catalogue.expire(2), catalogue.rows(np.array([20, 30, 10])).tolist()
    (1, [1, 0, -1])
    """

    def __init__(self) -> None:
        self.items, self.categories = Vocabulary(), Vocabulary()
        self._bags = Ragged()  # category ids of each row
        self._uses: Counter[int] = Counter()  # of each category
        self._heard_ms = array("q")  # of each row
        self._oldest_ms = NEVER_MS  # no row was heard of before
        self._sorted: tuple[int, Ints, Ints] | None = None  # of a version

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, item_id: int) -> bool:
        return self.items.get(item_id) >= 0

    @property
    def version(self) -> int:
        """Rises with every change, so that models know when to follow; categories change with items only."""
        return self.items.version

    def put(self, item_id: int, category_ids: Sequence[int], time_ms: int = 0) -> None:
        """Add an item, or replace the categories of one that is there: the newest record of an id wins.

        Args:
            item_id: its id.
            category_ids: those of its categories, in any order and number.
            time_ms: event time of the announcement.

        """
        new = self.items.get(item_id) < 0
        row = self.items.put(item_id)
        if new:
            self._heard_ms.append(time_ms)
            self._oldest_ms = min(self._oldest_ms, time_ms)
            self._bags.put(row, ())
        self._heard_ms[row] = max(self._heard_ms[row], time_ms)
        before = self._bags.get(row)
        if before != tuple(category_ids):
            self._use(category_ids)
            self._unuse(before)
            self._bags.put(row, category_ids)
            self.items.mark(row)

    def remove(self, item_id: int) -> bool:
        """Remove an item; False where there is none of that id."""
        if self.items.get(item_id) < 0:
            return False
        row = self.items.remove(item_id)
        self._unuse(self._bags.get(row))
        self._bags.remove(row)
        heard_ms = self._heard_ms.pop()
        if row < len(self):
            self._heard_ms[row] = heard_ms
        return True

    def touch(self, rows: Ints, times_ms: Ints) -> None:
        """Note positive examples; rows and event times, (B,) each."""
        for row, time_ms in zip(rows.tolist(), times_ms.tolist(), strict=True):
            self._heard_ms[row] = max(self._heard_ms[row], time_ms)

    def expire(self, before_ms: int) -> int:
        """Remove the items that were last heard of before an event time; how many these were."""
        if before_ms <= self._oldest_ms:
            return 0
        heard_ms = np.array(self._heard_ms, np.int64)
        idle = heard_ms < before_ms
        self._oldest_ms = int(heard_ms[~idle].min(initial=NEVER_MS))
        gone = self.items.ids_at(np.flatnonzero(idle))
        for item_id in gone:
            self.remove(item_id)
        return len(gone)

    @property
    def item_ids(self) -> Ints:
        """(N,) the ids, sorted."""
        return self._view()[0]

    @property
    def arrival(self) -> Ints:
        """(N,) the row of each of `item_ids`."""
        return self._view()[1]

    def rows(self, item_ids: Ints) -> Ints:
        """Rows of any ids; -1 where an id is not in the catalogue."""
        return self.items.rows(item_ids)

    def bags(self, rows: Ints) -> Bags:
        """The categories of some rows, as rows of `categories`."""
        flat, lengths = self._bags.gather(rows)
        ids, places = np.unique(flat, return_inverse=True)
        return Bags(self.categories.rows(ids)[places], lengths)

    def state(self) -> dict[str, Any]:
        """All of it, as plain values and arrays."""
        return {
            "items": self.items.state(),
            "categories": self.categories.state(),
            "bags": self._bags.state(),
            "heard_ms": np.array(self._heard_ms, np.int64),
            "oldest_ms": self._oldest_ms,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` described."""
        self.items.restore(state["items"])
        self.categories.restore(state["categories"])
        self._bags.restore(state["bags"])
        self._uses = Counter(state["bags"]["flat"].tolist())
        self._heard_ms = array("q", state["heard_ms"].tobytes())
        self._oldest_ms = state["oldest_ms"]
        self._sorted = None

    def _use(self, category_ids: Sequence[int]) -> None:
        self._uses.update(category_ids)
        for category_id in category_ids:
            self.categories.put(category_id)

    def _unuse(self, category_ids: Sequence[int]) -> None:
        self._uses.subtract(category_ids)
        for category_id in set(category_ids):
            if not self._uses[category_id]:
                del self._uses[category_id]
                self.categories.remove(category_id)

    def _view(self) -> tuple[Ints, Ints]:
        if self._sorted is None or self._sorted[0] != self.version:
            ids = self.items.ids
            arrival = np.argsort(ids).astype(np.int64)
            self._sorted = (self.version, ids[arrival], arrival)
        return self._sorted[1:]
