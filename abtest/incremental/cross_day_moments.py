"""Moments of all days with one more, from that day's rows and those kept (see abtest.incremental.add_day)."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from abtest.aggregate.aggregate import EXPOSED, SEGMENTS, layout
from abtest.aggregate.user_days import Ints
from abtest.incremental.store import Day, Kept
from abtest.stats.cumulative import FIRST
from abtest.stats.moments import Floats, Moments

CHUNK = 65_536  # rows whose products are summed at once
THREADS = 2


def about(kinds: int, bounds: Sequence[int], values: Floats, pre: Floats) -> Floats:
    """See `Day`; means of nobody are 0."""
    k, new = values.shape[1], len(values) - len(pre)
    found, users = np.zeros((kinds, k + 2 + pre.shape[1])), np.zeros(kinds)
    for run, (begin, end) in enumerate(pairwise(bounds)):
        found[run % kinds, :k] += values[begin:end].sum(axis=0)
        users[run % kinds] += end - begin
        if begin >= new and end > begin:
            found[run % kinds, k + 2 :] = pre[begin - new : end - new].mean(axis=0)
    found[:, :k] /= np.maximum(users, 1)[:, None]
    return found


def moments_with(kept: Kept, place: Ints, values: Floats, pre: Floats) -> dict[str, dict[str, Moments]]:
    """Of all days, the last one among them; `place`, `values` and `pre` are its."""
    k, kinds, last = len(kept.columns), kept.kinds, kept.days[-1]
    of = np.zeros((len(values) + 1, k + 1))  # the last row is that of users who did not come
    of[:-1, k] = 1.0
    at = np.full(kept.starts[-1], len(values), np.int32)
    at[place] = np.arange(len(values), dtype=np.int32)
    width = k + 2 + len(kept.covariates)
    raw = np.zeros((len(kept.days), len(kinds), width, width))  # sums over users of last day's columns by each day's
    own, new = raw[-1], len(values) - len(pre)
    sums = last.sums
    for run, (begin, end) in enumerate(pairwise(last.bounds)):
        kind = run % len(kinds)
        np.subtract(values[begin:end], last.about[kind, :k], out=of[begin:end, :k])
        own[kind, : k + 1, : k + 1] += of[begin:end].T @ of[begin:end]
        sums[kind, : k + 1] += of[begin:end].sum(axis=0)
        if begin >= new:
            block = _first(pre[begin - new : end - new], last, kind)
            own[kind, : k + 1, k + 1 :] += of[begin:end].T @ block
            own[kind, k + 1 :, k + 1 :] += block.T @ block
            sums[kind, k + 1 :] += block.sum(axis=0)
        else:
            which = run // len(kinds)
            before = np.load(kept.folder / f"pre-{kept.days[which].day}.npy", mmap_mode="r")
            block = _first(before[place[begin:end] - kept.starts[run - kind]], kept.days[which], kind)
            raw[which, kind, : k + 1, k + 1 :] += of[begin:end].T @ block
    own[:, k + 1 :, : k + 1] = own[:, : k + 1, k + 1 :].transpose(0, 2, 1)
    with ThreadPoolExecutor(THREADS) as pool:
        for which, kind, summed in pool.map(lambda task: _products(kept, of, at, *task), _tasks(kept)):
            raw[which, kind, : k + 1, : k + 1] += summed
    counts = np.diff(kept.starts[-len(kinds) - 1 :])
    found: dict[str, dict[str, Moments]] = {segment: {} for segment in SEGMENTS}
    for kind, (arm, segment) in enumerate(kinds):
        found[segment][arm] = _joined(kept, kind, int(counts[kind]), raw[:, kind])
    return found


def _first(pre: Floats, day: Day, kind: int) -> Floats:
    """1 and the covariates of users who were new on a day, about their means."""
    return np.concatenate([np.ones((len(pre), 1)), pre - day.about[kind, day.about.shape[1] - pre.shape[1] :]], axis=1)


def _tasks(kept: Kept) -> Iterator[tuple[int, int, int, int]]:
    """Stretches of rows of one day and kind before the last day."""
    for which, day in enumerate(kept.days[:-1]):
        for run, (low, high) in enumerate(pairwise(day.bounds)):
            for begin in range(low, high, CHUNK):
                yield which, run % len(kept.kinds), begin, min(begin + CHUNK, high)


def _products(
    kept: Kept, of: Floats, at: npt.NDArray[np.int32], which: int, kind: int, begin: int, end: int
) -> tuple[int, int, Floats]:
    """Sums of products of the last day's columns and one kept day's, over the users of some of that day's rows."""
    day, k = kept.days[which], len(kept.columns)
    rows = np.load(kept.folder / f"rows-{day.day}.npy", mmap_mode="r")[begin:end]
    theirs = np.ones((end - begin, k + 1))
    kept_values = np.load(kept.folder / f"values-{day.day}.npy", mmap_mode="r")[begin:end]
    np.subtract(kept_values, day.about[kind, :k], out=theirs[:, :k])
    return which, kind, of.take(at.take(rows), axis=0).T @ theirs


def _joined(kept: Kept, kind: int, new: int, raw: Floats) -> Moments:
    """Moments with the last day's columns. `raw` (days, q, q): sums of products about the days' means, U⁻¹x.

    With x = U x', where U puts back what was taken off: P = U_D (Σ x'_D x'_dᵀ − n m'_D m'_dᵀ) U_dᵀ.
    """
    last = kept.days[-1]
    arm, segment = kept.kinds[kind]
    before = kept.moments[segment][arm]
    wide = layout(kept.columns, kept.covariates, last.day + 1)
    zeros = Moments(wide, new, np.zeros(len(wide)), np.zeros((len(wide), len(wide))))
    of = before.embedded(wide) + zeros
    if not of.n:
        return of
    means, products = of.means.copy(), of.products.copy()
    place = {column: i for i, column in enumerate(wide)}
    names = (*kept.columns, EXPOSED, FIRST, *kept.covariates)
    shifted = last.sums[kind] / of.n
    mine = [place[f"{name}@{last.day}"] for name in names]
    put_back = _put_back(len(kept.columns), last.about[kind])
    for day, found in zip(kept.days, raw, strict=True):
        theirs = [place[f"{name}@{day.day}"] for name in names]
        back = _put_back(len(kept.columns), day.about[kind])
        block = put_back @ (found - np.outer(shifted, day.sums[kind])) @ back.T
        products[np.ix_(mine, theirs)] = block
        products[np.ix_(theirs, mine)] = block.T
    means[mine] = put_back @ shifted
    return Moments(wide, of.n, means, products)


def _put_back(k: int, about: Floats) -> Floats:
    """U (q, q): columns get their mean by whether the user was exposed, covariates by whether it is new."""
    found = np.eye(len(about))
    found[:k, k] = about[:k]
    found[k + 2 :, k + 1] = about[k + 2 :]
    return found
