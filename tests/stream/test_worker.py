"""The worker around the steps: a real broker and a real Feast store."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from contracts import bus
from contracts.clock import ManualClock, SystemClock
from contracts.settings import Arm, Experiment, Settings
from contracts.wire.events_pb2 import DeadLetter, Example, ExposedItem, Exposure, Feedback, Item
from driftline import broker
from driftline.supervise import Supervisor
from feature_repo.store import UserSequences, apply
from stream.worker import StreamWorker

SENT_MS = 5_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    clock = SystemClock()
    with Supervisor(tmp_path / "logs", clock) as supervisor:
        kafka = broker.start_embedded(supervisor, clock)
        broker.prepare(kafka)
        apply(tmp_path / "features")
        yield Settings(
            kafka=kafka,
            feature_repo=tmp_path / "features",
            snapshots=tmp_path,
            state=tmp_path,
            experiment=Experiment(
                name="e",
                salt="s",
                start_ms=0,
                end_ms=1,
                arms={"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="t2diff")},
                control="a",
            ),
        )


class Sender:
    """Sends to the topics of one run."""

    def __init__(self, settings: Settings) -> None:
        self._kafka = settings.kafka
        self._producer: KafkaProducer = bus.producer(settings.kafka)

    def send(self, topic: str, value: bytes, user_id: int = 0, timestamp_ms: int = SENT_MS) -> None:
        partition = 0 if topic == bus.ITEMS else bus.partition_of(user_id, self._kafka.partitions)
        self._producer.send(
            self._kafka.topic(topic),
            key=bus.key_of(user_id),
            value=value,
            partition=partition,
            timestamp_ms=timestamp_ms,
            headers=[(bus.SENT_AT, str(SENT_MS).encode())],
        )

    def close(self) -> None:
        self._producer.close()


def read_all(settings: Settings, topic: str, count: int) -> list[bytes]:
    consumer = bus.consumer(settings.kafka, [topic], None)
    values: list[bytes] = []
    while len(values) < count:
        for records in consumer.poll(100).values():
            values += [record.value for record in records]
    consumer.close()
    return values


def exposure(user_id: int, *items: int) -> bytes:
    return Exposure(
        schema_version=1,
        event_id=f"r{user_id}",
        request_id=f"r{user_id}",
        user_id=user_id,
        time_ms=1000,
        arm="a",
        items=[ExposedItem(item_id=item) for item in items],
    ).SerializeToString()


def feedback(user_id: int, item_id: int, time_ms: int, **changes: object) -> bytes:
    fields = {
        "schema_version": 1,
        "event_id": f"{user_id}/{item_id}/{time_ms}",
        "request_id": f"r{user_id}",
        "user_id": user_id,
        "item_id": item_id,
        "time_ms": time_ms,
        "play_time_ms": 9,
        "effective_view": True,
        "follow": False,
    }
    return Feedback(
        **{name: value for name, value in (fields | changes).items() if value is not None}
    ).SerializeToString()


def test_events_become_features_examples_and_dead_letters(settings: Settings) -> None:
    sender = Sender(settings)
    for item_id in (1, 2, 3):
        sender.send(bus.ITEMS, Item(schema_version=1, item_id=item_id).SerializeToString())
    for user_id in (1, 2):
        sender.send(bus.EXPOSURES, exposure(user_id, 1, 2, 3), user_id)
        sender.send(bus.FEEDBACK, feedback(user_id, 1, 2000), user_id)
        sender.send(bus.FEEDBACK, feedback(user_id, 2, 3000, effective_view=False), user_id)
        sender.send(bus.FEEDBACK, feedback(user_id, 3, 4000), user_id)
        sender.send(bus.FEEDBACK, feedback(user_id, 3, 4000), user_id)
    bad = {
        "undecodable": b"\xff\xff\xff",
        "missing_field": feedback(1, 1, 5000, play_time_ms=None),
        "out_of_range": feedback(1, 1, 5000, play_time_ms=-1),
        "future_timestamp": feedback(1, 1, SENT_MS + 10**9),
        "unknown_item": feedback(1, 99, 5000),
        "unknown_version": feedback(1, 1, 5000, schema_version=7),
    }
    for value in bad.values():
        sender.send(bus.FEEDBACK, value, 1)
    sender.close()

    features = UserSequences(settings.feature_repo)
    producer = bus.producer(settings.kafka)
    consumer = bus.consumer(
        settings.kafka, [bus.ITEMS, bus.EXPOSURES, bus.FEEDBACK], settings.kafka.topic_prefix + "stream"
    )
    worker = StreamWorker(settings, consumer, producer, features, ManualClock(SENT_MS + 250))
    worker.read_catalogue(threading.Event())
    events = 0
    while events < 10 + len(bad):
        events += worker.step()

    for user_id, row in zip((1, 2), features.read([1, 2]), strict=True):
        assert row is not None
        assert list(row.item_ids) == [1, 2, 3]
        assert list(row.effective_views) == [1, 0, 1]
        assert list(row.sessions) == [0, 0, 0]
        assert (row.user_id, row.last_event_ms) == (user_id, 4000)
    assert features.read([3]) == [None]

    examples = [Example.FromString(value) for value in read_all(settings, bus.EXAMPLES, 4)]
    assert sorted((e.user_id, e.item_id, tuple(e.history.item_ids)) for e in examples) == [
        (1, 1, ()),
        (1, 3, (1, 2)),
        (2, 1, ()),
        (2, 3, (1, 2)),
    ]
    assert all(e.sent_at_ms == SENT_MS and e.arm == "a" for e in examples)

    letters = [DeadLetter.FromString(value) for value in read_all(settings, bus.DEAD_LETTERS, len(bad))]
    assert {letter.reason: letter.value for letter in letters} == bad

    committed = sum(consumer.committed(tp) or 0 for tp in bus.partitions_of(settings.kafka, [bus.FEEDBACK]))
    assert committed == 8 + len(bad)
    outcome = worker.metrics.registry.get_sample_value
    counted = {
        name: outcome("stream_outcomes_total", {"topic": "feedback", "outcome": name})
        for name in ("example", "non_positive", "duplicate", "dead_letter")
    }
    assert counted == {"example": 4, "non_positive": 2, "duplicate": 2, "dead_letter": len(bad)}
    assert outcome("stream_event_to_feature_seconds_sum") == pytest.approx(6 * 0.25)
    consumer.close()
    producer.close()
