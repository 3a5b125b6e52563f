"""Topics are those that the settings speak of, and records stay in them as they were sent."""

import pytest

from contracts.config.settings import KafkaSettings, SettingsError
from contracts.kafka import bus, consumers
from driftline.processes import broker


def test_topics_that_init_made_are_accepted(kafka: KafkaSettings) -> None:
    bus.check_topics(kafka)


def test_a_missing_topic_is_one_sentence_that_says_what_creates_it(kafka: KafkaSettings) -> None:
    with pytest.raises(SettingsError, match=r"has no topic other\.items; `driftline init` creates it\.$"):
        bus.check_topics(kafka.model_copy(update={"topic_prefix": "other."}))


def test_another_number_of_partitions_is_refused(kafka: KafkaSettings) -> None:
    with pytest.raises(SettingsError, match=r"exposures has 2 partitions, and the settings say 4"):
        bus.check_topics(kafka.model_copy(update={"partitions": 4}))


def test_topics_that_are_there_are_left_as_they_are(kafka: KafkaSettings) -> None:
    producer = bus.producer(kafka)
    for n in range(5):
        producer.send(kafka.topic(bus.ITEMS), key=bus.key_of(n), value=b"kept")
    producer.close()
    broker.prepare(kafka)
    assert len(list(consumers.read_to_end(kafka, bus.ITEMS, 0, 0))) == 5


def test_records_of_long_ago_are_kept(kafka: KafkaSettings) -> None:
    producer = bus.producer(kafka)
    producer.send(kafka.topic(bus.FEEDBACK), value=b"old", partition=1, timestamp_ms=1000)
    producer.close()
    [record] = consumers.read_to_end(kafka, bus.FEEDBACK, 1, 0)
    assert (record.value, record.timestamp) == (b"old", 1000)
