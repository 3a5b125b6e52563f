"""The worker around the steps: real brokers and a real Feast store."""

import random
from pathlib import Path

import pytest
from kafka.admin import ConfigResource, ConfigResourceType
from structlog.testing import capture_logs

from contracts.config.settings import KafkaSettings, Settings, SettingsError
from contracts.kafka import bus
from contracts.messages.positives import ONLY_POSITIVES
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example
from feature_repo.store import UserSequences, apply
from tests.stream.step_cases import exposure, feedback, impression
from tests.stream.stream_cases import SENT_MS, Running, Sender, read_all, settings_for


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    apply(tmp_path / "features")
    return settings_for(kafka, tmp_path)


def bad_records() -> dict[str, bytes]:
    """A feedback record for each reason that one alone can have."""
    defects: dict[str, bytes] = {"undecodable": b"\xff\xff\xff"}
    for reason, change in {
        "out_of_range": {"play_time_ms": -1},
        "future_timestamp": {"time_ms": SENT_MS + 10**9},
        "unknown_item": {"item_id": 99},
        "unknown_version": {"schema_version": 7},
    }.items():
        event = feedback(time_ms=5000, user=1)
        for field, value in change.items():
            setattr(event, field, value)
        defects[reason] = event.SerializeToString()
    missing, mixed = feedback(time_ms=5000, user=1), feedback(time_ms=5000, user=1)
    missing.ClearField("play_time_ms")
    mixed.shown_item_ids.append(1)
    return defects | {"missing_field": missing.SerializeToString(), "mixed": mixed.SerializeToString()}


def test_events_become_features_examples_and_dead_letters(settings: Settings) -> None:
    kafka = settings.kafka
    sender = Sender(kafka)
    sender.items(1, 2, 3)
    for user in (1, 2):
        request = f"r{user}"
        sender.events(
            exposure(request, 1000, (1, 2, 3), user=user),
            feedback(1, 2000, request, user=user),
            feedback(2, 3000, request, view=False, user=user),
            feedback(3, 4000, request, user=user),
            feedback(3, 4000, request, user=user),
        )
    bad = bad_records()
    for value in bad.values():
        sender.send(bus.FEEDBACK, value, 1)
    sender.close()

    with Running(settings, clock=ManualClock(SENT_MS + 250)) as running:
        running.take(10 + len(bad))
        counted = {
            name: running.value("stream_outcomes_total", topic="feedback", outcome=name)
            for name in ("example", "non_positive", "duplicate", "dead_letter")
        }
        assert counted == {"example": 4, "non_positive": 2, "duplicate": 2, "dead_letter": len(bad)}
        assert running.value("stream_event_to_feature_seconds_sum") == pytest.approx(6 * 0.25)
        assert running.value("stream_lag", partition="0") == running.value("stream_lag", partition="1") == 0
        progress = bus.admin(kafka)
        committed = progress.list_group_offsets([kafka.topic_prefix + "stream"])[kafka.topic_prefix + "stream"]
        progress.close()
        assert sum(known.offset for where, known in committed.items() if where.topic == kafka.topic(bus.FEEDBACK)) == (
            8 + len(bad)
        )

    for user, row in zip((1, 2), UserSequences(settings.feature_repo).read([1, 2]), strict=True):
        assert row is not None
        assert list(row.item_ids) == [1, 2, 3]
        assert list(row.effective_views) == [1, 0, 1]
        assert list(row.sessions) == [0, 0, 0]
        assert (row.user_id, row.last_event_ms, row.session_start) == (user, 4000, 0)
        assert row.feedback_offset == 3
    examples = [Example.FromString(value) for value in read_all(kafka, bus.EXAMPLES)]
    assert sorted((e.user_id, e.item_id, tuple(e.history.item_ids)) for e in examples) == [
        (1, 1, ()),
        (1, 3, (1, 2)),
        (2, 1, ()),
        (2, 3, (1, 2)),
    ]
    assert all(e.sent_at_ms == SENT_MS and e.arm == "a" for e in examples)
    letters = [DeadLetter.FromString(value) for value in read_all(kafka, bus.DEAD_LETTERS)]
    assert {letter.reason: letter.value for letter in letters} == bad


def test_impressions_become_features_and_pages_and_a_restart_knows_them(settings: Settings) -> None:
    """Ten of fifty served items are shown, on two pages, and the state is written between them."""
    sender = Sender(settings.kafka)
    sender.items(*range(1, 51))
    served = exposure("r", 1000, tuple(range(1, 51)), user=2, served_only=True)
    sender.events(served, impression((1, 2, 3, 4, 5), 1001, "r", user=2), feedback(3, 2000, "r", user=2))
    with Running(settings) as running:
        running.take(3)
    sender.events(impression((6, 7, 8, 9, 10, 99), 3000, "r", user=2), feedback(10, 4000, "r", user=2))
    sender.close()
    with Running(settings) as running:
        running.take(2)
        assert running.value("stream_outcomes_total", topic="feedback", outcome="impression") == 1
        assert running.value("stream_impressions_not_served_total") == 1
        assert running.value("stream_served_only_views_total") == 5
        assert running.value("stream_served_only_effective_views_total") == 1
    (row,) = UserSequences(settings.feature_repo).read([2])
    assert row is not None
    assert sorted(row.item_ids) == list(range(1, 11)), "these are the items that a replica does not answer with again"
    assert [item for item, view in zip(row.item_ids, row.effective_views, strict=True) if view] == [3, 10]
    examples = [Example.FromString(value) for value in read_all(settings.kafka, bus.EXAMPLES)]
    assert [list(e.page.item_ids) for e in examples] == [[1, 2, 3, 4, 5], list(range(1, 11))]
    assert read_all(settings.kafka, bus.DEAD_LETTERS) == []


