"""Histories packed into few windows, to learn from: a user's behaviours side by side, each of them a target once.

One example an effective view costs a whole window of the encoder each time, of which all places but one are old.
A packed window is learned from at all its new places at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from evaluation.data import Query, Sequence
from evaluation.progressive import batch_of
from trainer.data.batches import Batch

PLACES = 256  # of a step
ALIKE = 16  # batches whose windows are sorted by length


@dataclass(frozen=True)
class Piece:
    """A window of a history: behaviour `end` (from 0) follows it, and the `count` last of its places are new."""

    end: int
    count: int


def pieces(length: int, window: int) -> list[Piece]:
    """The windows of a history of so many behaviours, in which each of these is what follows a new place once.

    The first window begins before the first behaviour, with a user of whom nothing is known. None has more than half a
    window of new places, so that each of these has at least half a window of behaviours before it, or all there are.

    >>> pieces(5, 4)
    [Piece(end=1, count=2), Piece(end=3, count=2), Piece(end=4, count=1)]
    >>> pieces(1, 4), pieces(0, 4)
    ([Piece(end=0, count=1)], [])
    """
    new = max(window // 2, 1)
    return [Piece(min(start + new, length) - 1, min(new, length - start)) for start in range(0, length, new)]


@dataclass(frozen=True)
class Packed:
    """A window to learn from, and how many of its last places are new."""

    query: Query
    count: int


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
    """The windows, as many to a batch as make at least so many new places, none wider than its longest history.

    Of every `ALIKE` batches' worth, which are in order, windows of one length are together and the batches drawn in
    turn: among windows of all lengths most of a batch would be padding.
    """
    rng = np.random.default_rng(seed)
    for together in _parts(windows, ALIKE * places):
        parts = [*_parts(sorted(together, key=_width), places)]
        for at in rng.permutation(len(parts)).tolist():
            yield _batch(parts[at], window)


def _parts(windows: list[Packed], places: int) -> Iterator[list[Packed]]:
    start, count = 0, 0
    for at, one in enumerate(windows):
        count += one.count
        if count >= places or at == len(windows) - 1:
            yield windows[start : at + 1]
            start, count = at + 1, 0


def _batch(part: list[Packed], window: int) -> Batch:
    width = min(max(map(_width, part)), window)
    counts = np.array([one.count for one in part], np.int64)
    return replace(batch_of([one.query for one in part], width), last=counts)


def _width(one: Packed) -> int:
    """Places that a window needs: its behaviours, and one before the first where that is new."""
    return max(len(one.query.history), one.count)
