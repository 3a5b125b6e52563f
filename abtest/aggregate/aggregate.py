"""All that a report is made of: moments over users, by arm. It merges, it is small, and it does not grow with users.

Days are kept apart, and jointly: a `Column` for each day, so that their covariance is known. For each day d they are
c@d (a user's sum of c on that day), exposed@d and first@d (0 or 1: seen on that day; first on it), and pre.c@d (what
those who are new on d did before the experiment). From these follow, without another look at a user,

    the users exposed on a day                c@d, within exposed@d                     `on`
    all users seen through a day              sums of c@i and pre.c@i over i <= d       `through`
    the same at several days, jointly         columns c<=d                              `looks`
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np

from abtest.aggregate.sources import Votes
from abtest.aggregate.user_days import Ints, Table, did_something_before
from abtest.aggregate.user_parts import parts_of, replicas_of, versions_of, votes_of
from abtest.stats.columns import AnyColumn, Column, on_days
from abtest.stats.cumulative import FIRST
from abtest.stats.histogram import Histogram
from abtest.stats.jackknife import Buckets
from abtest.stats.largest import Largest
from abtest.stats.metrics import COLUMNS
from abtest.stats.moments import Floats, Moments
from abtest.stats.winsorize import Cap
from contracts.config.settings import SettingsError

EXPOSED, SEEN = "exposed", "seen"
BUCKETS = 100
CHUNK = 32_768  # users whose days are laid out densely at once
SEGMENTS = ("known from before", "new")


@dataclass(frozen=True)
class Aggregate:
    """Sufficient statistics of an experiment. `a + b`: of both, which must not share a user; order-free.

    `moments`: by arm, of `layout(...)`. `buckets`: by arm, users' sums over all days, in `BUCKETS` buckets.
    `segments`: by segment and arm, moments of columns and covariates over all days. `parts`: by kind ("source", "age")
    and arm, moments of ``column@part`` over the arm's users. `versions`: by snapshot version and arm, moments of
    `SOURCE_COLUMNS` over the users whom it answered; versions are many, so they are not kept jointly. `replicas`: by
    replica and arm, users it answered. `histograms`: by column and arm, of users' sums over all days. `votes`: by arm,
    of its users on its sources. `largest`: by arm, the users whose sums over all days stand out, covariates beside;
    empty where they are not known. `largest_through`, `buckets_through`: the same by the last day of the sums, for the
    looks of a sequential plan; a day that a part has not reached is all of it, so it has none. `caps`: by column that
    is another one capped, at what and how many users.
    """

    arms: tuple[str, ...]
    columns: tuple[str, ...]
    covariates: tuple[str, ...]
    days: int
    moments: dict[str, Moments]
    buckets: dict[str, Buckets]
    segments: dict[str, dict[str, Moments]]
    parts: dict[str, dict[str, Moments]] = field(default_factory=dict)
    replicas: dict[str, dict[str, int]] = field(default_factory=dict)
    in_two_arms: int = 0
    histograms: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    votes: dict[str, Votes] = field(default_factory=dict)
    versions: dict[str, dict[str, Moments]] = field(default_factory=dict)
    largest: dict[str, Largest] = field(default_factory=dict)
    largest_through: dict[int, dict[str, Largest]] = field(default_factory=dict)
    buckets_through: dict[int, dict[str, Buckets]] = field(default_factory=dict)
    caps: dict[str, Cap] = field(default_factory=dict)

    def __add__(self, other: "Aggregate") -> "Aggregate":
        """As if the users of both had been in one.

        Raises:
            ValueError: they are of other arms or columns, or capped at different thresholds.

        """
        if self._shape != other._shape:
            raise ValueError("aggregates of other arms or columns do not merge")
        days = max(self.days, other.days)
        wide = layout(self.columns, self.covariates, days)
        return Aggregate(
            self.arms,
            self.columns,
            self.covariates,
            days,
            {arm: self.moments[arm].embedded(wide) + other.moments[arm].embedded(wide) for arm in self.arms},
            {arm: self.buckets[arm] + other.buckets[arm] for arm in self.arms},
            {
                name: {arm: self.segments[name][arm] + other.segments[name][arm] for arm in self.arms}
                for name in SEGMENTS
            },
            {kind: _joined(self, other, kind) for kind in sorted({*self.parts, *other.parts})},
            {
                name: {arm: _count(self, name, arm) + _count(other, name, arm) for arm in self.arms}
                for name in sorted({*self.replicas, *other.replicas})
            },
            self.in_two_arms + other.in_two_arms,
            {
                column: {arm: by_arm[arm] + other.histograms[column][arm] for arm in self.arms}
                for column, by_arm in self.histograms.items()
            },
            {arm: self.votes[arm] + other.votes[arm] for arm in self.votes},
            {
                name: _sum(each.versions[name] for each in (self, other) if name in each.versions)
                for name in sorted({*self.versions, *other.versions})
            },
            {arm: self.largest[arm] + other.largest[arm] for arm in self.arms if self.largest and other.largest},
            *_through(self, other),
            {name: cap + other.caps[name] for name, cap in self.caps.items()},
        )

    @property
    def _shape(self) -> tuple[object, ...]:
        return (
            self.arms,
            self.columns,
            self.covariates,
            sorted(self.histograms),
            sorted(self.votes),
            sorted(self.caps),
        )

    @property
    def users(self) -> dict[str, int]:
        """By arm."""
        return {arm: self.moments[arm].n for arm in self.arms}

    def new_users(self, day: int) -> dict[str, int]:
        """Users whose first day it is, by arm."""
        return {arm: round(moments.total(Column(FIRST, day))) for arm, moments in self.moments.items()}

    def on(self, day: int) -> dict[str, Moments]:
        """By arm, of `columns` over the users exposed on a day."""
        names = [*self.columns, EXPOSED]
        wanted = [(c, [Column(c, day)]) for c in names]
        return {arm: moments.sums(wanted).within(EXPOSED) for arm, moments in self.moments.items()}

    def through(self, day: int) -> dict[str, Moments]:
        """By arm, over the users seen by the end of a day: `columns` and `covariates` summed over the days up to it,
        and ``c@day`` and ``exposed@day`` of that day alone.
        """
        upto = range(day + 1)
        wanted: list[tuple[AnyColumn, list[Column]]] = [
            (c, on_days(c, upto)) for c in (*self.columns, *self.covariates)
        ]
        wanted += [(Column(c, day), [Column(c, day)]) for c in (*self.columns, EXPOSED)]
        wanted += [(SEEN, on_days(FIRST, upto))]
        return {arm: moments.sums(wanted).within(SEEN) for arm, moments in self.moments.items()}

    def standouts(self, day: int) -> tuple[dict[str, Largest], dict[str, Buckets]]:
        """By arm, who stood out in the sums through a day, and the users' sums through it by bucket.

        Raises:
            SettingsError: the aggregate was made without a look after that day.

        """
        if day >= self.days - 1:
            return self.largest, self.buckets
        if day not in self.buckets_through:
            raise SettingsError(
                f"The aggregate was made for a plan that does not look after day {day + 1}; make it again by this plan."
            )
        return self.largest_through.get(day, {}), self.buckets_through[day]

    def looks(self, days: Sequence[int]) -> dict[str, Moments]:
        """By arm, over all users: ``c<=d`` for columns, covariates and `FIRST` at each of `days`, jointly."""
        names = (*self.columns, *self.covariates, FIRST)
        wanted = [(Column(c, through=d), on_days(c, range(d + 1))) for d in days for c in names]
        return {arm: moments.sums(wanted) for arm, moments in self.moments.items()}


def layout(columns: Sequence[str], covariates: Sequence[str], days: int) -> tuple[Column, ...]:
    """The columns of an arm's moments.

    >>> layout(["x"], ["pre.x"], 1)
    (<x@0>, <exposed@0>, <first@0>, <pre.x@0>)
    """
    daily = [Column(c, d) for d in range(days) for c in (*columns, EXPOSED, FIRST)]
    return (*daily, *(Column(c, d) for d in range(days) for c in covariates))


def aggregate(
    table: Table,
    columns: Sequence[str] | None = None,
    days: int | None = None,
    spread: Sequence[str] = (),
    looks: Sequence[int] = (),
) -> Aggregate:
    """The aggregate of a table.

    Args:
        table: users and their days.
        columns: those to keep; None keeps all of the table.
        days: at least so many; by default up to the last one seen, and one where none was.
        spread: columns among those whose histograms are to be kept, for quantiles.
        looks: days, counted from 0, of which it is to be known as well who stood out after them.

    Raises:
        KeyError: the table lacks a column.

    """
    names = tuple(table.columns if columns is None else columns)
    places = [_place(table, column) for column in names]
    seen = int(table.day[-1]) + 1 if len(table.day) else 0
    days = max(seen, days or 1)
    wide = layout(names, table.covariates, days)
    all_names = (*names, *table.covariates)
    k, width = len(names), len(all_names)
    moments = {arm: Moments.of(wide, np.zeros((0, len(wide)))) for arm in table.arms}
    buckets = {arm: Buckets(names, np.zeros((BUCKETS, k)), np.zeros(BUCKETS, np.int64)) for arm in table.arms}
    segments = {name: {arm: Moments.of(all_names, np.zeros((0, width))) for arm in table.arms} for name in SEGMENTS}
    histograms = {column: {arm: Histogram.of(np.zeros(0)) for arm in table.arms} for column in spread}
    largest = {arm: Largest.of(all_names, np.zeros((0, width)), k) for arm in table.arms}
    looks = [day for day in looks if day < days - 1]
    largest_through, buckets_through = {day: dict(largest) for day in looks}, {day: dict(buckets) for day in looks}
    bounds = np.searchsorted(table.day, np.arange(days + 1))
    for arm, first, begin, end in _cohorts(table):
        pre, wide_days = table.pre[begin:end], (days - first) * (k + 1)
        cohort = np.empty((end - begin, wide_days + pre.shape[1]))
        cohort[:, wide_days:] = pre
        by_day = cohort[:, :wide_days]
        _lay_out(
            by_day.reshape(end - begin, days - first, k + 1, copy=False), table, places, bounds[first:], begin, end
        )
        daily = tuple(Column(c, d) for d in range(first, days) for c in (*names, EXPOSED))
        of_cohort = Moments.of((*daily, *(Column(c, first) for c in table.covariates)), cohort).embedded(wide)
        of_cohort.means[of_cohort.place(Column(FIRST, first))] = 1.0
        moments[arm] += of_cohort
        totals = by_day @ np.tile(np.eye(k + 1, k), (days - first, 1))  # a sum over so few is quicker as a product
        bucket = bucket_of(table.user_id[begin:end])
        buckets[arm] += bucketed(names, bucket, totals)
        for column in spread:
            histograms[column][arm] += Histogram.of(totals[:, names.index(column)])
        both, is_known = np.hstack((totals, pre)), did_something_before(table.covariates, pre)
        largest[arm] = largest[arm].among(totals, pre)
        for day, sums in _sums_through(by_day.reshape(end - begin, days - first, k + 1, copy=False), first, looks):
            largest_through[day][arm] = largest_through[day][arm].among(sums, pre)
            buckets_through[day][arm] += bucketed(names, bucket, sums)
        for name, inside in zip(SEGMENTS, (is_known, ~is_known), strict=True):
            segments[name][arm] += Moments.of(all_names, both[inside])
    return Aggregate(
        table.arms,
        names,
        table.covariates,
        days,
        moments,
        buckets,
        segments,
        {kind: parts_of(table, table.parts[kind]) for kind in ("source", "age") if kind in table.parts},
        replicas_of(table),
        table.in_two_arms,
        histograms,
        votes_of(table),
        versions_of(table),
        largest,
        largest_through,
        buckets_through,
        {name: cap for name, cap in table.caps.items() if name in names},
    )


def without_covariate(aggregate: Aggregate, name: str) -> Aggregate:
    """The same without one of the covariates."""
    covariates = tuple(covariate for covariate in aggregate.covariates if covariate != name)
    wide, narrow = layout(aggregate.columns, covariates, aggregate.days), (*aggregate.columns, *covariates)
    return replace(
        aggregate,
        covariates=covariates,
        moments={arm: moments.only(wide) for arm, moments in aggregate.moments.items()},
        segments={
            segment: {arm: moments.only(narrow) for arm, moments in by_arm.items()}
            for segment, by_arm in aggregate.segments.items()
        },
        largest={arm: users.only(narrow) for arm, users in aggregate.largest.items()},
        largest_through={
            day: {arm: users.only(narrow) for arm, users in by_arm.items()}
            for day, by_arm in aggregate.largest_through.items()
        },
    )


def _cohorts(table: Table) -> Iterator[tuple[str, int, int, int]]:
    """Arm, first day, and the stretch of users, at most `CHUNK` of them, who have both."""
    cut = np.flatnonzero(np.diff(table.arm) | np.diff(table.first)) + 1
    edges = [0, *cut.tolist(), len(table.arm)]
    for low, high in pairwise(edges):
        for begin in range(low, high, CHUNK):
            yield table.arms[table.arm[begin]], int(table.first[begin]), begin, min(begin + CHUNK, high)


def _lay_out(into: Floats, table: Table, places: Sequence[int], bounds: Ints, begin: int, end: int) -> None:
    """Users' days, (users, days, columns and whether exposed)."""
    into[:] = 0.0
    everything = list(places) == list(range(len(table.columns)))
    for day, (low, high) in enumerate(pairwise(bounds.tolist())):
        a, b = low + np.searchsorted(table.user[low:high], [begin, end])
        users, values = table.user[a:b] - begin, table.values[a:b]
        into[users, day, :-1] = values if everything else values[:, places]
        into[users, day, -1] = 1.0


