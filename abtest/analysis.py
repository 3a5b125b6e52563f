"""From aggregate to report: a pure function of the aggregate, the experiment and what the state has counted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from abtest.aggregate import MET, Aggregate, aggregate, needed
from abtest.checks import ModelFacts, checks_of
from abtest.courses import courses_of
from abtest.cuped import adjust
from abtest.effects import Effect, compare
from abtest.estimates import Estimate, ratio_estimate
from abtest.freshness import by_age, by_version, comparable
from abtest.jackknife import jackknife
from abtest.metrics import Mean, Metric, Quantile, Ratio, of_experiment
from abtest.moments import Moments
from abtest.novelty import on_day, pre_period
from abtest.observed import Observed
from abtest.quality import date_of
from abtest.results import (
    SCHEMA_VERSION,
    ArmEffect,
    ArmValue,
    Day,
    MetricResult,
    Planned,
    Report,
    Slice,
    SnapshotRow,
    SourceRow,
)
from abtest.state import State, folded
from abtest.stats import split_check
from abtest.table import STREAMED, table
from abtest.verdict import decide
from contracts.experiment import AnalysisPlan, Experiment


def analyse(state: State, models: Sequence[ModelFacts] = ()) -> Report:
    """The report on everything a collector's `state` has seen; `state` is not changed."""
    complete = folded(state)
    experiment = complete.rules.experiment
    metrics = of_experiment(experiment, STREAMED)
    columns = needed([column for metric in metrics for column in metric.columns])
    of = aggregate(table(complete), columns)
    observed = Observed(complete.recalls, complete.counts, complete.spans, complete.newest_ms)
    return report(of, experiment, observed, models)


def report(
    of: Aggregate, experiment: Experiment, observed: Observed | None = None, models: Sequence[ModelFacts] = ()
) -> Report:
    """The report on an aggregate.

    Args:
        of: of the experiment's users.
        experiment: its file.
        observed: what was counted beside.
        models: what is known of the arms' models.

    Raises:
        SettingsError: the experiment has a metric of a column that the aggregate does not have.

    """
    observed = observed or Observed()
    metrics = of_experiment(experiment, of.columns)
    estimable = [metric for metric in metrics if not isinstance(metric, Quantile)]
    control, plan = experiment.control, experiment.analysis
    weights = {arm: spec.weight for arm, spec in experiment.arms.items()}
    split = split_check(of.users, weights)
    everyone = of.through(of.days - 1)
    alike = pre_period(everyone, of.covariates, control)
    days = tuple(_days(of, estimable, experiment))
    courses = tuple(courses_of(of, estimable, experiment))
    whole = tuple(_planned(result, plan) for result in _whole(of, estimable, everyone, control))
    checks = checks_of(of, experiment, split, alike, models, observed, whole)
    interference = any(model.interferes for model in models)
    treatments = [arm for arm in of.arms if arm != control]
    return Report(
        schema_version=SCHEMA_VERSION,
        experiment=experiment.name,
        hypothesis=experiment.hypothesis,
        owner=experiment.owner,
        control=control,
        arms=of.arms,
        models={arm: spec.model for arm, spec in experiment.arms.items()},
        start_ms=experiment.start_ms,
        end_ms=experiment.end_ms,
        day_offset_ms=experiment.day_offset_ms,
        days_planned=experiment.days,
        plan=plan.model_dump(mode="json"),
        primary=metrics[0].name,
        verdicts=tuple(
            decide(
                arm,
                whole,
                checks,
                plan,
                ended=of.days >= experiment.days,
                interference=interference,
            )
            for arm in treatments
        ),
        checks=checks,
        split=split,
        pre_period=alike,
        users_in_two_arms=of.in_two_arms,
        metrics=whole,
        days=days,
        courses=courses,
        slices=tuple(_slices(of, estimable, experiment, observed)),
        sources=tuple(_sources(of)),
        snapshots=tuple(SnapshotRow(*key, recalls) for key, recalls in sorted(observed.recalls.items())),
        counts=dict(sorted((name, count) for name, count in observed.counts.items() if count)),
    )


