"""From state to report: a pure function. The report is plain values, ready for JSON; a number that cannot be had is
null and has a reason beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from abtest.cuped import adjust
from abtest.metrics import COLUMNS, METRICS, PRIMARY, Metric
from abtest.novelty import PrePeriod, pre_period
from abtest.records import Tally
from abtest.state import State, folded
from abtest.stats import Effect, Estimate, Floats, Moments, Split, compare, ratio_estimate, split_check
from abtest.table import PRE, Ints, Table, table
from abtest.verdict import Verdict, decide
from contracts.settings import DAY_MS

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ArmValue:
    """A metric in one arm; `value` in the metric's unit (rates as fractions)."""

    arm: str
    users: int
    value: float | None
    std_error: float | None
    reason: str | None


@dataclass(frozen=True)
class ArmEffect:
    """A treatment arm against the control. `cautions`: why to trust it less than its interval suggests.

    `adjusted`: the same by CUPED, with what is known of the users from before; None where nothing is.
    `variance_removed`: the share of the difference's variance that this takes away.
    """

    arm: str
    effect: Effect
    cautions: tuple[str, ...]
    adjusted: Effect | None = None
    variance_removed: float | None = None


@dataclass(frozen=True)
class MetricResult:
    """One metric over one stretch of time."""

    metric: str
    label: str
    unit: str
    about: str
    arms: tuple[ArmValue, ...]
    effects: tuple[ArmEffect, ...]  # one per arm that is not the control


@dataclass(frozen=True)
class Day:
    """One day of the experiment, alone and together with all before it."""

    day: int
    date: str
    daily: tuple[MetricResult, ...]
    cumulative: tuple[MetricResult, ...]


@dataclass(frozen=True)
class SourceRow:
    """Engagement with the items that one candidate source contributed in one arm. Error clustered on the user."""

    arm: str
    source: str
    users: int
    shown: int
    views: int
    effective_views: int
    follows: int
    evr: float | None
    evr_std_error: float | None
    follow_rate: float | None
    play_s_per_view: float | None


@dataclass(frozen=True)
class SnapshotRow:
    """How many recalls one snapshot answered in one arm, users in two arms included."""

    arm: str
    model: str
    snapshot: str
    recalls: int


