"""The metrics of a report, as values. Each turns an arm's moments into an estimate; the unit is always the user."""

from dataclasses import dataclass
from typing import Protocol

from abtest.stats import Estimate, Moments, mean_estimate, ratio_estimate

COLUMNS = ("views", "effective_views", "follows", "play_s", "usage_s")  # a user's sums over a day or a period

FEW = 20  # below this many users or events in an arm the normal approximation is a poor one


class Metric(Protocol):
    """What the analysis asks of a metric."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def about(self) -> str: ...

    def estimate(self, moments: Moments) -> Estimate:
        """The metric in one arm."""
        ...

    def caution(self, moments: Moments) -> str | None:
        """Why the estimate deserves less trust than its interval suggests; None where nothing speaks against it."""
        ...


@dataclass(frozen=True)
class Mean:
    """Mean of `column` over users.

    >>> import numpy as np
    >>> Mean("play", "Play", "s", "", "x").estimate(Moments.of(("x",), np.array([[1.0], [2.0]]))).value
    1.5
    """

    name: str
    label: str
    unit: str
    about: str
    column: str

    def estimate(self, moments: Moments) -> Estimate:
        return mean_estimate(moments, self.column)

    def caution(self, moments: Moments) -> str | None:
        return f"only {moments.n} users" if 0 < moments.n < FEW else None


@dataclass(frozen=True)
class Ratio:
    """Sum of `numerator` over the sum of `denominator`, each summed per user first."""

    name: str
    label: str
    unit: str
    about: str
    numerator: str
    denominator: str

    def estimate(self, moments: Moments) -> Estimate:
        return ratio_estimate(moments, self.numerator, self.denominator)

    def caution(self, moments: Moments) -> str | None:
        if 0 < moments.n < FEW:
            return f"only {moments.n} users"
        events = round(moments.total(self.numerator))
        return f"only {events} {self.numerator.replace('_', ' ')}" if moments.n and events < FEW else None


METRICS: tuple[Metric, ...] = (
    Ratio("evr", "Effective view rate", "%", "effective views / views", "effective_views", "views"),
    Ratio("follow_rate", "Follow rate", "%", "follows / views", "follows", "views"),
    Mean("play_duration", "Play duration", "s", "seconds played per exposed user", "play_s"),
    Mean("app_usage", "App usage duration", "s", "length of sessions per exposed user", "usage_s"),
)
PRIMARY = "evr"
