"""`abtest.plan_power`: how many users and days an experiment needs, and what it can find at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from abtest.api.inputs import Frame, Plan, counted_of, planned
from abtest.format import counted
from abtest.plan.baseline import Known, during, stated
from abtest.plan.needs import PlanError, Row, Stated, as_values, rows_of
from abtest.stats.metrics import Mean, Quantile, Ratio, of_experiment
from contracts.config.experiment import Experiment
from contracts.config.external import External

if TYPE_CHECKING:
    import pandas as pd

SHOWN = ("metric", "role", "value", "users", "effect", "users_per_arm", "days_needed", "minimum_detectable", "reason")
MOST_USERS = 10**12  # a day; far more than there are people


@dataclass(frozen=True)
class PowerPlan:
    """What each metric needs by the plan. `days`: planned; `source`: what the baseline is from."""

    rows: tuple[Row, ...]
    experiment: Experiment
    days: int
    source: str

    def to_json(self) -> dict[str, Any]:
        """What `driftline experiment plan --json` prints."""
        return as_values(self.rows, self.experiment, self.days, self.source)

    def to_frame(self) -> "pd.DataFrame":
        """A row a metric: `value` of the baseline, the relative `effect` to be found, `users_per_arm` and `days_needed`
        to find it, and the `minimum_detectable` effect in all days. What cannot be had is missing.
        """
        import pandas as pd

        return pd.DataFrame(self.to_json()["metrics"], columns=list(SHOWN))

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, na_rep="–"))

    def __str__(self) -> str:
        return str(self.to_frame().to_string(index=False))

    __repr__ = __str__


def plan_power(
    plan: Plan,
    frame: Frame | None = None,
    *,
    users_per_day: float | None = None,
    days: int | None = None,
    effect: float | None = None,
    mean: float | None = None,
    sd: float | None = None,
    rate: float | None = None,
) -> PowerPlan:
    """Plan an experiment by its file's plan (kind, alpha, power, weights, looks, CUPED) from rows or from numbers.

    >>> import abtest
    >>> plan = {"assignment": "external", "arms": ["a", "b"], "control": "a",
    ...         "metrics": [{"name": "bought", "kind": "conversion"}]}
    >>> power = abtest.plan_power(plan, rate=0.1, users_per_day=2000, days=14, effect=0.1)
    >>> power.to_json()["metrics"][0]["users_per_arm"]
    {'a': 14768, 'b': 14768}

    Args:
        plan: as of `abtest.analyse`.
        frame: rows of users as they are now, as of `abtest.analyse`; each metric is planned from them.
        users_per_day: whom a day brings for the first time; None: as in the rows.
        days: of the experiment; None: as in the plan, or as in the rows.
        effect: relative, to be found; 0.01 is 1 %. None: each metric's `minimum_effect`.
        mean: instead of rows a user's mean over the experiment, of the primary metric, with `sd`.
        sd: the standard deviation over users.
        rate: or the share of users who do it.

    Raises:
        SettingsError: the plan or a number cannot be used.
        DataError: the rows cannot be used.

    """
    given: dict[str, Any] = {"users_per_day": users_per_day, "effect": effect, "mean": mean, "sd": sd, "rate": rate}
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise PlanError(f"{name} is {value!r:.40}; it must be a number.")
    checked, numbers = planned(plan), Stated(mean, sd, rate)
    if numbers.given == (frame is not None):
        raise PlanError("Give one baseline: a frame, or mean with sd, or rate alone.")
    whole: Any = days
    if days is not None and (not isinstance(whole, Integral) or not 1 <= days <= 90):
        raise PlanError(f"days is {days!r:.40}; it must be a whole number from 1 to 90.")
    if users_per_day is not None and not 1 <= users_per_day <= MOST_USERS:
        raise PlanError(f"users_per_day is {users_per_day:g}; it must lie between 1 and {MOST_USERS:,}.")
    if frame is None:
        experiment = _without_rows(checked, days)
        metrics, length = _planned(experiment)[:1], days or experiment.days
        if users_per_day is None:
            raise PlanError("A baseline in numbers needs users_per_day, 1 or more.")
        baselines: Sequence[Known] = [stated(*numbers.numbers(), users_per_day, length, rate)]
        source = "from the numbers given"
    else:
        rows, experiment = counted_of(frame, checked, None)
        metrics, length, past = _planned(experiment), days or experiment.days, rows.aggregate
        baselines = [during(metric, past, length, users_per_day) for metric in metrics]
        source = f"from {counted(sum(past.users.values()), 'user')} in {counted(past.days, 'day')}"
    return PowerPlan(tuple(rows_of(metrics, baselines, experiment, effect)), experiment, length, source)


def _planned(experiment: Experiment) -> list[Mean | Ratio]:
    return [each for each in of_experiment(experiment) if not isinstance(each, Quantile)]


def _without_rows(plan: Experiment | External, days: int | None) -> Experiment:
    if isinstance(plan, Experiment):
        return plan
    if plan.arms is None:
        raise PlanError("There are no rows to tell the arms; name them as arms.")
    if plan.start_ms is None and days is None:
        raise PlanError("There are no rows to tell the days; give days, or the plan's start and end.")
    return plan.experiment((), plan.calendar.midnight_ms(0), plan.calendar.midnight_ms(days or 1))
