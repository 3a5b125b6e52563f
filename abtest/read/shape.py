"""A table of any shape as one of users and days: columns by the analysis's names, events summed, arms and period met.

All of it is one expression of Ibis, so that the engine where the data are does the work; what is read is what
`abtest.read.rows.read` takes. Nothing here decides a statistic.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from abtest.aggregate.archive import Counted
from abtest.read.csv_files import first_that, hint, no_number
from abtest.read.day_expressions import days_in, period_of
from abtest.read.days import shown
from abtest.read.engines import as_table, first_values
from abtest.read.problems import ARM, DAY, DataError
from abtest.read.rows import read
from abtest.read.spill import USER
from contracts.config.experiment import Experiment
from contracts.config.external import External
from contracts.config.table_metrics import Sum, Value

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from abtest.read.rows import Rows

MOST_ARMS = 20  # more values than that are no arms, unless they are named
PRE = "pre."


@dataclass(frozen=True)
class Shaped:
    """What a plan makes of a table. `called`: what the user calls the columns of `table`."""

    table: "ir.Table"
    experiment: Experiment
    called: Mapping[str, str]


def shaped(rows: "Rows", plan: External | Experiment) -> Shaped:
    """The table and the experiment that `abtest.read.rows.read` takes.

    Raises:
        DataError: the table lacks a column that the plan names, or has one of a type that cannot be used; no arms or no
            days can be told from its rows.
        SettingsError: the rows' arms or period do not go with the plan.

    """
    table = as_table(rows)
    if isinstance(plan, Experiment):
        return Shaped(table, plan, {})
    _require(table, plan)
    own = plan.columns
    user = _user(table, plan)
    arms = list(plan.arms) if plan.arms is not None else _arms(table, plan)
    if plan.control not in arms:
        raise DataError(f"Control arm '{plan.control}' is not in column '{own.arm}'; it has {_listed(arms)}.")
    described = {USER: user, ARM: _arm(table[own.arm])}
    if own.day is None:
        if plan.start_ms is not None and plan.end_ms is not None:
            experiment = plan.experiment(arms, plan.start_ms, plan.end_ms)
        else:
            midnight = plan.calendar.midnight_ms
            experiment = plan.experiment(arms, midnight(0), midnight(1))
        return Shaped(_users(table, plan, {**described, DAY: _zero()}), experiment, plan.called)
    period = period_of(table, plan)
    experiment = plan.experiment(arms, period.start_ms, period.end_ms)
    by_day = _user_days(table, plan, {**described, DAY: period.day})
    once = [name for name, each in plan.sums.items() if each.how == "any"]
    return Shaped(_first_only(by_day, once, experiment), experiment, plan.called)


def counted(rows: "Rows", plan: External | Experiment, pre: "Rows | None" = None) -> tuple[Counted, Experiment]:
    """The aggregate of a table of any shape, and the experiment that its rows and the plan make.

    Raises:
        DataError: as of `shaped` and of `abtest.read.rows.read`.
        SettingsError: as of these.

    """
    found = shaped(rows, plan)
    return read(found.table, found.experiment, pre, found.called), found.experiment


def _user_days(table: "ir.Table", plan: External, described: "dict[str, ir.Value]") -> "ir.Table":
    if plan.row_is != "event":
        return _users(table, plan, described)
    covariates = {f"{PRE}{name}": table[name] for name in plan.covariates}
    numbers = {f"n_{name}": _of_event(table, each) for name, each in plan.sums.items()}
    missing = {f"missing_{name}": _missing(table, each) for name, each in plan.sums.items()}
    events = table.select(**described, **covariates, **numbers, **missing)
    sums: dict[str, Any] = {}
    for name, each in plan.sums.items():
        total = events[f"n_{name}"].max() if each.how == "any" else events[f"n_{name}"].sum()
        sums[name] = (events[f"missing_{name}"].max() > 0).ifelse(None, total)  # a sum without it would be another
    known = {name: events[name].max() for name in covariates}
    return events.group_by([USER, ARM, DAY]).aggregate(**sums, **known)


def _users(table: "ir.Table", plan: External, described: "dict[str, ir.Value]") -> "ir.Table":
    """One row as it is."""
    numbers = {
        name: table[each.column] if each.how == "sum" else (table[each.column] > 0).cast("int8")
        for name, each in plan.sums.items()
        if each.column is not None
    }
    return table.select(**described, **numbers, **{f"{PRE}{name}": table[name] for name in plan.covariates})


def _of_event(table: "ir.Table", each: Sum) -> "ir.Value":
    """What an event adds: 0 where it is none of those that are meant."""
    import ibis

    meant = _meant(table, each)
    if each.column is None:
        return meant.cast("int64")
    column = table[each.column]
    if each.how == "any":
        return (meant & (column > 0)).fill_null(False).cast("int8")
    zero = ibis.literal(0, "float64" if column.type().is_floating() else "int64")
    return meant.ifelse(column.cast("int64") if column.type().is_boolean() else column, zero)


def _missing(table: "ir.Table", each: Sum) -> "ir.Value":
    import ibis

    if each.column is None:
        return ibis.literal(0, "int8")
    return (_meant(table, each) & table[each.column].isnull()).cast("int8")


def _meant(table: "ir.Table", each: Sum) -> "ir.BooleanValue":
    import ibis

    chosen = [table[name].isin(list(values)).fill_null(False) for name, values in each.where]
    return reduce(and_, chosen) if chosen else ibis.literal(value=True)


def _first_only(table: "ir.Table", once: list[str], experiment: Experiment) -> "ir.Table":
    """A conversion counts on the first day of the experiment that has one: over its days a user converts once."""
    import ibis

    if not once or experiment.days == 1:
        return table
    inside, of_user = days_in(table[DAY], experiment), ibis.window(group_by=USER)
    counted: dict[str, Any] = {}
    for name in once:
        value = table[name]
        happened = (inside & (value > 0)).fill_null(False)
        first = happened.ifelse(table[DAY], None).min().over(of_user)
        only = (happened & (table[DAY] == first)).fill_null(False).cast("int8")
        counted[name] = value.isnull().ifelse(None, only)
    return table.mutate(**counted)


def _user(table: "ir.Table", plan: External) -> "ir.Value":
    """Whom a row is of. Where no column says it and a row is a user, each row is one.

    Raises:
        DataError: no column says it, and a user has several rows.

    """
    import ibis

    name = plan.columns.user
    if name is None and USER not in table.columns:
        if plan.row_is == "user":
            return ibis.row_number()
        raise DataError(
            f"Which column has the users? A row is of a {plan.row_is}, so name it as columns: {{user: …}}; the table "
            f"has {', '.join(table.columns)}."
        )
    return table[name or USER]


def _zero() -> "ir.Value":
    import ibis

    return ibis.literal(0, "int32")


def _arm(column: Any) -> "ir.Value":
    return column if column.type().is_string() else column.cast("string")


def _arms(table: "ir.Table", plan: External) -> list[str]:
    """Those that the rows have, the control first.

    Raises:
        DataError: there are none, or so many that they are something else.

    """
    column = plan.columns.arm
    met = [each for each in first_values(_arm(table[column]), MOST_ARMS + 2) if each is not None]
    arms = sorted(met, key=lambda arm: (arm != plan.control, arm))
    if len(arms) > MOST_ARMS:
        raise DataError(
            f"Column '{column}' has more than {MOST_ARMS} values ({_listed(arms[:3])}, …); is it the arm? If so, name "
            "those that are meant as arms."
        )
    if "" in arms:
        raise DataError(f"Column '{column}' has an empty text in some rows; an arm has a name.")
    if len(arms) < 2:
        has = f"only {_listed(arms)}" if arms else "no value"
        raise DataError(f"Column '{column}' has {has}; an experiment needs at least two arms.")
    return arms


def _require(table: "ir.Table", plan: External) -> None:
    """That the table has the columns that the plan names, and numbers where they are wanted.

    Raises:
        DataError: it has not.

    """
    schema, own = dict(table.schema().items()), plan.columns
    named: dict[str, str | None] = {"columns: user": own.user, "columns: arm": own.arm, "columns: day": own.day}
    wanted = [(what, name) for what, name in named.items() if name is not None]
    wanted += [("covariates", name) for name in plan.covariates]
    for metric in plan.metrics:
        for each in metric.sums(of_events=plan.row_is == "event"):
            columns = [*([each.column] if each.column is not None else []), *(name for name, _ in each.where)]
            wanted += [(f"metric '{metric.name}'", name) for name in columns]
    for what, name in wanted:
        if name not in schema:
            lower = {each.lower(): each for each in schema}
            close = get_close_matches(name.lower(), lower, 1)
            meant = f"; did you mean '{lower[close[0]]}'?" if close else f"; it has {', '.join(schema)}."
            raise DataError(f"The table has no column '{name}', which is wanted as {what}{meant}")
    _require_types(table, plan)


def _require_types(table: "ir.Table", plan: External) -> None:
    arm = plan.columns.arm
    kind = table.schema()[arm]
    if kind.is_null():
        raise DataError(f"Column '{arm}' has no value in any row; an experiment needs at least two arms.")
    if not (kind.is_string() or kind.is_integer() or kind.is_boolean()):
        first = _first(table, arm)
        raise DataError(f"Column '{arm}' is {kind} (first: {first}); an arm must be text, or a whole number.")
    for metric in plan.metrics:
        for each in metric.sums(of_events=plan.row_is == "event"):
            if each.column is not None and (plan.row_is == "event" or each.how == "any"):
                _require_number(table, each.column, metric.name)
            for name, values in each.where:
                _require_comparable(table, name, values, metric.name)


def _require_comparable(table: "ir.Table", column: str, values: tuple[Value, ...], metric: str) -> None:
    """That a column can have the values that events are chosen by.

    Raises:
        DataError: it is of another type.

    """
    kind, first = table.schema()[column], _first(table, column)
    wrong: list[Value]
    if kind.is_string():
        wrong, wanted = [each for each in values if not isinstance(each, str)], "text"
    elif kind.is_boolean():
        wrong, wanted = [each for each in values if not isinstance(each, bool)], "true or false"
    else:
        wrong = [each for each in values if isinstance(each, bool | str) or not kind.is_numeric()]
        wanted = "a number" if kind.is_numeric() else "of a column of text, of numbers, or of truth values"
    if wrong:
        raise DataError(
            f"where of metric '{metric}': column '{column}' is {kind} (first: {first}), so {wrong[0]!r} cannot be in "
            f"it; it must be {wanted}."
        )


def _require_number(table: "ir.Table", column: str, metric: str) -> None:
    """As the engine is to reckon with it before the rows are read.

    Raises:
        DataError: the column is of no number.

    """
    kind = table.schema()[column]
    if kind.is_numeric() or kind.is_boolean():
        return
    wrong = first_that(table, column, no_number)
    if wrong is not None:
        raise DataError(
            f"{wrong.place}: column '{column}' has '{wrong.text}', which is no number, for metric '{metric}'; "
            f"{hint(wrong.text)}."
        )
    first = _first(table, column)
    raise DataError(f"Column '{column}' of metric '{metric}' is {kind} (first: {first}); it must be a number.")


def _first(table: "ir.Table", column: str) -> str:
    """A value that a column has, as a person would write it."""
    return next((shown(each) for each in first_values(table[column], 2) if each is not None), "none")


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
