"""Every consumer reads what was committed: kafka-python on Apache Kafka, with a foreign producer's transactions."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers


class Transactions:
    """A producer of librdkafka's that writes to the examples' partition 0."""

    def __init__(self, kafka: KafkaSettings, name: str) -> None:
        self._topic = kafka.topic(bus.EXAMPLES)
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "transactional.id": kafka.topic(name),
                "compression.type": "lz4",
                "linger.ms": 0,
            }
        )
        self._producer.init_transactions(30)

    def begin(self, *values: bytes) -> None:
        """Begin a transaction, and have the broker hold its records."""
        self._producer.begin_transaction()
        for value in values:
            self._producer.produce(self._topic, value, partition=0)
        self._producer.flush()

    def commit(self) -> None:
        self._producer.commit_transaction(30)

    def abort(self) -> None:
        self._producer.abort_transaction(30)


def read(kafka: KafkaSettings) -> list[bytes]:
    return [record.value for record in consumers.read_to_end(kafka, bus.EXAMPLES, 0, 0)]


@pytest.fixture
def transactions(apache: KafkaSettings) -> Callable[[str], Transactions]:
    return lambda name: Transactions(apache, name)


def test_what_was_aborted_is_not_read_and_what_is_open_is_not_waited_for(
    apache: KafkaSettings, transactions: Callable[[str], Transactions]
) -> None:
    first, second = transactions("first"), transactions("second")
    first.begin(b"1", b"2")
    first.commit()
    second.begin(b"aborted 1")
    first.begin(b"3")
    first.commit()
    second.abort()
    assert read(apache) == [b"1", b"2", b"3"]
    first.begin(b"4")
    assert read(apache) == [b"1", b"2", b"3"], "an open transaction ends the log for who reads what is committed"
    second.begin(b"5")
    second.commit()
    assert read(apache) == [b"1", b"2", b"3"], "what was committed after it waits for it"
    first.abort()
    assert read(apache) == [b"1", b"2", b"3", b"5"]


def test_an_aborted_transaction_of_one_producer_hides_nothing_that_it_commits_later(
    apache: KafkaSettings, transactions: Callable[[str], Transactions]
) -> None:
    only = transactions("only")
    for number in range(20):
        only.begin(b"%d" % number)
        (only.commit if number % 3 else only.abort)()
    assert read(apache) == [b"%d" % number for number in range(20) if number % 3]


def test_the_position_passes_the_marks_of_transactions(
    apache: KafkaSettings, transactions: Callable[[str], Transactions]
) -> None:
    only = transactions("only")
    only.begin(b"1")
    only.commit()
    only.begin(b"2")
    only.abort()
    client: Any = consumers.consumer(apache, [bus.EXAMPLES], None)
    try:
        (where, other) = bus.partitions_of(apache, [bus.EXAMPLES])
        client.pause(other)
        values: list[bytes] = []
        while not client.at_end(where):
            values += [record.value for record in client.poll(200).get(where, ())]
        assert values == [b"1"]
        assert client.position(where) == client.end(where) == 4, "two records and two marks"
    finally:
        client.close()
