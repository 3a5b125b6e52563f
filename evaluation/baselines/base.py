"""What a baseline is: it counts sequences once and then scores every item for any history. None of them trains."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from scipy import sparse

from contracts.features import Floats, Ints
from evaluation.data import Sequence

# Popularity, as a share of the most popular item's, decides between items that a baseline cannot tell apart. It is
# smaller than the difference of one count among the transitions that it orders.
TIE = 1e-6


class Fitted(Protocol):
    """A baseline that has counted."""

    def scores(self, histories: list[Sequence]) -> Floats:
        """(Q, N), higher is better, of Q histories; an empty one gets the order of popularity."""
        ...


class Baseline(Protocol):
    """A baseline's settings."""

    def fit(self, sequences: list[Sequence], items: int) -> Fitted:
        """Count sequences over a catalogue of `items` rows.

        Raises:
            ValueError: a sequence holds a row that the catalogue does not.

        """
        ...


def popularity(sequences: list[Sequence], items: int) -> Ints:
    """(N,) behaviours of each item."""
    return np.bincount(checked(joined(s.rows for s in sequences), items), minlength=items)


def tie_breaks(sequences: list[Sequence], items: int) -> Floats:
    """(N,) what to add to scores so that the more popular of two equals wins."""
    counts = popularity(sequences, items)
    return (TIE * counts / max(int(counts.max(initial=0)), 1)).astype(np.float32)


def checked(rows: Ints, items: int) -> Ints:
    """The rows, all of which must be in a catalogue of `items`."""
    if rows.size and not 0 <= rows.min() <= rows.max() < items:
        raise ValueError(f"a behaviour names a row outside the catalogue of {items} items")
    return rows


def joined(parts: Iterable[Ints]) -> Ints:
    """One array of many, which may be none."""
    return np.concatenate([np.empty(0, np.int64), *parts])


def weighted(histories: list[Sequence], items: int, weights: Floats) -> sparse.csr_array:
    """(Q, N) with weights[j] at the behaviour j before the end of each history; earlier ones are left out."""
    tails = [s.rows[: -weights.size - 1 : -1] for s in histories]
    sizes = [tail.size for tail in tails]
    values = np.concatenate([np.empty(0, np.float32), *(weights[:size] for size in sizes)])
    shape = (len(histories), items)
    return sparse.csr_array((values, (np.repeat(np.arange(len(sizes)), sizes), checked(joined(tails), items))), shape)
