"""Reading to a log's end on both brokers; without gaps on the embedded one, where a fetch may have them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from kafka import KafkaConsumer, TopicPartition

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from contracts.runtime.clock import SystemClock
from driftline.processes import broker
from driftline.processes.supervisor import Supervisor
from tests.serving.replicas import until


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


class Log(consumers.LogEnd):
    """A log of which a consumer has fetched up to `position`."""

    def __init__(self, position: int, end: int | None) -> None:
        self._position, self._end = position, end

    def position(self, partition: TopicPartition) -> int:
        return self._position

    def end(self, partition: TopicPartition) -> int | None:
        return self._end


WHERE = TopicPartition("items", 0)


def test_a_log_that_was_never_fetched_is_not_at_its_end_and_has_no_lag() -> None:
    log = Log(0, None)
    assert not log.at_end(WHERE)
    assert log.lag(WHERE, 0) == 0
    assert not log.is_another_log(WHERE, 5)


def test_a_log_is_at_its_end_where_the_position_or_the_caller_has_come_to_it() -> None:
    assert Log(7, 7).at_end(WHERE)
    assert not Log(5, 7).at_end(WHERE)
    assert Log(5, 7).at_end(WHERE, fetched=7)
    assert Log(5, 7).lag(WHERE, 4) == 3


def test_a_log_that_ends_or_is_read_before_what_was_read_of_it_is_another_one() -> None:
    log = Log(7, 7)
    assert log.is_another_log(WHERE, 8)
    assert not log.is_another_log(WHERE, 7)
    assert log.is_another_log(WHERE, 5, [SimpleNamespace(offset=0)])
    assert not log.is_another_log(WHERE, 5, [SimpleNamespace(offset=5)])


def test_where_a_consumer_is_does_not_depend_on_the_broker(tmp_path: Path) -> None:
    """Whoever asks for its position or for the log's end while the broker is away gets what was last known."""
    where = TopicPartition("driftline.feedback", 0)
    with Supervisor(tmp_path, SystemClock()) as supervisor:
        settings = broker.start_embedded(supervisor, SystemClock())
        broker.prepare(settings)
        sender = bus.producer(settings)
        sender.send(where.topic, value=b"v", partition=0).get(20)
        client = consumers.consumer(settings, [bus.FEEDBACK], None)
        try:
            until(lambda: bool(client.poll(200).get(where)))
            sender.close()
            (running,) = supervisor.children
            supervisor.stop(running)
            until(lambda: client.poll(50) == {} and not client.connected)
            for _ in range(5):
                client.poll(50)
                assert (client.position(where), client.at_end(where), client.lag(where, 0)) == (1, True, 1)
        finally:
            client.close()
