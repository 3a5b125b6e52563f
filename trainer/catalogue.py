"""The items that can be recommended: which there are, their rows and categories. No vectors: those are the models'.

An item keeps the row in which it arrived for good, so embedding tables only ever grow at their end. Snapshots want
sorted ids; `Catalogue.arrival` leads from a place in the sorted ids to the row.
"""

from collections.abc import Sequence

import numpy as np

from contracts.features import Ints, rows_of


class Catalogue:
    """Item ids and their categories in order of arrival.

    >>> catalogue = Catalogue()
    >>> for item_id in (30, 10, 20):
    ...     catalogue.put(item_id, [])
    >>> catalogue.item_ids.tolist(), catalogue.arrival.tolist()
    ([10, 20, 30], [1, 2, 0])
    >>> catalogue.rows(np.array([20, 30, 40])).tolist()
    [2, 0, -1]
    """

    def __init__(self) -> None:
        self._row: dict[int, int] = {}
        self._categories: list[tuple[int, ...]] = []
        self._sorted: tuple[Ints, Ints] | None = None
        self.version = 0  # rises with every change, so that models know when to follow

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, item_id: int) -> bool:
        return item_id in self._row

    def put(self, item_id: int, category_ids: Sequence[int]) -> None:
        """Add an item, or replace the categories of one that is there: the newest record of an id wins."""
        categories = tuple(category_ids)
        row = self._row.setdefault(item_id, len(self._categories))
        if row == len(self._categories):
            self._categories.append(categories)
            self._sorted = None
        elif self._categories[row] == categories:
            return
        else:
            self._categories[row] = categories
        self.version += 1

    @property
    def ids_by_row(self) -> list[int]:
        """Item ids in order of arrival."""
        return list(self._row)

    @property
    def categories(self) -> list[tuple[int, ...]]:
        """Category ids of each row."""
        return self._categories

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
        return self.to_rows(rows_of(item_ids, self.item_ids))

    def to_rows(self, places: Ints) -> Ints:
        """From places in `item_ids` to rows; -1 stays -1."""
        if not len(self):
            return np.full(places.shape, -1, np.int64)
        return np.where(places >= 0, self.arrival[np.maximum(places, 0)], -1)

    def _view(self) -> tuple[Ints, Ints]:
        if self._sorted is None:
            ids = np.fromiter(self._row, np.int64, len(self._row))
            arrival = np.argsort(ids).astype(np.int64)
            self._sorted = (ids[arrival], arrival)
        return self._sorted
