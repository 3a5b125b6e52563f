"""The shell around the engine: a log that is held in memory, and once the real process on a real broker."""

from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings, Settings, dump
from contracts.kafka import bus
from contracts.messages.events import UnreadableBatch
from contracts.runtime.clock import HOUR_MS, SystemClock
from contracts.snapshots.snapshot import live, read, read_manifest
from contracts.wire.events_pb2 import DeadLetter
from driftline.inspect.metrics import read_metrics
from driftline.processes.supervisor import Supervisor
from tests.trainer.conftest import MakeRig
from tests.trainer.trainer_cases import START_MS, make_example, make_item, markov_examples, small_settings
from tests.trainer.trainer_rig import EXAMPLES, ITEMS
from trainer.gate.decision import Verdict
from trainer.gate.gate import Gatekeeper

pytestmark = pytest.mark.usefixtures("trace_once")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path)


def test_polls_leave_no_trace_in_the_snapshots(tmp_path: Path, make_rig: MakeRig) -> None:
    checksums = []
    for per_poll in (3, 50):
        rig = make_rig(small_settings(tmp_path / str(per_poll)), per_poll)
        rig.add_items(12)
        rig.add_examples(markov_examples(150, 12))
        rig.steps(80)
        versions = [live(rig.settings.snapshots, model) for model in ("two_tower", "t2diff")]
        assert versions == ["v000002", "v000002"]
        manifests = [read_manifest(rig.settings.snapshots, model, "v000002") for model in ("two_tower", "t2diff")]
        checksums.append([manifest.checksums for manifest in manifests])
    assert checksums[0] == checksums[1]


def test_items_that_come_later_are_learned_about(settings: Settings, make_rig: MakeRig) -> None:
    rig = make_rig(settings)
    rig.add_items(5)
    rig.log.append_item(50)
    rig.steps(3)
    rig.add_examples([make_example([1], 50, START_MS + n, user_id=n + 1) for n in range(8)])
    rig.steps(12)
    assert rig.value("trainer_examples_total") == 8
    assert rig.value("trainer_skipped_examples_total") == 0


def test_what_cannot_be_read_goes_to_the_dead_letters_and_the_rest_goes_on(
    settings: Settings, make_rig: MakeRig
) -> None:
    rig = make_rig(settings)
    rig.add_items(5)
    rig.log.append(ITEMS, b"\xff")
    rig.log.append(EXAMPLES[0], b"junk")
    no_user = make_example([1], 2)
    no_user.user_id = 0
    rig.log.append(EXAMPLES[0], no_user.SerializeToString())
    rig.log.append(EXAMPLES[0], UnreadableBatch(b"a batch", 0, "the batch cannot be decoded"))
    rig.add_examples([make_example([1], 2, START_MS + n, user_id=n + 1) for n in range(8)])
    rig.steps(12)
    letters = [DeadLetter.FromString(value) for _, value in rig.outbox.sent]
    assert {topic for topic, _ in rig.outbox.sent} == {"driftline.deadletters"}
    assert [(letter.reason, letter.topic, letter.offset) for letter in letters] == [
        ("undecodable", ITEMS.topic, 5),
        ("undecodable", EXAMPLES[0].topic, 0),
        ("out_of_range", EXAMPLES[0].topic, 1),
        ("unreadable_batch", EXAMPLES[0].topic, 2),
    ]
    assert (letters[3].value, letters[3].detail) == (b"a batch", "the batch cannot be decoded")
    assert letters[1].value == b"junk"
    assert rig.value("trainer_dead_letters_total", reason="undecodable") == 2
    assert rig.value("trainer_examples_total") == 8


def test_a_record_that_the_dead_letter_topic_does_not_take_leaves_its_value_behind(
    settings: Settings, make_rig: MakeRig
) -> None:
    rig = make_rig(settings, letter_bytes=1000)
    rig.log.append(EXAMPLES[0], bytes(2000))
    rig.steps(2)
    [letter] = [DeadLetter.FromString(value) for _, value in rig.outbox.sent]
    assert (letter.offset, letter.value) == (0, b"")
    assert "too large for the dead-letter topic" in letter.detail


