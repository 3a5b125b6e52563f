"""From aggregate to report: a pure function of the aggregate, the experiment and what the state has counted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from abtest.aggregate.aggregate import SEGMENTS, Aggregate, aggregate, needed
from abtest.aggregate.fingerprint import digest
from abtest.aggregate.sources import compare_sources
from abtest.aggregate.user_parts import MET
from abtest.aggregate.winsorize import table_of
from abtest.analyse.capping import checks_of_caps, require_in_advance, winsorized
from abtest.analyse.checks import ModelFacts, checks_of
from abtest.analyse.day_checks import date_of, days_over, has_ended, stopped
from abtest.analyse.deciding import decided, told_apart, with_deciding
from abtest.analyse.looks import History, decided_at_looks
from abtest.analyse.model_age import by_age, by_version, comparable, unlike
from abtest.analyse.over_time import courses_of, critical_of, level_of, looks_at
from abtest.analyse.planned import planned
from abtest.analyse.results import (
    SCHEMA_VERSION,
    ArmEffect,
    ArmValue,
    Day,
    MetricResult,
    Report,
    Slice,
    SnapshotRow,
    SourceRow,
    Verdict,
)
from abtest.analyse.shown import one_sided
from abtest.analyse.verdict import beside_each_other, decide
from abtest.analyse.weighing import Users
from abtest.collect.observed import Observed
from abtest.collect.state import CollectorState, folded, plan_of
from abtest.stats.columns import Column, parts_of
from abtest.stats.cuped import Adjustment
from abtest.stats.effects import ALPHA, compare
from abtest.stats.estimates import Estimate
from abtest.stats.jackknife import jackknife
from abtest.stats.metrics import STREAMED, Declared, Mean, Metric, Quantile, Ratio, of_experiment, with_capped
from abtest.stats.moments import Moments
from abtest.stats.novelty import on_day, pre_period
from abtest.stats.quantiles import quantile_estimate
from abtest.stats.split import split_check
from contracts.config.experiment import Experiment


def analyse(state: CollectorState, models: Sequence[ModelFacts] = ()) -> Report:
    """The report on everything a collector's `state` has seen; `state` is not changed."""
    complete = folded(state)
    experiment = complete.rules.experiment
    metrics = of_experiment(experiment, with_capped(STREAMED, experiment))
    columns = needed(["recalls", *(str(column) for metric in metrics for column in metric.columns)])
    spread = [metric.column for metric in metrics if isinstance(metric, Quantile)]
    aggregated = aggregate(
        table_of(complete, experiment), columns, spread=tuple(dict.fromkeys(spread)), looks=experiment.look_days
    )
    now = plan_of(experiment)
    changed = tuple(name for name in now if state.plan.get(name) != now[name])
    observed = Observed(complete.recalls, complete.counts, complete.spans, complete.newest_ms, changed, complete.arms)
    return report(aggregated, experiment, observed, models)


