"""An experiment to which a day can be added without reading the days before again: the users' days, kept on disk.

A new day's covariance with every day before it needs what its users did on those days. So a folder keeps, besides the
aggregate, the users in the order in which they came (by first day, arm and whether they are known from before, then by
id: runs of one kind), and for each day who came and their columns, sorted by that order. To add a day, its rows are
sorted once, and then every kept day is read once, in order, beside them.

Sums of products are taken about the days' means, so that no digits are lost where a mean is large against its spread.
A day is there when `kept.npz` says so, which is replaced last: a crash before that leaves the days before.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from abtest.aggregate import BUCKETS, EXPOSED, SEGMENTS, Aggregate, aggregate, bucketed, layout
from abtest.aggregates import fingerprint, read_archive, write_archive
from abtest.engines import DataError
from abtest.histogram import Histogram
from abtest.jackknife import Buckets
from abtest.looks import FIRST
from abtest.moments import Floats, Moments
from abtest.table import Ints, Table, arranged
from contracts.experiment import Experiment

CHUNK = 65_536  # rows whose products are summed at once
THREADS = 2
MANIFEST = "kept.npz"


@dataclass(frozen=True)
class Day:
    """A kept day: where each run of users begins and ends among its rows, and what products are taken about.

    `about` (kinds, q): of each kind the means of the day's columns, 0, 0, and those of the covariates of who is new.
    `sums` (kinds, q): of columns, exposed, first and covariates, about those, over the users who are still there.
    """

    day: int
    bounds: tuple[int, ...]
    about: Floats
    sums: Floats


@dataclass(frozen=True)
class Kept:
    """An experiment so far. `starts`: where each run of users begins, and where the last ends.

    `moments`: by segment and arm, of all days' columns jointly. `days`: those added, in order.
    """

    folder: Path
    experiment: Experiment
    columns: tuple[str, ...]
    covariates: tuple[str, ...]
    spread: tuple[str, ...]
    moments: dict[str, dict[str, Moments]]
    buckets: dict[str, Buckets]
    histograms: dict[str, dict[str, Histogram]]
    starts: tuple[int, ...] = (0,)
    days: tuple[Day, ...] = ()
    in_two_arms: int = 0

    @property
    def aggregate(self) -> Aggregate:
        """Of all days added."""
        days = self.days[-1].day + 1 if self.days else 1
        names = (*self.columns, *self.covariates)
        totals = [(name, [f"{name}@{day}" for day in range(days)]) for name in names]
        known, new = (self.moments[segment] for segment in SEGMENTS)
        return Aggregate(
            tuple(self.experiment.arms),
            self.columns,
            self.covariates,
            days,
            {arm: known[arm] + new[arm] for arm in known},
            self.buckets,
            {segment: {arm: of.sums(totals) for arm, of in self.moments[segment].items()} for segment in SEGMENTS},
            in_two_arms=self.in_two_arms,
            histograms=self.histograms,
        )

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Arm and segment of each run of a day."""
        return [(arm, segment) for arm in self.experiment.arms for segment in SEGMENTS]


def begun(
    folder: Path,
    experiment: Experiment,
    columns: Sequence[str],
    covariates: Sequence[str] = (),
    pre: tuple[Ints, Floats] | None = None,
    spread: Sequence[str] = (),
) -> Kept:
    """An experiment without days, in a folder of its own.

    Args:
        folder: where it is kept.
        experiment: its file.
        columns: of its metrics.
        covariates: from before.
        pre: ids and covariates (users, P), where a day's table does not have them.
        spread: columns whose histograms are kept.

    """
    folder.mkdir(parents=True, exist_ok=True)
    if pre is not None:
        order = np.argsort(pre[0])
        np.save(folder / "pre-ids.npy", pre[0][order])
        np.save(folder / "pre.npy", pre[1][order])
    arms, wide, k = tuple(experiment.arms), layout(columns, covariates, 1), len(columns)
    nobody = Moments.of(wide, np.zeros((0, len(wide))))
    found = Kept(
        folder,
        experiment,
        tuple(columns),
        tuple(covariates),
        tuple(spread),
        {segment: dict.fromkeys(arms, nobody) for segment in SEGMENTS},
        {arm: Buckets(tuple(columns), np.zeros((BUCKETS, k)), np.zeros(BUCKETS, np.int64)) for arm in arms},
        {column: {arm: Histogram.of(np.zeros(0)) for arm in arms} for column in spread},
    )
    none = np.zeros(0, np.int64)
    _save(folder, "none", ids=none, places=none, gone=np.zeros(0, bool), totals=np.zeros((0, len(spread))))
    _commit(found)
    return found


def opened(folder: Path, experiment: Experiment) -> Kept:
    """What was kept.

    Raises:
        StateError: there is nothing, it is damaged, or it is of another experiment.

    """
    values, told = read_archive(folder / MANIFEST, experiment)
    days = tuple(Day(day, tuple(bounds), *values["days"][str(day)].values()) for day, bounds in told["days"])
    return Kept(
        folder,
        experiment,
        tuple(told["columns"]),
        tuple(told["covariates"]),
        tuple(told["spread"]),
        values["moments"],
        values["buckets"],
        values["histograms"],
        tuple(told["starts"]),
        days,
        told["in_two_arms"],
    )


