"""An experiment to which a day can be added without reading the days before again: the users' days, kept on disk.

A new day's covariance with every day before it needs what its users did on those days. So a folder keeps, besides the
aggregate, the users in the order in which they came, and for each day who came and their columns, sorted by that order
(see `abtest.incremental.store`). To add a day, its rows are sorted once, and then every kept day is read once, in
order, beside them.

Sums of products are taken about the days' means, so that no digits are lost where a mean is large against its spread.
A day is there when the manifest says so, which is replaced last: a crash before that leaves the days before.
"""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from abtest.aggregate.aggregate import SEGMENTS, aggregate, bucket_of, bucketed
from abtest.aggregate.user_days import UNKNOWN, Ints, Table, arranged, did_something_before
from abtest.format import counted
from abtest.incremental.cross_day_moments import DayRows, moments_with, summarised
from abtest.incremental.store import COVARIATES, PRE_IDS, Kept, RunKey, commit, load_roster, write_day, write_roster
from abtest.read.checks import CHANGING
from abtest.read.engines import DataError
from abtest.stats.histogram import Histogram
from abtest.stats.jackknife import Buckets
from abtest.stats.moments import Floats, Moments
from abtest.stats.winsorize import Cap, contribution

UNKNOWN_PLACE, NEVER_KEPT = -1, -2  # of a user who has not come, and of one who came in two arms on the first day


class ChangedError(DataError):
    """Users whose covariates are other ones on a later day: `users` of them, of whom `user` is the key of one."""

    def __init__(self, column: str, users: int, user: int) -> None:
        self.column, self.users, self.user = column, users, user
        super().__init__(self.said(str(user)))

    def said(self, name: str) -> str:
        """With that user's name."""
        met = f"{counted(self.users, *CHANGING)} (first: user_id {name})"
        return f"The data cannot be used: column '{self.column}' has {met}."


class _Newcomers(NamedTuple):
    """Users of a table whose first day it is, sorted by run and id."""

    users: Ints  # (N,) index into the table's users
    pre: Floats  # (N, P)
    runs: dict[RunKey, slice]  # their places
    without_pre: int  # users of whom a covariate is not known
    without_row: int  # of them, those whom the covariates given once for all users lack


def add_day(kept: Kept, table: Table, counts: Mapping[str, int] | None = None, day: int | None = None) -> Kept:
    """One more day, which is kept.

    Args:
        kept: the days before.
        table: of the day's users, all with a row on it and on no other day.
        counts: what was met in its rows; kept with those of the days before.
        day: which day it is, for a table that has no row because no user of the day may stay; None: by the rows.

    Raises:
        DataError: the day is not after those kept, or the table has several.

    """
    if day is None:
        day = int(table.day[0]) if len(table.day) else -1
    if day < 0 or (table.day != day).any():
        raise DataError("A day that is added needs rows, and rows of that day alone.")
    if kept.days and day <= kept.days[-1].day:
        raise DataError(
            f"Day {day} comes after day {kept.days[-1].day}, which is kept already; days are added in order."
        )
    with threadpool_limits(1, "blas"):  # the pool below has the processors
        return _add_day(kept, table, day, Counter(counts or {}))


def _add_day(kept: Kept, table: Table, day: int, counts: Counter[str]) -> Kept:
    roster = load_roster(kept)
    kept = _without_left_out(kept, table.left_out, roster, counts)
    place = places_of(roster["ids"], roster["places"], table.user_id)
    came_before = place >= 0
    gone = place == NEVER_KEPT
    gone[came_before] = roster["gone"][place[came_before]]
    in_two_arms = came_before & ~gone
    in_two_arms[in_two_arms] = _arms_at(kept, place[in_two_arms]) != table.arm[in_two_arms]
    if in_two_arms.any():
        kept = _without_users(kept, table.user_id[in_two_arms], place[in_two_arms])
        roster["gone"][place[in_two_arms]] = True
    returning = np.flatnonzero(came_before & ~gone & ~in_two_arms)
    returning = returning[np.argsort(place[returning])]
    _require_same_covariates(kept, table, place[returning], returning)
    new = _newcomers(kept, table, day, np.flatnonzero(~came_before & ~gone))
    row_count = counts["rows"] or len(table.day)
    counts.update(kept.counts)
    counts["users_without_pre"] += new.without_pre
    if kept.has_covariates_of_their_own:
        counts["pre_users_without_rows"] -= len(new.users) - new.without_row
    users = np.concatenate([returning, new.users])
    newcomers = slice(kept.places, kept.places + len(new.users))
    rows = DayRows(
        np.concatenate([place[returning], np.arange(newcomers.start, newcomers.stop)]),
        _with_capped(kept, table.values[users], roster["totals"], place[returning]),
        new.pre,
    )
    runs = {**kept.runs, **new.runs}
    added = summarised(kept, day, newcomers, _rows_of_runs(runs, rows.places), rows, row_count)
    before, kept = kept, replace(kept, runs=runs, days=(*kept.days, added))
    with ThreadPoolExecutor(1) as pool:  # the disk has its time meanwhile
        written = pool.submit(
            write_day, kept.folder, day, rows=rows.places.astype(np.int32), values=rows.values, pre=rows.pre
        )
        moments = moments_with(kept, rows)
        written.result()
    arm = table.arm[users]
    kept = replace(
        kept,
        moments=moments,
        buckets_through={**before.buckets_through, **{day.day: before.buckets for day in before.days[-1:]}},
        buckets=_buckets(before, table.user_id[users], arm, rows),
        histograms=_histograms(before, roster["totals"], arm, rows),
        counts=dict(counts),
    )
    ids = np.concatenate([roster["ids"], table.user_id[new.users]])
    order = np.argsort(ids, kind="stable")  # two sorted runs or so: merged
    write_roster(
        kept,
        ids=ids[order],
        places=np.concatenate([roster["places"], rows.places[rows.returning :]])[order],
        gone=np.concatenate([roster["gone"], np.zeros(len(new.users), bool)]),
        totals=_totals(kept, roster["totals"], rows),
    )
    return commit(kept)


