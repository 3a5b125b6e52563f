"""The run in numbers: `summary.json`, and the same as tables in the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.table import Table

from abtest.analyse.analysis import summary as metric_summary
from abtest.analyse.context import ReportContext
from abtest.analyse.results import Report
from abtest.collect.state import CollectorState
from abtest.format import counted
from abtest.report.wording import part_worth
from contracts.config.settings import Settings
from contracts.kafka.bus import EXPOSURES, FEEDBACK
from contracts.snapshots.parts import Part
from driftline.demo.arms import Counts, of_arm
from driftline.demo.monitor import Readings
from driftline.experiment.context import known_context
from driftline.inspect.metrics import Scrape
from driftline.inspect.snapshots import published, went_live
from world.base import ResponseQuality, World
from world.drive import DriverReport

SCHEMA_VERSION = 2
OUTCOMES = ("promoted", "rolled back")  # of a trial, as the trainer's metrics name them


def summarise(
    settings: Settings, world: World, readings: Readings, tally: DriverReport, report: Report, wall_s: float
) -> dict[str, Any]:
    """All numbers of a run, ready for JSON. Counts reconcile: see `unaccounted`."""
    stream = readings.stream
    models = {arm: spec.model for arm, spec in settings.experiment.arms.items()}
    manifests = {arm: published(settings.snapshot_root, model) for arm, model in models.items()}
    live = {arm: went_live(settings.snapshot_root, model) for arm, model in models.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "world": world.description,
        "simulated_responses": True,
        "simulated_log": world.simulated_log,
        "seed": settings.seed,
        "wall_s": round(wall_s, 1),
        "events_in": int(stream.total("stream_events_in_total")),
        "example_sources": _outcome(stream, "example"),
        "non_positive": _outcome(stream, "non_positive"),
        "folded": _outcome(stream, "folded"),
        "duplicates_dropped": _outcome(stream, "duplicate"),
        "dead_lettered": _outcome(stream, "dead_letter"),
        "held": int(stream.total("stream_held_feedback")),
        "events_by_topic": {
            topic: {
                "in": int(stream.total("stream_events_in_total", topic=topic)),
                **{
                    name: int(stream.total("stream_outcomes_total", topic=topic, outcome=outcome))
                    for name, outcome in (
                        ("example_sources", "example"),
                        ("non_positive", "non_positive"),
                        ("folded", "folded"),
                        ("duplicates_dropped", "duplicate"),
                        ("dead_lettered", "dead_letter"),
                    )
                },
            }
            for topic in (EXPOSURES, FEEDBACK)
        },
        "dead_letter_reasons": _counts(stream, "stream_dead_letters_total", "reason"),
        "sessions": int(stream.total("stream_sessions")),
        "examples": int(stream.total("stream_outcomes_total", outcome="example")),
        "examples_tested": int(readings.trainer.total("trainer_examples_total")),
        "arms": {
            arm: of_arm(
                model,
                _of_model(readings.trainer, model, len(manifests[arm])),
                live[arm],
                tally.spans.get(model, {}),
                settings.experiment.start_ms,
                settings.experiment.end_ms,
            )
            for arm, model in models.items()
        },
        "swaps": {
            f"replica-{i}": _counts(metrics, "serving_swaps_total", "model")
            for i, metrics in enumerate(readings.each_replica, start=1)
        },
        "snapshots_that_answered": {model: len(spans) for model, spans in tally.spans.items()},
        "recalls": tally.recalls,
        "recalls_failed": tally.recalls_failed,
        "recall_errors": dict(tally.errors),
        "mixed_version_replies": tally.mixed_version_replies,
        "fallbacks": dict(tally.fallbacks),
        "exposures_lost": int(readings.replicas.total("serving_exposures_lost_total")),
        "freshness_s": {
            "event_to_feature": _quantiles(stream, "stream_event_to_feature_seconds"),
            "event_to_snapshot": _quantiles(readings.trainer, "trainer_event_to_snapshot_seconds"),
            "event_to_answer": _quantiles(readings.replicas, "serving_event_to_answer_seconds"),
        },
        "recall_latency_ms": {arm: _latency(seconds) for arm, seconds in sorted(tally.latency_s.items())},
        "swap_s": _quantiles(readings.replicas, "serving_swap_seconds"),
        "progressive_recall": {
            settings.experiment.arms[arm].model: dict(published[-1].metrics) if published else {}
            for arm, published in manifests.items()
        },
        "learned_from": {
            settings.experiment.arms[arm].model: dict(published[-1].shares) if published else {}
            for arm, published in manifests.items()
        },
        "metrics": metric_summary(report),
        "users_per_arm": dict(report.split.users),
        "split_p_value": report.split.p_value,
        "response_model": _quality(world.quality),
    }


def unaccounted(summary: Mapping[str, Any]) -> int:
    """Events that are in no class; 0 in a sound run.

    >>> counts = dict(example_sources=3, non_positive=2, folded=1, duplicates_dropped=1, dead_lettered=2, held=0)
    >>> unaccounted(dict(events_in=9, **counts))
    0
    """
    accounted = ("example_sources", "non_positive", "folded", "duplicates_dropped", "dead_lettered", "held")
    return int(summary["events_in"] - sum(summary[name] for name in accounted))


def complaints(summary: Mapping[str, Any]) -> list[str]:
    """What must not be in a sound run, a sentence part each."""
    problems = []
    if summary["recalls_failed"]:
        why = ", ".join(f"{error} ({count})" for error, count in summary["recall_errors"].items())
        problems.append(f"{summary['recalls_failed']} of {summary['recalls']} recalls failed: {why}")
    if summary["mixed_version_replies"]:
        problems.append(f"{summary['mixed_version_replies']} replies mixed snapshot versions")
    if summary["exposures_lost"]:
        problems.append(f"{summary['exposures_lost']} exposures were lost")
    if unaccounted(summary):
        problems.append(f"{counted(unaccounted(summary), 'event is', 'events are')} unaccounted for")
    return problems


def context(settings: Settings, world: World, summary: Mapping[str, Any], state: CollectorState) -> ReportContext:
    """What the report of a demo says beside the experiment's own results."""
    counts = (
        *("events_in", "example_sources", "non_positive", "duplicates_dropped", "dead_lettered"),
        *("sessions", "examples", "recalls", "recalls_failed", "mixed_version_replies"),
    )
    return replace(
        known_context(settings, state),
        simulated=True,
        world=world.description,
        response_quality=summary["response_model"],
        counts={name: summary[name] for name in counts},
    )


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """The summary for a terminal."""
    return [_numbers(summary), _models(summary), _effects(summary)]


