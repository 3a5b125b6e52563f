"""Rows of users and days that did not come through Kafka: checked, and made an aggregate. docs/experiments.md has the
schema.

Rows come in any order, and a user's days must come together: so every row goes to a piece by its user
(`abtest.read.spill`), and then piece by piece, with all days of a piece's users, becomes an aggregate; these add up.
Memory holds a few batches and a group of pieces a core at a time; and where a metric is capped at a quantile, eight
bytes a user for it, since all pieces have to be gone through for the quantile before the first is made an aggregate.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from abtest.aggregate.aggregate import EXPOSED, Aggregate, aggregate, needed, without_covariate
from abtest.aggregate.archive import Counted
from abtest.aggregate.user_days import UNKNOWN, Ints, Table
from abtest.aggregate.winsorize import capped, caps_of, known_before, pooled_sums
from abtest.read.checks import REPEATED, Reader, stacked
from abtest.read.column_types import require
from abtest.read.csv_files import place_of
from abtest.read.days import shown
from abtest.read.engines import DataError, as_table, batches
from abtest.read.problems import ARM, DAY, Met
from abtest.read.spill import USER, Pieces, Records, by_piece, in_order
from abtest.read.users import keys_of, kind_of
from abtest.stats.columns import Column
from abtest.stats.metrics import (
    Capped,
    Mean,
    Quantile,
    capped_columns,
    of_experiment,
    require_known_before,
)
from abtest.stats.moments import Floats
from abtest.stats.winsorize import Cap
from contracts.config.experiment import METRICS, Experiment

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd

    Rows: TypeAlias = ir.Table | pd.DataFrame | pa.Table

GROUP = 400_000  # rows that are made aggregates at once, on all cores together, or one piece each where that has more
PRE = "pre."
VISITS = "recalls"  # what a confidence sequence goes by, if it is there


def read(
    table: "Rows", experiment: Experiment, pre: "Rows | None" = None, called: Mapping[str, str] | None = None
) -> Counted:
    """The aggregate of a table of users and days.

    Args:
        table: of Ibis, a data frame or an Arrow table: `USER`, `ARM`, `DAY`, the columns of the experiment's metrics,
            and perhaps covariates ``pre.…``.
        experiment: its file.
        pre: covariates instead in a table of their own, a row per user.
        called: what the user calls columns that have other names in `table`; sentences on what is wrong say that.

    Raises:
        DataError: the data lack a column, or have rows that no number may be made of.
        SettingsError: the experiment has a metric that needs a column without a name, or one that is capped at a
            quantile of covariates that the data do not have.

    """
    table, pre = as_table(table), None if pre is None else as_table(pre)
    columns, spread, inside = wanted(table, experiment, called)
    schema = _schema(table)
    if inside and pre is not None:
        raise DataError(f"Covariates are in the table ({inside[0]}) and in a second one; leave one out.")
    outside = () if pre is None else _outside(table, pre)
    covariates = inside_covariates(inside) if pre is None else _covariates(outside)
    require_known_before(experiment, covariates)
    to_cap = capped_columns(experiment)
    reader = Reader(experiment, columns, covariates, _counted(experiment, schema), called or {})
    with (
        Pieces(_dtype(schema, [(DAY, "<i2"), (ARM, "i1")], (*columns, *inside), covariates)) as rows,
        Pieces(
            _dtype(_schema(pre), [], outside, covariates) if pre is not None else np.dtype([(USER, "<i8")])
        ) as before,
    ):

        def part(group: range) -> tuple[Aggregate, Reader]:
            mine = reader.another()
            users = mine.table(rows.piece(group), before.piece(group) if pre is not None else None)
            return aggregate(capped(users, caps), spread=spread, looks=experiment.look_days), mine

        def values(group: range) -> tuple[dict[str, Floats], dict[str, Floats]]:
            known = before.piece(group) if pre is not None else None
            return _values(to_cap, reader.another(), rows.piece(group), known)

        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as pool, threadpool_limits(1, "blas"):  # a thread a core is enough
            days = batches(table, [USER, ARM, DAY, *columns, *inside])
            _scatter(rows, days, Reader.days, reader, pool, 2 * cores)
            if pre is not None:
                _scatter(before, batches(pre, [USER, *outside]), Reader.values, reader, pool, 2 * cores)
            _raise_any(reader, [table] if pre is None else [table, pre])
            caps = _caps(to_cap, values, list(rows.groups(GROUP // cores)), pool, in_advance=pre is not None)
            parts = list(pool.map(part, rows.groups(GROUP // cores)))
        whole = reduce(add, (aggregated for aggregated, _ in parts))
        for _, mine in parts:
            reader.take(mine)
    _raise_any(reader, [table] if pre is None else [table, pre])
    if UNKNOWN in whole.covariates and UNKNOWN not in schema and not reader.counts["users_without_pre"]:
        whole = without_covariate(whole, UNKNOWN)
    counts = {**reader.counts, **gaps(whole), **no_covariates(pre)}
    return Counted(whole, {name: count for name, count in counts.items() if count})


def _caps(
    wanted: Sequence[Capped],
    values: Callable[[range], tuple[dict[str, Floats], dict[str, Floats]]],
    groups: Sequence[range],
    pool: Executor,
    *,
    in_advance: bool,
) -> dict[str, Cap]:
    """The caps; where one is a quantile, of all pieces' `values`: of columns' sums and of covariates, by user."""
    found = list(pool.map(values, groups)) if any(each.how.quantile is not None for each in wanted) else []
    pooled, known = (
        {name: np.concatenate([each[side][name] for each in found]) for name in (found[0][side] if found else ())}
        for side in (0, 1)
    )
    return caps_of(wanted, pooled, known, in_advance=in_advance)


def _values(
    wanted: Sequence[Capped], reader: Reader, rows: Records, before: Records | None
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Of some pieces, users' sums of the columns that are capped at a pooled quantile, and users' covariates: of all in
    the second table, with rows or not, or of those with rows where there is none.
    """
    users = reader.table(rows, before)
    covariates, values = users.covariates, users.pre
    if before is not None:
        names = [name for name in before.dtype.names or () if name != USER]
        covariates = tuple(name if name.startswith(PRE) else PRE + name for name in names)
        values = stacked(before, names)
    known = known_before(covariates, values)
    needed_ones = dict.fromkeys(f"{PRE}{each.column}" for each in wanted if each.how.of_pre)
    return pooled_sums(users, wanted), {name: known[name].copy() for name in needed_ones}  # not the others with it