def summary(found: Report) -> dict[str, Any]:
    """Per metric and treatment arm what a summary shows: both values, relative difference, interval, p-value, users.

    ``{metric: {arm: {treatment, control, relative, ci_low, ci_high, p_value, users: {arm: n}, reason}}}``
    """
    lines: dict[str, Any] = {}
    for result in found.metrics:
        values = {arm.arm: arm for arm in result.arms}
        lines[result.metric] = {
            line.arm: {
                "treatment": values[line.arm].value,
                "control": values[found.control].value,
                "relative": line.effect.relative,
                "ci_low": line.effect.ci_low,
                "ci_high": line.effect.ci_high,
                "p_value": line.effect.p_value,
                "users": {name: values[name].users for name in (line.arm, found.control)},
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
    return tuple(_result(metric, metric, moments, control, covariates) for metric in metrics)


def _result(
    metric: Metric, of: Metric, moments: Mapping[str, Moments], control: str, covariates: Sequence[str]
) -> MetricResult:
    """`of` estimated, and called what `metric` is called."""
    estimates: dict[str, Estimate] = {arm: of.estimate(m) for arm, m in moments.items()}
    cautions = {arm: of.caution(m) for arm, m in moments.items()}
    by_cuped = adjust(moments, of, covariates) if covariates else None
    if by_cuped and not by_cuped.covariates:
        by_cuped = None  # nothing is known from before
    return MetricResult(
        metric.name,
        metric.label,
        metric.unit,
        metric.about,
        metric.role,
        metric.direction,
        metric.minimum_effect,
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


def _whole(
    of: Aggregate, metrics: Sequence[Mean | Ratio], everyone: Mapping[str, Moments], control: str
) -> Iterator[MetricResult]:
    """Over all days, with jackknife errors beside."""
    for metric in metrics:
        found = _result(metric, metric, everyone, control, of.covariates)
        yield replace(
            found,
            effects=tuple(
                replace(line, jackknife=jackknife(metric, of.buckets[line.arm], of.buckets[control]))
                for line in found.effects
            ),
        )


def _days(of: Aggregate, metrics: Sequence[Mean | Ratio], experiment: Experiment) -> Iterator[Day]:
    """Day by day up to the last one seen; a day without a single event is there too, and says so."""
    control = experiment.control
    for day in range(of.days):
        through, on = of.through(day), of.on(day)
        yield Day(
            day,
            date_of(experiment, day),
            of.new_users(day),
            tuple(_daily(metric, day, on, through, control, of.covariates) for metric in metrics),
            tuple(_result(metric, metric, through, control, of.covariates) for metric in metrics),
        )


def _daily(
    metric: Mean | Ratio,
    day: int,
    on: Mapping[str, Moments],
    through: Mapping[str, Moments],
    control: str,
    covariates: Sequence[str],
) -> MetricResult:
    """Of the users exposed on one day. CUPED goes by all users seen so far: who comes back may be an effect itself,
    but who was there before is not.
    """
    plain = _result(metric, metric, on, control, ())
    adjusted = _result(metric, on_day(metric, day), through, control, covariates)
    lines = zip(plain.effects, adjusted.effects, strict=True)
    return replace(
        plain,
        effects=tuple(
            replace(line, adjusted=by_cuped.adjusted, variance_removed=by_cuped.variance_removed)
            for line, by_cuped in lines
        ),
    )


def _slices(
    of: Aggregate, metrics: Sequence[Mean | Ratio], experiment: Experiment, observed: Observed
) -> Iterator[Slice]:
    """Segments of users by what was known of them before the start; classes of model age; snapshot versions."""
    control = experiment.control
    for name, moments in of.segments.items():
        users = {arm: m.n for arm, m in moments.items()}
        if all(users.values()):
            yield Slice("segment", name, users, compare_arms(metrics, moments, control))
    ratios = comparable(metrics)
    for cut in (*by_age(of, ratios, control), *by_version(of, ratios, experiment, observed)):
        yield Slice(cut.kind, cut.name, cut.users, compare_arms(ratios, cut.moments, control), cut.note)


def _sources(of: Aggregate) -> Iterator[SourceRow]:
    """A row per arm and source, over the users to whom the source showed something."""
    for arm, moments in of.parts.get("source", {}).items():
        names = dict.fromkeys(column.partition("@")[2] for column in moments.columns)
        for source in names:
            total = {c: moments.total(f"{c}@{source}") for c in ("shown", "views", "effective_views", "follows")}
            if not total["shown"]:
                continue
            evr = ratio_estimate(moments, f"effective_views@{source}", f"views@{source}")
            views = total["views"]
            yield SourceRow(
                arm,
                source,
                users=round(moments.total(f"{MET}@{source}")),
                shown=round(total["shown"]),
                views=round(views),
                effective_views=round(total["effective_views"]),
                follows=round(total["follows"]),
                evr=evr.value,
                evr_std_error=evr.std_error,
                follow_rate=total["follows"] / views if views else None,
                play_s_per_view=moments.total(f"play_ms@{source}") / 1000 / views if views else None,
            )


def _planned(result: MetricResult, plan: AnalysisPlan) -> MetricResult:
    """With the comparison that the verdict rests on, by CUPED where the plan says so and something is known."""
    return replace(result, effects=tuple(replace(line, planned=_by_plan(line, plan)) for line in result.effects))


def _by_plan(line: ArmEffect, plan: AnalysisPlan) -> Planned:
    by_cuped = plan.cuped and line.adjusted is not None and line.adjusted.ci_low is not None
    effect: Effect = line.adjusted if by_cuped and line.adjusted else line.effect
    return Planned(
        plan.kind, by_cuped, effect.relative, effect.ci_low, effect.ci_high, effect.p_value, reason=effect.reason
    )
