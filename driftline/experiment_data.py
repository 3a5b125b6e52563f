"""A report on data that did not come through Kafka: rows of users and days, or an aggregate saved before."""

from pathlib import Path

from abtest.aggregates import Counted, load, save
from abtest.analysis import report
from abtest.engines import opened
from abtest.observed import Observed
from abtest.results import Report
from abtest.rows import read
from abtest.store import StateError
from contracts.experiment import Experiment
from driftline.errors import UsageError


def report_on(
    experiment: Experiment,
    data: str | None,
    table: str | None,
    pre: str | None,
    pre_table: str | None,
    state: Path | None,
    save_state: Path | None,
) -> Report:
    """The report on `data` (a path or URL, see `abtest.engines.opened`) or on the aggregate in `state`.

    Raises:
        UsageError: not exactly one of the two, or a saved aggregate that cannot be used.
        SettingsError: data that cannot be used.

    """
    if save_state is not None and save_state.is_dir():
        raise UsageError(f"{save_state} is a folder; --save-state takes the name of a file.")
    if (data is None) == (state is None):
        raise UsageError("Give --data or --state, one of them.")
    if data is None and (table or pre or pre_table):
        raise UsageError("--table, --pre and --pre-table go with --data.")
    try:
        counted = load(state, experiment) if state is not None else _read(experiment, str(data), table, pre, pre_table)
    except StateError as error:
        raise UsageError(str(error)) from error
    if save_state is not None:
        try:
            save(counted, experiment, save_state)
        except OSError as error:
            raise UsageError(f"Cannot write {save_state}: {error.strerror}.") from error
    return report(counted.aggregate, experiment, Observed(counts=counted.counts))


def _read(experiment: Experiment, data: str, table: str | None, pre: str | None, pre_table: str | None) -> Counted:
    before = None
    if pre is not None or pre_table is not None:
        before = opened(pre if pre is not None else data, pre_table)
    return read(opened(data, table), experiment, before)
