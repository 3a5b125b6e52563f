"""Histories packed into few windows, to learn from: a user's behaviours side by side, each of them a target once.

One example an effective view costs a whole window of the encoder each time, of which all places but one are old.
A packed window is learned from at all its new places at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

PLACES = 256  # of a step
ALIKE = 16  # batches whose windows are sorted by length


@dataclass(frozen=True)
class Piece:
    """A window of a history: behaviour `end` (from 0) follows it, and the `count` last of its places are new."""

    end: int
    count: int


class Window(Protocol):
    """A window to learn from."""

    @property
    def count(self) -> int:
        """How many of its last places are new."""

    @property
    def width(self) -> int:
        """Places that it needs: its behaviours, and one before the first where that is new."""


W = TypeVar("W", bound=Window)


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


def steps(windows: Sequence[W], places: int = PLACES, seed: int = 0) -> Iterator[Sequence[W]]:
    """The windows, as many to a step as make at least so many new places.

    Of every `ALIKE` steps' worth, which are in order, windows of one length are together and the steps drawn in turn:
    among windows of all lengths most of a batch would be padding.
    """
    rng = np.random.default_rng(seed)
    for together in _parts(windows, ALIKE * places):
        parts = [*_parts(sorted(together, key=lambda one: one.width), places)]
        for at in rng.permutation(len(parts)).tolist():
            yield parts[at]


def _parts(windows: Sequence[W], places: int) -> Iterator[Sequence[W]]:
    start, count = 0, 0
    for at, one in enumerate(windows):
        count += one.count
        if count >= places or at == len(windows) - 1:
            yield windows[start : at + 1]
            start, count = at + 1, 0
