"""An experiment's rows of which only those days are read that are not kept yet: a report a day that costs a day.

What `abtest.read.rows.read` gives of all days, by `abtest.incremental.add_day` from day to day.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abtest.aggregate.archive import Counted
from abtest.incremental.add_day import Kept, begun, opened, with_day
from abtest.incremental.store import COVARIATES, MANIFEST
from abtest.read.checks import DAY, day_of, first_day
from abtest.read.engines import DataError, batches
from abtest.read.rows import before, gaps, one_day, wanted
from contracts.config.experiment import Experiment

if TYPE_CHECKING:
    import ibis.expr.types as ir


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
            are not kept; or `folder` has something else in it.
        StateError: what is kept is damaged, or of another experiment.

    """
    columns, spread, inside = wanted(table, experiment)
    if (folder / MANIFEST).exists():
        kept = opened(folder, experiment)
        _require(kept, columns, spread, inside, pre is not None)
    elif folder.exists() and any(path.suffix != ".npy" for path in folder.iterdir()):
        raise DataError(f"{folder} has other files in it; days are kept in a folder of their own.")
    elif inside and pre is not None:
        raise DataError(f"Covariates are in the table ({inside[0]}) and in a second one; leave one out.")
    elif pre is not None:
        covariates, ids, values = before(pre, experiment)
        kept = begun(folder, experiment, columns, covariates, (ids, values), spread)
    else:
        kept = begun(folder, experiment, columns, inside, spread=spread)
    days = _days(table, experiment)
    _require_order(kept, days)
    for day in sorted(days):
        if not kept.days or day > kept.days[-1].day:
            value, _ = days[day]
            kept = with_day(kept, *one_day(table.filter(table[DAY] == value), experiment, kept.columns))
    of = kept.aggregate
    counts = {**kept.counts, "rows_late": _late(kept, days), "users_in_two_arms": kept.in_two_arms, **gaps(of)}
    return Counted(of, {name: count for name, count in counts.items() if count})


def _require(kept: Kept, columns: Sequence[str], spread: Sequence[str], inside: Sequence[str], more: bool) -> None:
    """`inside`: covariates that the table has; `more`: there is a table of them too."""
    of_their_own = (kept.folder / COVARIATES).exists()
    if not of_their_own and (more or tuple(inside) != kept.covariates):
        had = ", ".join(kept.covariates) or "no covariates"
        raise DataError(
            f"{kept.folder} was begun with {had} in the table of days; give the same, or begin another folder."
        )
    lacking = [name for name in columns if name not in kept.columns]
    lacking += [f"{name} (its spread)" for name in spread if name not in kept.spread]
    if lacking:
        raise DataError(
            f"{kept.folder} does not keep {', '.join(lacking)}, which a metric needs now; begin another folder."
        )


def _require_order(kept: Kept, days: Mapping[int, tuple[Any, int]]) -> None:
    had = [day.day for day in kept.days]
    behind = [day for day in sorted(days) if day not in had and had and day < had[-1]]
    if behind:
        raise DataError(
            f"Day {days[behind[0]][0]} came after a later one was kept in {kept.folder}, and days are added in order; "
            f"to have it, begin another folder."
        )


def _late(kept: Kept, days: Mapping[int, tuple[Any, int]]) -> int:
    """How many rows the days kept have now that they did not have when they were read."""
    return sum(max(days[day.day][1] - day.rows, 0) for day in kept.days if day.day in days)


def _days(table: "ir.Table", experiment: Experiment) -> dict[int, tuple[Any, int]]:
    """By day of the experiment: what the table calls it, and how many rows it has."""
    found: dict[int, tuple[Any, int]] = {}
    for batch in batches(table.group_by(DAY).aggregate(rows=table.count()), [DAY, "rows"]):
        days = batch.column(DAY)
        if days.null_count:
            raise DataError(f"The data cannot be used: column '{DAY}' has missing values.")
        numbers = day_of(days, first_day(experiment)).tolist()
        found |= zip(numbers, zip(days.to_pylist(), batch.column("rows").to_pylist(), strict=True), strict=True)
    return {day: of for day, of in found.items() if 0 <= day < experiment.days}
