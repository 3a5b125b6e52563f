"""Rows of users and days that did not come through Kafka: checked, and made an aggregate. docs/experiments.md has the
schema.

Rows come in any order, and a user's days must come together: so every row goes to one of `PIECES` files by its user,
and then piece by piece, with all days of a piece's users, becomes an aggregate; these add up. Memory holds a batch and
one group of pieces at a time.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from abtest.aggregate import EXPOSED, Aggregate, aggregate, needed
from abtest.aggregates import Counted
from abtest.engines import DataError, batches
from abtest.metrics import Quantile, of_experiment
from abtest.moments import Floats
from abtest.table import Ints, Table, arranged
from contracts.experiment import DAY_MS, METRICS, Experiment

if TYPE_CHECKING:
    import ibis.expr.types as ir

PIECES = 128
GROUP = 400_000  # rows that are made aggregates at once, on all cores together, or one piece each where that has more
USER, ARM, DAY, PRE = "user_id", "arm", "day", "pre."
VISITS = "recalls"  # what a confidence sequence goes by, if it is there
REPEATED = "repeated users in the table of covariates"
Records: TypeAlias = npt.NDArray[np.void]


@dataclass
class Problems:
    """What makes the data unusable: by (what it is, column), how often, and the first place it was met."""

    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, what: str, column: str, count: int, where: str) -> None:
        self.found[what, column] += count
        self.first.setdefault((what, column), where)

    def take(self, other: "Problems") -> None:
        self.found.update(other.found)
        self.first = {**other.first, **self.first}

    def raise_any(self) -> None:
        """One sentence with all of them.

        Raises:
            DataError: there are any.

        """
        if self.found:
            said = [
                f"column '{column}' has {count} {what} (first: {self.first[what, column]})"
                for (what, column), count in self.found.items()
            ]
            raise DataError(f"The data cannot be used: {'; '.join(said)}.")


def read(table: "ir.Table", experiment: Experiment, pre: "ir.Table | None" = None) -> Counted:
    """The aggregate of a table of users and days.

    Args:
        table: `USER`, `ARM`, `DAY`, the columns of the experiment's metrics, and perhaps covariates ``pre.…``.
        experiment: its file.
        pre: covariates instead in a table of their own, a row per user.

    Raises:
        DataError: the data lack a column, or have rows that no number may be made of.
        SettingsError: the experiment has a metric that needs a column without a name.

    """
    columns, spread, inside = wanted(table, experiment)
    schema = _schema(table)
    if inside and pre is not None:
        raise DataError(f"Covariates are in the table ({inside[0]}) and in a second one; leave one out.")
    outside = tuple(name for name in _schema(pre) if name != USER) if pre is not None else ()
    if pre is not None:
        _require(_schema(pre), (USER,), "the table of covariates")
    covariates = inside or tuple(name if name.startswith(PRE) else PRE + name for name in outside)
    reader = Reader(experiment, columns, covariates)
    with (
        Pieces(_dtype(schema, [(DAY, "<i2"), (ARM, "i1")], (*columns, *inside))) as rows,
        Pieces(_dtype(_schema(pre), [], outside) if pre is not None else np.dtype([(USER, "<i8")])) as before,
    ):
        for batch in batches(table, [USER, ARM, DAY, *columns, *inside]):
            rows.scatter(reader.days(batch, rows.dtype))
        if pre is not None:
            for batch in batches(pre, [USER, *outside]):
                before.scatter(reader.values(batch, before.dtype))
        reader.problems.raise_any()

        def part(group: range) -> tuple[Aggregate, Reader]:
            mine = Reader(experiment, columns, covariates)
            of = mine.table(rows.piece(group), before.piece(group) if pre is not None else None)
            return aggregate(of, spread=spread), mine

        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as pool, threadpool_limits(1, "blas"):  # a thread a core is enough
            parts = list(pool.map(part, rows.groups(GROUP // cores)))
        found = reduce(add, (of for of, _ in parts))
        for _, mine in parts:
            reader.take(mine)
    reader.problems.raise_any()
    counts = {**reader.counts, **_gaps(found)}
    return Counted(found, {name: count for name, count in counts.items() if count})


def wanted(table: "ir.Table", experiment: Experiment) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Columns to be read, those of them whose histograms are needed, and the covariates that the table has.

    Raises:
        DataError: the table lacks a column, or it has the wrong type.

    """
    schema = _schema(table)
    metrics = of_experiment(experiment, schema if experiment.metrics == METRICS else None)
    counted = [VISITS] if VISITS in schema else []
    columns = needed([*counted, *(column for metric in metrics for column in metric.columns)])
    _require(schema, (USER, ARM, DAY, *columns), "the table")
    spread = tuple(dict.fromkeys(metric.column for metric in metrics if isinstance(metric, Quantile)))
    return columns, spread, tuple(name for name in schema if name.startswith(PRE))