def with_day(kept: Kept, table: Table) -> Kept:
    """One more day, which is kept.

    Args:
        kept: the days before.
        table: of the day's users, all with a row on it and on no other day.

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
        return _with_day(kept, table, day)


def _with_day(kept: Kept, table: Table, day: int) -> Kept:
    old = _load(kept)
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
    new, pre, sizes = _newcomers(kept, table, np.flatnonzero(~met))
    users = np.concatenate([before, new])
    place = np.concatenate([place[before], kept.starts[-1] + np.arange(len(new))])
    starts = (*kept.starts, *(kept.starts[-1] + np.cumsum(sizes)).tolist())
    values = table.values[users]
    bounds = np.searchsorted(place, starts).tolist()
    about = _about(len(kept.kinds), bounds, values, pre)
    added = Day(day, tuple(bounds), about, np.zeros_like(about))
    _save(kept.folder, str(day), rows=place.astype(np.int32), values=values, pre=pre)
    found = replace(kept, starts=starts, days=(*kept.days, added))
    moments = _moments(found, place, values, pre)
    arm = table.arm[users]
    found = replace(
        found,
        moments=moments,
        buckets=_buckets(found, table.user_id[users], arm, values, len(before)),
        histograms=_histograms(found, old["totals"], place, arm, values, len(before)),
    )
    ids = np.concatenate([old["ids"], table.user_id[new]])
    order = np.argsort(ids, kind="stable")  # two sorted runs or so: merged
    places = np.concatenate([old["places"], place[len(before) :]])
    _save(
        kept.folder,
        str(day),
        ids=ids[order],
        places=places[order],
        gone=np.concatenate([old["gone"], np.zeros(len(new), bool)]),
        totals=_totals(found, old["totals"], place, values, len(new)),
    )
    _commit(found)
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


def _newcomers(kept: Kept, table: Table, new: Ints) -> tuple[Ints, Floats, Ints]:
    """Those of `table` who are new, in the order in which they are kept; their covariates; how many of each kind."""
    pre = table.pre[new]
    if (kept.folder / "pre.npy").exists():
        ids = np.load(kept.folder / "pre-ids.npy", mmap_mode="r")
        known = _places(ids, np.arange(len(ids)), table.user_id[new])
        pre = np.zeros((len(new), len(kept.covariates)))
        pre[known >= 0] = np.load(kept.folder / "pre.npy", mmap_mode="r")[known[known >= 0]]
    kind = len(SEGMENTS) * table.arm[new] + ~pre.any(axis=1)
    order = np.lexsort((table.user_id[new], kind))
    return new[order], pre[order], np.bincount(kind, minlength=len(kept.kinds))


def _about(kinds: int, bounds: Sequence[int], values: Floats, pre: Floats) -> Floats:
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


def _moments(kept: Kept, place: Ints, values: Floats, pre: Floats) -> dict[str, dict[str, Moments]]:
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
    """Without the users of `part`: [C83] eq. 2.1 (see abtest.moments), solved for the other part."""
    n = whole.n - part.n
    if not n:
        return Moments.of(whole.columns, np.zeros((0, len(whole.columns))))
    shift = part.means - whole.means
    means = whole.means - shift * (part.n / n)
    products = whole.products - part.products - np.outer(shift, shift) * (part.n * whole.n / n)
    return Moments(whole.columns, n, means, products)


def _load(kept: Kept) -> dict[str, Any]:
    name = str(kept.days[-1].day) if kept.days else "none"
    return {what: np.load(kept.folder / f"{what}-{name}.npy") for what in ("ids", "places", "gone", "totals")}


def _save(folder: Path, name: str, **arrays: Any) -> None:
    for what, array in arrays.items():
        np.save(folder / f"{what}-{name}.npy", array)


def _commit(kept: Kept) -> None:
    values = {
        "moments": kept.moments,
        "buckets": kept.buckets,
        "histograms": kept.histograms,
        "days": {str(of.day): {"about": of.about, "sums": of.sums} for of in kept.days},
    }
    told = {
        "experiment": fingerprint(kept.experiment),
        "columns": kept.columns,
        "covariates": kept.covariates,
        "spread": kept.spread,
        "starts": kept.starts,
        "days": [(of.day, of.bounds) for of in kept.days],
        "in_two_arms": kept.in_two_arms,
    }
    write_archive(values, told, kept.folder / MANIFEST)
    now = {f"{what}-{kept.days[-1].day if kept.days else 'none'}.npy" for what in ("ids", "places", "gone", "totals")}
    for what in ("ids", "places", "gone", "totals"):
        for path in kept.folder.glob(f"{what}-*.npy"):
            if path.name not in now:
                path.unlink()
