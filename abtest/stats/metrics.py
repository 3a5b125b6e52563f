"""The metrics of a report, as values. Each turns an arm's moments into an estimate; the unit is always the user.

An experiment's file declares them (`contracts.config.experiment.MetricPlan`); `of_plan` makes them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from abtest.format import counted, few_events
from abtest.stats.columns import AnyColumn
from abtest.stats.estimates import SMALLEST, Estimate, effective_events, mean_estimate, ratio_estimate
from abtest.stats.moments import Floats, Moments
from abtest.stats.winsorize import capped_column
from contracts.config.experiment import METRICS, Experiment, MetricPlan, SettingsError, Winsorize

COLUMNS = ("recalls", "views", "effective_views", "follows", "play_s", "usage_s")  # sums by day; views are items shown
TIMED = ("timed", "answer_ms")  # recalls whose answer was timed, and how long those took together
STREAMED = (*COLUMNS, *TIMED)  # what the collector knows of a user's day
STREAMED_BEFORE = ("recalls", "views", "effective_views", "follows", "play_s")  # and of one before the start

FEW = 20  # below this many users or events in an arm the normal approximation is a poor one
LARGEST_SHARE = 0.1  # of a column's sum: an arm of which one user has more rests on that user

Role = Literal["primary", "guardrail", "diagnostic"]
Direction = Literal["increase", "decrease"]  # which one is good


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
    def minimum_effect(self) -> float: ...
    @property
    def columns(self) -> tuple[AnyColumn, ...]:
        """The columns that the estimate is made of."""
        ...

    def estimate(self, moments: Moments) -> Estimate:
        """The metric in one arm."""
        ...

    def values(self, columns: Sequence[AnyColumn], means: Floats) -> Floats:
        """The metric from means (..., k) of `columns`: (...), NaN where its denominator is 0, or too near it."""
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

    name: str
    label: str
    unit: str
    about: str
    column: str
    role: Role = "diagnostic"
    direction: Direction = "increase"
    minimum_effect: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def estimate(self, moments: Moments) -> Estimate:
        return mean_estimate(moments, self.column)

    def values(self, columns: Sequence[AnyColumn], means: Floats) -> Floats:
        return means[..., list(columns).index(self.column)]

    def caution(self, moments: Moments) -> str | None:
        return _caution(moments, self.estimate(moments))


@dataclass(frozen=True)
class Ratio:
    """Sum of `numerator` over the sum of `denominator`, each summed per user first."""

    name: str
    label: str
    unit: str
    about: str
    numerator: AnyColumn
    denominator: AnyColumn
    role: Role = "diagnostic"
    direction: Direction = "increase"
    minimum_effect: float = 0.0

    @property
    def columns(self) -> tuple[AnyColumn, ...]:
        return (self.numerator, self.denominator)

    def estimate(self, moments: Moments) -> Estimate:
        return ratio_estimate(moments, self.numerator, self.denominator)

    def values(self, columns: Sequence[AnyColumn], means: Floats) -> Floats:
        above, below = (means[..., list(columns).index(column)] for column in self.columns)
        return np.divide(above, below, out=np.full_like(above, np.nan), where=np.abs(below) >= SMALLEST)

    def caution(self, moments: Moments) -> str | None:
        return _caution(moments, self.estimate(moments))


@dataclass(frozen=True)
class Quantile:
    """The value of `column` that a share `q` of users stays below. Moments do not have it: histograms do."""

    name: str
    label: str
    unit: str
    about: str
    column: str
    q: float
    role: Role = "diagnostic"
    direction: Direction = "increase"
    minimum_effect: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)


def _caution(moments: Moments, estimate: Estimate) -> str | None:
    """One rule for means and ratios: so few users, or so few effective events, make no normal distribution."""
    if 0 < moments.n < FEW:
        return f"only {counted(moments.n, 'user')}"
    events = effective_events(estimate)
    return few_events(events) if estimate.variance is not None and events < FEW else None


Declared: TypeAlias = Mean | Ratio | Quantile

_SAID = {  # label, unit and explanation of metrics by the names that they have by default
    "evr": (
        "Effective view rate",
        "%",
        "effective views / items shown (views); effective as feedback says (KuaiRand: 18 s or to the end)",
    ),
    "follow_rate": ("Follow rate", "%", "follows / items shown (views)"),
    "play_duration": ("Play duration", "s", "seconds played per exposed user"),
    "app_usage": ("App usage duration", "s", "length of sessions per exposed user"),
    "recalls": ("Recalls", "", "recalls per exposed user"),
    "latency": ("Recall latency", "ms", "milliseconds per timed recall"),
}
_UNITS = {"play_s": "s", "usage_s": "s", "answer_ms": "ms"}
_NAMED = {"play_s": "play duration", "usage_s": "app usage duration", "answer_ms": "time to answer"}  # columns


def unit_of(column: str) -> str:
    """The unit of users' sums of a column; nothing where it counts, or is not known.

    >>> unit_of("play_s"), unit_of("views")
    ('s', '')
    """
    return _UNITS.get(column, "")


def of_plan(plan: MetricPlan) -> Declared:
    """The metric that a file declares.

    >>> of_plan(MetricPlan(name="play_p90", kind="quantile", columns=("play_s",), q=0.9)).label
    'Play duration, 90 % quantile'
    """
    first, *rest = plan.columns
    name = _NAMED.get(first, first.replace("_", " "))
    unit = unit_of(first)
    about = f"{name} / {rest[0].replace('_', ' ')}" if plan.kind == "ratio" else f"{name} per exposed user"
    label, unit, about = _SAID.get(plan.name, (plan.name, unit, about))
    label, unit, about = plan.label or label, unit if plan.unit is None else plan.unit, plan.about or about
    if plan.winsorize is not None:
        whose = f"a user’s {name}" if plan.kind == "ratio" else "a user’s sum"
        label, about = f"{label} (capped)", f"{about}; {whose} is capped at {said_of(plan.winsorize)}"
        first = capped_column(first, plan.winsorize)
    judged = plan.role, plan.direction, plan.minimum_effect
    if plan.kind == "ratio":
        return Ratio(plan.name, label, unit, about, first, rest[0], *judged)
    if plan.q is not None:
        share = f"{100 * plan.q:g} %"
        label = plan.label or f"{name.capitalize()}, {share} quantile"
        about = plan.about or f"what {share} of exposed users stay below"
        return Quantile(plan.name, label, unit, about, first, plan.q, *judged)
    return Mean(plan.name, label, unit, about, first, *judged)


def of_experiment(experiment: Experiment, columns: Collection[str] | None = None) -> tuple[Declared, ...]:
    """Its metrics, the primary one first, then guardrails. Of the defaults, those that the data has.

    Args:
        experiment: declares them.
        columns: those that the data has; None leaves them unchecked.

    Raises:
        SettingsError: a metric is of a column that the data does not have.

    """
    order: list[Role] = ["primary", "guardrail", "diagnostic"]
    plans = experiment.metrics
    if plans == METRICS and columns is not None:  # nobody asked for these: those that the data cannot have are left out
        plans = tuple(plan for plan in plans if plan.role == "primary" or set(plan.columns) <= set(columns))
    plans = tuple(sorted(plans, key=lambda plan: order.index(plan.role)))
    declared = tuple(map(of_plan, plans))
    for plan, metric in zip(plans, declared, strict=True):
        for column, own in zip(metric.columns, plan.columns, strict=True):
            if columns is None or column in columns:
                continue
            names = ", ".join(columns)
            missing = f"there is no column '{own}'"
            if own != column and own in columns:
                missing = f"there is no column '{column}', and a cap takes the users' own rows, so read those again"
            raise SettingsError(f"Metric '{metric.name}': {missing}; there are {names}.")
    return declared


@dataclass(frozen=True)
class Capped:
    """A column that a metric caps. `name`: of the capped one; `metric`: the first one of it."""

    name: str
    column: str
    how: Winsorize
    metric: str


def capped_columns(experiment: Experiment) -> tuple[Capped, ...]:
    """Columns that the experiment's metrics cap, once each."""
    capped: dict[str, Capped] = {}
    for plan in experiment.metrics:
        if plan.winsorize is not None:
            name = capped_column(plan.columns[0], plan.winsorize)
            capped.setdefault(name, Capped(name, plan.columns[0], plan.winsorize, plan.name))
    return tuple(capped.values())


