"""An experiment's rows of which only those days are read that are not kept yet: a report a day that costs a day.

What `abtest.read.rows.read` gives of all days, by `abtest.incremental.add_day` from day to day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from abtest.aggregate.aggregate import without_covariate
from abtest.aggregate.archive import Counted
from abtest.aggregate.user_days import UNKNOWN
from abtest.aggregate.winsorize import caps_of, known_before
from abtest.incremental.add_day import ChangedError, add_day, caps_so_far
from abtest.incremental.store import COVARIATES, MANIFEST, Kept, create, load
from abtest.read.csv_files import place_of
from abtest.read.days import days_of, shown
from abtest.read.engines import DataError, batches
from abtest.read.problems import DAY, MISSING, Fault, Met, Problems
from abtest.read.rows import before, gaps, inside_covariates, name_of, no_covariates, one_day, wanted
from abtest.read.spill import USER
from abtest.stats.metrics import Capped, capped_columns, require_known_before
from contracts.config.experiment import Experiment

if TYPE_CHECKING:
    import ibis.expr.types as ir


class DayOfTable(NamedTuple):
    """What a table calls a day, perhaps in several ways, and how many rows it has of it."""

    values: tuple[Any, ...]
    rows: int


def read(folder: Path, table: "ir.Table", experiment: Experiment, pre: "ir.Table | None" = None) -> Counted:
    """The aggregate of a table of users and days, and of the days that `folder` keeps from before.

    A day is read when the table first has it, and then never again, so it has to be over by then; rows that came for it
    later are counted as ``rows_late``.

    Args:
        folder: where days are kept; it is made if it is not there.
        table: as for `abtest.read.rows.read`; days that are kept already may be in it or not.
        experiment: its file.
        pre: covariates in a table of their own; read once, when `folder` is made.

    Raises:
        DataError: as for `abtest.read.rows.read`; a day came after a later one was kept; the metrics need columns that
            are not kept, or caps that are not known by the first day; or `folder` has something else in it.
        StateError: what is kept is damaged, or of another experiment.

    """
    begun_with_own = (folder / MANIFEST).exists() and (folder / COVARIATES).exists()
    to_cap = _kept_caps(experiment, own_table=pre is not None or begun_with_own)
    columns, spread, inside = wanted(table, experiment)
    columns = (*columns, *(each.name for each in to_cap))
    if (folder / MANIFEST).exists():
        kept = load(folder, experiment)
        _require(kept, columns, spread, inside, pre is not None)
    elif folder.exists() and any(path.suffix != ".npy" for path in folder.iterdir()):
        raise DataError(f"{folder} has other files in it; days are kept in a folder of their own.")
    elif inside and pre is not None:
        raise DataError(f"Covariates are in the table ({inside[0]}) and in a second one; leave one out.")
    elif pre is not None:
        covariates, ids, values = before(table, pre, experiment)
        require_known_before(experiment, covariates)
        caps = caps_of(to_cap, {}, known_before(covariates, values), in_advance=True)
        kept = create(folder, experiment, columns, covariates, (ids, values), spread, caps)
    else:
        caps = caps_of(to_cap, {}, {}, in_advance=True)
        kept = create(folder, experiment, columns, inside_covariates(inside), spread=spread, caps=caps)
    days = _days(table, experiment)
    outside = sum(day.rows for number, day in days.items() if not 0 <= number < experiment.days)
    days = {number: day for number, day in days.items() if 0 <= number < experiment.days}
    _require_order(kept, days)
    for number in sorted(days):
        if not kept.days or number > kept.days[-1].day:
            rows = table.filter(table[DAY].isin(days[number].values))
            try:
                kept = add_day(kept, *one_day(rows, experiment, kept.own_columns, _of_days(kept)), number)
            except ChangedError as changed:
                raise DataError(changed.said(name_of([table], changed.user))) from changed
    whole = replace(kept.aggregate, caps=caps_so_far(kept))
    if UNKNOWN in whole.covariates and UNKNOWN not in inside and not kept.counts.get("users_without_pre"):
        whole = without_covariate(whole, UNKNOWN)
    counts = {**kept.counts, "rows_late": _late(kept, days), "users_in_two_arms": kept.in_two_arms, **gaps(whole)}
    counts |= no_covariates(pre)
    if outside:  # of the table as it is now
        counts |= {"rows": counts.get("rows", 0) + outside, "rows_outside_days": outside}
    return Counted(whole, {name: count for name, count in counts.items() if count})


def _kept_caps(experiment: Experiment, *, own_table: bool) -> tuple[Capped, ...]:
    """What is capped. Days are added one by one, and what a day adds to a capped sum is kept, so the thresholds have to
    be known by the first day.

    Raises:
        DataError: one is not.

    """
    wanted = capped_columns(experiment)
    for each in wanted:
        if each.how.is_pooled or (each.how.of_pre and not own_table):
            moving = "a pooled quantile" if each.how.is_pooled else "a quantile of what the users with rows did before"
            rest = "a value (at)" if own_table else "a value (at), or at a quantile of: pre with --pre"
            raise DataError(
                f"Metric '{each.metric}' is capped at {moving}, which is known when all have come, and days that are "
                f"kept are added one by one; make the report without --keep, or cap it at {rest}."
            )
    return wanted


def _of_days(kept: Kept) -> tuple[str, ...]:
    """The covariates that come with the days."""
    return () if kept.has_covariates_of_their_own else kept.covariates


def _require(kept: Kept, columns: Sequence[str], spread: Sequence[str], inside: Sequence[str], more: bool) -> None:
    """`inside`: covariates that the table has; `more`: there is a table of them too."""
    if not kept.has_covariates_of_their_own and (
        more or set(kept.covariates) not in (set(inside), set(inside_covariates(inside)))
    ):
        had = ", ".join(name for name in kept.covariates if name != UNKNOWN) or "no covariates"
        raise DataError(
            f"{kept.folder} was begun with {had} in the table of days; give the same, or begin another folder."
        )
    lacking = [name for name in columns if name not in kept.columns]
    lacking += [f"{name} (its spread)" for name in spread if name not in kept.spread]
    if lacking:
        raise DataError(
            f"{kept.folder} does not keep {', '.join(lacking)}, which a metric needs now; begin another folder."
        )


def _require_order(kept: Kept, days: Mapping[int, DayOfTable]) -> None:
    had = [day.day for day in kept.days]
    behind = [day for day in sorted(days) if day not in had and had and day < had[-1]]
    if behind:
        raise DataError(
            f"Day {shown(days[behind[0]].values[0])} came after a later one was kept in {kept.folder}, and days are "
            f"added in order; to have it, begin another folder."
        )


def _late(kept: Kept, days: Mapping[int, DayOfTable]) -> int:
    """How many rows the days kept have now that they did not have when they were read."""
    return sum(max(days[day.day].rows - day.row_count, 0) for day in kept.days if day.day in days)


def _days(table: "ir.Table", experiment: Experiment) -> dict[int, DayOfTable]:
    """The table's days by day of the experiment, those outside it among them.

    Raises:
        DataError: one is missing, or is no day.

    """
    days: dict[int, DayOfTable] = {}
    faulty: dict[Fault, list[tuple[Any, int]]] = {}
    for batch in [*batches(table.group_by(DAY).aggregate(rows=table.count()), [DAY, "rows"])]:
        values = batch.column(DAY)
        numbers, unusable, fault = days_of(values, experiment)
        missing = values.is_null().to_numpy(zero_copy_only=False)
        for wrong, what in ((missing, MISSING), (unusable, fault)):
            found = batch.filter(pa.array(wrong))
            for value, rows in zip(*(found.column(name).to_pylist() for name in (DAY, "rows")), strict=True):
                faulty.setdefault(what, []).append((value, rows))
        numbers = np.where(missing | unusable, 0, numbers)
        for number, value, rows in zip(
            numbers.tolist(), values.to_pylist(), batch.column("rows").to_pylist(), strict=True
        ):
            before = days.get(number, DayOfTable((), 0))
            days[number] = DayOfTable((*before.values, value), before.rows + rows)
    problems = Problems()
    for what, met in faulty.items():
        problems.add(what, DAY, sum(rows for _, rows in met), _met(table, [value for value, _ in met]))
    said = problems.sentence(place_of=partial(place_of, table))
    if said:
        raise DataError(said)
    return days


def _met(table: "ir.Table", days: list[Any]) -> Met:
    """The first row of some days."""
    rows = table.filter(table[DAY].isnull() if days == [None] else table[DAY].isin(days)).limit(1)
    row = next(batch.to_pylist()[0] for batch in batches(rows, [USER, DAY]) if batch.num_rows)
    return Met(", ".join(f"{name} {shown(value)}" for name, value in row.items()), row=row)
