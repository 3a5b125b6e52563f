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
from contracts.config.experiment import METRICS, Experiment, MetricPlan, SettingsError

COLUMNS = ("recalls", "views", "effective_views", "follows", "play_s", "usage_s")  # a user's sums over a day or longer
TIMED = ("timed", "answer_ms")  # recalls whose answer was timed, and how long those took together
STREAMED = (*COLUMNS, *TIMED)  # what the collector knows of a user's day

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
        "effective views / views, as feedback counts them (KuaiRand: 18 s or to the end)",
    ),
    "follow_rate": ("Follow rate", "%", "follows / views"),
    "play_duration": ("Play duration", "s", "seconds played per exposed user"),
    "app_usage": ("App usage duration", "s", "length of sessions per exposed user"),
    "recalls": ("Recalls", "", "recalls per exposed user"),
    "latency": ("Recall latency", "ms", "milliseconds per timed recall"),
}
_UNITS = {"play_s": "s", "usage_s": "s", "answer_ms": "ms"}
_NAMED = {"play_s": "play duration", "usage_s": "app usage duration", "answer_ms": "time to answer"}  # columns


def of_plan(plan: MetricPlan) -> Declared:
    """The metric that a file declares.

    >>> of_plan(MetricPlan(name="play_p90", kind="quantile", columns=("play_s",), q=0.9)).label
    'Play duration, 90 % quantile'
    """
    first, *rest = plan.columns
    name = _NAMED.get(first, first.replace("_", " "))
    unit = _UNITS.get(first, "")
    about = f"{name} / {rest[0].replace('_', ' ')}" if plan.kind == "ratio" else f"{name} per exposed user"
    label, unit, about = _SAID.get(plan.name, (plan.name, unit, about))
    judged = plan.role, plan.direction, plan.minimum_effect
    if plan.kind == "ratio":
        return Ratio(plan.name, label, unit, about, first, rest[0], *judged)
    if plan.q is not None:
        share = f"{100 * plan.q:g} %"
        label, about = f"{name.capitalize()}, {share} quantile", f"what {share} of exposed users stay below"
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
    declared = tuple(of_plan(plan) for plan in sorted(plans, key=lambda plan: order.index(plan.role)))
    for metric in declared:
        for column in metric.columns:
            if columns is not None and column not in columns:
                names = ", ".join(columns)
                raise SettingsError(f"Metric '{metric.name}': there is no column '{column}'; there are {names}.")
    return declared


DEFAULTS = tuple(metric for metric in map(of_plan, METRICS) if not isinstance(metric, Quantile))