def _without_left_out(kept: Kept, left_out: Ints, roster: dict[str, Any], counts: Counter[str]) -> Kept:
    """Users whom the new day alone has in two arms leave, and are in `roster` as such: they may come again."""
    place = places_of(roster["ids"], roster["places"], left_out)
    new, old = left_out[place == UNKNOWN_PLACE], place >= 0
    old[old] = ~roster["gone"][place[old]]
    if old.any():
        kept = _without_users(kept, left_out[old], place[old])
        roster["gone"][place[old]] = True
    if kept.has_covariates_of_their_own and len(new):
        ids = kept.checked(PRE_IDS)
        at = places_of(ids, np.arange(len(ids)), new)
        known = kept.checked(COVARIATES)[at[at >= 0]]
        counts["users_without_pre"] += len(new) - len(known) + _unknown(kept, known)
        counts["pre_users_without_rows"] -= len(known)
    ids = np.concatenate([roster["ids"], new])
    places = np.concatenate([roster["places"], np.full(len(new), NEVER_KEPT)])
    order = np.argsort(ids, kind="stable")
    roster["ids"], roster["places"] = ids[order], places[order]
    return replace(kept, in_two_arms=kept.in_two_arms + len(new))


def places_of(ids: Ints, places: Ints, wanted: Ints) -> Ints:
    """The places of users `wanted`; `UNKNOWN_PLACE` for those who are not among `ids`, which are sorted.

    >>> places_of(np.array([3, 7]), np.array([1, 0]), np.array([7, 5, 3])).tolist()
    [0, -1, 1]
    """
    order = np.argsort(wanted)
    at = np.searchsorted(ids, wanted[order])
    wanted_places = np.full(len(wanted), UNKNOWN_PLACE)
    inside = np.flatnonzero(at < len(ids))
    inside = inside[ids[at[inside]] == wanted[order[inside]]]
    wanted_places[order[inside]] = places[at[inside]]
    return wanted_places


def _keys_at(kept: Kept, places: Ints) -> tuple[list[RunKey], Ints]:
    """All runs, and which of them each user is in."""
    stops = np.array([run.stop for run in kept.runs.values()], np.int64)
    return list(kept.runs), np.searchsorted(stops, places, side="right")


def _arms_at(kept: Kept, places: Ints) -> Ints:
    """Each user's arm, as an index into the experiment's arms."""
    arms = tuple(kept.experiment.arms)
    keys, which = _keys_at(kept, places)
    return np.array([arms.index(key.arm) for key in keys], np.int64)[which]


def _rows_of_runs(runs: Mapping[RunKey, slice], places: Ints) -> dict[RunKey, slice]:
    """Which of a day's rows, sorted by place, are of each run."""
    begins, ends = (
        np.searchsorted(places, edge).tolist()
        for edge in ([run.start for run in runs.values()], [run.stop for run in runs.values()])
    )
    return {key: slice(begin, end) for key, begin, end in zip(runs, begins, ends, strict=True) if begin < end}