def report(
    aggregate: Aggregate, experiment: Experiment, observed: Observed | None = None, models: Sequence[ModelFacts] = ()
) -> Report:
    """The report on an aggregate.

    Args:
        aggregate: of the experiment's users.
        experiment: its file.
        observed: what was counted beside.
        models: what is known of the arms' models.

    Raises:
        SettingsError: the experiment has a metric of a column that the aggregate does not have, or one whose cap moves
            from look to look of its plan.

    """
    observed = observed or Observed()
    metrics = of_experiment(experiment, aggregate.columns)
    require_in_advance(aggregate.caps, experiment)
    estimable = [metric for metric in metrics if not isinstance(metric, Quantile)]
    control, plan = experiment.control, experiment.analysis
    weights = {arm: spec.weight for arm, spec in experiment.arms.items()}
    split = split_check(aggregate.users, weights)
    alpha = plan.alpha
    everyone = aggregate.through(aggregate.days - 1)
    alike = pre_period(everyone, aggregate.covariates, control)
    days = tuple(_days(aggregate, estimable, experiment))
    over = days_over(experiment, observed.newest_ms, aggregate.days)
    courses = tuple(courses_of(aggregate, estimable, experiment, over))
    users = _users(aggregate)
    results = tuple(_whole(aggregate, metrics, everyone, control, alpha))
    if plan.kind == "fixed":
        results = decided(planned(results, courses, plan), metrics, users, control, alpha)
    else:
        history = History(
            experiment,
            metrics,
            days,
            looks_at(experiment, aggregate.days, over),
            courses,
            cache(partial(_users_through, aggregate)),
            partial(critical_of, aggregate, experiment, over),
            partial(level_of, experiment),
        )
        at_looks = decided_at_looks(results, history)
        results = with_deciding(planned(results, courses, plan, at_looks), at_looks)
    caps = winsorized(aggregate, experiment)
    checks = (
        *checks_of(aggregate, experiment, split, alike, models, observed, results),
        *checks_of_caps(caps, control),
    )
    interference = any(model.interferes for model in models)
    treatments = [arm for arm in aggregate.arms if arm != control]
    ended = has_ended(experiment, observed.newest_ms, aggregate.days)
    verdicts = [
        decide(
            arm, results, checks, plan,
            ended=ended, stopped=stopped(experiment), interference=interference, stale=unlike(arm, control, checks),
            one_sided=one_sided(arm, control, observed.arms),
        )
        for arm in treatments
    ]  # fmt: skip
    return Report(
        schema_version=SCHEMA_VERSION,
        experiment=experiment.name,
        hypothesis=experiment.hypothesis,
        owner=experiment.owner,
        control=control,
        arms=aggregate.arms,
        models={arm: spec.model for arm, spec in experiment.arms.items() if spec.model},
        start_ms=experiment.start_ms,
        end_ms=experiment.end_ms,
        day_offset_ms=experiment.day_offset_ms,
        zone=experiment.zone,
        days_planned=experiment.days,
        plan=plan.model_dump(mode="json"),
        primary=metrics[0].name,
        verdicts=_side_by_side(verdicts, results[0], metrics[0], users, alpha),
        checks=checks,
        split=split,
        pre_period=alike,
        users_in_two_arms=aggregate.in_two_arms,
        metrics=results,
        days=days,
        courses=courses,
        slices=tuple(_slices(aggregate, estimable, experiment, observed)),
        sources=tuple(_sources(aggregate, experiment)),
        snapshots=tuple(SnapshotRow(*key, recalls) for key, recalls in sorted(observed.recalls.items())),
        counts=dict(sorted((name, count) for name, count in observed.counts.items() if count)),
        data_hash=digest(aggregate),
        winsorized=caps,
    )


def _side_by_side(
    verdicts: Sequence[Verdict], primary: MetricResult, metric: Declared, users: Users, alpha: float
) -> tuple[Verdict, ...]:
    if isinstance(metric, Quantile):
        return tuple(verdicts)
    return beside_each_other(
        verdicts, primary, lambda one, other, level: told_apart(metric, users, one, other, level), alpha
    )


def _users_through(aggregate: Aggregate, day: int) -> Users:
    """Those of all days up to one, counted from 0."""
    columns = (*aggregate.columns, *aggregate.covariates)
    moments = {arm: moments.only(columns) for arm, moments in aggregate.through(day).items()}
    return Users(moments, *aggregate.standouts(day), aggregate.covariates)


def _users(aggregate: Aggregate) -> Users:
    known, new = (aggregate.segments[segment] for segment in SEGMENTS)
    moments = {arm: known[arm] + new[arm] for arm in aggregate.arms}
    return Users(moments, aggregate.largest, aggregate.buckets, aggregate.covariates)


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
    metrics: Sequence[Metric],
    moments: Mapping[str, Moments],
    control: str,
    covariates: Sequence[str] = (),
    alpha: float = ALPHA,
) -> tuple[MetricResult, ...]:
    """Every metric from each arm's moments, every other arm against `control`; by CUPED too, given covariates.

    The way in for data that did not come through the stream: moments can be made of any table with a row per user.
    """
    cuped = Adjustment.of(moments, covariates)
    return tuple(
        _by_cuped(_plain(metric, moments, control, alpha), metric, cuped, control, alpha) for metric in metrics
    )


def _plain(metric: Metric, moments: Mapping[str, Moments], control: str, alpha: float) -> MetricResult:
    estimates = {arm: metric.estimate(m) for arm, m in moments.items()}
    cautions = {arm: metric.caution(m) for arm, m in moments.items()}
    return _compared(metric, estimates, cautions, control, alpha)


def _by_cuped(result: MetricResult, metric: Metric, cuped: Adjustment, control: str, alpha: float) -> MetricResult:
    """`result` with `metric` by CUPED beside it, if anything is known from before."""
    if not cuped.used:
        return result
    by_cuped = cuped.of_metric(metric)
    if not by_cuped.covariates:
        return result
    adjusted = by_cuped.estimates
    return replace(
        result,
        effects=tuple(
            replace(
                line,
                adjusted=compare(adjusted[line.arm], adjusted[control], (line.arm, control), alpha),
                variance_removed=by_cuped.variance_removed,
            )
            for line in result.effects
        ),
    )


