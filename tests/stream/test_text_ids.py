"""Users and items by text ids, from what a producer sends to what is learned, on real brokers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings, Settings
from contracts.kafka import bus
from contracts.messages.ids import id_of_text
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example, Item
from driftline.deadletters import letters, resend
from feature_repo.store import UserSequences, apply
from tests.contracts.messages.test_ids import COLLISION
from tests.stream.step_cases import Event, exposure, feedback
from tests.stream.stream_cases import SENT_MS, Running, Sender, read_all, settings_for

ANNA, FILM, BOOK = map(id_of_text, ("anna", "film/7", "book/7"))


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    apply(tmp_path / "features")
    return settings_for(kafka, tmp_path)


@pytest.fixture
def sender(settings: Settings) -> Iterator[Sender]:
    sender = Sender(settings.kafka)
    yield sender
    sender.close()


def catalogue(sender: Sender, *texts: str) -> None:
    for text in texts:
        sender.send(bus.ITEMS, Item(schema_version=1, item_key=text).SerializeToString(), id_of_text(text))
    sender.flush()


def by_text(event: Event, user: str, *items: str) -> Event:
    """An event without a single number of a user or an item."""
    event.ClearField("user_id")
    event.user_key = user
    for named, text in zip([event] if event.DESCRIPTOR.name == "Feedback" else event.items, items, strict=True):
        named.ClearField("item_id")
        named.item_key = text
    return event


def send(sender: Sender, user: str, *events: Event) -> None:
    for event in events:
        topic = bus.EXPOSURES if event.DESCRIPTOR.name == "Exposure" else bus.FEEDBACK
        sender.send(topic, event.SerializeToString(), id_of_text(user), event.time_ms)
    sender.flush()


def letters_of(settings: Settings) -> list[tuple[str, str]]:
    read = (DeadLetter.FromString(value) for value in read_all(settings.kafka, bus.DEAD_LETTERS))
    return [(letter.reason, letter.detail) for letter in read]


def test_what_is_named_by_text_is_learned_by_number_though_it_waits_over_a_restart(
    settings: Settings, sender: Sender
) -> None:
    catalogue(sender, "film/7", "book/7")
    early = by_text(feedback(0, 1001, "r"), "anna", "film/7")
    send(sender, "anna", early, early)
    with Running(settings) as running:
        running.take(2)
        assert running.value("stream_held_feedback") == 1  # the second is the first once more
    send(sender, "anna", by_text(exposure("r", 1000, (0, 0)), "anna", "film/7", "book/7"))
    late = feedback(BOOK, 1002, "r", user=ANNA)  # by numbers, of the same user
    send(sender, "anna", late)
    with Running(settings) as running:
        running.take(2)
        assert running.value("stream_held_feedback") == 0
    examples = [Example.FromString(value) for value in read_all(settings.kafka, bus.EXAMPLES)]
    assert [(each.user_id, each.item_id, [*each.history.item_ids]) for each in examples] == [
        (ANNA, FILM, []),
        (ANNA, BOOK, [FILM]),
    ]
    assert [*examples[0].page.item_ids] == sorted((FILM, BOOK))
    (row,) = UserSequences(settings.feature_repo).read([ANNA])
    assert row is not None
    assert [*row.item_ids] == [FILM, BOOK]
    assert letters_of(settings) == []


def test_a_text_and_a_number_that_disagree_are_a_dead_letter_with_no_effect(settings: Settings, sender: Sender) -> None:
    catalogue(sender, "film/7")
    sender.items(42)
    send(sender, "anna", by_text(exposure("r", 1000, (0,)), "anna", "film/7"))
    wrong = by_text(feedback(0, 1001, "r"), "anna", "film/7")
    wrong.item_id = 42
    number_like = by_text(feedback(0, 1001, "r"), "anna", "42")  # a text, and no item's
    send(sender, "anna", wrong, number_like)
    with Running(settings) as running:
        running.take(3)
    (conflict, unknown) = letters_of(settings)
    assert conflict == ("id_conflict", f"item_key is 'film/7', whose number is {FILM}, and not 42")
    assert unknown[0] == "unknown_item"
    assert not read_all(settings.kafka, bus.EXAMPLES)


def test_of_two_texts_with_one_number_the_later_is_a_dead_letter_once_however_often_workers_start(
    settings: Settings, sender: Sender
) -> None:
    catalogue(sender, *COLLISION, COLLISION[0])
    for _ in range(2):
        with Running(settings) as running:
            while running.value("stream_partitions") != 2:
                running.worker.step()
            running.worker.step()
    ((reason, detail),) = letters_of(settings)
    assert reason == "id_collision"
    assert detail.startswith(f"item_key {COLLISION[1]!r} has the number")


def test_what_lay_under_a_wrong_key_or_in_a_wrong_partition_is_mended_by_a_replay(
    settings: Settings, sender: Sender
) -> None:
    kafka = settings.kafka
    sender.send(bus.ITEMS, Item(schema_version=1, item_key="film/7").SerializeToString(), 1)
    shown = by_text(exposure("r", 1000, (0,)), "anna", "film/7")
    sender.send(bus.EXPOSURES, shown.SerializeToString(), ANNA + 1, 1000)
    sender.flush()
    clock = ManualClock(SENT_MS)
    with Running(settings, clock=clock) as running:
        running.take(1)
        while len(letters_of(settings)) < 2:
            running.worker.step()
    assert {reason for reason, _ in letters_of(settings)} == {"wrong_key", "wrong_partition"}
    outcome = resend.replay(kafka, letters.read(kafka).letters, resend.places(kafka), clock)
    assert (len(outcome.sent), outcome.failed) == (2, [])
    send(sender, "anna", by_text(feedback(0, 1001, "r"), "anna", "film/7"))
    with Running(settings, clock=clock) as running:
        running.take(2)
    (example,) = [Example.FromString(value) for value in read_all(kafka, bus.EXAMPLES)]
    assert (example.user_id, example.item_id) == (ANNA, FILM)
