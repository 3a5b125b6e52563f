"""An experiment planned, as a person reads it: what each metric needs, what it can find, and what to know beside."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from abtest.format import MINUS, counted, level, significant
from abtest.plan.baseline import Known, days_for
from abtest.plan.power import MOST_USERS, Plan
from abtest.plan.power import plan as planned
from abtest.stats.metrics import FEW, LARGEST_SHARE, Mean, Ratio
from contracts.config.experiment import Experiment
from contracts.config.metric_plan import LARGEST_EFFECT
from driftline.errors import UsageError
from driftline.tables import table

if TYPE_CHECKING:
    from rich.table import Table

LEAST_RATE = 1e-9
SMALLEST, LARGEST = 1e-60, 1e60  # as for the values of rows
MOST_SPREAD = 1e6  # of a standard deviation over its mean, and of the mean over it
LEAST_EFFECT = 1e-6  # a ten-thousandth of a percent
ANY = 0.01  # an effect, where only what can be found at all is asked for


@dataclass(frozen=True)
class Stated:
    """A baseline in numbers: a user's mean and standard deviation over the experiment, or the share who do it."""

    mean: float | None
    sd: float | None
    rate: float | None

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return any(number is not None for number in (self.mean, self.sd, self.rate))

    def numbers(self) -> tuple[float, float]:
        """Mean and standard deviation.

        Raises:
            UsageError: they do not make a baseline.

        """
        if self.rate is not None and self.mean is None and self.sd is None:
            if not LEAST_RATE <= self.rate <= 1 - LEAST_RATE:
                raise UsageError(f"--rate is {self.rate:g}; it must lie between 0 and 1 ({LEAST_RATE:g} at least).")
            return self.rate, math.sqrt(self.rate * (1 - self.rate))
        if self.mean is None or self.sd is None or self.rate is not None:
            raise UsageError("A baseline in numbers is --mean with --sd, or --rate alone.")
        for option, number in (("--mean", self.mean), ("--sd", self.sd)):
            if not SMALLEST <= number <= LARGEST:
                raise UsageError(
                    f"{option} is {number:g}; it must be a number above 0, from {SMALLEST:g} to {LARGEST:g}."
                )
        if not 1 / MOST_SPREAD <= self.sd / self.mean <= MOST_SPREAD:
            raise UsageError(
                f"--sd is {self.sd:g} and --mean {self.mean:g}; one must not be more than {MOST_SPREAD:,.0f} times the "
                "other."
            )
        return self.mean, self.sd


@dataclass(frozen=True)
class Row:
    """One metric planned. `effect`: what is to be found; None: nothing is asked for. `days`: to find it at all."""

    metric: Mean | Ratio
    known: Known
    effect: float | None
    plan: Plan | None
    days: int | None


def rows_of(
    metrics: Sequence[Mean | Ratio],
    baselines: Sequence[Known],
    experiment: Experiment,
    effect: float | None,
    progress: Callable[[int], None],
) -> list[Row]:
    """Every metric planned by the file's plan.

    Args:
        metrics: to be planned.
        baselines: of each.
        experiment: its arms and its plan.
        effect: relative, to be found; None: each metric's `minimum_effect`.
        progress: is told how many are done.

    Raises:
        UsageError: `effect`, or a metric's own, is none that the metric can have.

    """
    if effect is not None and not LEAST_EFFECT <= effect <= LARGEST_EFFECT:
        raise UsageError(
            f"--effect is {effect:g}; it must be above 0, from {LEAST_EFFECT:g} to {LARGEST_EFFECT:g}, and is looked "
            "for in each metric's own direction."
        )
    analysis = experiment.analysis
    weights = {name: arm.weight for name, arm in experiment.arms.items()}
    rows = []
    for done, (metric, each) in enumerate(zip(metrics, baselines, strict=True), start=1):
        wanted = abs(metric.minimum_effect if effect is None else effect) or None
        plan, needed = None, None
        _require_possible(metric, each, _signed(metric, wanted or ANY), given=effect is not None)
        if each.baseline is not None:
            plan = planned(
                each.baseline,
                weights,
                experiment.control,
                _signed(metric, wanted or ANY),
                analysis.alpha,
                analysis.power,
                analysis.kind,
                analysis.looks,
                max(each.variance_removed or 0.0, 0.0) if analysis.cuped else 0.0,
                rate=each.rate,
            )
            needed = plan.days or (days_for(sum(plan.users.values()), each.baseline) if plan.users else None)
        rows.append(Row(metric, each, wanted, plan, needed))
        progress(done)
    return rows


