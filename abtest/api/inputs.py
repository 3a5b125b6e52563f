"""What callers give: plans as objects, mappings or files, and rows as frames or files."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from abtest.aggregate.archive import Counted
from abtest.read.engines import opened
from abtest.read.problems import DataError
from abtest.read.shape import counted
from contracts.config.experiment import Experiment, SettingsError
from contracts.config.external import External, load_plan, plan_of

Plan: TypeAlias = Experiment | External | Mapping[str, Any] | str | PathLike[str]
Frame: TypeAlias = Any  # a data frame, an Arrow table, a relation of DuckDB, a table of Ibis, or the path of a file


def planned(plan: Plan) -> Experiment | External:
    """A plan, of whatever it was given as.

    Raises:
        SettingsError: it is none.

    """
    if isinstance(plan, Experiment | External):
        return plan
    if isinstance(plan, str | PathLike):
        return load_plan(Path(plan))
    if isinstance(plan, Mapping):
        return plan_of(dict(plan), "The plan")
    raise SettingsError(f"A plan is a mapping, the path of a YAML file or an experiment, not {type(plan).__name__}.")


def rows_of(frame: Frame, plan: Experiment | External) -> Any:
    """A frame as it is, or the table of the files at a path.

    Raises:
        DataError: there is nothing that can be read there.

    """
    if not isinstance(frame, str | PathLike):
        return frame
    names = (plan.columns.user or "user_id", plan.columns.arm) if isinstance(plan, External) else ()
    return opened(str(frame), None, *names)


def counted_of(frame: Frame, plan: Experiment | External, before: Frame | None) -> tuple[Counted, Experiment]:
    """The aggregate of a frame, and the experiment that its rows and the plan make.

    Raises:
        DataError: the rows cannot be used, or there is none.
        SettingsError: they do not go with the plan.

    """
    if before is not None and isinstance(plan, External):
        raise DataError("before goes with rows of users and days; name columns of the table as covariates instead.")
    pre = None if before is None else rows_of(before, plan)
    rows, experiment = counted(rows_of(frame, plan), plan, pre)
    if not rows.counts.get("rows"):
        raise DataError("There are no rows.")
    return rows, experiment