def _compared(
    metric: Metric | Quantile,
    estimates: Mapping[str, Estimate],
    cautions: Mapping[str, str | None],
    control: str,
    alpha: float,
) -> MetricResult:
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
                compare(estimate, estimates[control], (arm, control), alpha),
                tuple(f"{cautions[name]} in arm {name}" for name in (arm, control) if cautions[name]),
            )
            for arm, estimate in estimates.items()
            if arm != control
        ),
    )


def _whole(
    aggregate: Aggregate, metrics: Sequence[Declared], everyone: Mapping[str, Moments], control: str, alpha: float
) -> Iterator[MetricResult]:
    """Over all days, with jackknife errors beside; quantiles from histograms."""
    cuped, buckets = Adjustment.of(everyone, aggregate.covariates), aggregate.buckets
    for metric in metrics:
        if isinstance(metric, Quantile):
            spread = aggregate.histograms[metric.column]
            estimates = {arm: quantile_estimate(histogram, metric.q) for arm, histogram in spread.items()}
            yield _compared(metric, estimates, dict.fromkeys(estimates), control, alpha)
            continue
        result = _by_cuped(_plain(metric, everyone, control, alpha), metric, cuped, control, alpha)
        yield replace(
            result,
            effects=tuple(
                replace(line, jackknife=jackknife(metric, buckets[line.arm], buckets[control], alpha))
                for line in result.effects
            ),
        )


def _days(aggregate: Aggregate, metrics: Sequence[Mean | Ratio], experiment: Experiment) -> Iterator[Day]:
    """Day by day up to the last one seen; a day without a single event is there too, and says so."""
    control, alpha = experiment.control, experiment.analysis.alpha
    for day in range(aggregate.days):
        through, on = aggregate.through(day), aggregate.on(day)
        cuped = Adjustment.of(through, aggregate.covariates)
        yield Day(
            day,
            date_of(experiment, day),
            aggregate.new_users(day),
            # CUPED goes by all users seen so far: who comes back may be an effect itself, who was there before is not
            tuple(_by_cuped(_plain(m, on, control, alpha), on_day(m, day), cuped, control, alpha) for m in metrics),
            tuple(_by_cuped(_plain(m, through, control, alpha), m, cuped, control, alpha) for m in metrics),
        )


def _slices(
    aggregate: Aggregate, metrics: Sequence[Mean | Ratio], experiment: Experiment, observed: Observed
) -> Iterator[Slice]:
    """Segments of users by what was known of them before the start; classes of model age; snapshot versions."""
    control, alpha = experiment.control, experiment.analysis.alpha
    for name, moments in aggregate.segments.items():
        users = {arm: m.n for arm, m in moments.items()}
        if all(users.values()):
            yield Slice("segment", name, users, compare_arms(metrics, moments, control, alpha=alpha))
    ratios = comparable(metrics)
    for cut in (*by_age(aggregate, ratios, control), *by_version(aggregate, ratios, experiment, observed)):
        results = compare_arms(ratios, cut.moments, control, alpha=alpha)
        yield Slice(cut.kind, cut.name, cut.users, results, cut.note)


def _sources(aggregate: Aggregate, experiment: Experiment) -> Iterator[SourceRow]:
    """A row per arm and source that showed something, each against the one of the arm that the control also has."""
    for arm, moments in aggregate.parts.get("source", {}).items():
        names = parts_of(moments.columns)
        shown = {name: moments.total(Column("views", part=name)) for name in names}
        if not any(shown.values()):
            continue
        base = _reference(experiment, arm, [name for name in names if shown[name]])
        drafted = experiment.arms[arm].blend == "team-draft"  # else a source with more places would win more votes
        votes = aggregate.votes.get(arm) if drafted else None
        for result in compare_sources(moments, base, votes, experiment.analysis.alpha):
            source, evr = result.source, result.values["evr"]
            total = {
                column: round(moments.total(Column(column, part=source)))
                for column in ("served", "views", "effective_views", "follows")
            }
            if not total["views"]:
                continue
            yield SourceRow(
                arm,
                source,
                users=round(moments.total(Column(MET, part=source))),
                shown=total["views"],
                **total,
                evr=evr.estimate.value,
                evr_std_error=evr.estimate.std_error,
                follow_rate=result.values["follow_rate"].estimate.value,
                play_s_per_view=result.values["play_s_per_view"].estimate.value,
                against="" if source == base else base,
                evr_effect=evr.against,
                preference=result.preference,
            )


def _reference(experiment: Experiment, arm: str, sources: Sequence[str]) -> str:
    """The control's model where it is a source of the arm too, else the arm's own, else the first."""
    models = (experiment.arms[experiment.control].model, experiment.arms[arm].model)
    return next((model for model in models if model in sources), sources[0])