def _sums_through(by_day: Floats, first: int, looks: Sequence[int]) -> Iterator[tuple[int, Floats]]:
    """The looks from the first day on, each with the users' sums (users, k) through it, of (users, days, k + 1)."""
    sums, added = np.zeros((len(by_day), by_day.shape[2] - 1)), 0
    for look in looks:
        if look >= first:
            sums = sums + by_day[:, added : look - first + 1, :-1].sum(axis=1)
            added = look - first + 1
            yield look, sums


def bucketed(columns: tuple[str, ...], bucket: Ints, totals: Floats) -> Buckets:
    """Users' `totals` (users, K) by their `bucket` (users,)."""
    sums = np.zeros((BUCKETS, len(columns)))
    for place, column in enumerate(totals.T):
        sums[:, place] = np.bincount(bucket, column, BUCKETS)
    return Buckets(columns, sums, np.bincount(bucket, minlength=BUCKETS))


def bucket_of(user_id: Ints) -> Ints:
    """A user's bucket, by SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014): it has nothing to do with arms.

    >>> bucket_of(np.array([1, 2, 3])).tolist() == bucket_of(np.array([1, 2, 3])).tolist()
    True
    """
    x = user_id.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(BUCKETS)).astype(np.int64)


def _sum(each: Iterable[dict[str, Moments]]) -> dict[str, Moments]:
    """By arm, of mappings with the same arms."""
    return reduce(lambda a, b: {arm: a[arm] + b[arm] for arm in a}, each)


