"""An experiment to which a day can be added without reading the days before again: the users' days, kept on disk.

A new day's covariance with every day before it needs what its users did on those days. So a folder keeps, besides the
aggregate, the users in the order in which they came (by first day, arm and whether they are known from before, then by
id: runs of one kind), and for each day who came and their columns, sorted by that order. To add a day, its rows are
sorted once, and then every kept day is read once, in order, beside them.

Sums of products are taken about the days' means, so that no digits are lost where a mean is large against its spread.
A day is there when `kept.npz` says so, which is replaced last: a crash before that leaves the days before.
"""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from abtest.aggregate.aggregate import SEGMENTS, aggregate, bucketed
from abtest.aggregate.user_days import Ints, Table, arranged
from abtest.incremental.cross_day_moments import about, moments_with
from abtest.incremental.store import COVARIATES, Day, Kept, begun, commit, opened, roster, write
from abtest.read.engines import DataError
from abtest.stats.histogram import Histogram
from abtest.stats.jackknife import Buckets
from abtest.stats.moments import Floats, Moments

__all__ = ["Kept", "begun", "opened", "with_day"]


def with_day(kept: Kept, table: Table, counts: Mapping[str, int] | None = None) -> Kept:
    """One more day, which is kept.

    Args:
        kept: the days before.
        table: of the day's users, all with a row on it and on no other day.
        counts: what was met in its rows; kept with those of the days before.

    Raises:
        DataError: the day is not after those kept, or the table has several.

    """
    day = int(table.day[0]) if len(table.day) else -1
    if day < 0 or table.day[-1] != day:
        raise DataError("A day that is added needs rows, and rows of that day alone.")
    if kept.days and day <= kept.days[-1].day:
        raise DataError(
            f"Day {day} comes after day {kept.days[-1].day}, which is kept already; days are added in order."
        )
    with threadpool_limits(1, "blas"):  # the pool below has the processors
        return _with_day(kept, table, day, Counter(counts or {}))


