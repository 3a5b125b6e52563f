"""The users who did most, kept beside the moments: so that an estimate can be had without any one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from abtest.stats.moments import Floats, Moments


@dataclass(frozen=True)
class Largest:
    """Of one arm, for each column the user with the largest sum, and the one with the smallest where that is below 0.

    `users` (2k, K): row j is the user whose sum of column j is largest, row k + j the one whose sum is smallest, with
    all K `columns` of theirs; the k columns that are ranked stand first. NaN where there is none. Of users who tie, the
    one whose columns come last in the order of lists, so that parts merge to the same in any order.
    """

    columns: tuple[str, ...]
    users: Floats

    @classmethod
    def of(cls, columns: Sequence[str], values: Floats, ranked: int) -> "Largest":
        """Of users' sums (users, K), by their first `ranked` columns.

        >>> Largest.of(("x", "y"), np.array([[1.0, 5.0], [3.0, -2.0]]), 1).users.tolist()
        [[3.0, -2.0], [nan, nan]]
        """
        return cls(tuple(columns), np.full((2 * ranked, len(columns)), np.nan)).among(
            values[:, :ranked], values[:, ranked:]
        )

    def among(self, values: Floats, others: Floats) -> "Largest":
        """Of these users as well; where none of them stands out that costs no more than a maximum.

        Args:
            values: (users, k) their sums of the columns that are ranked.
            others: (users, K − k) of those that are not.

        """
        if not len(values):
            return self
        ranked, users = len(self.users) // 2, self.users.copy()
        by_column = np.ascontiguousarray(values.T)  # ten times as fast to search
        highest, lowest = by_column.max(axis=1), by_column.min(axis=1)
        for place in range(ranked):
            if not highest[place] < users[place, place]:  # NaN: nobody yet
                who = by_column[place] == highest[place]
                further = _last_of(np.hstack((values[who], others[who])))
                users[place] = _further(users[place], further, place, highest=True)
            row = ranked + place
            if lowest[place] < 0 and not lowest[place] > users[row, place]:
                who = by_column[place] == lowest[place]
                further = _last_of(np.hstack((values[who], others[who])))
                users[row] = _further(users[row], further, place, highest=False)
        return Largest(self.columns, users)

    def __add__(self, other: "Largest") -> "Largest":
        """Of the users of both.

        Raises:
            ValueError: their columns differ.

        """
        if self.columns != other.columns or self.users.shape != other.users.shape:
            raise ValueError("the largest users of other columns do not merge")
        ranked, users = len(self.users) // 2, self.users.copy()
        for row, (mine, theirs) in enumerate(zip(self.users, other.users, strict=True)):
            users[row] = _further(mine, theirs, row % ranked, highest=row < ranked)
        return Largest(self.columns, users)

    def only(self, columns: Sequence[str]) -> "Largest":
        """With these of the columns, the ranked ones among them and first.

        Raises:
            ValueError: one is not there.

        >>> Largest.of(("x", "y", "z"), np.array([[1.0, 5.0, 2.0]]), 1).only(("x", "z")).users[0].tolist()
        [1.0, 2.0]

        """
        return Largest(tuple(columns), self.users[:, [self.columns.index(column) for column in columns]])

    def of_columns(self, columns: Sequence[str]) -> Floats:
        """The users who stand out in any of `columns`, each once (users, K)."""
        ranked = len(self.users) // 2
        places = [self.columns.index(column) for column in columns]
        rows = self.users[[*places, *(ranked + place for place in places)]]
        return np.unique(rows[~np.isnan(rows).any(axis=1)], axis=0)


def without(moments: Moments, user: Floats) -> Moments:
    """The moments of all users but one, who is among them; the pairwise update of `Moments`, solved for the other part.

    >>> crowd = Moments.of(("x",), np.array([[1.0], [3.0], [8.0]]))
    >>> left = without(crowd, np.array([8.0]))
    >>> left.n, left.means.tolist(), left.products.round(9).tolist()
    (2, [2.0], [[2.0]])
    """
    left = moments.n - 1
    if left < 1:
        return Moments.of(moments.columns, np.zeros((0, len(moments.columns))))
    apart = user - moments.means
    products = moments.products - np.outer(apart, apart) * (moments.n / left)
    return Moments(moments.columns, left, moments.means - apart / left, products)


def _last_of(rows: Floats) -> Floats:
    """The row that comes last in the order of lists."""
    for column in range(rows.shape[1]):
        if len(rows) == 1:
            break
        rows = rows[rows[:, column] == rows[:, column].max()]
    return np.asarray(rows[0], np.float64)


def _further(mine: Floats, theirs: Floats, place: int, *, highest: bool) -> Floats:
    if np.isnan(theirs).any():
        return mine
    if np.isnan(mine).any():
        return theirs
    sign = 1 if highest else -1
    return max(mine, theirs, key=lambda row: (sign * row[place], row.tolist()))