def _joined(a: Aggregate, b: Aggregate, kind: str) -> dict[str, Moments]:
    both = [moments.parts[kind] for moments in (a, b) if kind in moments.parts]
    wide = sorted({column for by_arm in both for moments in by_arm.values() for column in moments.columns})
    return {arm: reduce(add, (by_arm[arm].embedded(wide) for by_arm in both)) for arm in a.arms}


def _through(a: Aggregate, b: Aggregate) -> tuple[dict[int, dict[str, Largest]], dict[int, dict[str, Buckets]]]:
    """Who stood out after each look that both know; a part is all there is of it after its last day."""
    looks = sorted(
        day
        for day in {*a.buckets_through, *b.buckets_through}
        if all(day in part.buckets_through or day >= part.days - 1 for part in (a, b))
    )
    largest: dict[int, dict[str, Largest]] = {}
    buckets: dict[int, dict[str, Buckets]] = {}
    for day in looks:
        (users, sums), (more_users, more_sums) = a.standouts(day), b.standouts(day)
        largest[day] = {arm: users[arm] + more_users[arm] for arm in a.arms if users and more_users}
        buckets[day] = {arm: sums[arm] + more_sums[arm] for arm in a.arms}
    return largest, buckets


def _count(aggregate: Aggregate, replica: str, arm: str) -> int:
    return aggregate.replicas.get(replica, {}).get(arm, 0)


def _place(table: Table, column: str) -> int:
    try:
        return table.columns.index(column)
    except ValueError:
        raise KeyError(column) from None


def needed(columns: Sequence[str]) -> tuple[str, ...]:
    """`columns` once each, those that every report knows first.

    >>> needed(["answer_ms", "views", "views"])
    ('views', 'answer_ms')
    """
    return tuple(dict.fromkeys(sorted(columns, key=lambda column: column not in COLUMNS)))