def one_day(table: "ir.Table", experiment: Experiment, columns: Sequence[str]) -> tuple[Table, dict[str, int]]:
    """The users of a table of one day, for `abtest.kept`, and what was left out. All of it is held in memory.

    Raises:
        DataError: as for `read`.

    """
    _, _, inside = wanted(table, experiment)
    dtype = _dtype(_schema(table), [(DAY, "<i2"), (ARM, "i1")], (*columns, *inside))
    reader = Reader(experiment, columns, inside)
    records = [reader.days(batch, dtype) for batch in batches(table, [USER, ARM, DAY, *columns, *inside])]
    reader.problems.raise_any()
    found = reader.table(np.concatenate(records) if records else np.empty(0, dtype), None)
    reader.problems.raise_any()
    return found, dict(reader.counts)


def before(pre: "ir.Table", experiment: Experiment) -> tuple[tuple[str, ...], Ints, Floats]:
    """Names of covariates, ids of users and their covariates (users, P), for `abtest.kept`; all of it in memory.

    Raises:
        DataError: as for `read`.

    """
    names = tuple(name for name in _schema(pre) if name != USER)
    _require(_schema(pre), (USER,), "the table of covariates")
    reader = Reader(experiment, (), ())
    dtype = _dtype(_schema(pre), [], names)
    records = np.concatenate(
        [np.empty(0, dtype), *(reader.values(batch, dtype) for batch in batches(pre, [USER, *names]))]
    )
    ids, counts = np.unique(records[USER], return_counts=True)
    if len(ids) < len(records):
        reader.problems.add(REPEATED, USER, len(records) - len(ids), str(ids[np.argmax(counts > 1)]))
    reader.problems.raise_any()
    covariates = tuple(name if name.startswith(PRE) else PRE + name for name in names)
    return covariates, records[USER].copy(), _stacked(records, names)