def _scatter(
    pieces: Pieces,
    source: Iterable[pa.RecordBatch],
    checked: Callable[[Reader, pa.RecordBatch, np.dtype[np.void]], Records],
    reader: Reader,
    pool: Executor,
    ahead: int,
) -> None:
    """Checked records of batches to their pieces; what is met on the way to `reader`."""

    def ordered(batch: pa.RecordBatch) -> tuple[Records, Ints, Reader]:
        mine = reader.another()
        return *by_piece(checked(mine, batch, pieces.dtype)), mine

    for records, sizes, mine in in_order(pool, ordered, source, ahead):
        pieces.write(records, sizes)
        reader.take(mine)


def wanted(
    table: "ir.Table", experiment: Experiment, called: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Columns to be read (of a capped one that it is made of), those of them whose histograms are needed, and the
    covariates that the table has.

    Raises:
        DataError: the table lacks a column, or it has the wrong type.

    """
    schema = _schema(table)
    metrics = of_experiment(experiment, schema if experiment.metrics == METRICS else None)
    made_of = {each.name: each.column for each in capped_columns(experiment)}
    counted = [VISITS] if VISITS in schema else []
    for metric in metrics:
        for column in metric.columns:
            own = made_of.get(str(column), str(column))
            if own in {USER, ARM, DAY}:
                raise DataError(
                    f"Metric '{metric.name}' is of column '{own}', which says whose row it is, of which arm or "
                    "which day, and is no number to measure."
                )
            counted.append(own)
    columns = needed(counted)
    inside = tuple(name for name in schema if name.startswith(PRE))
    require(schema, (USER, ARM, DAY, *columns, *inside), "the table", table, called)
    spread = tuple(dict.fromkeys(metric.column for metric in metrics if isinstance(metric, Quantile)))
    return columns, spread, inside


def one_day(
    table: "ir.Table", experiment: Experiment, columns: Sequence[str], covariates: Sequence[str]
) -> tuple[Table, dict[str, int]]:
    """The users of a table of one day, for `abtest.incremental.add_day`, and what was left out. All of it is held in
    memory. `covariates`: those of the users that the table has, perhaps with `UNKNOWN`.

    Raises:
        DataError: as for `read`.

    """
    _, _, inside = wanted(table, experiment)
    dtype = _dtype(_schema(table), [(DAY, "<i2"), (ARM, "i1")], (*columns, *inside), covariates)
    reader = Reader(experiment, columns, covariates, _counted(experiment, _schema(table)))
    records = [reader.days(batch, dtype) for batch in batches(table, [USER, ARM, DAY, *columns, *inside])]
    _raise_any(reader, [table])
    users = reader.day(np.concatenate(records) if records else np.empty(0, dtype))
    _raise_any(reader, [table])
    return users, {name: count for name, count in reader.counts.items() if name != "users_without_pre"}


def everyone(table: "ir.Table", experiment: Experiment, called: Mapping[str, str] | None = None) -> Table:
    """The users of a table with all their days and their capped sums, for `abtest.plan.aa`; all of it in memory.

    Raises:
        DataError: as for `read`.

    """
    columns, _, inside = wanted(table, experiment, called)
    covariates = inside_covariates(inside)
    dtype = _dtype(_schema(table), [(DAY, "<i2"), (ARM, "i1")], (*columns, *inside), covariates)
    reader = Reader(experiment, columns, covariates, _counted(experiment, _schema(table)), called)
    records = [reader.days(batch, dtype) for batch in batches(table, [USER, ARM, DAY, *columns, *inside])]
    _raise_any(reader, [table])
    users = reader.table(np.concatenate(records) if records else np.empty(0, dtype), None)
    _raise_any(reader, [table])
    to_cap, known = capped_columns(experiment), known_before(users.covariates, users.pre)
    return capped(users, caps_of(to_cap, pooled_sums(users, to_cap), known, in_advance=False))


def before(table: "ir.Table", pre: "ir.Table", experiment: Experiment) -> tuple[tuple[str, ...], Ints, Floats]:
    """Names of covariates, ids of users and their covariates (users, P), for `abtest.incremental.add_day`; all of it in
    memory.

    Raises:
        DataError: as for `read`.

    """
    names = _outside(table, pre)
    reader = Reader(experiment, (), ())
    dtype = _dtype(_schema(pre), [], names, [UNKNOWN])
    records = np.concatenate(
        [np.empty(0, dtype), *(reader.values(batch, dtype) for batch in batches(pre, [USER, *names]))]
    )
    ids, counts = np.unique(records[USER], return_counts=True)
    if len(ids) < len(records):
        met = Met("{user}", int(ids[np.argmax(counts > 1)]))
        reader.problems.add(REPEATED, USER, len(records) - len(ids), met)
    _raise_any(reader, [pre])
    return _covariates(names), records[USER].copy(), stacked(records, [*names, UNKNOWN])


def inside_covariates(inside: Sequence[str]) -> tuple[str, ...]:
    """Covariates of the table of days, and whether a user lacks one, which stands for being unknown from before."""
    return (*inside, UNKNOWN) if inside and UNKNOWN not in inside else tuple(inside)


def _raise_any(reader: Reader, tables: "Sequence[ir.Table]") -> None:
    """Of what a reader has met in `tables`.

    Raises:
        DataError: it has met something that makes the data unusable.

    """

    def place(row: Mapping[str, Any]) -> str | None:
        return next((place for table in tables if (place := place_of(table, row))), None)

    said = reader.problems.sentence(partial(name_of, tables), place, reader.called) or reader.too_small()
    if said:
        raise DataError(said)


def _outside(table: "ir.Table", pre: "ir.Table") -> tuple[str, ...]:
    """Columns of a second table that are covariates: all but the user, and but `ARM` and `DAY`, which describe a row.

    Raises:
        DataError: it lacks the users, or they cannot be those of the table.

    """
    require(_schema(pre), (USER,), "the table of covariates")
    require_same_users(table, pre)
    names = tuple(name for name in _schema(pre) if name not in {USER, ARM, DAY})
    require(_schema(pre), names, "the table of covariates", pre)
    return names


def no_covariates(pre: "ir.Table | None") -> dict[str, int]:
    """Columns of a second table that are left out, see `abtest.aggregate.archive.Counted`."""
    return {f"pre_{name}_left_out": 1 for name in (ARM, DAY) if name in _schema(pre)}


def _covariates(names: Sequence[str]) -> tuple[str, ...]:
    """Covariates by a second table's columns, and whether a user is not in it, which only that can tell."""
    prefixed = tuple(name if name.startswith(PRE) else PRE + name for name in names)
    if UNKNOWN in prefixed:
        said = "says which users the table of covariates lacks, and is made of it; give the column another name"
        raise DataError(f"Column '{UNKNOWN.removeprefix(PRE)}' {said}.")
    return (*prefixed, UNKNOWN)


def name_of(tables: "Sequence[ir.Table]", key: int) -> str:
    """What the first of `tables` that has a user calls it; read again, as no name is kept."""
    for table in tables:
        for batch in batches(table, [USER]):
            same = np.flatnonzero(keys_of(batch.column(USER)) == key)
            if len(same):
                return shown(batch.column(USER)[int(same[0])].as_py())
    return str(key)


def gaps(whole: Aggregate) -> dict[str, int]:
    """Days and arms in which there is nobody, see `abtest.aggregate.archive.Counted`."""
    met = [sum(m.total(Column(EXPOSED, day)) for m in whole.moments.values()) for day in range(whole.days)]
    return {
        "days_without_rows": sum(not users for users in met) if any(met) else 0,
        "arms_without_users": sum(not users for users in whole.users.values()),
    }


def _schema(table: "ir.Table | None") -> dict[str, Any]:
    return dict(table.schema().items()) if table is not None else {}


def _counted(experiment: Experiment, schema: dict[str, Any]) -> list[str]:
    """Columns that must not be negative: denominators, those of quantiles, and visits."""
    metrics = of_experiment(experiment, schema if experiment.metrics == METRICS else None)
    below = [metric.columns[-1] for metric in metrics if not isinstance(metric, Mean)]
    return [VISITS, *map(str, below)]


def require_same_users(table: "ir.Table", pre: "ir.Table") -> None:
    """Users of both tables can be the same.

    Raises:
        DataError: they cannot.

    """
    kind, before = _schema(table)[USER], _schema(pre)[USER]
    if kind_of(kind) != kind_of(before):
        raise DataError(f"Column '{USER}' is {kind} in the table and {before} in that of covariates; make it the same.")


def _dtype(
    schema: dict[str, Any], fixed: list[tuple[str, str]], columns: Sequence[str], covariates: Sequence[str]
) -> np.dtype[np.void]:
    """Of records: whole numbers keep the source's width, all others are doubles; with `UNKNOWN` if that is one of the
    `covariates`.
    """
    if UNKNOWN in covariates and UNKNOWN not in columns:
        fixed = [*fixed, (UNKNOWN, "i1")]
    kinds = [(c, schema[c].to_numpy().str if schema[c].is_integer() else "<f8") for c in columns]
    return np.dtype([(USER, "<i8"), *fixed, *kinds], align=True)  # numbers astride words take a third longer