def test_a_deleted_item_leaves_the_next_snapshot_and_an_unreadable_deletion_is_a_dead_letter(
    settings: Settings, make_rig: MakeRig
) -> None:
    rig = make_rig(settings)
    rig.add_items(5)
    rig.log.append(ITEMS, None, key=b"4")
    rig.log.append(ITEMS, None, key=b"four")
    rig.add_examples([make_example([4], 2, START_MS + n * HOUR_MS, user_id=n + 1) for n in range(2)])
    rig.steps(10)
    assert read(settings.snapshots, "t2diff", "v000001").item_ids.tolist() == [1, 2, 3, 5]
    (letter,) = [DeadLetter.FromString(value) for _, value in rig.outbox.sent]
    assert (letter.reason, letter.offset, letter.key, letter.value) == ("undecodable", 6, b"four", b"")


def test_committed_offsets_show_what_was_taken_not_what_waits(settings: Settings, make_rig: MakeRig) -> None:
    rig = make_rig(settings)
    rig.add_items(5)
    rig.add_examples([make_example([1], 2, START_MS + n, user_id=2) for n in range(3)])
    rig.steps(4)
    assert rig.log.position(EXAMPLES[0]) == 3
    assert rig.log.commits[-1][EXAMPLES[0]].offset == 0  # partition 1 may still have something earlier
    rig.steps(4)
    assert rig.log.commits[-1][EXAMPLES[0]].offset == 3  # it stayed silent
    commits = len(rig.log.commits)
    rig.steps(4)
    assert len(rig.log.commits) == commits


def test_while_the_broker_is_away_it_learns_on_and_nothing_is_lost(settings: Settings, make_rig: MakeRig) -> None:
    rig = make_rig(settings)
    rig.add_items(5)
    rig.log.append(EXAMPLES[0], b"junk")
    rig.add_examples([make_example([1], 2, START_MS + n, user_id=n + 1) for n in range(16)])
    rig.outbox.away = rig.log.away = True
    rig.steps(12)
    assert rig.value("trainer_examples_total") == 16
    assert (rig.outbox.sent, rig.log.commits) == ([], [])
    rig.worker.finish()
    assert rig.checkpoints.newest() is None  # it would pass the letter over
    rig.outbox.away = False
    rig.steps(2)
    assert len(rig.outbox.sent) == 1
    rig.log.away = False
    rig.steps(1)
    assert rig.log.commits[-1][EXAMPLES[0]].offset == 9
    rig.worker.finish()
    assert rig.checkpoints.newest() is not None


def test_a_partition_far_ahead_is_paused_until_the_others_follow(tmp_path: Path, make_rig: MakeRig) -> None:
    rig = make_rig(small_settings(tmp_path, poll_records=5), per_poll=5)
    rig.add_items(5)
    rig.add_examples([make_example([1], 2, START_MS + 2 * n, user_id=2) for n in range(100)])
    rig.log.append(EXAMPLES[1], make_example([1], 2, START_MS + 1, user_id=1).SerializeToString())
    rig.log.hang(EXAMPLES[1])
    rig.steps(10)
    assert rig.log.position(EXAMPLES[0]) == 20
    rig.log.hang(None)
    rig.steps(60)
    assert rig.log.commits[-1][EXAMPLES[0]].offset == 100


