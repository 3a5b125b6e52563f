"""Reading a log without gaps: a real broker, and a gap that it really has."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import TopicPartition

from contracts import bus
from contracts.clock import SystemClock
from contracts.settings import KafkaSettings
from driftline import broker
from driftline.supervise import Supervisor


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[KafkaSettings]:
    clock = SystemClock()
    with Supervisor(tmp_path, clock) as supervisor:
        settings = broker.start_embedded(supervisor, clock)
        broker.prepare(settings)
        yield settings


def send(settings: KafkaSettings, count: int) -> None:
    producer = bus.producer(settings)
    for n in range(count):
        producer.send(settings.topic(bus.ITEMS), value=str(n).encode())
    producer.close()


def read(consumer: bus.GaplessConsumer, count: int) -> list[int]:
    offsets: list[int] = []
    while len(offsets) < count:
        for records in consumer.poll(100).values():
            offsets += [record.offset for record in records]
    return offsets


def test_records_that_a_fetch_skipped_are_asked_for_again(kafka: KafkaSettings) -> None:
    send(kafka, 20)
    consumer = bus.consumer(kafka, [bus.ITEMS], None)
    assert isinstance(consumer, bus.GaplessConsumer)
    partition = TopicPartition(kafka.topic(bus.ITEMS), 0)
    read(consumer, 20)
    send(kafka, 20)
    # The client's own position jumps ahead, as it does when a fetch shows a later batch first.
    super(bus.GaplessConsumer, consumer).seek(partition, 30)
    assert read(consumer, 20) == list(range(20, 40))
    consumer.close()


def test_offsets_that_were_never_written_are_given_up(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "GAP_ATTEMPTS", 2)
    send(kafka, 10)
    consumer = bus.consumer(kafka, [bus.ITEMS], None)
    gone = range(3, 6)
    fetched = consumer._gapless
    partition = TopicPartition(kafka.topic(bus.ITEMS), 0)

    def without(tp: TopicPartition, records: list[object]) -> list[object]:
        return fetched(tp, [record for record in records if record.offset not in gone])  # type: ignore[attr-defined]

    monkeypatch.setattr(consumer, "_gapless", without)
    assert read(consumer, 7) == [0, 1, 2, 6, 7, 8, 9]
    assert consumer.position(partition) == 10
    consumer.close()
