"""The metrics of a report, as values. Each turns an arm's moments into an estimate; the unit is always the user.

They can be declared as plain mappings, such as a YAML file gives:

    - {name: evr, kind: ratio, numerator: effective_views, denominator: views, role: primary, minimum_effect: 0.01}
    - {name: latency_ms, kind: ratio, unit: ms, numerator: latency_ms, denominator: recalls, direction: decrease}
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from abtest.estimates import Estimate, mean_estimate, ratio_estimate
from abtest.moments import Floats, Moments

COLUMNS = ("recalls", "views", "effective_views", "follows", "play_s", "usage_s")  # a user's sums over a day or longer

FEW = 20  # below this many users or events in an arm the normal approximation is a poor one

Role = Literal["primary", "guardrail", "diagnostic"]
Direction = Literal["increase", "decrease"]  # which one is good
Text = Annotated[str, Field(min_length=1)]
Above0 = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]


class MetricError(ValueError):
    """A metric is declared wrongly; the message says which field and what is allowed."""


class Metric(Protocol):
    """What the analysis asks of a metric that has an estimate from moments."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def direction(self) -> Direction: ...
    @property
    def minimum_effect(self) -> float | None: ...
    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the estimate is made of."""
        ...

    def estimate(self, moments: Moments) -> Estimate:
        """The metric in one arm."""
        ...

    def values(self, columns: Sequence[str], means: Floats) -> Floats:
        """The metric from means (..., k) of `columns`: (...), NaN where its denominator is 0."""
        ...

    def caution(self, moments: Moments) -> str | None:
        """Why the estimate deserves less trust than its interval suggests; None where nothing speaks against it."""
        ...


@dataclass(frozen=True)
class Mean:
    """Mean of `column` over users. `minimum_effect`: the smallest relative difference that matters.

    >>> Mean("play", "Play", "s", "", "x").estimate(Moments.of(("x",), np.array([[1.0], [2.0]]))).value
    1.5
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    name: Text
    label: str
    unit: str
    about: str
    column: Text
    role: Role = "diagnostic"
    direction: Direction = "increase"
    minimum_effect: Above0 | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def estimate(self, moments: Moments) -> Estimate:
        return mean_estimate(moments, self.column)

    def values(self, columns: Sequence[str], means: Floats) -> Floats:
        return means[..., list(columns).index(self.column)]

    def caution(self, moments: Moments) -> str | None:
        return f"only {moments.n} users" if 0 < moments.n < FEW else None


@dataclass(frozen=True)
class Ratio:
    """Sum of `numerator` over the sum of `denominator`, each summed per user first."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    name: Text
    label: str
    unit: str
    about: str
    numerator: Text
    denominator: Text
    role: Role = "diagnostic"
    direction: Direction = "increase"
    minimum_effect: Above0 | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.numerator, self.denominator)

    def estimate(self, moments: Moments) -> Estimate:
        return ratio_estimate(moments, self.numerator, self.denominator)

    def values(self, columns: Sequence[str], means: Floats) -> Floats:
        above, below = (means[..., list(columns).index(column)] for column in self.columns)
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)

    def caution(self, moments: Moments) -> str | None:
        if 0 < moments.n < FEW:
            return f"only {moments.n} users"
        events = round(moments.total(self.numerator))
        return f"only {events} {self.numerator.replace('_', ' ')}" if moments.n and events < FEW else None


@dataclass(frozen=True)
class Quantile:
    """The value of `column` that a share `q` of users stays below. Moments do not have it: histograms do."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    name: Text
    label: str
    unit: str
    about: str
    column: Text
    q: Annotated[float, Field(gt=0, lt=1, strict=True)]
    role: Role = "diagnostic"
    direction: Direction = "increase"
    minimum_effect: Above0 | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)


Declared: TypeAlias = Mean | Ratio | Quantile
KINDS: dict[str, type[Declared]] = {"mean": Mean, "ratio": Ratio, "quantile": Quantile}
_READERS: dict[str, TypeAdapter[Declared]] = {kind: TypeAdapter(of) for kind, of in KINDS.items()}

METRICS: tuple[Mean | Ratio, ...] = (
    Ratio("evr", "Effective view rate", "%", "effective views / views", "effective_views", "views", "primary"),
    Ratio("follow_rate", "Follow rate", "%", "follows / views", "follows", "views", "guardrail"),
    Mean("play_duration", "Play duration", "s", "seconds played per exposed user", "play_s", "guardrail"),
    Mean("app_usage", "App usage duration", "s", "length of sessions per exposed user", "usage_s", "guardrail"),
)
PRIMARY = "evr"
RECALLS = Mean("recalls", "Recalls", "", "recalls per exposed user", "recalls")
DEFAULTS = (*METRICS, RECALLS)  # where a declaration names no metrics
LATENCY = Ratio(
    "latency_ms", "Latency", "ms", "milliseconds per recall", "latency_ms", "recalls", "guardrail", "decrease"
)  # where the data has the column


def metric_of(declared: Mapping[str, Any], columns: Collection[str] | None = None) -> Declared:
    """The metric that a mapping declares.

    `kind` (mean, ratio or quantile) and `name` are needed, and the columns that the kind has; `label` is the name where
    it is left out, `unit` and `about` are empty.

    Args:
        declared: names and values of the fields.
        columns: those that the data has; None leaves them unchecked.

    Raises:
        MetricError: a field is missing, unknown or has a value that is not allowed.

    >>> metric_of({"name": "play", "kind": "mean", "column": "play_s"}, COLUMNS).columns
    ('play_s',)
    >>> metric_of({"name": "play", "kind": "mean", "column": "plays"}, COLUMNS)
    Traceback (most recent call last):
    ...
    abtest.metrics.MetricError: Metric play: column is 'plays'; allowed are recalls, views, effective_views, follows, \
play_s, usage_s.

    """
    if not isinstance(declared, Mapping):
        raise MetricError(f"A metric is declared by fields such as name and kind, not by {declared!r}.")
    given = dict(declared)
    who = f"Metric {given.get('name', 'without a name')}"
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise MetricError(f"{who}: kind is {kind!r}; allowed are {', '.join(KINDS)}.")
    try:
        metric = _READERS[kind].validate_python({"label": given.get("name", ""), "unit": "", "about": "", **given})
    except ValidationError as error:
        raise MetricError(f"{who}: {_problem(error, KINDS[kind])}.") from error
    if columns is not None:
        for field in ("column", "numerator", "denominator"):
            if getattr(metric, field, None) not in {None, *columns}:
                raise MetricError(f"{who}: {field} is {given[field]!r}; allowed are {', '.join(columns)}.")
    return metric


def _problem(error: ValidationError, kind: type[Declared]) -> str:
    """The first error in words: of a field that is missing, unknown, or has a value that is not allowed."""
    allowed = [field.name for field in fields(kind)]
    first = error.errors()[0]
    field = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{field} is missing"
    if first["type"] == "unexpected_keyword_argument":
        return f"there is no field {field}; allowed are kind, {', '.join(allowed)}"
    return f"{field} is {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}"