def _numbers(summary: Mapping[str, Any]) -> Table:
    grid = Table(title="The run", title_justify="left", show_header=False)
    grid.add_column(style="dim")
    grid.add_column()
    grid.add_row(
        "events in",
        f"{summary['events_in']:,} = {summary['example_sources']:,} example sources + {summary['non_positive']:,} "
        f"non-positive + {summary['folded']:,} folded + {summary['duplicates_dropped']:,} duplicates + "
        f"{summary['dead_lettered']:,} dead-lettered",
    )
    for reason, count in summary["dead_letter_reasons"].items():
        grid.add_row("", f"{count:,} {reason}")
    grid.add_row("sessions, examples", f"{summary['sessions']:,}, {summary['examples']:,}")
    for replica, swaps in summary["swaps"].items():
        grid.add_row(f"swaps of {replica}", _pairs(swaps))
    grid.add_row(
        "recalls",
        f"{summary['recalls']:,}, failed {summary['recalls_failed']}, "
        f"mixed versions {summary['mixed_version_replies']}",
    )
    for name, value in summary["freshness_s"].items():
        grid.add_row(name.replace("_to_", " → "), f"p50 {_number(value['p50'])} s, p99 {_number(value['p99'])} s")
    for arm, value in summary["recall_latency_ms"].items():
        grid.add_row(f"recall, {arm}", f"p50 {_number(value['p50'])} ms, p99 {_number(value['p99'])} ms")
    for model, value in summary["progressive_recall"].items():
        # Inside the experiment users can only watch what an arm chose for them, which flatters the arm's own model.
        recalls = (f"recall@{k} {_number(value.get(f'recall@{k}/outside'))}" for k in (20, 100))
        grid.add_row(f"progressive, {model}", f"{', '.join(recalls)} on logged traffic")
        for part in Part.all_of(value):
            grid.add_row(f"{part.name} of {model}", part_worth(model, part))
    grid.add_row("wall time", f"{summary['wall_s']:.0f} s")
    return grid


