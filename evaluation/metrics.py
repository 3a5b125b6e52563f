"""Measures of ranked lists, and how sure one can be of them.

Every query has one relevant item, so recall@K is HR@K. A per-query value is (Q,); intervals resample users, because
queries of one user are not independent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from contracts.features import Ints

Values: TypeAlias = npt.NDArray[np.float64]

RESAMPLES = 4000
LEVEL = 0.95
_DRAWN_AT_ONCE = 4_000_000  # user draws held in memory


@dataclass(frozen=True)
class Interval:
    """An estimate between its bounds."""

    value: float
    low: float
    high: float


def recall(ranks: Ints, k: int) -> Values:
    """1 where the target is among the first `k`; ranks (Q,) count from 1.

    >>> recall(np.array([1, 2, 3]), 2).tolist()
    [1.0, 1.0, 0.0]
    """
    return (ranks <= k).astype(np.float64)


def mrr(ranks: Ints, k: int) -> Values:
    """Reciprocal rank where the target is among the first `k`, else 0.

    >>> mrr(np.array([1, 2, 3]), 2).tolist()
    [1.0, 0.5, 0.0]
    """
    return np.where(ranks <= k, 1 / ranks, 0)


def ndcg(ranks: Ints, k: int) -> Values:
    """1 / log2(1 + rank) where the target is among the first `k`, else 0 (Järvelin and Kekäläinen, TOIS 2002).

    With one relevant item the ideal gain is 1.

    >>> ndcg(np.array([1, 3, 4]), 3).tolist()
    [1.0, 0.5, 0.0]
    """
    return np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0)


def coverage(lists: Ints, items: int) -> float:
    """Share of a catalogue of `items` that is on at least one of the lists (Q, K) of rows.

    >>> coverage(np.array([[0, 1], [1, 2]]), 4)
    0.75
    """
    return np.unique(lists).size / items


def over_seeds(runs: Values | list[list[float]]) -> Values:
    """Per-query values (S, Q) of a model's seeds to one (Q,): the mean over seeds.

    >>> over_seeds([[1.0, 0.0], [0.0, 0.0]]).tolist()
    [0.5, 0.0]
    """
    means: Values = np.mean(np.asarray(runs, np.float64), axis=0)
    return means


def spread(runs: Values | list[list[float]]) -> float:
    """Standard deviation (n − 1) over seeds of the mean over queries, of values (S, Q); NaN with one seed.

    >>> round(spread([[1.0, 0.0], [0.0, 0.0]]), 4)
    0.3536
    """
    means = np.asarray(runs, np.float64).mean(1)
    return float(means.std(ddof=1)) if means.size > 1 else float("nan")


def interval(
    values: Values, user_ids: Ints, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """Mean over queries with a percentile bootstrap over users (Efron and Tibshirani, 1993, chapter 13).

    A resample draws as many users as there are; its mean is over all queries of the users drawn.

    Args:
        values: (Q,) per query.
        user_ids: (Q,) whose query each is.
        seed: of the resamples.
        resamples: how many.
        level: of confidence.

    Raises:
        ValueError: there is no query.

    """
    (sums,), counts = _by_user([values], user_ids)
    means = np.concatenate([sums[who].sum(1) / counts[who].sum(1) for who in _draws(counts.size, resamples, seed)])
    return _between(float(values.mean()), means, level)


def lift(
    treated: Values,
    control: Values,
    user_ids: Ints,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Relative difference of two models' means on the same queries, mean(treated) / mean(control) − 1.

    The bootstrap is paired: a resample draws users, and takes both models' values of them. A resample in which the
    control's mean is 0 counts as an infinite lift (as none where both are 0).

    Args:
        treated: (Q,) per query.
        control: (Q,) of the other model, same queries.
        user_ids: (Q,) whose query each is.
        seed: of the resamples.
        resamples: how many.
        level: of confidence.

    Raises:
        ValueError: there is no query.

    """
    (one, two), counts = _by_user([treated, control], user_ids)
    drawn = [(one[who].sum(1), two[who].sum(1)) for who in _draws(counts.size, resamples, seed)]
    ratios = np.concatenate([_relative(a, b) for a, b in drawn])
    return _between(float(_relative(treated.sum(keepdims=True), control.sum(keepdims=True))[0]), ratios, level)


def _by_user(values: list[Values], user_ids: Ints) -> tuple[list[Values], Ints]:
    """Sums and numbers of queries of each user."""
    if not user_ids.size:
        raise ValueError("there is no query to measure")
    users, at = np.unique(user_ids, return_inverse=True)
    sums: list[Values] = [np.bincount(at, v, users.size).astype(np.float64) for v in values]
    return sums, np.bincount(at)


def _draws(users: int, resamples: int, seed: int) -> Iterator[Ints]:
    """Users of each resample, in pieces (R, U) that fit into memory."""
    rng = np.random.default_rng(seed)
    step = max(_DRAWN_AT_ONCE // users, 1)
    for at in range(0, resamples, step):
        yield rng.integers(users, size=(min(step, resamples - at), users))


def _relative(treated: Values, control: Values) -> Values:
    some = control > 0
    lifts = np.where(treated > 0, np.inf, 0.0)
    lifts[some] = treated[some] / control[some] - 1
    return lifts


def _between(value: float, resampled: Values, level: float) -> Interval:
    # `lower` and `higher` pick values that occurred, so an infinite one does not turn its neighbours into NaN.
    low = np.quantile(resampled, (1 - level) / 2, method="lower")
    high = np.quantile(resampled, (1 + level) / 2, method="higher")
    return Interval(value, float(low), float(high))
