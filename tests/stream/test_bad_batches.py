"""Batches that nobody can decode, in every topic: the stream worker and the archive go on, and so does a restart.

On the embedded broker: Apache Kafka refuses such a batch when it is sent (`tests/contracts/kafka/test_batches.py`).
"""

from pathlib import Path

import confluent_kafka
import pytest

from contracts.config.settings import KafkaSettings, Settings
from contracts.kafka import bus, consumers
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example
from feature_repo import offline
from feature_repo.offline import OfflineFiles
from feature_repo.store import apply
from stream.archive import Archive
from tests.contracts.kafka.batch_cases import GARBAGE, send_garbage
from tests.stream.step_cases import exposure, feedback
from tests.stream.stream_cases import SENT_MS, Running, Sender, read_all, settings_for

HUGE = 40 << 20  # bytes; more than the dead-letter topic takes
USER = 2  # whose events lie in partition 0
LOST = 5


@pytest.fixture
def settings(embedded: KafkaSettings, tmp_path: Path) -> Settings:
    apply(tmp_path / "features")
    return settings_for(embedded, tmp_path)


def letters(kafka: KafkaSettings) -> list[DeadLetter]:
    return [DeadLetter.FromString(value) for value in read_all(kafka, bus.DEAD_LETTERS)]


def send_odd(kafka: KafkaSettings, topic: str, key: bytes, value: bytes, sent_at: bytes | None) -> None:
    """Send one record whose size no limit of a topic sees, as it is compressed, with any header."""
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "compression.type": "zstd", "message.max.bytes": 4 * HUGE}
    )
    headers: list[tuple[str, str | bytes | None]] = [(bus.SENT_AT, sent_at)]
    producer.produce(kafka.topic(topic), key=key, value=value, partition=0, timestamp=SENT_MS, headers=headers)
    assert producer.flush(30) == 0


def test_keys_and_values_of_any_size_and_headers_of_any_kind_are_dead_letters_or_learned_from(
    settings: Settings,
) -> None:
    kafka = settings.kafka
    sender = Sender(kafka)
    sender.items(1)
    sender.events(exposure("r", 1000, (1,), user=USER))
    sender.close()
    good = feedback(1, 2000, "r", user=USER).SerializeToString()
    send_odd(kafka, bus.FEEDBACK, bytes(HUGE), b"junk", b"9" * 25)
    send_odd(kafka, bus.FEEDBACK, b"2", bytes(HUGE), b"9" * 5000)
    send_odd(kafka, bus.FEEDBACK, b"2", good, None)
    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        running.take(4)
        assert running.value("stream_outcomes_total", topic="feedback", outcome="example") == 1
    assert [(letter.reason, letter.offset, letter.key, letter.value) for letter in letters(kafka)] == [
        ("undecodable", 0, b"", b""),
        ("oversized", 1, b"2", b""),
    ]


def test_the_worker_goes_on_after_a_bad_batch_in_each_of_its_topics(settings: Settings) -> None:
    kafka = settings.kafka
    sender = Sender(kafka)
    topics = (bus.ITEMS, bus.EXPOSURES, bus.FEEDBACK)
    send_garbage(kafka, bus.ITEMS, LOST)
    sender.items(1, 2)
    send_garbage(kafka, bus.EXPOSURES, LOST)
    sender.events(exposure("r", 1000, (1, 2), user=USER))
    send_garbage(kafka, bus.FEEDBACK, LOST)
    sender.events(feedback(1, 2000, "r", user=USER))

    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        running.take(4)
        assert running.value("stream_outcomes_total", topic="feedback", outcome="example") == 1
        assert running.value("stream_dead_letters_total", reason="unreadable_batch") == len(topics)
        for topic in topics:
            labels = {"topic": kafka.topic(topic), "partition": "0"}
            assert (running.value("kafka_unreadable_batches_total", **labels) or 0) >= 1
        assert running.value("stream_lag", partition="0") == 0
        assert running.value("stream_held_feedback") == 0

    first = {kafka.topic(topic): offset for topic, offset in zip(topics, (4, 4, 4), strict=True)}
    found = {letter.topic: letter for letter in letters(kafka)}
    assert {topic: letter.offset for topic, letter in found.items()} == first
    for letter in found.values():
        assert letter.reason == "unreadable_batch"
        assert letter.detail.startswith("the batch of offsets 0 to 4 cannot be decoded: ZstdError")
        assert GARBAGE in letter.value

    # A restart goes on from its state, and what it reads again of the items is no second letter.
    sender.events(exposure("s", 3000, (1, 2), user=USER), feedback(2, 4000, "s", user=USER))
    sender.close()
    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        running.take(2)
        assert running.value("stream_outcomes_total", topic="feedback", outcome="example") == 1
    assert len(letters(kafka)) == len(topics)
    assert len(read_all(kafka, bus.EXAMPLES)) == 2


def test_records_that_are_no_dead_letters_and_no_examples_do_not_stop_a_restart(settings: Settings) -> None:
    """At its start a worker looks at what the logs hold of its last outbox; others may write to them."""
    kafka = settings.kafka
    sender = Sender(kafka)
    sender.items(1)
    sender.events(exposure("r", 1000, (1,), user=USER), feedback(1, 2000, "r", user=USER))
    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        running.take(2)
    for topic in (bus.EXAMPLES, bus.DEAD_LETTERS):
        send_garbage(kafka, topic, LOST)
        sender.send(topic, b"\xff\xff\xff", 0)
        sender.send(topic, None, 0)
    sender.events(exposure("s", 3000, (1,), user=USER), feedback(1, 4000, "s", user=USER))
    sender.close()
    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        running.take(2)
        assert running.value("stream_outcomes_total", topic="feedback", outcome="example") == 1


def test_the_archive_goes_on_after_a_bad_batch(settings: Settings) -> None:
    kafka = settings.kafka
    sender = Sender(kafka)
    example = Example(schema_version=1, event_id="e", user_id=USER, item_id=1, time_ms=1000)
    send_garbage(kafka, bus.EXAMPLES, LOST)
    send_odd(kafka, bus.EXAMPLES, b"2", bytes(HUGE), None)
    sender.send(bus.EXAMPLES, example.SerializeToString(), USER)
    sender.close()
    files = OfflineFiles(offline.prepare(settings.feature_repo))
    consumer = consumers.consumer(kafka, [], kafka.topic_prefix + "archive", wait_ms=20)
    producer = bus.producer(kafka, max_request_size=bus.LARGEST_RECORD_BYTES)
    with files.claim():
        archive = Archive(settings, consumer, producer, files, ManualClock(SENT_MS))
        taken = 0
        while taken < 3:
            taken += archive.step()
        archive.finish()
    consumer.close()
    producer.close()
    assert files.ends() == {0: LOST + 2}
    letter, huge = letters(kafka)
    assert (huge.reason, huge.offset, huge.value) == ("oversized", LOST, b"")
    assert (letter.reason, letter.topic, letter.offset) == ("unreadable_batch", kafka.topic(bus.EXAMPLES), LOST - 1)
