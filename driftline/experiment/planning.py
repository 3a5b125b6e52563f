"""An experiment planned, as a person reads it: a table, and what to know beside."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from abtest.format import counted, level
from abtest.plan.needs import Row, percent
from abtest.plan.power import MOST_USERS, Plan
from abtest.stats.metrics import FEW, LARGEST_SHARE
from contracts.config.experiment import Experiment
from driftline.tables import table

if TYPE_CHECKING:
    from rich.table import Table


def table_of(rows: Sequence[Row], days: int) -> "Table":
    """A line a metric."""
    columns = {"metric": False, "role": False, "baseline": True, "users": True, "CUPED takes": True}
    columns |= {"effect": True, "users per arm": True, "days": True, f"least found in {counted(days, 'day')}": True}
    shown = table(columns)
    for row in rows:
        baseline, plan = row.known, row.plan
        value = "-" if baseline.value is None else f"{baseline.value:.4g}"
        removed = "-" if baseline.variance_removed is None else f"{100 * baseline.variance_removed:.0f} %"
        start = (row.metric.name, row.metric.role, value, f"{baseline.users:,}" if baseline.users else "-", removed)
        if plan is None:
            shown.add_row(*start, "-", "-", "-", "-")
            continue
        least = _least(plan)
        if row.effect is None:
            shown.add_row(*start, "-", "-", "-", least)
            continue
        needed = "/".join(f"{n:,}" for n in dict.fromkeys(plan.users.values())) or f"over {MOST_USERS:,}"
        shown.add_row(*start, percent(plan.effect), needed, "never" if row.days is None else f"{row.days:,}", least)
    return shown


def notes_on(rows: Sequence[Row], experiment: Experiment, days: int) -> Iterator[str]:
    """What a person must know beside the table."""
    power = experiment.analysis.power
    for row in rows:
        name, plan = row.metric.name, row.plan
        if plan is None:
            yield f"{name} cannot be planned for: {row.known.reason}."
            continue
        events = (
            f" It rests on {row.known.events:,} {str(row.metric.columns[0]).replace('_', ' ')}."
            if row.known.events
            else ""
        )
        over = counted(days, "day")
        least = f"Below {_least(plan)} nothing is likely to be found in {over}."
        if plan.by_day[-1] is None:
            least = f"Nothing is likely to be found in {over}."
        if row.effect is None:
            yield f"{name} has no minimum_effect. {least}{events}"
        elif plan.days is None:
            longer = f"about {counted(row.days, 'day')}" if row.days else "more users than ever come"
            yield f"{name} needs {longer} to find {percent(plan.effect)}. {least}{events}"
        else:
            finds = "finds" if plan.days == 1 else "find"
            found = f"{percent(plan.effect)} with a probability of {level(1 - power)}"
            yield f"{name}: {plan.days} of {over} {finds} {found}."
        if row.effect is not None and plan.by_rule:
            yield (
                f"{name}: an arm needs {counted(plan.least_users, 'user')} for the verdict's rule, more than it takes "
                f"to find {percent(plan.effect)}: {FEW} users, {FEW} effective events, and no user with more than "
                f"{100 * LARGEST_SHARE:g} % of a sum; of heavier tails than the gamma distribution's it needs more."
            )
    dearest = max((row.plan.inflation for row in rows if row.plan), default=1.0)
    if dearest > 1.005:
        more = f"{100 * (dearest - 1):,.0f} %"
        yield f"Being allowed to look before the end takes up to {more} more users than one look at the end."


def _least(plan: Plan) -> str:
    """The least effect that all the days find, in either direction."""
    least = plan.by_day[-1]
    return "-" if least is None else f"±{percent(least)}"
