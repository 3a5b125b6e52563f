"""Every metric of an experiment planned by its file's plan: what each needs, and what it can find."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from abtest.format import MINUS, significant
from abtest.plan.baseline import Known, days_for
from abtest.plan.power import Plan
from abtest.plan.power import plan as planned
from abtest.stats.metrics import Mean, Ratio
from contracts.config.experiment import Experiment, SettingsError
from contracts.config.metric_plan import LARGEST_EFFECT

LEAST_RATE = 1e-9
SMALLEST, LARGEST = 1e-60, 1e60  # as for the values of rows
MOST_SPREAD = 1e6  # of a standard deviation over its mean, and of the mean over it
LEAST_EFFECT = 1e-6  # a ten-thousandth of a percent
ANY = 0.01  # an effect, where only what can be found at all is asked for


class PlanError(SettingsError):
    """Numbers that nothing can be planned by; one sentence says why."""


@dataclass(frozen=True)
class Stated:
    """A baseline in numbers: a user's mean and standard deviation over the experiment, or the share who do it.

    `prefix`: what the caller writes before their names, such as ``--``.
    """

    mean: float | None
    sd: float | None
    rate: float | None
    prefix: str = ""

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return any(number is not None for number in (self.mean, self.sd, self.rate))

    def numbers(self) -> tuple[float, float]:
        """Mean and standard deviation.

        Raises:
            PlanError: they do not make a baseline.

        """
        if self.rate is not None and self.mean is None and self.sd is None:
            if not LEAST_RATE <= self.rate <= 1 - LEAST_RATE:
                raise PlanError(
                    f"{self.prefix}rate is {self.rate:g}; it must lie between 0 and 1 ({LEAST_RATE:g} at least)."
                )
            return self.rate, math.sqrt(self.rate * (1 - self.rate))
        if self.mean is None or self.sd is None or self.rate is not None:
            raise PlanError(
                f"A baseline in numbers is {self.prefix}mean with {self.prefix}sd, or {self.prefix}rate alone."
            )
        for option, number in (("mean", self.mean), ("sd", self.sd)):
            if not SMALLEST <= number <= LARGEST:
                bounds = f"from {SMALLEST:g} to {LARGEST:g}"
                raise PlanError(f"{self.prefix}{option} is {number:g}; it must be a number above 0, {bounds}.")
        if not 1 / MOST_SPREAD <= self.sd / self.mean <= MOST_SPREAD:
            raise PlanError(
                f"{self.prefix}sd is {self.sd:g} and {self.prefix}mean {self.mean:g}; one must not be more than "
                f"{MOST_SPREAD:,.0f} times the other."
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
    progress: Callable[[int], None] | None = None,
    prefix: str = "",
) -> list[Row]:
    """Every metric planned by the file's plan.

    Args:
        metrics: to be planned.
        baselines: of each.
        experiment: its arms and its plan.
        effect: relative, to be found; None: each metric's `minimum_effect`.
        progress: is told how many are done.
        prefix: what the caller writes before the name of `effect`, such as ``--``.

    Raises:
        PlanError: `effect`, or a metric's own, is none that the metric can have.

    """
    if effect is not None and not LEAST_EFFECT <= effect <= LARGEST_EFFECT:
        raise PlanError(
            f"{prefix}effect is {effect:g}; it must be above 0, from {LEAST_EFFECT:g} to {LARGEST_EFFECT:g}, and is "
            "looked for in each metric's own direction."
        )
    analysis = experiment.analysis
    weights = {name: arm.weight for name, arm in experiment.arms.items()}
    rows = []
    for done, (metric, each) in enumerate(zip(metrics, baselines, strict=True), start=1):
        wanted = abs(metric.minimum_effect if effect is None else effect) or None
        plan, needed = None, None
        _require_possible(metric, each, _signed(metric, wanted or ANY), f"{prefix}effect" if effect is not None else "")
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
        if progress is not None:
            progress(done)
    return rows


def _require_possible(metric: Mean | Ratio, known: Known, effect: float, given: str) -> None:
    source = given or f"minimum_effect of '{metric.name}'"
    size = f"{source} is {abs(effect):g}, which is {percent(abs(effect))}"
    if effect <= -1:
        raise PlanError(f"{size}: {metric.name} cannot fall by 100 % or more; 0.01 is 1 %.")
    if known.rate is not None and known.rate * (1 + effect) >= 1:
        raise PlanError(f"{size}: a share of {percent(known.rate)} of users cannot rise by that; 0.01 is 1 %.")


def _signed(metric: Mean | Ratio, effect: float) -> float:
    """The good direction, but of a guardrail the bad one: that is what it must not miss."""
    good = metric.direction == "increase"
    return effect if good is (metric.role != "guardrail") else -effect


def as_values(rows: Sequence[Row], experiment: Experiment, days: int, source: str) -> dict[str, Any]:
    """The plan as plain values, an entry a metric. `source`: what the baseline is from."""
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


def percent(share: float) -> str:
    """Of an effect, with three digits, but all of them before the point.

    >>> percent(0.004567), percent(-0.1), percent(20.5), percent(1e-7), percent(1e-30)
    ('0.457 %', '-10 %', '2,050 %', '0.00001 %', '1e-28 %')
    """
    if 0 < abs(share) < LEAST_EFFECT / 100:
        return f"{100 * share:.3g} %"
    shown = significant(100 * share).replace(MINUS, "-")
    return f"{shown.rstrip('0').rstrip('.') if '.' in shown else shown} %"