def _require_possible(metric: Mean | Ratio, known: Known, effect: float, *, given: bool) -> None:
    source = "--effect" if given else f"minimum_effect of '{metric.name}'"
    size = f"{source} is {abs(effect):g}, which is {_percent(abs(effect))}"
    if effect <= -1:
        raise UsageError(f"{size}: {metric.name} cannot fall by 100 % or more; 0.01 is 1 %.")
    if known.rate is not None and known.rate * (1 + effect) >= 1:
        raise UsageError(f"{size}: a share of {_percent(known.rate)} of users cannot rise by that; 0.01 is 1 %.")


def _signed(metric: Mean | Ratio, effect: float) -> float:
    """The good direction, but of a guardrail the bad one: that is what it must not miss."""
    good = metric.direction == "increase"
    return effect if good is (metric.role != "guardrail") else -effect


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
        shown.add_row(*start, _percent(plan.effect), needed, "never" if row.days is None else f"{row.days:,}", least)
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
            yield f"{name} needs {longer} to find {_percent(plan.effect)}. {least}{events}"
        else:
            finds = "finds" if plan.days == 1 else "find"
            found = f"{_percent(plan.effect)} with a probability of {level(1 - power)}"
            yield f"{name}: {plan.days} of {over} {finds} {found}."
        if row.effect is not None and plan.by_rule:
            yield (
                f"{name}: an arm needs {counted(plan.least_users, 'user')} for the verdict's rule, more than it takes "
                f"to find {_percent(plan.effect)}: {FEW} users, {FEW} effective events, and no user with more than "
                f"{100 * LARGEST_SHARE:g} % of a sum; of heavier tails than the gamma distribution's it needs more."
            )
    dearest = max((row.plan.inflation for row in rows if row.plan), default=1.0)
    if dearest > 1.005:
        more = f"{100 * (dearest - 1):,.0f} %"
        yield f"Being allowed to look before the end takes up to {more} more users than one look at the end."


def as_values(rows: Sequence[Row], experiment: Experiment, days: int, source: str) -> dict[str, Any]:
    analysis = experiment.analysis
    return {
        "experiment": experiment.name,
        "kind": analysis.kind,
        "alpha": analysis.alpha,
        "power": analysis.power,
        "days": days,
        "baseline": source,
        "metrics": [
            {
                "metric": row.metric.name,
                "role": row.metric.role,
                "value": row.known.value,
                "users": row.known.users,
                "events": row.known.events,
                "variance_removed": row.known.variance_removed,
                "effect": row.effect and (row.plan.effect if row.plan else row.effect),
                "users_per_arm": row.plan.users or None if row.plan and row.effect else None,
                "days_needed": row.days if row.effect else None,
                "minimum_detectable": row.plan.by_day[-1] if row.plan else None,
                "least_users": row.plan.least_users if row.plan else None,
                "minimum_detectable_by_day": row.plan.by_day if row.plan else (),
                "users_by_day": row.plan.users_by_day if row.plan else (),
                "inflation": row.plan.inflation if row.plan else None,
                "reason": row.known.reason,
            }
            for row in rows
        ],
    }


def _percent(share: float) -> str:
    """Of an effect, with three digits, but all of them before the point.

    >>> _percent(0.004567), _percent(-0.1), _percent(20.5), _percent(1e-7), _percent(1e-30)
    ('0.457 %', '-10 %', '2,050 %', '0.00001 %', '1e-28 %')
    """
    if 0 < abs(share) < LEAST_EFFECT / 100:
        return f"{100 * share:.3g} %"
    shown = significant(100 * share).replace(MINUS, "-")
    return f"{shown.rstrip('0').rstrip('.') if '.' in shown else shown} %"


def _least(plan: Plan) -> str:
    """The least effect that all the days find, in either direction."""
    least = plan.by_day[-1]
    return "-" if least is None else f"±{_percent(least)}"
