"""Writing and reading on both brokers; without gaps on the embedded one, where a fetch may have them."""

import pytest
from kafka import KafkaConsumer, TopicPartition

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from driftline.processes import broker


def send(settings: KafkaSettings, count: int) -> None:
    producer = bus.producer(settings)
    for n in range(count):
        producer.send(settings.topic(bus.ITEMS), key=bus.key_of(n), value=str(n).encode())
    producer.close()


def read(consumer: KafkaConsumer, count: int) -> list[int]:
    offsets: list[int] = []
    while len(offsets) < count:
        for records in consumer.poll(100).values():
            offsets += [record.offset for record in records]
    return offsets


def test_a_consumer_reads_from_the_first_record_on_in_order(kafka: KafkaSettings) -> None:
    send(kafka, 20)
    consumer = consumers.consumer(kafka, [bus.ITEMS], None)
    assert read(consumer, 20) == list(range(20))
    consumer.close()


def test_a_log_is_read_to_its_end_from_where_one_asks(kafka: KafkaSettings) -> None:
    assert list(consumers.read_to_end(kafka, bus.ITEMS, 0, 0)) == []
    send(kafka, 20)
    assert [int(record.value) for record in consumers.read_to_end(kafka, bus.ITEMS, 0, 15)] == list(range(15, 20))


def test_topics_that_are_there_are_left_as_they_are(kafka: KafkaSettings) -> None:
    send(kafka, 5)
    broker.prepare(kafka)
    assert len(list(consumers.read_to_end(kafka, bus.ITEMS, 0, 0))) == 5


def test_records_of_long_ago_are_kept(kafka: KafkaSettings) -> None:
    producer = bus.producer(kafka)
    producer.send(kafka.topic(bus.FEEDBACK), value=b"old", partition=1, timestamp_ms=1000)
    producer.close()
    [record] = consumers.read_to_end(kafka, bus.FEEDBACK, 1, 0)
    assert (record.value, record.timestamp) == (b"old", 1000)


def test_records_that_a_fetch_skipped_are_asked_for_again(embedded: KafkaSettings) -> None:
    send(embedded, 20)
    consumer = consumers.consumer(embedded, [bus.ITEMS], None)
    assert isinstance(consumer, consumers.GaplessConsumer)
    partition = TopicPartition(embedded.topic(bus.ITEMS), 0)
    read(consumer, 20)
    send(embedded, 20)
    # The client's own position jumps ahead, as it does when a fetch shows a later batch first.
    super(consumers.GaplessConsumer, consumer).seek(partition, 30)
    assert read(consumer, 20) == list(range(20, 40))
    consumer.close()


def test_offsets_that_were_never_written_are_given_up(embedded: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "GAP_ATTEMPTS", 2)
    send(embedded, 10)
    consumer = consumers.consumer(embedded, [bus.ITEMS], None)
    gone = range(3, 6)
    fetched = consumer._gapless
    partition = TopicPartition(embedded.topic(bus.ITEMS), 0)

    def without(tp: TopicPartition, records: list[object]) -> list[object]:
        return fetched(tp, [record for record in records if record.offset not in gone])  # type: ignore[attr-defined]

    monkeypatch.setattr(consumer, "_gapless", without)
    assert read(consumer, 7) == [0, 1, 2, 6, 7, 8, 9]
    assert consumer.position(partition) == 10
    consumer.close()