@dataclass(frozen=True)
class Report:
    """Everything that the state says about the experiment."""

    schema_version: int
    experiment: str
    control: str
    arms: tuple[str, ...]
    start_ms: int
    end_ms: int
    day_offset_ms: int
    primary: str
    verdicts: tuple[Verdict, ...]
    split: Split
    pre_period: tuple[PrePeriod, ...]  # each treatment arm against the control before the experiment
    users_in_two_arms: int
    metrics: tuple[MetricResult, ...]  # over the whole experiment
    days: tuple[Day, ...]
    sources: tuple[SourceRow, ...]
    snapshots: tuple[SnapshotRow, ...]
    counts: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers, text and null."""
        return asdict(self)


def analyse(state: State) -> Report:
    """The report on everything `state` has seen; `state` is not changed."""
    complete = folded(state)
    experiment = complete.rules.experiment
    columns = table(complete)
    days = tuple(_days(columns, complete))
    moments = _whole(columns)
    whole = compare_arms(METRICS, moments, experiment.control, PRE)
    alike = pre_period(moments, PRE, experiment.control)
    per_arm = np.bincount(columns.arm, minlength=len(columns.arms))
    split = split_check(
        dict(zip(columns.arms, per_arm.tolist(), strict=True)),
        {arm: spec.weight for arm, spec in experiment.arms.items()},
    )
    primary = next(result for result in whole if result.metric == PRIMARY)
    return Report(
        schema_version=SCHEMA_VERSION,
        experiment=experiment.name,
        control=experiment.control,
        arms=columns.arms,
        start_ms=experiment.start_ms,
        end_ms=experiment.end_ms,
        day_offset_ms=experiment.day_offset_ms,
        primary=PRIMARY,
        verdicts=tuple(
            decide(split, primary.label, line.arm, line.effect, line.cautions, biased=was.biased)
            for line, was in zip(primary.effects, alike, strict=True)
        ),
        split=split,
        pre_period=alike,
        users_in_two_arms=columns.users_in_two_arms,
        metrics=whole,
        days=days,
        sources=tuple(_sources(columns)),
        snapshots=tuple(SnapshotRow(*key, recalls) for key, recalls in sorted(complete.recalls.items())),
        counts=dict(sorted((name, count) for name, count in complete.counts.items() if count)),
    )


def summary(report: Report) -> dict[str, Any]:
    """Per metric and treatment arm what a summary shows: both values, relative difference, interval, p-value, users.

    ``{metric: {arm: {treatment, control, relative, ci_low, ci_high, p_value, users: {arm: n}, reason}}}``
    """
    lines: dict[str, Any] = {}
    for result in report.metrics:
        values = {arm.arm: arm for arm in result.arms}
        lines[result.metric] = {
            line.arm: {
                "treatment": values[line.arm].value,
                "control": values[report.control].value,
                "relative": line.effect.relative,
                "ci_low": line.effect.ci_low,
                "ci_high": line.effect.ci_high,
                "p_value": line.effect.p_value,
                "users": {name: values[name].users for name in (line.arm, report.control)},
                "reason": line.effect.reason,
            }
            for line in result.effects
        }
    return lines


def compare_arms(
    metrics: Sequence[Metric], moments: Mapping[str, Moments], control: str, covariates: Sequence[str] = ()
) -> tuple[MetricResult, ...]:
    """Every metric from each arm's moments, every other arm against `control`; by CUPED too, given covariates.

    The way in for data that did not come through the stream: moments can be made of any table with a row per user.
    """
    return tuple(_result(metric, moments, control, covariates) for metric in metrics)


def _result(metric: Metric, moments: Mapping[str, Moments], control: str, covariates: Sequence[str]) -> MetricResult:
    estimates: dict[str, Estimate] = {arm: metric.estimate(of) for arm, of in moments.items()}
    cautions = {arm: metric.caution(of) for arm, of in moments.items()}
    by_cuped = adjust(moments, metric, covariates) if covariates else None
    if by_cuped and not by_cuped.covariates:
        by_cuped = None  # nothing is known from before
    return MetricResult(
        metric.name,
        metric.label,
        metric.unit,
        metric.about,
        tuple(ArmValue(arm, e.users, e.value, e.std_error, e.reason) for arm, e in estimates.items()),
        tuple(
            ArmEffect(
                arm,
                compare(estimate, estimates[control], (arm, control)),
                tuple(f"{cautions[name]} in arm {name}" for name in (arm, control) if cautions[name]),
                compare(by_cuped.estimates[arm], by_cuped.estimates[control], (arm, control)) if by_cuped else None,
                by_cuped.variance_removed if by_cuped else None,
            )
            for arm, estimate in estimates.items()
            if arm != control
        ),
    )


def _days(columns: Table, state: State) -> Iterator[Day]:
    """Day by day up to the last one seen; a day without a single event is there too, and says so.

    A user's sums so far are kept dense (users, columns): a day touches only the rows of its own users.
    """
    experiment = state.rules.experiment
    so_far = np.zeros((len(columns.arm), len(COLUMNS)))
    exposed = np.zeros(len(columns.arm), bool)
    first_midnight = (experiment.start_ms + experiment.day_offset_ms) // DAY_MS
    for day in range(int(columns.day[-1]) + 1 if len(columns.day) else 0):
        begin, end = np.searchsorted(columns.day, [day, day + 1])
        users, values = columns.user[begin:end], columns.values[begin:end]
        so_far[users] += values
        exposed[users] = True
        date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=first_midnight + day)
        yield Day(
            day,
            date.date().isoformat(),
            _results(columns, experiment.control, columns.arm[users], values),
            _results(columns, experiment.control, columns.arm[exposed], so_far[exposed]),
        )


def _results(columns: Table, control: str, arm: Ints, values: Floats) -> tuple[MetricResult, ...]:
    moments = {name: Moments.of(COLUMNS, values[arm == i]) for i, name in enumerate(columns.arms)}
    return compare_arms(METRICS, moments, control)


def _whole(columns: Table) -> dict[str, Moments]:
    """By arm, of each user's sums over the whole experiment and over the days before it."""
    totals = np.zeros((len(columns.arm), len(COLUMNS)))
    np.add.at(totals, columns.user, columns.values)
    values = np.hstack((totals, columns.pre))
    return {name: Moments.of((*COLUMNS, *PRE), values[columns.arm == i]) for i, name in enumerate(columns.arms)}


def _sources(columns: Table) -> Iterator[SourceRow]:
    """A row per arm and source, over the users to whom the source showed something."""
    arm_of_row = columns.arm[columns.source_user]
    for i, arm in enumerate(columns.arms):
        for j, source in enumerate(columns.sources):
            values = columns.source_values[(arm_of_row == i) & (columns.source == j)]
            if not len(values):
                continue
            total = Tally(*(round(float(x)) for x in values.sum(axis=0)))
            evr = ratio_estimate(Moments.of(Tally._fields, values), "effective_views", "views")
            yield SourceRow(
                arm,
                source,
                users=len(values),
                shown=total.shown,
                views=total.views,
                effective_views=total.effective_views,
                follows=total.follows,
                evr=evr.value,
                evr_std_error=evr.std_error,
                follow_rate=total.follows / total.views if total.views else None,
                play_s_per_view=total.play_ms / 1000 / total.views if total.views else None,
            )
