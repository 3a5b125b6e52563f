"""What a stranger's service has sent: run it against a worker, and account for each of its events."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.messages.events import fill_numbers
from contracts.messages.ids import id_of_text
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example, Feedback, Item
from feature_repo.store import apply
from tests.stream.stream_cases import Running, Sender, read_all, settings_for

USERS = 100  # to each codec, and to the hash
BY_TEXT = 3  # every third user goes by a text id, and so does the item that is shown to such a user
ITEM_KEY = "the first film"
PAGE = 10  # items of 50 that are served
NOW_MS = 1_772_323_300_000
BUILD_TIMEOUT_S = 800

Command = Callable[[KafkaSettings, int], Sequence[str]]


def run_or_skip(command: Sequence[str], folder: Path, what: str) -> None:
    """Fetch what a service stands on; without a registry the test is skipped, and says so."""
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
    if done.returncode != 0:
        pytest.skip(f"{what} cannot be fetched: {done.stderr.strip()}")


def account(kafka: KafkaSettings, directory: Path, command: Command, codecs: int) -> None:
    """Let a service send, with each of so many codecs and then by its own hash, and have a worker take all in.

    The numbers of text ids are worked out by the service for keys and partitions, and by the worker again.
    """
    apply(directory / "features")
    settings = settings_for(kafka, directory)
    sender = Sender(kafka)
    sender.items(1)
    film = Item(schema_version=1, item_key=ITEM_KEY)
    sender.send(bus.ITEMS, film.SerializeToString(), id_of_text(ITEM_KEY))
    sender.close()
    subprocess.run(command(kafka, USERS), check=True, timeout=100)

    with Running(settings, clock=ManualClock(NOW_MS)) as running:
        running.take(3 * (codecs + 1) * USERS)
        impressions = running.value("stream_outcomes_total", topic="feedback", outcome="impression")
        assert impressions == (codecs + 1) * USERS
        assert running.value("stream_held_feedback") == 0
    examples = [Example.FromString(value) for value in read_all(kafka, bus.EXAMPLES)]
    letters = [DeadLetter.FromString(value) for value in read_all(kafka, bus.DEAD_LETTERS)]
    assert {letter.reason for letter in letters} == {"wrong_partition"}
    everyone = list(range(1, (codecs + 1) * USERS + 1))
    named = {number_of(user): user for user in everyone}
    learned = sorted(named[example.user_id] for example in examples)
    refused = sorted(named[refused_user(letter)] for letter in letters)
    assert sorted(learned + refused) == everyone
    assert learned[: codecs * USERS] == everyone[: codecs * USERS]
    assert not any(example.follow for example in examples), "what is left out is false"
    for example in examples:
        watched = 1 if named[example.user_id] % BY_TEXT else id_of_text(ITEM_KEY)
        assert example.item_id == watched
        assert list(example.page.item_ids) == sorted([watched, *range(2, PAGE + 1)])


def number_of(user: int) -> int:
    return user if user % BY_TEXT else id_of_text(f"user-{user}")


def refused_user(letter: DeadLetter) -> int:
    feedback = Feedback.FromString(letter.value)
    assert bool(feedback.user_key) != feedback.HasField("user_id")
    fill_numbers(feedback)
    return feedback.user_id
