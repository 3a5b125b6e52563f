"""Users' sums capped from above at one threshold for all arms (winsorising): the arithmetic, and a cap as a value.

The unit is the user: of a user's sums v_0, v_1, … by day, day d contributes

    min(v_0 + … + v_d, T) − min(v_0 + … + v_(d−1), T)

so that the contributions through any day add up to the user's capped sum through it, min(sum, T). Daily, cumulative and
joint estimates, the jackknife and CUPED therefore take the capped sum as a column like any other. Nobody is dropped: a
user above the threshold stays, with the threshold as the sum. The metric is then the mean of capped sums.

Source: Tukey: The Future of Data Analysis. Annals of Mathematical Statistics 33(1), 1962, on Winsorizing samples.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from abtest.stats.moments import Floats
from contracts.config.experiment import Winsorize

Ints: TypeAlias = npt.NDArray[np.int64]
Of: TypeAlias = Literal["value", "pooled", "pre"]


@dataclass(frozen=True)
class Cap:
    """A cap on users' sums of `column`, one for all arms. `a + b`: of the users of both.

    `of`: a value fixed in advance, or the `quantile` of sums pooled over all arms, or of what users did before.
    `threshold`: in the column's unit; None where no sum is capped, and `reason` says why. `among`: how many users the
    quantile is of. `in_advance`: whether it is the same whoever comes later, so that a plan may look before the end.
    `capped`: by arm, the users whose sum over all days is above it.
    """

    column: str
    of: Of
    quantile: float | None = None
    threshold: float | None = None
    among: int = 0
    in_advance: bool = True
    reason: str | None = None
    capped: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: "Cap") -> "Cap":
        """As if all users had been in one.

        Raises:
            ValueError: the thresholds differ, or are not of the same users.

        """
        if replace(self, capped={}) != replace(other, capped={}):
            raise ValueError(
                f"aggregates with {self.column} capped at different thresholds, or at quantiles of different users, do "
                "not merge"
            )
        return replace(self, capped={arm: n + other.capped.get(arm, 0) for arm, n in self.capped.items()})


def capped_column(column: str, how: Winsorize) -> str:
    """What `column` is called where it is capped so; no metric's own column has such a name.

    >>> capped_column("play_s", Winsorize(quantile=0.999)), capped_column("play_s", Winsorize(at=1200))
    ('play_s capped at quantile 0.999', 'play_s capped at 1200')
    """
    if how.at is not None:
        return f"{column} capped at {repr(how.at).removesuffix('.0')}"
    return f"{column} capped at quantile {how.quantile!r}{' of pre' if how.of_pre else ''}"


def value_cap(column: str, at: float) -> Cap:
    """A cap at a value."""
    return Cap(column, "value", threshold=at)


def quantile_cap(column: str, values: Floats, quantile: float, of: Of, *, in_advance: bool) -> Cap:
    """A cap at the least of `values` (users,) that a share `quantile` of them does not exceed.

    There is none where nobody has a value, or where that one is not above 0: capped at 0, nothing would be left.

    >>> quantile_cap("x", np.array([5.0, 1.0, 2.0, 9.0]), 0.75, "pooled", in_advance=False).threshold
    5.0
    >>> quantile_cap("x", np.array([0.0, 0.0, 0.0, 9.0]), 0.75, "pooled", in_advance=False).reason
    'that quantile is 0, and at 0 nothing would be left'
    """
    cap = Cap(column, of, quantile, among=len(values), in_advance=in_advance)
    if not len(values):
        return replace(cap, reason="nobody is known from before" if of == "pre" else "there are no users yet")
    threshold = float(np.quantile(values, quantile, method="inverted_cdf"))
    if threshold <= 0:
        return replace(cap, reason=f"that quantile is {threshold:g}, and at {threshold:g} nothing would be left")
    return replace(cap, threshold=threshold)


def contributions(day: Ints, user: Ints, values: Floats, users: int, threshold: float | None) -> tuple[Floats, Floats]:
    """What each row adds to its user's capped sum (R,), and the sums without a cap (users,).

    Args:
        day: (R,) rising.
        user: (R,) from 0 to `users`, each at most once a day.
        values: (R,) users' sums on that day.
        users: how many there are.
        threshold: None caps nothing.

    >>> added, sums = contributions(np.array([0, 1, 2]), np.array([0, 0, 0]), np.array([3.0, 4.0, 5.0]), 1, 6.0)
    >>> added.tolist(), sums.tolist()
    ([3.0, 3.0, 0.0], [12.0])

    """
    sums, added = np.zeros(users), np.array(values, np.float64)
    edges = [0, *(np.flatnonzero(np.diff(day)) + 1).tolist(), len(day)]
    for begin, end in pairwise(edges):
        rows = slice(begin, end)
        before = sums[user[rows]]
        sums[user[rows]] = before + added[rows]
        added[rows] = contribution(before, added[rows], threshold)
    return added, sums


def contribution(before: Floats, values: Floats, threshold: float | None) -> Floats:
    """What one day's `values` (users,) add to the capped sums of users whose sums without a cap were `before`.

    >>> contribution(np.array([0.0, 3.0, 12.0]), np.array([3.0, 4.0, -9.0]), 6.0).tolist()
    [3.0, 3.0, -3.0]
    """
    if threshold is None:
        return values
    after = before + values
    over = np.maximum(before, after) > threshold  # below the cap a value stays the very number that it is
    return np.where(over, np.minimum(after, threshold) - np.minimum(before, threshold), values)