class Pieces:
    """Records in `PIECES` temporary files by a hash of their user; a context manager, after which they are gone."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self.dtype = dtype
        self._folder = tempfile.TemporaryDirectory(prefix="driftline-")
        self._files: list[BinaryIO] = []
        self._sizes = np.zeros(PIECES, np.int64)

    def __enter__(self) -> Self:
        self._files = [self._path(i).open("w+b", buffering=0) for i in range(PIECES)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._files:
            file.close()
        self._folder.cleanup()

    def scatter(self, records: Records) -> None:
        """Each record to its user's piece."""
        piece = piece_of(records[USER])
        ordered = records.take(np.argsort(piece, kind="stable"))
        ends = np.bincount(piece, minlength=PIECES).cumsum()
        for file, begin, end in zip(self._files, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            if begin < end:
                file.write(ordered[begin:end].data)
        self._sizes += np.diff(ends, prepend=0)

    def groups(self, rows: int) -> Iterator[range]:
        """Runs of pieces with about `rows` records, at least one piece each."""
        begin = 0
        for end in range(1, PIECES + 1):
            if end == PIECES or self._sizes[begin : end + 1].sum() > rows:
                yield range(begin, end)
                begin = end

    def piece(self, group: range) -> Records:
        """All records of some pieces."""
        return np.concatenate([np.fromfile(self._path(i), self.dtype) for i in group])

    def _path(self, i: int) -> Path:
        return Path(self._folder.name) / str(i)


def piece_of(user_id: Ints) -> npt.NDArray[np.uint8]:
    """A user's piece: the top bits of a product with 2^64 over the golden ratio.

    >>> piece_of(np.array([1, 2, 3, -1])).tolist()
    [79, 30, 109, 48]
    """
    shift = np.uint64(64 - (PIECES - 1).bit_length())
    return ((user_id.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> shift).astype(np.uint8)


class Reader:
    """What is known of one reading: it turns Arrow batches into records, and records into tables, and counts."""

    def __init__(self, experiment: Experiment, columns: Sequence[str], covariates: Sequence[str]) -> None:
        self.experiment, self.columns, self.covariates = experiment, tuple(columns), tuple(covariates)
        self.arms = tuple(experiment.arms)
        self.first_day = (experiment.start_ms + experiment.day_offset_ms) // DAY_MS
        self.testers = np.array(sorted(experiment.testers), np.int64)
        self.problems, self.counts = Problems(), Counter[str]()

    def take(self, other: "Reader") -> None:
        """What another reader of the same data has met."""
        self.counts.update(other.counts)
        self.problems.take(other.problems)

    def days(self, batch: pa.RecordBatch, dtype: np.dtype[np.void]) -> Records:
        """Checked records of rows within the experiment."""
        self.counts["rows"] += batch.num_rows
        arm = batch.column(ARM)
        at = pc.index_in(arm, pa.array(self.arms, arm.type if not pa.types.is_dictionary(arm.type) else pa.string()))
        missing = arm.is_null()
        self._bad(batch, missing, "missing values", ARM)
        self._bad(batch, pc.and_(at.is_null(), pc.invert(missing)), _other_than(self.arms), ARM)
        self._bad(batch, batch.column(DAY).is_null(), "missing values", DAY)
        day = _day(batch.column(DAY), self.first_day)
        records = self.values(batch, dtype)
        inside = (day >= 0) & (day < self.experiment.days)
        records[ARM] = pc.fill_null(at, 0).to_numpy()
        records[DAY] = np.where(inside, day, 0)
        self._count("rows_outside_days", ~inside)
        if len(self.testers):
            tester = np.isin(records[USER], self.testers) & inside
            self._count("rows_of_testers", tester)
            inside &= ~tester
        return records if inside.all() else records[inside]

    def values(self, batch: pa.RecordBatch, dtype: np.dtype[np.void]) -> Records:
        """Records of a batch's users and numbers, checked."""
        records = np.empty(batch.num_rows, dtype)
        for column in batch.schema.names:
            if column in {ARM, DAY}:
                continue
            values = batch.column(column)
            if values.null_count:
                self._bad(batch, values.is_null(), "missing values", column)
                values = pc.fill_null(values, 0)
            if pa.types.is_boolean(values.type) or pa.types.is_decimal(values.type):
                values = values.cast(pa.float64())
            numbers = values.to_numpy(zero_copy_only=False)
            if column != USER:
                self._check(batch, column, numbers)
            records[column] = numbers
        return records

    def _check(self, batch: pa.RecordBatch, column: str, values: Floats) -> None:
        if not len(values) or (values.min() >= 0 and values.max() < np.inf):  # NaN fails both
            return
        self._bad(batch, pa.array(np.isnan(values)), "values that are not a number", column)
        self._bad(batch, pa.array(np.isinf(values)), "infinite values", column)
        self._bad(batch, pa.array((values < 0) & np.isfinite(values)), "negative values", column)

    def _bad(self, batch: pa.RecordBatch, which: pa.Array, what: str, column: str) -> None:
        count = pc.sum(which).as_py() or 0
        if count:
            place = which.index(True).as_py()
            row = {name: batch.column(name)[place].as_py() for name in batch.schema.names}
            where = ", ".join(f"{name} {row[name]}" for name in dict.fromkeys((USER, DAY, column)) if name in row)
            self.problems.add(what, column, count, where)

    def _count(self, name: str, which: npt.NDArray[np.bool_]) -> None:
        if which.any():
            self.counts[name] += int(which.sum())

    def table(self, rows: Records, before: Records | None) -> Table:
        """The users of some pieces, all of whose rows these are, with what they did before."""
        rows = rows.take(np.argsort(rows[USER]))
        user_id, day, arm = (rows[name].astype(np.int64) for name in (USER, DAY, ARM))
        starts = np.diff(user_id, prepend=user_id[:1] - 1) != 0
        user = np.cumsum(starts) - 1
        ids, of = user_id[starts], arm[starts]
        self._check_repeats(ids, user, day)
        mixed = np.zeros(len(ids), bool)
        mixed[user[arm != of[user]]] = True
        if before is None:
            inside = [name for name in self.covariates if name in (rows.dtype.names or ())]
            pre = _stacked(rows[starts], inside)
            for place, name in enumerate(inside):
                self._check_constant(name, ids, user, rows[name], pre[:, place])
        else:
            pre = self._before(ids, before)
        values = _stacked(rows, self.columns)
        if mixed.any():
            self.counts["users_in_two_arms"] += int(mixed.sum())
            places, kept = np.cumsum(~mixed) - 1, ~mixed[user]
            ids, of, pre = ids[~mixed], of[~mixed], pre[~mixed]
            user, day, values = places[user[kept]], day[kept], values[kept]
        return arranged(
            self.arms, self.columns, self.covariates, ids, of, pre, day, user, values, in_two_arms=int(mixed.sum())
        )

    def _check_repeats(self, ids: Ints, user: Ints, day: Ints) -> None:
        rows = np.bincount(user * self.experiment.days + day)
        if len(rows) and rows.max() > 1:
            at, on = divmod(int(np.argmax(rows > 1)), self.experiment.days)
            what = "rows of a user and day that another row has"
            self.problems.add(what, USER, int((rows - 1).clip(0).sum()), f"{ids[at]}, day {on}")

    def _check_constant(self, name: str, ids: Ints, user: Ints, values: Floats, first: Floats) -> None:
        other = values != first[user]
        if other.any():
            what = "rows that differ from another row of their user, but covariates belong to a user"
            self.problems.add(what, name, int(other.sum()), f"{USER} {ids[user[np.argmax(other)]]}")

    def _before(self, ids: Ints, before: Records) -> Floats:
        """(users, covariates); 0 for users who are not in the second table."""
        before = before.take(np.argsort(before[USER]))
        known = before[USER].copy()
        repeated = known[1:][known[1:] == known[:-1]]
        if len(repeated):
            self.problems.add(REPEATED, USER, len(repeated), str(repeated[0]))
        pre = np.zeros((len(ids), len(self.covariates)))
        place = np.searchsorted(known, ids)
        met = np.zeros(len(ids), bool)
        met[place < len(known)] = known[place[place < len(known)]] == ids[place < len(known)]
        names = [name for name in before.dtype.names or () if name != USER]
        pre[met] = _stacked(before.take(place[met]), names)
        self._count("users_without_pre", ~met)
        self.counts["pre_users_without_rows"] += len(known) - int(met.sum())
        return pre


def _gaps(of: Aggregate) -> dict[str, int]:
    met = [sum(m.total(f"{EXPOSED}@{day}") for m in of.moments.values()) for day in range(of.days)]
    return {
        "days_without_rows": sum(not users for users in met) if any(met) else 0,
        "arms_without_users": sum(not users for users in of.users.values()),
    }


def _stacked(records: Records, names: Sequence[str]) -> Floats:
    """(rows, names) of doubles."""
    found = np.empty((len(records), len(names)))
    for place, name in enumerate(names):
        found[:, place] = records[name]
    return found


def _day(column: pa.Array, first_day: int) -> Ints:
    """Days of the experiment, counted from 0; a date is one by the experiment's calendar. Missing ones are 0."""
    filled: npt.NDArray[Any]
    if pa.types.is_date(column.type):
        filled = pc.fill_null(column.cast(pa.date32()).cast(pa.int32()), first_day).to_numpy()
        return filled.astype(np.int64) - first_day
    filled = pc.fill_null(column, 0).to_numpy()
    return filled.astype(np.int64)


def _other_than(arms: Sequence[str]) -> str:
    return f"values other than {', '.join(repr(arm) for arm in arms)}"


def _schema(table: "ir.Table | None") -> dict[str, Any]:
    return dict(table.schema().items()) if table is not None else {}


def _require(schema: dict[str, Any], columns: Sequence[str], what: str) -> None:
    lacking = [column for column in columns if column not in schema]
    if lacking:
        lacks, has = ", ".join(f"'{name}'" for name in lacking), ", ".join(schema)
        raise DataError(f"{what[0].upper()}{what[1:]} lacks {lacks}; it has {has}.")
    for column in columns:
        kind = schema[column]
        wanted = {USER: "an integer", ARM: "text", DAY: "a date or an integer"}.get(column, "a number")
        fits = {
            USER: kind.is_integer(),
            ARM: kind.is_string(),
            DAY: kind.is_integer() or kind.is_date(),
        }.get(column, kind.is_numeric() or kind.is_boolean())
        if not fits:
            is_kind = "has no type, as where there are no rows" if kind.is_unknown() or kind.is_null() else f"is {kind}"
            raise DataError(f"Column '{column}' of {what} {is_kind}; it must be {wanted}.")


def _dtype(schema: dict[str, Any], fixed: list[tuple[str, str]], columns: Sequence[str]) -> np.dtype[np.void]:
    """Of records: whole numbers keep the source's width, all others are doubles."""
    _require(schema, columns, "the table")
    kinds = [(c, schema[c].to_numpy().str if schema[c].is_integer() else "<f8") for c in columns]
    return np.dtype([(USER, "<i8"), *fixed, *kinds])
