"""A report on data that did not come through Kafka: rows of users and days, or an aggregate saved before."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from abtest.aggregate.archive import Counted, load, save
from abtest.analyse.analysis import report
from abtest.analyse.results import Report
from abtest.collect.observed import Observed
from abtest.incremental import read as kept_days
from abtest.read import shape
from abtest.read.engines import opened
from contracts.config.experiment import Experiment
from contracts.config.external import External
from contracts.config.secret import filled
from contracts.config.settings import SettingsError
from contracts.runtime.durable import StateError
from driftline.errors import UsageError

if TYPE_CHECKING:
    import ibis.expr.types as ir


def report_on(
    plan: Experiment | External,
    data: str | None,
    table: str | None,
    pre: str | None,
    pre_table: str | None,
    state: Path | None,
    save_state: Path | None,
    keep: Path | None = None,
    *,
    newest_ms: int = 0,
) -> Report:
    """The report on `data` (a path or URL, see `abtest.read.engines.opened`) or on the aggregate in `state`.

    With `keep`, on the days that this folder has, and on those of `data` that it has not yet. An experiment that
    driftline did not assign has what its plan says of the rows of `data`. `newest_ms`: rows are whole up to then, so
    that no look is taken at a day that goes on; 0: each day that has rows is whole.

    Raises:
        UsageError: not exactly one of the two, no rows, or a saved aggregate, or a folder, that cannot be used.
        SettingsError: data that cannot be used.

    """
    if save_state is not None and save_state.is_dir():
        raise UsageError(f"{save_state} is a folder; --save-state takes the name of a file.")
    if (data is None) == (state is None):
        raise UsageError("Give --data or --state, one of them.")
    if data is None and (table or pre or pre_table or keep):
        raise UsageError("--table, --pre, --pre-table and --keep go with --data.")
    if keep is not None and keep.exists() and not keep.is_dir():
        raise UsageError(f"{keep} is a file; --keep takes a folder.")
    if isinstance(plan, External) and (data is None or pre or pre_table or keep or save_state):
        raise UsageError(
            "assignment: external takes --data and --table; what is known from before is a column of that table, such "
            "as covariates: [history]."
        )
    try:
        counted, experiment = (
            (load(state, plan), plan)
            if state is not None and isinstance(plan, Experiment)
            else _read(plan, str(data), table, pre, pre_table, keep)
        )
    except StateError as error:
        raise UsageError(str(error)) from error
    if save_state is not None:
        try:
            save(counted, experiment, save_state)
        except OSError as error:
            raise UsageError(f"Cannot write {save_state}: {error.strerror}.") from error
    return report(counted.aggregate, experiment, Observed(counts=counted.counts, newest_ms=newest_ms))


def _read(
    plan: Experiment | External,
    data: str,
    table: str | None,
    pre: str | None,
    pre_table: str | None,
    keep: Path | None,
) -> tuple[Counted, Experiment]:
    before = None
    if pre is not None or pre_table is not None:
        before = _opened(pre if pre is not None else data, pre_table)
    if keep is None or isinstance(plan, External):
        return counted(data, table, plan, before)
    try:
        return _some(kept_days.read(keep, _opened(data, table), plan, before), data), plan
    except OSError as error:
        raise UsageError(f"Cannot keep days in {keep}: {error.strerror}.") from error


def counted(
    data: str, table: str | None, plan: Experiment | External, before: "ir.Table | None" = None
) -> tuple[Counted, Experiment]:
    """The aggregate of the rows that `data` has, and the experiment, which may have arms and period from them.

    Raises:
        SettingsError: data that cannot be used.
        UsageError: there is not one row.

    """
    names = (plan.columns.user or "user_id", plan.columns.arm) if isinstance(plan, External) else ()
    rows, experiment = shape.counted(_opened(data, table, *names), plan, before)
    return _some(rows, data), experiment


def _some(rows: Counted, data: str) -> Counted:
    if not rows.counts.get("rows"):
        raise UsageError(f"There are no rows in {public(data)}.")
    return rows


def public(place: str) -> str:
    """A path, or a URL without its password: what is said of it is passed on.

    >>> public("postgres://me:secret@db/x"), public("rows.parquet"), public("postgres://me@db/x")
    ('postgres://me:***@db/x', 'rows.parquet', 'postgres://me@db/x')
    """
    return re.sub(r"(://[^/@:]*):[^/]*@", r"\1:***@", place)


def _opened(data: str, table: str | None, user: str = "user_id", arm: str = "arm") -> "ir.Table":
    """A table of data whose URL may have `${NAME}` for a password.

    Raises:
        SettingsError: data that cannot be used, or a name that stands for nothing.

    """
    try:
        url = filled(data, os.environ) if "://" in data else data
    except ValueError as error:
        raise SettingsError(f"{public(data)}: {error}.") from error
    return opened(url, table, user, arm)
