"""What a stranger's service has sent: run it against a worker, and account for each of its events."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example, Feedback
from feature_repo.store import apply
from tests.stream.stream_cases import Running, Sender, read_all, settings_for

USERS = 100  # to each codec, and to the hash
PAGE = list(range(1, 11))
NOW_MS = 1_772_323_300_000
BUILD_TIMEOUT_S = 800

Command = Callable[[KafkaSettings, int], Sequence[str]]


def run_or_skip(command: Sequence[str], folder: Path, what: str) -> None:
    """Fetch what a service stands on; without a registry the test is skipped, and says so."""
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
    if done.returncode != 0:
        pytest.skip(f"{what} cannot be fetched: {done.stderr.strip()}")


def account(kafka: KafkaSettings, directory: Path, command: Command, codecs: int) -> None:
    """Let a service send, with each of so many codecs and then by its own hash, and have a worker take all in."""
    apply(directory / "features")
    settings = settings_for(kafka, directory)
    sender = Sender(kafka)
    sender.items(1)
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
    learned = sorted(example.user_id for example in examples)
    refused = sorted(Feedback.FromString(letter.value).user_id for letter in letters)
    everyone = list(range(1, (codecs + 1) * USERS + 1))
    assert sorted(learned + refused) == everyone
    assert learned[: codecs * USERS] == everyone[: codecs * USERS]
    assert all(list(example.page.item_ids) == PAGE for example in examples), "10 of 50 that were served"
    assert not any(example.follow for example in examples), "what is left out is false"