def _models(summary: Mapping[str, Any]) -> Table:
    """What became of each arm's snapshots; what was made and did not go live was replaced on trial by a newer one."""
    grid = Table(title="The arms' models: snapshots, and how long an arm went without a new one", title_justify="left")
    headings = ("made", "went live", "by trial", "rolled back", "flawed", "longest gap", "stale")
    for heading in ("arm", "model", *headings):
        grid.add_column(heading)
    for name, arm in summary["arms"].items():
        counts = (f"{arm[count]:,}" for count in ("made", "live", "promoted", "rolled_back", "held"))
        hours = (f"{arm[each]:.1f} h" for each in ("longest_without_live_h", "stale_h"))
        grid.add_row(name, arm["model"], *counts, *hours)
    return grid


def _effects(summary: Mapping[str, Any]) -> Table:
    grid = Table(
        title="Treatment against control, plain (responses are simulated)",
        title_justify="left",
    )
    for heading in ("metric", "treatment", "control", "relative difference", "95 % interval", "p", "users"):
        grid.add_column(heading)
    for metric, arms in summary["metrics"].items():
        for effect in arms.values():
            grid.add_row(
                metric,
                _number(effect["treatment"]),
                _number(effect["control"]),
                _percent(effect["relative"]),
                effect["reason"] or f"{_percent(effect['ci_low'])} … {_percent(effect['ci_high'])}",
                _number(effect["p_value"]),
                " / ".join(f"{users:,}" for users in effect["users"].values()),
            )
    return grid


def _of_model(trainer: Scrape, model: str, passed: int) -> Counts:
    """What became of a model's snapshots, `passed` of which had no flaw."""
    ended = {each: int(trainer.total("trainer_trials_total", model=model, outcome=each)) for each in OUTCOMES}
    refused = int(trainer.total("trainer_snapshots_rejected_total", model=model))  # a trial's end is one, too
    held = refused - ended["rolled back"]
    return Counts(passed + held, ended["promoted"], ended["rolled back"], held)


def _outcome(stream: Scrape, outcome: str) -> int:
    return sum(
        int(stream.total("stream_outcomes_total", topic=topic, outcome=outcome)) for topic in (EXPOSURES, FEEDBACK)
    )


def _counts(metrics: Scrape, name: str, label: str) -> dict[str, int]:
    """By label, what has been counted at all: some series begin at 0."""
    return {key: int(value) for key, value in sorted(metrics.values(name, label).items()) if value}


def _quantiles(metrics: Scrape, name: str) -> dict[str, float | None]:
    return {"p50": metrics.quantile(name, 0.5), "p99": metrics.quantile(name, 0.99)}


def _latency(seconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1000
    return {"p50": float(p50), "p99": float(p99)}


def _quality(quality: ResponseQuality | None) -> dict[str, float | None] | None:
    if quality is None:
        return None
    return {
        "rows": quality.rows,
        "auc": quality.auc,
        "log_loss": quality.log_loss,
        "predicted_mean": quality.predicted_rate,
        "observed_mean": quality.observed_rate,
        "expected_calibration_error": quality.calibration_error,
        "play_mae_s": quality.play_mae_s,
        "play_mae_constant_s": quality.play_constant_mae_s,
        "play_median_abs_error_s": quality.play_median_error_s,
    }


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2%}"