def test_a_service_that_sends_positives_alone_is_warned(settings: Settings) -> None:
    sender = Sender(settings.kafka)
    sender.items(1, 2)
    users = range(2, 203, 2)  # of one partition
    for user in users:
        sender.events(exposure(f"r{user}", 1000, (1, 2), user=user, served_only=True))
        sender.events(feedback(1, 1001, f"r{user}", user=user))
    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        with capture_logs() as logs:
            running.take(2 * len(users))
            running.worker.step()
        assert [each["shown"] for each in logs if each["event"] == ONLY_POSITIVES] == [len(users)]
    sender.close()


def test_a_restarted_worker_goes_on_where_its_state_ends(settings: Settings) -> None:
    sender = Sender(settings.kafka)
    sender.items(1, 2)
    sender.events(exposure("r", 1000, (1, 2), user=2), feedback(1, 1001, "r", user=2))
    with Running(settings) as running:
        running.take(2)
    sender.events(feedback(1, 1001, "r", user=2), feedback(2, 1002, "r", user=2))
    sender.close()
    with Running(settings) as running:
        running.take(2)
        assert running.value("stream_outcomes_total", topic="feedback", outcome="duplicate") == 1
    examples = [Example.FromString(value) for value in read_all(settings.kafka, bus.EXAMPLES)]
    assert [list(e.history.item_ids) for e in examples] == [[], [1]]


def test_a_bad_catalogue_entry_is_dead_lettered_once_however_often_workers_start(settings: Settings) -> None:
    sender = Sender(settings.kafka)
    sender.items(1)
    sender.send(bus.ITEMS, b"\xff", 9)
    sender.close()
    for _ in range(2):
        with Running(settings) as running:
            while running.value("stream_partitions") != 2:
                running.worker.step()
            running.worker.step()
    (letter,) = [DeadLetter.FromString(value) for value in read_all(settings.kafka, bus.DEAD_LETTERS)]
    assert (letter.topic, letter.reason, letter.value) == (settings.kafka.topic(bus.ITEMS), "undecodable", b"\xff")


def test_a_deletion_is_no_dead_letter_and_what_users_did_with_the_item_stays(settings: Settings) -> None:
    sender = Sender(settings.kafka)
    sender.items(1)
    sender.send(bus.ITEMS, None, 1)
    sender.events(exposure("r", 1000, (1,), user=2), feedback(1, 1001, "r", user=2))
    sender.close()
    with Running(settings) as running:
        running.take(2)
    (example,) = [Example.FromString(value) for value in read_all(settings.kafka, bus.EXAMPLES)]
    assert example.item_id == 1
    assert not read_all(settings.kafka, bus.DEAD_LETTERS)


def test_a_record_that_the_dead_letter_topic_does_not_take_stays_where_it_is(
    apache: KafkaSettings, tmp_path: Path
) -> None:
    # The embedded broker has no limit for a topic.
    letters = apache.topic(bus.DEAD_LETTERS)
    client = bus.admin(apache)
    client.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, letters, {"max.message.bytes": "20000"})], raise_on_unknown=False
    )
    client.close()
    apply(tmp_path / "features")
    settings = settings_for(apache, tmp_path)
    sender = Sender(apache)
    sender.items(1)
    sender.send(bus.FEEDBACK, random.Random(0).randbytes(100_000), 1)  # nothing that compression could make small
    sender.send(bus.FEEDBACK, b"\xff", 1)
    sender.close()
    with Running(settings) as running:
        running.take(2)
    found = sorted(map(DeadLetter.FromString, read_all(apache, bus.DEAD_LETTERS)), key=lambda letter: letter.offset)
    assert [letter.value for letter in found] == [b"", b"\xff"]
    assert found[0].detail.startswith("too large for the dead-letter topic")


def test_an_item_that_was_sent_before_feedback_on_it_is_known_in_time(settings: Settings) -> None:
    sender = Sender(settings.kafka)
    sender.items(1)
    with Running(settings) as running:
        sender.items(2)
        sender.events(exposure("r", 1000, (2,), user=2), feedback(2, 1001, "r", user=2))
        running.take(2)
    sender.close()
    assert len(read_all(settings.kafka, bus.EXAMPLES)) == 1


def test_a_state_that_is_gone_stops_the_worker_with_one_sentence(settings: Settings, tmp_path: Path) -> None:
    sender = Sender(settings.kafka)
    sender.items(1)
    sender.events(exposure("r", 1000, (1,), user=2), feedback(1, 1001, "r", user=2))
    sender.close()
    with Running(settings) as running:
        running.take(2)
    elsewhere = settings.model_copy(update={"state": tmp_path / "elsewhere"})
    with Running(elsewhere) as running, pytest.raises(SettingsError, match=r"its state is not in .*elsewhere"):
        running.take(1)


def test_an_idle_partitions_sessions_are_closed_by_the_clock(settings: Settings) -> None:
    sender = Sender(settings.kafka)
    sender.items(1)
    sender.events(exposure("r", 1000, (1,), user=2), feedback(1, 1001, "r", user=2))
    sender.close()
    limits = settings.stream
    clock = ManualClock(SENT_MS)
    features = UserSequences(settings.feature_repo)
    with Running(settings, clock=clock) as running:
        running.take(2)
        clock.advance(limits.session_gap_ms + limits.allowed_lateness_ms - 1000)
        running.worker.step()
        (row,) = features.read([2])
        assert row
        assert row.session_start == 0, "the gap has passed, but a late event may still come"
        clock.advance(10_000)
        while running.value("stream_sessions_closed_total") != 1:
            running.worker.step()
    (row,) = features.read([2])
    assert row
    assert row.session_start == 1
