"""What a policy showed, by item, and what came of it beside effective views: play time, follows, length, diversity."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from contracts.features import Ints, rows_of
from world.base import Response, WorldCatalogue

TOP = 0.01  # share of the catalogue whose share of all places says how narrow a policy is


@dataclass
class Shown:
    """Of the pages of one policy in the experiment; U users, N items of the catalogue."""

    durations_ms: Ints  # (N,) 0 where it is not known
    views: Ints  # (N,) times each item was shown
    effective: Ints  # (N,) effective views among them
    item_play_ms: Ints  # (N,) play time, all views together
    play_ms: Ints  # (U,) of each user's
    follows: Ints  # (U,)
    overlap: float = 0.0  # sum over pairs of items of one page: categories in common, over those of either (Jaccard)
    pairs: int = 0

    @classmethod
    def nothing(cls, catalogue: WorldCatalogue, users: int) -> "Shown":
        """Before the first page."""
        size = catalogue.item_ids.size
        return cls(
            catalogue.durations_ms,
            views=np.zeros(size, np.int64),
            effective=np.zeros(size, np.int64),
            item_play_ms=np.zeros(size, np.int64),
            play_ms=np.zeros(users, np.int64),
            follows=np.zeros(users, np.int64),
        )

    def note(self, catalogue: WorldCatalogue, user: int, item_ids: Sequence[int], response: Response) -> None:
        """Note a page.

        Args:
            catalogue: the same as for all pages.
            user: the place among the users.
            item_ids: m, in the order shown.
            response: to these.

        """
        rows = rows_of(np.array(item_ids, np.int64), catalogue.item_ids)
        np.add.at(self.views, rows, 1)
        np.add.at(self.effective, rows, response.effective_view)
        np.add.at(self.item_play_ms, rows, response.play_time_ms)
        self.play_ms[user] += int(response.play_time_ms.sum())
        self.follows[user] += int(response.follow.sum())
        for one, other in combinations([catalogue.categories[row] for row in rows.tolist()], 2):
            self.overlap += overlap(one, other)
            self.pairs += 1

    @property
    def items(self) -> int:
        """How many different items were shown."""
        return int((self.views > 0).sum())

    @property
    def top_share(self) -> float:
        """Share of all places that went to the most shown 1 % of the catalogue."""
        count = max(round(TOP * self.views.size), 1)
        return float(np.sort(self.views)[-count:].sum() / self.views.sum())

    @property
    def duration_s(self) -> float:
        """Mean duration of what was shown, of those whose duration is known, seconds; not a number if none is."""
        known = self.views * (self.durations_ms > 0)
        return float((known * self.durations_ms).sum() / known.sum() / 1000) if known.any() else float("nan")

    @property
    def mean_overlap(self) -> float:
        """Mean category overlap within a page; not a number where no page had two items."""
        return self.overlap / self.pairs if self.pairs else float("nan")


def overlap(one: Sequence[int], other: Sequence[int]) -> float:
    """Categories in common over those of either; 0 where neither has any.

    >>> overlap((1, 2), (2, 3)), overlap((1,), (1,)), overlap((), ())
    (0.3333333333333333, 1.0, 0.0)
    """
    either = {*one, *other}
    return len({*one} & {*other}) / len(either) if either else 0.0