def _newcomers(kept: Kept, table: Table, day: int, users: Ints) -> _Newcomers:
    pre, without_row = table.pre[users], 0
    if kept.has_covariates_of_their_own:
        ids = kept.checked(PRE_IDS)
        at = places_of(ids, np.arange(len(ids)), table.user_id[users])
        pre = np.zeros((len(users), len(kept.covariates)))
        pre[at >= 0] = kept.checked(COVARIATES)[at[at >= 0]]
        without_row = int((at < 0).sum())
        if UNKNOWN in kept.covariates:
            pre[at < 0, kept.covariates.index(UNKNOWN)] = 1.0
    without_pre = _unknown(kept, pre)
    arm, is_new = table.arm[users], ~did_something_before(kept.covariates, pre)
    order = np.lexsort((table.user_id[users], is_new, arm))
    runs, end = {}, kept.places
    for i, name in enumerate(kept.experiment.arms):
        for segment, inside in zip(SEGMENTS, (~is_new, is_new), strict=True):
            begin, end = end, end + int(((arm == i) & inside).sum())
            if begin < end:
                runs[RunKey(day, name, segment)] = slice(begin, end)
    return _Newcomers(users[order], pre[order], runs, without_pre, without_row)


def _require_same_covariates(kept: Kept, table: Table, places: Ints, users: Ints) -> None:
    """That users who come again, sorted by place, have the covariates that they came with."""
    if kept.has_covariates_of_their_own or not kept.covariates:
        return
    for day in kept.days:
        begin, end = np.searchsorted(places, [day.newcomers.start, day.newcomers.stop])
        had = kept.array("pre", day.day)[places[begin:end] - day.newcomers.start]
        other = table.pre[users[begin:end]] != had
        if other.any():
            column = int(other.any(axis=0).argmax())
            changed = users[begin:end][other[:, column]]
            raise ChangedError(kept.covariates[column], len(changed), int(table.user_id[changed[0]]))


def _unknown(kept: Kept, pre: Floats) -> int:
    """How many users lack a covariate."""
    return int((pre[:, kept.covariates.index(UNKNOWN)] == 1).sum()) if UNKNOWN in kept.covariates else 0


def _buckets(kept: Kept, ids: Ints, arm: Ints, rows: DayRows) -> dict[str, Buckets]:
    """With a day's rows; only newcomers are counted."""
    buckets = {}
    for i, name in enumerate(kept.experiment.arms):
        inside = arm == i
        new = inside.copy()
        new[: rows.returning] = False
        added = bucketed(kept.columns, bucket_of(ids[inside]), rows.values[inside])
        counts = bucketed(kept.columns, bucket_of(ids[new]), rows.values[new]).counts
        buckets[name] = kept.buckets[name] + Buckets(kept.columns, added.sums, counts)
    return buckets


def _histograms(kept: Kept, totals: Floats, arm: Ints, rows: DayRows) -> dict[str, dict[str, Histogram]]:
    """With a day's rows; users who came before change their cell."""
    histograms: dict[str, dict[str, Histogram]] = {}
    for i, column in enumerate(kept.spread):
        values = rows.values[:, kept.columns.index(column)]
        had = totals[rows.places[: rows.returning], i]
        total = values.copy()
        total[: rows.returning] += had
        histograms[column] = {}
        for j, name in enumerate(kept.experiment.arms):
            left = Histogram.of(had[arm[: rows.returning] == j])
            histograms[column][name] = _less(kept.histograms[column][name] + Histogram.of(total[arm == j]), left)
    return histograms


def _less(whole: Histogram, part: Histogram) -> Histogram:
    return Histogram((whole.counts.astype(np.int64) - part.counts).astype(np.uint32))


def _with_capped(kept: Kept, values: Floats, totals: Floats, returning: Ints) -> Floats:
    """A day's values (users, K) of all columns, from those of the table's own; those who came before, with the places
    `returning`, are the first of the users, and `totals` are of `Kept.summed`.
    """
    columns = [values]
    for cap in kept.caps.values():
        before = np.zeros(len(values))
        before[: len(returning)] = totals[returning, kept.summed.index(cap.column)]
        own = values[:, kept.own_columns.index(cap.column)]
        columns.append(contribution(before, own, cap.threshold)[:, None])
    return np.hstack(columns) if kept.caps else values


def caps_so_far(kept: Kept) -> dict[str, Cap]:
    """The caps, with how many users of each arm who are still there they cap."""
    if not kept.caps:
        return {}
    roster = load_roster(kept)
    there = np.flatnonzero(~roster["gone"])
    arm, arms, counted = _arms_at(kept, there), tuple(kept.experiment.arms), {}
    for name, cap in kept.caps.items():
        above = np.zeros(len(there), bool)
        if cap.threshold is not None:
            above = roster["totals"][there, kept.summed.index(cap.column)] > cap.threshold
        by_arm = np.bincount(arm[above], minlength=len(arms)).tolist()
        counted[name] = replace(cap, capped=dict(zip(arms, by_arm, strict=True)))
    return counted


