"""Moments of all days with one more, from that day's rows and those kept (see abtest.incremental.add_day)."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from abtest.aggregate.aggregate import EXPOSED, SEGMENTS, layout
from abtest.aggregate.user_days import Ints
from abtest.incremental.store import Group, Kept, KeptDay, RunKey
from abtest.stats.columns import Column
from abtest.stats.cumulative import FIRST
from abtest.stats.moments import Floats, Moments

CHUNK = 65_536  # rows whose products are summed at once
THREADS = 2


class DayRows(NamedTuple):
    """The users who came on a day, sorted by place; the newcomers are the last of them."""

    places: Ints  # (R,)
    values: Floats  # (R, K)
    pre: Floats  # (newcomers, P)

    @property
    def returning(self) -> int:
        """How many came on a day before; the newcomers' rows begin here."""
        return len(self.values) - len(self.pre)

    def pre_of(self, run: slice) -> Floats:
        """The covariates of a run of newcomers, given by its rows."""
        return self.pre[run.start - self.returning : run.stop - self.returning]


class _Stretch(NamedTuple):
    """Rows of a kept day whose users are of one group."""

    day: KeptDay
    group: Group
    rows: slice


def summarised(
    kept: Kept, day: int, newcomers: slice, runs: Mapping[RunKey, slice], rows: DayRows, row_count: int
) -> KeptDay:
    """A day with its means and sums by group; means of nobody are 0. `runs`: by the day's rows."""
    k, q = len(kept.columns), len(kept.columns) + 2 + len(kept.covariates)
    about, sums = ({group: np.zeros(q) for group in kept.groups} for _ in range(2))
    users = dict.fromkeys(kept.groups, 0)
    for key, run in runs.items():
        about[key.group][:k] += rows.values[run].sum(axis=0)
        users[key.group] += run.stop - run.start
        if key.day == day:
            about[key.group][k + 2 :] = rows.pre_of(run).mean(axis=0)
    for group, means in about.items():
        means[:k] /= max(users[group], 1)
    for key, run in runs.items():
        means, total = about[key.group], sums[key.group]
        total[:k] += (rows.values[run] - means[:k]).sum(axis=0)
        total[k] += run.stop - run.start
        if key.day == day:
            total[k + 1] += run.stop - run.start
            total[k + 2 :] += (rows.pre_of(run) - means[k + 2 :]).sum(axis=0)
    return KeptDay(day, runs, newcomers, about, sums, row_count)


def moments_with(kept: Kept, rows: DayRows) -> dict[str, dict[str, Moments]]:
    """By segment and arm, of all days of `kept`; its moments lack the last one, whose rows are given."""
    k, last, by_day = len(kept.columns), kept.days[-1], {day.day: day for day in kept.days}
    q = k + 2 + len(kept.covariates)
    # By group and day, sums over users of the last day's columns (rows) by that day's (columns), each about its means.
    products = {group: {day: np.zeros((q, q)) for day in by_day} for group in kept.groups}
    centred = np.zeros((len(rows.values) + 1, k + 1))  # the last row is that of users who did not come
    centred[:-1, k] = 1.0
    row_of = np.full(kept.places, len(rows.values), np.int32)
    row_of[rows.places] = np.arange(len(rows.values), dtype=np.int32)
    for key, run in last.runs.items():
        group, came = key.group, centred[run]
        came[:, :k] = rows.values[run] - last.about[group][:k]
        own = products[group][last.day]
        own[: k + 1, : k + 1] += came.T @ came
        if key.day == last.day:
            block = _first_block(rows.pre_of(run), last, group)
            own[k + 1 :, k + 1 :] += block.T @ block
        else:
            began = by_day[key.day]
            pre = kept.array("pre", key.day)[rows.places[run] - began.newcomers.start]
            block = _first_block(pre, began, group)
        products[group][key.day][: k + 1, k + 1 :] += came.T @ block
    for group in kept.groups:
        own = products[group][last.day]
        own[k + 1 :, : k + 1] = own[: k + 1, k + 1 :].T
    with ThreadPoolExecutor(THREADS) as pool:
        for stretch, sums in pool.map(lambda each: (each, _products(kept, centred, row_of, each)), _stretches(kept)):
            products[stretch.group][stretch.day.day][: k + 1, : k + 1] += sums
    return {
        segment: {
            arm: _joined(kept, Group(arm, segment), products[Group(arm, segment)]) for arm in kept.experiment.arms
        }
        for segment in SEGMENTS
    }


def _first_block(pre: Floats, day: KeptDay, group: Group) -> Floats:
    """1 and the covariates of users who were new on a day, about their means."""
    means = day.about[group][len(day.about[group]) - pre.shape[1] :]
    return np.concatenate([np.ones((len(pre), 1)), pre - means], axis=1)


def _stretches(kept: Kept) -> Iterator[_Stretch]:
    """All rows of the days before the last, at most `CHUNK` at once."""
    for day in kept.days[:-1]:
        for key, run in day.runs.items():
            for begin in range(run.start, run.stop, CHUNK):
                yield _Stretch(day, key.group, slice(begin, min(begin + CHUNK, run.stop)))


def _products(kept: Kept, centred: Floats, row_of: npt.NDArray[np.int32], stretch: _Stretch) -> Floats:
    """Sums of products of the last day's columns and one kept day's, over the users of some of that day's rows."""
    k, day = len(kept.columns), stretch.day
    before = np.ones((stretch.rows.stop - stretch.rows.start, k + 1))
    np.subtract(kept.array("values", day.day)[stretch.rows], day.about[stretch.group][:k], out=before[:, :k])
    sums: Floats = centred.take(row_of.take(kept.array("rows", day.day)[stretch.rows]), axis=0).T @ before
    return sums


def _joined(kept: Kept, group: Group, products: Mapping[int, Floats]) -> Moments:
    """Moments with the last day's columns. `products` (q, q): by day, sums about the days' means, of U⁻¹x.

    With x = U x', where U puts back what was taken off: P = U_D (Σ x'_D x'_dᵀ − n m'_D m'_dᵀ) U_dᵀ.
    """
    last, k = kept.days[-1], len(kept.columns)
    wide = layout(kept.columns, kept.covariates, last.day + 1)
    places = kept.runs.get(RunKey(last.day, *group), slice(0, 0))
    zeros = Moments(wide, places.stop - places.start, np.zeros(len(wide)), np.zeros((len(wide), len(wide))))
    moments = kept.moments[group.segment][group.arm].embedded(wide) + zeros
    if not moments.n:
        return moments
    means, joint = moments.means.copy(), moments.products.copy()
    at = {column: i for i, column in enumerate(wide)}
    names = (*kept.columns, EXPOSED, FIRST, *kept.covariates)
    at_last = [at[Column(name, last.day)] for name in names]
    put_back, mean_about = _put_back(k, last.about[group]), last.sums[group] / moments.n
    for day in kept.days:
        at_day = [at[Column(name, day.day)] for name in names]
        centred = products[day.day] - np.outer(mean_about, day.sums[group])
        block = put_back @ centred @ _put_back(k, day.about[group]).T
        joint[np.ix_(at_last, at_day)] = block
        joint[np.ix_(at_day, at_last)] = block.T
    means[at_last] = put_back @ mean_about
    return Moments(wide, moments.n, means, joint)


def _put_back(k: int, about: Floats) -> Floats:
    """U (q, q): columns get their mean by whether the user was exposed, covariates by whether it is new."""
    matrix = np.eye(len(about))
    matrix[:k, k] = about[:k]
    matrix[k + 2 :, k + 1] = about[k + 2 :]
    return matrix
