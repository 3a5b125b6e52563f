"""The shell around the engine: a log that is held in memory, and once the real process on a real broker."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from contracts import bus
from contracts.clock import ManualClock, SystemClock
from contracts.settings import KafkaSettings, Settings, dump
from contracts.snapshot import live, read, read_manifest
from contracts.wire.events_pb2 import DeadLetter, Example
from driftline import scrape
from driftline.supervise import Supervisor
from tests.trainer.trainer_cases import HOUR_MS, START_MS, make_example, make_item, markov_examples, small_settings
from trainer.engine import Engine
from trainer.gate import Verdict
from trainer.gatekeeper import Gatekeeper
from trainer.meters import Meters
from trainer.worker import TrainerWorker

pytestmark = pytest.mark.usefixtures("trace_once")
ITEMS = TopicPartition("driftline.items", 0)
EXAMPLES = [TopicPartition("driftline.examples", n) for n in range(2)]


class MemoryLog:
    """A consumer over records in memory that hands out at most `per_poll` records, from one partition at a time."""

    def __init__(self, per_poll: int) -> None:
        self._per_poll = per_poll
        self._records: dict[TopicPartition, list[bytes]] = {tp: [] for tp in (ITEMS, *EXAMPLES)}
        self._position = dict.fromkeys(self._records, 0)
        self._paused: set[TopicPartition] = set()
        self._turn = 0
        self.commits: list[dict[TopicPartition, OffsetAndMetadata]] = []

    def append(self, partition: TopicPartition, value: bytes) -> None:
        self._records[partition].append(value)

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        partitions = list(self._records)
        for _ in partitions:
            tp = partitions[self._turn % len(partitions)]
            self._turn += 1
            start = self._position[tp]
            values = self._records[tp][start : start + min(self._per_poll, max_records)]
            if values and tp not in self._paused:
                self._position[tp] += len(values)
                return {tp: [_record(tp, start + i, value) for i, value in enumerate(values)]}
        return {}

    def position(self, partition: TopicPartition) -> int:
        return self._position[partition]

    def highwater(self, partition: TopicPartition) -> int:
        return len(self._records[partition])

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused.difference_update(partitions)

    def paused(self) -> set[TopicPartition]:
        return set(self._paused)

    def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        self.commits.append(offsets)


def _record(tp: TopicPartition, offset: int, value: bytes) -> SimpleNamespace:
    return SimpleNamespace(
        topic=tp.topic, partition=tp.partition, offset=offset, key=b"k", value=value, timestamp=START_MS, headers=()
    )


class Outbox:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def send(self, topic: str, *, key: bytes, value: bytes, timestamp_ms: int) -> None:
        self.sent.append((topic, value))

    def flush(self) -> None: ...


class Rig:
    """A worker with everything around it in memory."""

    def __init__(self, settings: Settings, per_poll: int = 50) -> None:
        self.settings = settings
        self.log, self.outbox, self.meters = MemoryLog(per_poll), Outbox(), Meters()
        self.clock, self.stop = ManualClock(START_MS), threading.Event()
        engine = Engine(settings, self.meters)
        parts: Any = (self.log, self.outbox, engine, self.meters, self.clock, self.stop)
        self.worker = TrainerWorker(settings, *parts)

    def add_items(self, count: int) -> None:
        for item_id in range(1, count + 1):
            self.log.append(ITEMS, make_item(item_id).SerializeToString())

    def add_examples(self, examples: list[Example]) -> None:
        for example in examples:
            self.log.append(EXAMPLES[example.user_id % 2], example.SerializeToString())

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.clock.advance(200)
            self.worker.step()

    def value(self, name: str, **labels: str) -> float:
        return self.meters.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path)


def test_polls_leave_no_trace_in_the_snapshots(tmp_path: Path) -> None:
    checksums = []
    for per_poll in (3, 50):
        rig = Rig(small_settings(tmp_path / str(per_poll)), per_poll)
        rig.add_items(12)
        rig.worker.read_catalogue()
        rig.add_examples(markov_examples(150, 12))
        rig.steps(80)
        versions = [live(rig.settings.snapshots, model) for model in ("two_tower", "t2diff")]
        assert versions == ["v000002", "v000002"]
        manifests = [read_manifest(rig.settings.snapshots, model, "v000002") for model in ("two_tower", "t2diff")]
        checksums.append([manifest.checksums for manifest in manifests])
    assert checksums[0] == checksums[1]


def test_the_catalogue_is_read_to_its_end_before_any_example(settings: Settings) -> None:
    rig = Rig(settings, per_poll=5)
    rig.add_items(23)
    rig.add_examples(markov_examples(20, 23))
    rig.worker.read_catalogue()
    assert rig.log.position(ITEMS) == 23
    assert [rig.log.position(tp) for tp in EXAMPLES] == [0, 0]
    assert not rig.log.paused()


def test_items_that_come_later_are_learned_about(settings: Settings) -> None:
    rig = Rig(settings)
    rig.add_items(5)
    rig.worker.read_catalogue()
    rig.log.append(ITEMS, make_item(50).SerializeToString())
    rig.steps(3)
    rig.add_examples([make_example([1], 50, START_MS + n, user_id=n + 1) for n in range(8)])
    rig.steps(12)
    assert rig.value("trainer_examples_total") == 8
    assert rig.value("trainer_skipped_examples_total") == 0


def test_what_cannot_be_read_goes_to_the_dead_letters_and_the_rest_goes_on(settings: Settings) -> None:
    rig = Rig(settings)
    rig.add_items(5)
    rig.log.append(ITEMS, b"\xff")
    rig.worker.read_catalogue()
    rig.log.append(EXAMPLES[0], b"junk")
    no_user = make_example([1], 2)
    no_user.user_id = 0
    rig.log.append(EXAMPLES[0], no_user.SerializeToString())
    rig.add_examples([make_example([1], 2, START_MS + n, user_id=n + 1) for n in range(8)])
    rig.steps(12)
    letters = [DeadLetter.FromString(value) for _, value in rig.outbox.sent]
    assert {topic for topic, _ in rig.outbox.sent} == {"driftline.deadletters"}
    assert [(letter.reason, letter.topic, letter.offset) for letter in letters] == [
        ("undecodable", ITEMS.topic, 5),
        ("undecodable", EXAMPLES[0].topic, 0),
        ("out_of_range", EXAMPLES[0].topic, 1),
    ]
    assert letters[1].value == b"junk"
    assert rig.value("trainer_dead_letters_total", reason="undecodable") == 2
    assert rig.value("trainer_examples_total") == 8


def test_committed_offsets_show_what_was_taken_not_what_waits(settings: Settings) -> None:
    rig = Rig(settings)
    rig.add_items(5)
    rig.worker.read_catalogue()
    rig.add_examples([make_example([1], 2, START_MS + n, user_id=2) for n in range(3)])
    rig.steps(4)
    assert rig.log.position(EXAMPLES[0]) == 3
    assert rig.log.commits[-1][EXAMPLES[0]].offset == 0  # partition 1 may still have something earlier
    rig.steps(4)
    assert rig.log.commits[-1][EXAMPLES[0]].offset == 3  # it stayed silent
    commits = len(rig.log.commits)
    rig.steps(4)
    assert len(rig.log.commits) == commits


def test_a_partition_far_ahead_is_paused_until_the_others_follow(tmp_path: Path) -> None:
    rig = Rig(small_settings(tmp_path, poll_records=5), per_poll=5)
    rig.add_items(5)
    rig.worker.read_catalogue()
    rig.add_examples([make_example([1], 2, START_MS + 2 * n, user_id=2) for n in range(100)])
    rig.log.append(EXAMPLES[1], make_example([1], 2, START_MS + 1, user_id=1).SerializeToString())
    rig.log.pause(EXAMPLES[1])
    for _ in range(10):
        rig.log.pause(EXAMPLES[1])
        rig.worker._hold_back()
        rig.log.pause(EXAMPLES[1])
        rig.worker._take_in()
    assert rig.log.position(EXAMPLES[0]) == 20
    rig.log.resume(EXAMPLES[1])
    rig.steps(60)
    assert rig.log.commits[-1][EXAMPLES[0]].offset == 100


def test_a_stop_ends_the_step_and_freshness_is_measured_at_publication(settings: Settings) -> None:
    rig = Rig(settings)
    rig.add_items(5)
    rig.worker.read_catalogue()
    early = [make_example([1], 2, START_MS + n, user_id=n + 1) for n in range(20)]
    late = [make_example([1], 2, START_MS + HOUR_MS + n, user_id=n + 1) for n in range(20)]
    rig.add_examples(early + late)
    rig.steps(20)
    assert rig.value("trainer_event_to_snapshot_seconds_count", model="t2diff") == 20
    assert rig.value("trainer_event_to_snapshot_seconds_sum", model="t2diff") > 0
    assert rig.value("trainer_snapshot_version", model="t2diff") == 1
    assert rig.value("trainer_snapshots_published_total", model="two_tower") == 1
    tested = rig.value("trainer_examples_total")
    rig.add_examples([make_example([1], 2, START_MS + HOUR_MS + 50 + n, user_id=n + 1) for n in range(40)])
    rig.stop.set()
    rig.steps(3)
    assert rig.value("trainer_examples_total") - tested <= 8


def test_snapshots_that_are_there_already_are_continued(settings: Settings) -> None:
    for expected in ("v000001", "v000002"):
        rig = Rig(settings)
        rig.add_items(5)
        rig.worker.read_catalogue()
        rig.add_examples([make_example([1], 2, START_MS + n * HOUR_MS, user_id=n + 1) for n in range(2)])
        rig.steps(10)
        assert live(settings.snapshots, "t2diff") == expected
        assert read(settings.snapshots, "t2diff", expected).manifest.version == expected


def test_a_snapshot_that_the_gate_rejects_is_kept_and_what_was_live_stays(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = [Verdict(passed=passed, reason="because") for passed in (True, False)]
    monkeypatch.setattr(Gatekeeper, "_verdict", lambda *_: verdicts[0] if len(verdicts) == 1 else verdicts.pop(0))
    rig = Rig(small_settings(settings.snapshots.parent, models=("two_tower",)))
    rig.add_items(5)
    rig.worker.read_catalogue()
    rig.add_examples([make_example([1], 2, START_MS + n * HOUR_MS, user_id=n + 1) for n in range(3)])
    rig.steps(10)
    assert live(settings.snapshots, "two_tower") == "v000001"
    assert read(settings.snapshots, "two_tower", "v000002").manifest.gate == {"passed": False, "reason": "because"}
    assert rig.value("trainer_snapshots_published_total", model="two_tower") == 1
    assert rig.value("trainer_snapshots_rejected_total", model="two_tower") == 1


@pytest.mark.e2e
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
        metrics = scrape.read([int(child.facts["metrics_port"])])
        assert metrics.total("trainer_snapshot_version", model="two_tower") == 1
        supervisor.stop(child)
        assert child.process.returncode == 0
        assert read(settings.snapshots, "t2diff", "v000001").manifest.offsets == {
            f"{kafka.topic(bus.EXAMPLES)}:{partition}": 30 for partition in range(2)
        }
