"""An experiment's rows of which only those days are read that are not kept yet: a report a day that costs a day.

What `abtest.rows.read` gives of all days, by `abtest.kept` from day to day.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from abtest.aggregates import Counted
from abtest.engines import DataError, batches
from abtest.kept import Kept, begun, opened, with_day
from abtest.kept_state import MANIFEST
from abtest.reader import DAY, day_of, first_day
from abtest.rows import before, gaps, one_day, wanted
from contracts.experiment import Experiment

if TYPE_CHECKING:
    import ibis.expr.types as ir


def read(folder: Path, table: "ir.Table", experiment: Experiment, pre: "ir.Table | None" = None) -> Counted:
    """The aggregate of a table of users and days, and of the days that `folder` keeps from before.

    A day is read when the table first has it, and then never again, so it has to be over by then.

    Args:
        folder: where days are kept; it is made if it is not there.
        table: as for `abtest.rows.read`; days that are kept already may be in it or not.
        experiment: its file.
        pre: covariates in a table of their own; read once, when `folder` is made.

    Raises:
        DataError: as for `abtest.rows.read`; or the metrics need columns that are not kept.
        StateError: what is kept is damaged, or of another experiment.

    """
    columns, spread, inside = wanted(table, experiment)
    if (folder / MANIFEST).exists():
        kept = opened(folder, experiment)
        _require(kept, columns, spread)
    elif inside and pre is not None:
        raise DataError(f"Covariates are in the table ({inside[0]}) and in a second one; leave one out.")
    elif pre is not None:
        covariates, ids, values = before(pre, experiment)
        kept = begun(folder, experiment, columns, covariates, (ids, values), spread)
    else:
        kept = begun(folder, experiment, columns, inside, spread=spread)
    for value in _new_days(table, experiment, kept.days[-1].day if kept.days else -1):
        kept = with_day(kept, *one_day(table.filter(table[DAY] == value), experiment, kept.columns))
    of = kept.aggregate
    counts = {**kept.counts, "users_in_two_arms": kept.in_two_arms, **gaps(of)}
    return Counted(of, {name: count for name, count in counts.items() if count})


def _require(kept: Kept, columns: tuple[str, ...], spread: tuple[str, ...]) -> None:
    lacking = [name for name in columns if name not in kept.columns]
    lacking += [f"{name} (its spread)" for name in spread if name not in kept.spread]
    if lacking:
        raise DataError(
            f"{kept.folder} does not keep {', '.join(lacking)}, which a metric needs now; begin another folder."
        )


def _new_days(table: "ir.Table", experiment: Experiment, last: int) -> list[Any]:
    """As the table has them, in order: days of the experiment after the `last` one kept."""
    found: dict[int, Any] = {}
    for batch in batches(table.select(DAY).distinct(), [DAY]):
        days = batch.column(DAY)
        if days.null_count:
            raise DataError(f"The data cannot be used: column '{DAY}' has missing values.")
        found |= zip(day_of(days, first_day(experiment)).tolist(), days.to_pylist(), strict=True)
    return [found[day] for day in sorted(found) if last < day < experiment.days]