def with_capped(columns: Collection[str], experiment: Experiment) -> tuple[str, ...]:
    """`columns`, and those that the experiment's metrics cap of them."""
    return (*columns, *(each.name for each in capped_columns(experiment) if each.column in columns))


def require_known_before(experiment: Experiment, covariates: Collection[str]) -> None:
    """Caps at a quantile of what users did before are of one of the `covariates`.

    Raises:
        SettingsError: one is not.

    """
    for each in capped_columns(experiment):
        if each.how.of_pre and f"pre.{each.column}" not in covariates:
            known = ", ".join(covariates) or "nothing"
            raise SettingsError(
                f"Metric '{each.metric}' is capped at a quantile of what users did before, but there is no "
                f"'pre.{each.column}'; known from before: {known}."
            )


def said_of(how: Winsorize) -> str:
    """Where a cap is, as text.

    >>> said_of(Winsorize(at=1200)), said_of(Winsorize(quantile=0.999))
    ('1200', 'the 99.9 % quantile of all users')
    """
    if how.quantile is None:
        return f"{how.at:g}"
    return f"the {100 * how.quantile:.6g} % quantile of {'what users did before' if how.of_pre else 'all users'}"


DEFAULTS = tuple(metric for metric in map(of_plan, METRICS) if not isinstance(metric, Quantile))