def _with_day(kept: Kept, table: Table, day: int, counts: Counter[str]) -> Kept:
    old = roster(kept)
    place = _places(old["ids"], old["places"], table.user_id)
    met = place >= 0
    gone = np.zeros(len(place), bool)
    gone[met] = old["gone"][place[met]]
    run = np.searchsorted(kept.starts, place, side="right") - 1
    mixed = met & ~gone & (run % len(kept.kinds) // len(SEGMENTS) != table.arm)
    if mixed.any():
        kept = _without_users(kept, table.user_id[mixed], place[mixed])
        old["gone"][place[mixed]] = True
    before = np.flatnonzero(met & ~gone & ~mixed)
    before = before[np.argsort(place[before])]
    new, pre, sizes, unknown = _newcomers(kept, table, np.flatnonzero(~met))
    rows = counts["rows"] or len(table.day)
    counts.update(kept.counts)
    if (kept.folder / COVARIATES).exists():
        counts["users_without_pre"] += unknown
        counts["pre_users_without_rows"] -= len(new) - unknown
    users = np.concatenate([before, new])
    place = np.concatenate([place[before], kept.starts[-1] + np.arange(len(new))])
    starts = (*kept.starts, *(kept.starts[-1] + np.cumsum(sizes)).tolist())
    values = table.values[users]
    bounds = np.searchsorted(place, starts).tolist()
    means = about(len(kept.kinds), bounds, values, pre)
    added = Day(day, tuple(bounds), means, np.zeros_like(means), rows)
    found = replace(kept, starts=starts, days=(*kept.days, added))
    with ThreadPoolExecutor(1) as pool:  # the disk has its time meanwhile
        written = pool.submit(write, kept.folder, str(day), rows=place.astype(np.int32), values=values, pre=pre)
        moments = moments_with(found, place, values, pre)
        written.result()
    arm = table.arm[users]
    found = replace(
        found,
        moments=moments,
        buckets=_buckets(found, table.user_id[users], arm, values, len(before)),
        histograms=_histograms(found, old["totals"], place, arm, values, len(before)),
        counts=dict(counts),
    )
    ids = np.concatenate([old["ids"], table.user_id[new]])
    order = np.argsort(ids, kind="stable")  # two sorted runs or so: merged
    places = np.concatenate([old["places"], place[len(before) :]])
    write(
        kept.folder,
        str(day),
        ids=ids[order],
        places=places[order],
        gone=np.concatenate([old["gone"], np.zeros(len(new), bool)]),
        totals=_totals(found, old["totals"], place, values, len(new)),
    )
    commit(found)
    return found


def _places(ids: Ints, places: Ints, wanted: Ints) -> Ints:
    """Where users stand; -1 for those who are new. `ids` are sorted."""
    order = np.argsort(wanted)
    at = np.searchsorted(ids, wanted[order])
    found = np.full(len(wanted), -1)
    inside = np.flatnonzero(at < len(ids))
    inside = inside[ids[at[inside]] == wanted[order[inside]]]
    found[order[inside]] = places[at[inside]]
    return found


def _newcomers(kept: Kept, table: Table, new: Ints) -> tuple[Ints, Floats, Ints, int]:
    """Those of `table` who are new, in the order in which they are kept; their covariates; how many of each kind.

    And of how many the covariates are not known, where they are given once for all users.
    """
    pre, unknown = table.pre[new], 0
    if (kept.folder / COVARIATES).exists():
        ids = np.load(kept.folder / "pre-ids.npy", mmap_mode="r")
        known = _places(ids, np.arange(len(ids)), table.user_id[new])
        pre = np.zeros((len(new), len(kept.covariates)))
        pre[known >= 0] = np.load(kept.folder / COVARIATES, mmap_mode="r")[known[known >= 0]]
        unknown = int((known < 0).sum())
    kind = len(SEGMENTS) * table.arm[new] + ~pre.any(axis=1)
    order = np.lexsort((table.user_id[new], kind))
    return new[order], pre[order], np.bincount(kind, minlength=len(kept.kinds)), unknown


def _buckets(kept: Kept, ids: Ints, arm: Ints, values: Floats, before: int) -> dict[str, Buckets]:
    found = {}
    for i, name in enumerate(kept.experiment.arms):
        inside = arm == i
        added = bucketed(kept.columns, ids[inside], values[inside])
        new = bucketed(kept.columns, ids[before:][inside[before:]], values[before:][inside[before:]])
        found[name] = kept.buckets[name] + Buckets(kept.columns, added.sums, new.counts)
    return found


def _histograms(
    kept: Kept, totals: Floats, place: Ints, arm: Ints, values: Floats, before: int
) -> dict[str, dict[str, Histogram]]:
    """Users who came before change their cell."""
    found: dict[str, dict[str, Histogram]] = {}
    for i, column in enumerate(kept.spread):
        own = values[:, kept.columns.index(column)]
        had = np.concatenate([totals[place[:before], i], np.zeros(len(own) - before)])
        found[column] = {}
        for j, name in enumerate(kept.experiment.arms):
            left = Histogram.of(had[:before][arm[:before] == j])
            found[column][name] = _less(kept.histograms[column][name] + Histogram.of((had + own)[arm == j]), left)
    return found


def _less(whole: Histogram, part: Histogram) -> Histogram:
    return Histogram((whole.counts.astype(np.int64) - part.counts).astype(np.uint32))


def _totals(kept: Kept, totals: Floats, place: Ints, values: Floats, new: int) -> Floats:
    """Users' sums over all days of the columns of histograms."""
    found = np.concatenate([totals, np.zeros((new, totals.shape[1]))])
    for i, column in enumerate(kept.spread):
        found[place, i] += values[:, kept.columns.index(column)]
    return found


def _without_users(kept: Kept, ids: Ints, place: Ints) -> Kept:
    """Users who turn out to be in two arms leave, with all that they did."""
    order = np.argsort(place)
    ids, place = ids[order], place[order]
    arms, size = tuple(kept.experiment.arms), len(kept.kinds)
    run = np.searchsorted(kept.starts, place, side="right") - 1
    pre = np.zeros((len(ids), len(kept.covariates)))
    rows: list[tuple[Ints, Ints, Floats]] = []
    for which, day in enumerate(kept.days):
        came = np.load(kept.folder / f"rows-{day.day}.npy", mmap_mode="r")
        at = np.searchsorted(came, place)
        user = np.flatnonzero(at < len(came))
        user = user[came[at[user]] == place[user]]
        values = np.load(kept.folder / f"values-{day.day}.npy", mmap_mode="r")[at[user]]
        rows.append((np.full(len(user), day.day), user, values))
        own = run // size == which
        pre[own] = np.load(kept.folder / f"pre-{day.day}.npy", mmap_mode="r")[place[own] - kept.starts[which * size]]
    days = tuple(_without_rows(kept, day, *rows[which], run, pre) for which, day in enumerate(kept.days))
    day_of, user, values = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    moments: dict[str, dict[str, Moments]] = {}
    buckets, histograms = dict(kept.buckets), {column: dict(found) for column, found in kept.histograms.items()}
    for i, segment in enumerate(SEGMENTS):
        inside = run % len(SEGMENTS) == i
        mine, number = inside[user], np.cumsum(inside) - 1
        left = aggregate(
            arranged(
                arms,
                kept.columns,
                kept.covariates,
                ids[inside],
                (run % size // len(SEGMENTS))[inside],
                pre[inside],
                day_of[mine],
                number[user[mine]],
                values[mine],
            ),
            days=kept.days[-1].day + 1,
            spread=kept.spread,
        )
        moments[segment] = {arm: _less_moments(kept.moments[segment][arm], left.moments[arm]) for arm in arms}
        for arm in arms:
            gone = left.buckets[arm]
            buckets[arm] = buckets[arm] + Buckets(gone.columns, -gone.sums, -gone.counts)
            for column in kept.spread:
                histograms[column][arm] = _less(histograms[column][arm], left.histograms[column][arm])
    return replace(
        kept,
        moments=moments,
        buckets=buckets,
        histograms=histograms,
        days=days,
        in_two_arms=kept.in_two_arms + len(ids),
    )


def _without_rows(kept: Kept, day: Day, _: Ints, user: Ints, values: Floats, run: Ints, pre: Floats) -> Day:
    """A day's `sums` without some users, whose `run` and `pre` are given."""
    size, k, sums = len(kept.kinds), len(kept.columns), day.sums.copy()
    which = next(place for place, of in enumerate(kept.days) if of.day == day.day)
    for kind in range(size):
        came, new = run[user] % size == kind, run == which * size + kind
        sums[kind, :k] -= (values[came] - day.about[kind, :k]).sum(axis=0)
        sums[kind, k : k + 2] -= came.sum(), new.sum()
        sums[kind, k + 2 :] -= (pre[new] - day.about[kind, k + 2 :]).sum(axis=0)
    return replace(day, sums=sums)


def _less_moments(whole: Moments, part: Moments) -> Moments:
    """Without the users of `part`: [C83] eq. 2.1 (see abtest.stats.moments), solved for the other part."""
    n = whole.n - part.n
    if not n:
        return Moments.of(whole.columns, np.zeros((0, len(whole.columns))))
    shift = part.means - whole.means
    means = whole.means - shift * (part.n / n)
    products = whole.products - part.products - np.outer(shift, shift) * (part.n * whole.n / n)
    return Moments(whole.columns, n, means, products)
