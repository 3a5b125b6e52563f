"""A settings file's worth of settings, a sender, and a way to run a worker until it has taken everything in."""

import threading
from pathlib import Path
from typing import Self

from kafka import KafkaProducer

from contracts.config.settings import Arm, Experiment, KafkaSettings, Settings, StreamSettings
from contracts.kafka import bus, consumers
from contracts.runtime.clock import Clock
from contracts.wire.events_pb2 import Item
from stream.deliver import At
from stream.worker import open_worker
from tests.stream.step_cases import Event, Exposure

SENT_MS = 5_000_000


def settings_for(kafka: KafkaSettings, directory: Path, **stream: int) -> Settings:
    return Settings(
        kafka=kafka,
        feature_repo=directory / "features",
        snapshots=directory,
        state=directory / "state",
        stream=StreamSettings(**stream),
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

    def __init__(self, kafka: KafkaSettings, **options: int) -> None:
        self._kafka = kafka
        self._producer: KafkaProducer = bus.producer(kafka, **options)

    def send(self, topic: str, value: bytes | None, user_id: int = 0, timestamp_ms: int = SENT_MS) -> None:
        partition = 0 if topic == bus.ITEMS else bus.partition_of(user_id, self._kafka.partitions)
        self._producer.send(
            self._kafka.topic(topic),
            key=bus.key_of(user_id),
            value=value,
            partition=partition,
            timestamp_ms=timestamp_ms,
            headers=[(bus.SENT_AT, str(SENT_MS).encode())],
        )

    def items(self, *item_ids: int) -> None:
        for item_id in item_ids:
            self.send(bus.ITEMS, Item(schema_version=1, item_id=item_id).SerializeToString(), item_id)
        self.flush()

    def events(self, *events: Event) -> None:
        """Send events as they happen: a record's timestamp is its event's time."""
        for event in events:
            topic = bus.EXPOSURES if isinstance(event, Exposure) else bus.FEEDBACK
            self.send(topic, event.SerializeToString(), event.user_id, event.time_ms)
        self.flush()

    def flush(self) -> None:
        self._producer.flush()

    def close(self) -> None:
        self._producer.close()


class Running:
    """A worker in this process, stepped by the test."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None, at: At = lambda _step: None) -> None:
        self.stop = threading.Event()
        self.worker = open_worker(settings, self.stop, clock=clock, at=at)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.worker.close()

    def value(self, name: str, **labels: str) -> float | None:
        """What one of the worker's metrics says."""
        return self.worker.metrics.registry.get_sample_value(name, labels)

    def take(self, count: int) -> None:
        """Step until `count` more records have been taken in."""
        while count > 0:
            count -= self.worker.step()


def read_all(kafka: KafkaSettings, topic: str) -> list[bytes]:
    """What a topic holds now, partition by partition."""
    return [
        record.value
        for where in bus.partitions_of(kafka, [topic])
        for record in consumers.read_to_end(kafka, topic, where.partition, 0)
    ]
