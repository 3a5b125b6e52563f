"""Metrics of a table of one's own: what a user's sum is made of, in the table's words, and the plan that it becomes."""

from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from contracts.config.metric_plan import LARGEST_EFFECT, MetricPlan, Winsorize
from contracts.config.section import Name, Section

Value: TypeAlias = bool | int | float | str
Kind = Literal["conversion", "count", "revenue", "mean", "ratio", "quantile"]


def _listed(value: Any) -> Any:
    """One value as a list of one, of each column."""
    if not isinstance(value, dict):
        return value
    return {name: wanted if isinstance(wanted, list | tuple) else (wanted,) for name, wanted in value.items()}


Where = Annotated[dict[Name, tuple[Value, ...]], BeforeValidator(_listed)]


class Sum(NamedTuple):
    """How a user's number is made of the table's rows.

    `column`: what is added up; None: rows are counted. `where`: only of rows that have one of these values in each of
    these columns. `how`: the sum, or 1 where it is above 0 in any row ("any").
    """

    column: str | None
    where: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    how: Literal["sum", "any"] = "sum"


class Part(Section):
    """Numerator or denominator of a ratio: a column summed, or, without one, rows counted."""

    column: Name | None = None
    where: Where = Field(default_factory=dict)


def _part(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


class TableMetric(Section):
    """A metric in a table's words.

    ``conversion``: the share of users with a value above 0 in any row. ``count``, ``revenue``, ``mean``: a user's sum,
    averaged over users. ``ratio``: one sum over another (`columns`). ``quantile``: of users' sums. `column` is the
    metric's name where it is left out, but of events, a conversion and a count are of the rows themselves. `where`
    keeps the rows that have a value, or one of several, in a column.
    """

    name: Name
    kind: Kind
    column: Name | None = None
    columns: tuple[Annotated[Part, BeforeValidator(_part)], ...] = ()
    where: Where = Field(default_factory=dict)
    role: Literal["primary", "guardrail", "diagnostic"] | None = None
    direction: Literal["increase", "decrease"] = "increase"
    minimum_effect: Annotated[float, Field(ge=0, le=LARGEST_EFFECT, allow_inf_nan=False)] = 0.0
    q: Annotated[float, Field(gt=0, lt=1)] | None = None
    winsorize: Winsorize | None = None
    label: Name | None = None
    unit: str | None = None
    about: Name | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "TableMetric":
        if self.kind == "ratio":
            if len(self.columns) != 2:
                raise ValueError(f"columns of '{self.name}' must be two, such as [revenue, orders]")
            if self.column is not None or self.where:
                raise ValueError(f"column and where of '{self.name}', a ratio, stand in its columns, one by one")
        elif self.columns:
            raise ValueError(f"columns of '{self.name}' goes with kind ratio; a {self.kind} has one column")
        if (self.kind == "quantile") != (self.q is not None):
            raise ValueError(f"q of '{self.name}' goes with kind quantile, and with no other")
        if self.winsorize is not None and self.kind in {"conversion", "quantile"}:
            raise ValueError(f"winsorize of '{self.name}' goes with sums and ratios, not with kind {self.kind}")
        return self

    def sums(self, *, of_events: bool) -> tuple[Sum, ...]:
        """What users' numbers are made of: one sum, or a ratio's two.

        >>> TableMetric(name="buyers", kind="conversion", where={"event": "buy"}).sums(of_events=True)
        (Sum(column=None, where=(('event', ('buy',)),), how='any'),)
        """
        if self.kind == "ratio":
            return tuple(Sum(each.column, tuple(each.where.items())) for each in self.columns)
        rows = of_events and self.kind in {"conversion", "count"}
        column = self.column if self.column is not None or rows else self.name
        return (Sum(column, tuple(self.where.items()), "any" if self.kind == "conversion" else "sum"),)

    def plan(self, columns: tuple[str, ...], role: Literal["primary", "guardrail", "diagnostic"]) -> MetricPlan:
        """It as any experiment's metric, of the columns that its sums are kept in."""
        kind: Literal["mean", "ratio", "quantile"] = (
            "ratio" if self.kind == "ratio" else "quantile" if self.kind == "quantile" else "mean"
        )
        return MetricPlan(
            name=self.name,
            kind=kind,
            columns=columns,
            role=role,
            direction=self.direction,
            minimum_effect=self.minimum_effect,
            q=self.q,
            winsorize=self.winsorize,
            label=self.label or self.name.replace("_", " ").capitalize(),
            unit=self.unit if self.unit is not None else "%" if self.kind == "conversion" else "",
            about=self.about or self._about(),
        )

    def _about(self) -> str:
        if self.kind == "ratio":
            return " / ".join(_said(each.column, each.where) for each in self.columns)
        said = _said(self.column or self.name, self.where) if self.column or not self.where else _said(None, self.where)
        if self.kind == "conversion":
            return f"share of users with {said}"
        if self.q is not None:
            return f"what {100 * self.q:g} % of users’ sums of {said} stay below"
        return f"{said} per user"


def _said(column: str | None, where: dict[str, tuple[Value, ...]]) -> str:
    """A sum in a few words.

    >>> _said("amount", {}), _said(None, {"event": ("buy", "gift")})
    ('amount', 'rows with event buy or gift')
    """
    of = " and ".join(f"{name} {' or '.join(map(str, values))}" for name, values in where.items())
    return f"{column or 'rows'}{f' with {of}' if of else ''}"
