"""The alerting rules: each fires where its cause is there, and no other does; each has an entry in the runbook."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from contracts.config.settings import KafkaSettings
from contracts.kafka.batches import ReadCounts
from contracts.messages.events import Reason
from contracts.runtime.clock import HOUR_MS
from contracts.snapshots.staleness import STALE_MS
from stream.archive import ArchiveMetrics
from stream.metrics import StreamMetrics
from tests.deploy import causes
from tests.deploy.causes import Cause
from tests.deploy.deployed import ALERTS, RULES
from tests.deploy.promtool import assert_fires, promtool
from tests.deploy.stream_causes import stream_causes
from tests.trainer.trainer_cases import small_settings
from tests.trainer.trainer_rig import Rig
from trainer.meters import Meters

OPERATIONS = RULES.parents[1] / "docs" / "operations.md"

PLAIN: dict[str, Callable[[], Cause]] = {
    "WorkerDown": causes.worker_down,
    "WorkerStuck": causes.worker_stuck,
    "WorkerNotReady": causes.worker_not_ready,
    "FeaturesLate": causes.features_late,
    "SourceWithoutSnapshot": causes.source_without_snapshot,
    "ExposuresLost": causes.exposures_lost,
    "ExperimentDiffers": causes.experiment_differs,
    "RequestsTurnedAway": causes.requests_turned_away,
    "RecallDrifts": causes.recall_drifts,
    "BrokerCannotGiveRecords": causes.broker_cannot_give_records,
}
ON_DISK: dict[str, Callable[[Path], Cause]] = {
    "NothingFreshIsServed": causes.nothing_fresh,
    "SnapshotNotLoaded": causes.snapshot_not_loaded,
    "TrialDoesNotEnd": causes.trial_does_not_end,
    "GateHolds": causes.gate_holds,
    "StepsAreNoNumbers": causes.steps_are_no_numbers,
    "ExamplesSkipped": causes.examples_skipped,
}
OF_A_TRAINER = ("ArmIsStale", "ExamplesLost", "TrainerBehind")
OF_A_BROKER = ("CollectorBehind", "ArchiveBehind")
OF_THE_STREAM = (
    *("DeadLetters", "WrongPartition", "BatchNotDecoded", "PositivesAlone", "RecordsLost"),
    *("FeedbackWithoutExposures", "StreamBehind"),
)


def see(tmp_path: Path, alert: str, cause: Cause) -> None:
    assert_fires(tmp_path, cause.scrapes, cause.minutes, alert, grows=cause.grows, since=cause.since)
    before = [each for each in cause.scrapes if each.minute == 0]
    if len(before) < len(cause.scrapes) and not cause.grows:
        assert_fires(tmp_path, before, cause.minutes, since=cause.since)


def test_every_rule_has_its_cause_here() -> None:
    assert sorted(ALERTS) == sorted([*PLAIN, *ON_DISK, *OF_A_TRAINER, *OF_A_BROKER, *OF_THE_STREAM])


@pytest.mark.parametrize("alert", PLAIN)
def test_an_alert_fires_of_its_cause_and_no_other_does(tmp_path: Path, alert: str) -> None:
    promtool()
    see(tmp_path, alert, PLAIN[alert]())


@pytest.mark.usefixtures("trace_once")
@pytest.mark.parametrize("alert", ON_DISK)
def test_an_alert_of_snapshots_fires_of_its_cause_and_no_other_does(tmp_path: Path, alert: str) -> None:
    promtool()
    see(tmp_path, alert, ON_DISK[alert](tmp_path))


@pytest.mark.usefixtures("trace_once")
@pytest.mark.parametrize("alert", OF_A_TRAINER)
def test_an_alert_of_the_trainer_fires_of_its_cause_and_no_other_does(
    tmp_path: Path, make_rig: Callable[..., Rig], alert: str
) -> None:
    promtool()
    rare = {"models": ("two_tower",), "gate": {"enabled": False}, "publish_every_ms": 60 * HOUR_MS}
    settings = small_settings(tmp_path, **rare)
    match alert:
        case "ArmIsStale":
            cause = causes.arm_is_stale(make_rig(settings))
        case "TrainerBehind":
            cause = causes.trainer_behind(make_rig(settings))
        case _:
            cause = causes.examples_lost(make_rig, tmp_path)
    see(tmp_path, alert, cause)


@pytest.mark.parametrize("alert", OF_A_BROKER)
def test_an_alert_of_a_lag_fires_of_its_cause_and_no_other_does(
    tmp_path: Path, embedded: KafkaSettings, alert: str
) -> None:
    promtool()
    collector = alert == "CollectorBehind"
    see(tmp_path, alert, causes.collector_behind(embedded) if collector else causes.archive_behind(embedded, tmp_path))


def test_the_alerts_of_the_stream_fire_of_their_causes_and_no_other_does(
    tmp_path: Path, embedded: KafkaSettings
) -> None:
    promtool()
    found = stream_causes(embedded, tmp_path)
    assert [*found] == sorted(OF_THE_STREAM, key=[*found].index)
    for alert, cause in found.items():
        see(tmp_path, alert, cause)


def test_the_first_of_a_kind_is_not_missed() -> None:
    """`increase` sees no step where a series begins: it begins at 0, or the rule asks for new ones as well."""
    for room, registry in (
        ("stream", StreamMetrics().registry),
        ("trainer", Meters().registry),
        ("archive", ArchiveMetrics().registry),
    ):
        for reason in Reason:
            assert registry.get_sample_value(f"{room}_dead_letters_total", {"reason": str(reason)}) == 0
    counts, registry = ReadCounts(), CollectorRegistry()
    counts.register(registry)
    assert not [sample for metric in registry.collect() for sample in metric.samples]
    metric = "kafka_unreadable_batches_total"
    expr = ALERTS["BatchNotDecoded"]["expr"]
    assert expr == f"increase({metric}[15m]) > 0 or ({metric} > 0 unless {metric} offset 15m)"


def test_an_arm_is_stale_where_the_one_definition_says_so() -> None:
    assert ALERTS["ArmIsStale"]["expr"].endswith(f"> {STALE_MS // 1000}")


def test_every_rule_has_an_entry_in_the_runbook_and_every_entry_a_rule() -> None:
    text = OPERATIONS.read_text()
    runbook = text[text.index("\n## Runbook") :]
    assert re.findall(r"^### (\w+)$", runbook, re.MULTILINE) == [*ALERTS]
    for alert, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{alert.lower()}"
        entry = runbook.split(f"### {alert}\n")[1].split("\n### ")[0]
        assert all(f"**{part}.**" in entry for part in ("Means", "Look", "Do")), alert
