"""Histories of a data set as packed windows (`trainer.data.packed`), in the order of a draw."""

from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace

import numpy as np

from evaluation.data import Query, Sequence
from evaluation.progressive import batch_of
from trainer.data.batches import Batch
from trainer.data.packed import PLACES, pieces, steps


@dataclass(frozen=True)
class Packed:
    """A window to learn from, and how many of its last places are new."""

    query: Query
    count: int

    @property
    def width(self) -> int:
        """Places that it needs: its behaviours, and one before the first where that is new."""
        return max(len(self.query.history), self.count)


def packed(histories: dict[int, Sequence], window: int, seed: int) -> list[Packed]:
    """The windows of all users, in the order of a draw; a user's own one after the other, the oldest first.

    Where a window stands is how far it is in its history, so that a user's are not learned in one go.
    """
    rng = np.random.default_rng(seed)
    placed: list[tuple[float, float, Packed]] = []
    for user_id, did in sorted(histories.items()):
        cut = pieces(len(did), window)
        lot = float(rng.random())
        for number, piece in enumerate(cut):
            query = Query(
                user_id,
                did.until(piece.end),
                int(did.times_ms[piece.end]),
                int(did.rows[piece.end]),
                np.empty(0, np.int64),
            )
            placed.append(((number + 0.5) / len(cut), lot, Packed(query, piece.count)))
    return [one for _, _, one in sorted(placed, key=lambda entry: entry[:2])]


def batches(windows: list[Packed], window: int, places: int = PLACES, seed: int = 0) -> Iterator[Batch]:
    """The windows, as many to a batch as make at least so many new places, none wider than its longest history."""
    for part in steps(windows, places, seed):
        yield _batch(part, window)


def _batch(part: Many[Packed], window: int) -> Batch:
    width = min(max(one.width for one in part), window)
    counts = np.array([one.count for one in part], np.int64)
    return replace(batch_of([one.query for one in part], width), last=counts)
