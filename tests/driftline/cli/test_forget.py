"""`driftline forget` on real brokers, a real stream state and a real Feast store."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from kafka.admin import ConfigResource, ConfigResourceType
from typer.testing import CliRunner

from contracts.config.settings import KafkaSettings, RetentionSettings, Settings, dump
from contracts.kafka import bus
from contracts.messages.ids import id_of_text
from contracts.runtime.clock import HOUR_MS, ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example, Feedback
from driftline.cli.app import app
from driftline.forget.request import LOG
from driftline.forget.user import varint
from driftline.processes import broker
from feature_repo.store import apply
from stream.worker import ERASE_EVERY_S
from tests.stream.step_cases import exposure, feedback
from tests.stream.stream_cases import SENT_MS, Running, Sender, read_all, settings_for

TEXT = "anna.of.the.tests@example.org"
USER = id_of_text(TEXT)
OTHER = 8


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    apply(tmp_path / "features")
    made = settings_for(kafka, tmp_path)
    dump(made, tmp_path / "settings.yaml")
    return made


@pytest.fixture
def command(settings: Settings, tmp_path: Path) -> "Command":
    return Command(tmp_path / "settings.yaml")


class Command:
    def __init__(self, settings: Path) -> None:
        self._settings = settings

    def __call__(self, *arguments: object) -> SimpleNamespace:
        ended = CliRunner().invoke(app, ["forget", *map(str, arguments), "-s", str(self._settings)])
        return SimpleNamespace(code=ended.exit_code, said=ended.stdout, error=ended.exception)

    def json(self, *arguments: object) -> SimpleNamespace:
        ended = self(*arguments, "--json")
        return SimpleNamespace(code=ended.code, **json.loads(ended.said)[0])


def send_events(sender: Sender, user: int = USER) -> None:
    """A page with an effective view, feedback that waits, and a dead letter of the user; the same of another one."""
    sender.items(1, 2)
    for each in (user, OTHER):
        name = f"r{each}"
        shown, seen = exposure(name, 1000, user=each), feedback(1, 2000, name, user=each)
        waits, bad = feedback(1, 2001, f"w{each}", user=each), feedback(99, 2002, name, user=each)
        if each == USER:
            for event in (shown, seen, waits, bad):
                event.user_key = TEXT
        sender.events(shown, seen, waits, bad)


@pytest.fixture
def sender(settings: Settings) -> Iterator[Sender]:
    with closing(Sender(settings.kafka)) as sender:
        yield sender


def test_a_user_is_found_everywhere_forgotten_and_found_nowhere(
    settings: Settings, sender: Sender, command: Command
) -> None:
    kafka = settings.kafka
    send_events(sender)
    clock = ManualClock(SENT_MS)
    with Running(settings, clock=clock) as running:
        running.take(8)
        found = command.json("--user-key", TEXT, "--dry-run")
        assert found.code == 1
        assert {each["place"] for each in found.stores} == {"stream state", "online store", "files"}
        assert {each["topic"] for each in found.topics} == {"exposures", "feedback", "examples", "deadletters"}
        assert not found.waiting
        assert not [each for each in read_all(kafka, bus.FEEDBACK) if Feedback.FromString(each).HasField("forget")]

        asked = command("--user-key", TEXT, "--no-wait")
        assert asked.code == 1
        assert "stream has yet to read the request about" in asked.said
        running.take(1)

        command("--user-key", TEXT, "--no-wait")
        running.take(1)
        assert {each["what"] for each in command.json(USER, "--verify").stores} >= {"1 outboxes"}
        clock.advance(int(1000 * ERASE_EVERY_S))  # the second request came too soon after the first
        running.worker.step()
        left = command.json("--user-key", TEXT, "--verify")
        assert left.stores == left.waiting == []
        still = {each["topic"] for each in left.topics}
        if kafka.gapless:  # it lets go of no record
            assert (left.code, still) == (1, {"exposures", "feedback", "examples", "deadletters"})
        else:
            assert (left.code, still) == (0, {"exposures", "feedback", "examples"})
            letters = [DeadLetter.FromString(each) for each in read_all(kafka, bus.DEAD_LETTERS)]
            assert [letter.key for letter in letters] == [b"8"]
        others = command.json(OTHER, "--verify")
        assert {each["place"] for each in others.stores} == {"stream state", "online store"}
        assert others.by_bytes == []
    log = (settings.state / LOG).read_bytes()
    assert log.count(b"\n") == 2
    assert str(USER).encode() not in log
    assert TEXT.encode() not in log


def test_topics_are_trimmed_once_all_have_read_them(settings: Settings, sender: Sender, command: Command) -> None:
    kafka = settings.kafka
    send_events(sender)
    if kafka.gapless:
        ended = command(USER, "--no-wait", "--trim-topics")
        assert "lets go of no record" in str(ended.error)
        return
    wrong = 1 - bus.partition_of(USER, kafka.partitions)
    stray = Example(schema_version=1, user_id=USER).SerializeToString()
    sender._producer.send(kafka.topic(bus.EXAMPLES), value=stray, partition=wrong, timestamp_ms=1000)
    sender.flush()
    with Running(settings) as running, stepped(running):
        ended = command("--user-key", TEXT, "--trim-topics")
    assert ended.code == 0, ended.said
    assert "No store has anything of" in ended.said
    assert "records of" not in ended.said
    for name in (bus.EXPOSURES, bus.FEEDBACK, bus.EXAMPLES, bus.DEAD_LETTERS):
        assert not [value for value in read_all(kafka, name) if TEXT.encode() in value or varint(USER) in value]


@contextmanager
def stepped(running: Running) -> Iterator[None]:
    """Step a worker in a thread."""

    def step() -> None:
        while not running.stop.is_set():
            running.worker.step()

    thread = threading.Thread(target=step)
    thread.start()
    try:
        yield
    finally:
        running.stop.set()
        thread.join()


def test_who_is_named_by_nothing_is_refused(command: Command) -> None:
    assert "Name a user" in str(command().error)
    assert "--user-key is empty" in str(command("--user-key", "").error)
    assert "below 2^63" in str(command(1 << 63).error)


def test_topics_keep_records_for_as_long_as_the_settings_say(apache: KafkaSettings) -> None:
    ages = RetentionSettings(topics_ms={"feedback": HOUR_MS}).of_topics
    broker.prepare(apache, ages)
    admin = bus.admin(apache)
    topics = [ConfigResource(ConfigResourceType.TOPIC, apache.topic(name)) for name in (bus.FEEDBACK, bus.EXPOSURES)]
    described = admin.describe_configs(topics, config_filter="all")["topic"]
    admin.close()
    kept = {name: described[apache.topic(name)]["retention.ms"]["value"] for name in (bus.FEEDBACK, bus.EXPOSURES)}
    assert kept == {"feedback": str(HOUR_MS), "exposures": "-1"}