def test_a_stop_ends_the_step_and_freshness_is_measured_at_publication(settings: Settings, make_rig: MakeRig) -> None:
    rig = make_rig(settings)
    rig.add_items(5)
    early = [make_example([1], 2, START_MS + n, user_id=n + 1) for n in range(20)]
    late = [make_example([1], 2, START_MS + HOUR_MS + n, user_id=n + 1) for n in range(20)]
    rig.add_examples(early + late)
    rig.steps(20)
    assert rig.value("trainer_event_to_snapshot_seconds_count", model="t2diff") == 20
    assert rig.value("trainer_event_to_snapshot_seconds_sum", model="t2diff") > 0
    assert rig.value("trainer_snapshot_version", model="t2diff") == 1
    assert rig.value("trainer_snapshots_published_total", model="two_tower", kind="full") == 1
    tested = rig.value("trainer_examples_total")
    rig.add_examples([make_example([1], 2, START_MS + HOUR_MS + 50 + n, user_id=n + 1) for n in range(40)])
    rig.stop.set()
    rig.steps(3)
    assert rig.value("trainer_examples_total") - tested <= 8


def test_snapshots_that_are_there_already_are_continued(settings: Settings, make_rig: MakeRig) -> None:
    for expected in ("v000001", "v000002"):
        rig = make_rig(settings)
        rig.add_items(5)
        rig.add_examples([make_example([1], 2, START_MS + n * HOUR_MS, user_id=n + 1) for n in range(2)])
        rig.steps(10)
        assert live(settings.snapshots, "t2diff") == expected
        assert read(settings.snapshots, "t2diff", expected).manifest.version == expected
        rig.close()


def test_a_snapshot_that_the_gate_rejects_is_kept_and_what_was_live_stays(
    settings: Settings, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = [Verdict(passed=passed, reason="because") for passed in (True, False)]
    monkeypatch.setattr(Gatekeeper, "_verdict", lambda *_: verdicts[0] if len(verdicts) == 1 else verdicts.pop(0))
    rig = make_rig(small_settings(settings.snapshots.parent, models=("two_tower",), gate={"judge": "recall"}))
    rig.add_items(5)
    rig.add_examples([make_example([1], 2, START_MS + n * HOUR_MS, user_id=n + 1) for n in range(3)])
    rig.steps(10)
    assert live(settings.snapshots, "two_tower") == "v000001"
    assert read(settings.snapshots, "two_tower", "v000002").manifest.gate == {"passed": False, "reason": "because"}
    assert rig.value("trainer_snapshots_published_total", model="two_tower", kind="full") == 1
    assert rig.value("trainer_snapshots_rejected_total", model="two_tower") == 1


@pytest.mark.e2e
@pytest.mark.parametrize("kafka", ["apache", pytest.param("embedded", marks=pytest.mark.proof)], indirect=True)
def test_the_real_process_publishes_from_a_real_broker_and_stops_on_a_signal(
    tmp_path: Path, kafka: KafkaSettings
) -> None:
    clock = SystemClock()
    with Supervisor(tmp_path / "logs", clock) as supervisor:
        settings = small_settings(tmp_path).model_copy(update={"kafka": kafka})
        producer = bus.producer(kafka)
        for item_id in range(1, 13):
            producer.send(kafka.topic(bus.ITEMS), key=bus.key_of(item_id), value=make_item(item_id).SerializeToString())
        topic = kafka.topic(bus.EXAMPLES)
        for example in markov_examples(100, 12):
            producer.send(topic, value=example.SerializeToString(), partition=example.user_id % 2)
        producer.flush()
        producer.close()
        dump(settings, tmp_path / "settings.yaml")
        child = supervisor.start_worker("trainer", ["trainer"], tmp_path / "settings.yaml")
        supervisor.wait_ready([child])
        deadline = clock.elapsed_s() + 30
        while live(settings.snapshots, "t2diff") != "v000001":
            supervisor.check()
            assert clock.elapsed_s() < deadline
        metrics = read_metrics([int(child.facts["metrics_port"])])
        assert metrics.total("trainer_snapshot_version", model="two_tower") == 1
        supervisor.stop(child)
        assert child.process.returncode == 0
        assert read(settings.snapshots, "t2diff", "v000001").manifest.offsets == {
            f"{kafka.topic(bus.EXAMPLES)}:{partition}": 30 for partition in range(2)
        }
