"""A report on what the collector has saved."""

from dataclasses import replace

from abtest.analyse.analysis import analyse
from abtest.analyse.context import ReportContext
from abtest.analyse.results import Report
from abtest.collect.parts import load_state, saved_parts
from contracts.config.settings import Settings
from contracts.runtime.durable import StateError
from driftline.errors import UsageError
from driftline.experiment.context import known_context
from driftline.experiment.false_alarms import known_false_alarms


def collected(settings: Settings) -> tuple[Report, ReportContext]:
    """The report, and what settings and snapshots tell it.

    Raises:
        UsageError: nothing was saved yet, or it cannot be used.

    """
    require_state(settings)
    try:
        state = load_state(settings)
    except StateError as error:
        raise UsageError(str(error)) from error
    context = known_context(settings, state)
    result = analyse(state, context.models)
    return result, replace(context, false_alarms=known_false_alarms(settings, sum(result.split.users.values())))


def require_state(settings: Settings) -> None:
    """See that the collector has saved something.

    Raises:
        UsageError: it has not.

    """
    try:
        parts = saved_parts(settings)
    except StateError as error:
        raise UsageError(str(error)) from error
    if not parts:
        raise UsageError(f"The collector has saved nothing in {settings.state} yet.")