def _totals(kept: Kept, totals: Floats, rows: DayRows) -> Floats:
    """Users' sums over all days of `Kept.summed`."""
    longer = np.concatenate([totals, np.zeros((len(rows.pre), totals.shape[1]))])
    for i, column in enumerate(kept.summed):
        longer[rows.places, i] += rows.values[:, kept.columns.index(column)]
    return longer


def _without_users(kept: Kept, ids: Ints, places: Ints) -> Kept:
    """Users who turn out to be in two arms leave, with all that they did."""
    order = np.argsort(places)
    ids, places = ids[order], places[order]
    keys, which = _keys_at(kept, places)
    first = np.array([key.day for key in keys])[which]
    pre = np.zeros((len(ids), len(kept.covariates)))
    rows: list[tuple[Ints, Ints, Floats]] = []
    for day in kept.days:
        came = kept.array("rows", day.day)
        at = np.searchsorted(came, places)
        user = np.flatnonzero(at < len(came))
        user = user[came[at[user]] == places[user]]
        rows.append((np.full(len(user), day.day), user, kept.array("values", day.day)[at[user]]))
        new = first == day.day
        pre[new] = kept.array("pre", day.day)[places[new] - day.newcomers.start]
    segment_of = np.array([key.segment for key in keys])[which]
    day_of, user, values = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    moments: dict[str, dict[str, Moments]] = {}
    buckets, buckets_through = dict(kept.buckets), dict(kept.buckets_through)
    histograms = {column: dict(by_arm) for column, by_arm in kept.histograms.items()}
    arms, arm_of = tuple(kept.experiment.arms), _arms_at(kept, places)
    for segment in SEGMENTS:
        inside = segment_of == segment
        mine, number = inside[user], np.cumsum(inside) - 1
        left = aggregate(
            arranged(
                arms,
                kept.columns,
                kept.covariates,
                ids[inside],
                arm_of[inside],
                pre[inside],
                day_of[mine],
                number[user[mine]],
                values[mine],
            ),
            days=kept.days[-1].day + 1,
            spread=kept.spread,
            looks=tuple(kept.buckets_through),
        )
        buckets_through = {
            day: {arm: _less_buckets(before[arm], left.buckets_through[day][arm]) for arm in arms}
            for day, before in buckets_through.items()
        }
        moments[segment] = {arm: _less_moments(kept.moments[segment][arm], left.moments[arm]) for arm in arms}
        for arm in arms:
            buckets[arm] = _less_buckets(buckets[arm], left.buckets[arm])
            for column in kept.spread:
                histograms[column][arm] = _less(histograms[column][arm], left.histograms[column][arm])
    days = []
    for day, (_, user, values) in zip(kept.days, rows, strict=True):
        sums = dict(day.sums)
        for group in kept.groups:
            inside = (arm_of == arms.index(group.arm)) & (segment_of == group.segment)
            new = inside & (first == day.day)
            sums[group] = sums[group] - _sums_about(day.about[group], values[inside[user]], pre[new])
        days.append(replace(day, sums=sums))
    counts = Counter(kept.counts)
    if not kept.has_covariates_of_their_own:  # where they are, users in two arms are counted too
        counts["users_without_pre"] -= _unknown(kept, pre)
    return replace(
        kept,
        moments=moments,
        buckets=buckets,
        buckets_through=buckets_through,
        histograms=histograms,
        days=tuple(days),
        counts=dict(counts),
        in_two_arms=kept.in_two_arms + len(ids),
    )


def _less_buckets(whole: Buckets, part: Buckets) -> Buckets:
    return whole + Buckets(part.columns, -part.sums, -part.counts)


def _sums_about(about: Floats, values: Floats, pre: Floats) -> Floats:
    """Sums (q,) as `KeptDay.sums` has them: over rows of a day, and over those of its users who were new."""
    k = values.shape[1]
    return np.concatenate(
        [(values - about[:k]).sum(axis=0), [len(values), len(pre)], (pre - about[k + 2 :]).sum(axis=0)]
    )


def _less_moments(whole: Moments, part: Moments) -> Moments:
    """Without the users of `part`: [C83] eq. 2.1 (see abtest.stats.moments), solved for the other part."""
    n = whole.n - part.n
    if not n:
        return Moments.of(whole.columns, np.zeros((0, len(whole.columns))))
    shift = part.means - whole.means
    means = whole.means - shift * (part.n / n)
    products = whole.products - part.products - np.outer(shift, shift) * (part.n * whole.n / n)
    return Moments(whole.columns, n, means, products)
