"""Feedback whose producer has hashed its key, as every Kafka client does by itself, and feedback without exposures."""

from collections.abc import Iterator
from pathlib import Path

import confluent_kafka
import pytest
from structlog.testing import capture_logs

from contracts.config.settings import KafkaSettings, Settings
from contracts.kafka import bus
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example, Feedback
from driftline.deadletters import letters, resend
from feature_repo.store import apply
from stream.held import WARN_AFTER_S, WARN_EVERY_S
from tests.stream.step_cases import exposure, feedback
from tests.stream.stream_cases import SENT_MS, Running, Sender, read_all, settings_for

USERS = range(1, 41)
HASHES = ["consistent_random", "murmur2_random"]  # librdkafka's own, and that of Java's clients and franz-go


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    apply(tmp_path / "features")
    return settings_for(kafka, tmp_path)


def send_hashed(kafka: KafkaSettings, topic: str, events: Iterator[Feedback], partitioner: str) -> None:
    """Send with librdkafka, which chooses each partition by a hash of the key."""
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": partitioner})
    for event in events:
        producer.produce(
            kafka.topic(topic),
            key=str(event.user_id),
            value=event.SerializeToString(),
            timestamp=event.time_ms,
        )
    assert producer.flush(30) == 0


@pytest.mark.parametrize("partitioner", HASHES)
def test_feedback_by_another_hash_is_learned_from_or_a_dead_letter_and_a_replay_mends_it(
    settings: Settings, partitioner: str
) -> None:
    kafka = settings.kafka
    sender = Sender(kafka)
    sender.items(1)
    sender.events(*(exposure(f"r{user}", 1000 + user, (1,), user=user) for user in USERS))
    sender.close()
    send_hashed(kafka, bus.FEEDBACK, (feedback(1, 2000 + user, f"r{user}", user=user) for user in USERS), partitioner)

    def learned() -> set[int]:
        return {Example.FromString(value).user_id for value in read_all(kafka, bus.EXAMPLES)}

    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        running.take(2 * len(USERS))
        assert running.value("stream_held_feedback") == 0
        wrong = [DeadLetter.FromString(value) for value in read_all(kafka, bus.DEAD_LETTERS)]
        assert {letter.reason for letter in wrong} == {"wrong_partition"}
        lost = {Feedback.FromString(letter.value).user_id for letter in wrong}
        assert 5 < len(lost) < len(USERS)
        assert learned() == set(USERS) - lost
        for letter in wrong:
            user = Feedback.FromString(letter.value).user_id
            assert letter.detail.startswith(
                f"user {user} belongs on partition {user % 2} (user_id mod 2), and this is on"
            )

        log = letters.read(kafka)
        outcome = resend.replay(kafka, log.letters, resend.places(kafka), ManualClock(SENT_MS))
        assert not outcome.failed
        running.take(len(lost))
        assert learned() == set(USERS)
    assert len(read_all(kafka, bus.DEAD_LETTERS)) == 2 * len(lost)  # each with the note that it was sent again


def test_exposures_in_a_wrong_partition_are_dead_letters_too(settings: Settings) -> None:
    kafka = settings.kafka
    producer = bus.producer(kafka)
    value = exposure("r", 1000, (1,), user=1).SerializeToString()
    producer.send(kafka.topic(bus.EXPOSURES), key=b"1", value=value, partition=0, timestamp_ms=1000)
    producer.close()
    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        running.take(1)
        assert running.value("stream_dead_letters_total", reason="wrong_partition") == 1


def test_feedback_that_waits_for_exposures_is_warned_of_now_and_then(settings: Settings) -> None:
    sender = Sender(settings.kafka)
    sender.items(1)
    sender.events(feedback(1, 2000, "r", user=1), feedback(1, 2000, "s", user=2), feedback(1, 2000, "t", user=2))
    clock = ManualClock(SENT_MS)
    warnings: list[object] = []

    def look(running: Running, after_s: float) -> None:
        clock.advance(int(1000 * after_s))
        with capture_logs() as logs:
            running.worker.step()
        warnings.extend(
            each["records_by_partition"] for each in logs if each["event"].startswith("feedback waits for exposures")
        )

    with Running(settings, clock=clock) as running:
        running.take(3)
        look(running, WARN_AFTER_S - 1)
        assert (warnings, running.value("stream_held_feedback_seconds")) == ([], WARN_AFTER_S - 1)
        look(running, 1)
        look(running, WARN_EVERY_S - 1)
        assert warnings == [{0: 2, 1: 1}]
        look(running, 1)
        assert warnings == [{0: 2, 1: 1}] * 2
        sender.events(*(exposure(request, 1000, (1,), user=user) for request, user in (("r", 1), ("s", 2), ("t", 2))))
        sender.close()
        running.take(3)
        assert running.value("stream_held_feedback") == running.value("stream_held_feedback_seconds") == 0
