"""Zero skew: an example carries what serving saw just before the behaviour, and so do Feast's historical features.

The stream worker, the archive and both of Feast's stores are the real ones. Before feedback is sent, the user's row is
read as a replica reads it.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from contracts.config.settings import KafkaSettings, Settings
from contracts.features import TowerInputs, positives, tower_inputs
from contracts.kafka import bus, consumers
from contracts.runtime.clock import MINUTE_MS, ManualClock
from contracts.wire.events_pb2 import Example
from driftline.processes.server import Server
from feature_repo.offline import SEQUENCES, OfflineFiles, prepare
from feature_repo.store import UserRow, UserSequences, apply
from serving.answer import positives_of
from stream.archive import Archive
from tests.feature_repo.feast_cases import historical
from tests.stream.step_cases import Event, Exposure, exposure, feedback
from tests.stream.stream_cases import SENT_MS, Running, Sender, read_all, settings_for
from trainer.data.batches import encode
from trainer.data.catalogue import Catalogue

ITEMS = range(1, 31)
BEGIN_MS = 1_000_000
HISTORY, WINDOW = 12, 8  # short enough for users to outgrow them
REDIS_DB = 8  # of this module's tests


@pytest.fixture(params=["sqlite", "redis"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An applied repository on each online store."""
    target = tmp_path / "features"
    if request.param == "sqlite":
        apply(target)
        return target
    server: Server = request.getfixturevalue("redis_server")
    host, port = server.address.split(":")
    with redis.Redis(host=host, port=int(port), db=REDIS_DB) as client:
        client.flushdb()
    apply(target, f"{server.address},db={REDIS_DB}")
    return target


def behave(seed: int) -> Iterator[Event]:
    """What three users are shown and do, as it happens.

    Views that are no examples, sessions that end, and later feedback on items that were viewed before: it changes a
    past behaviour, so what comes after it must see the change.
    """
    chance = random.Random(seed)
    now_ms = BEGIN_MS
    for number in range(25):
        user = chance.randint(2, 4)
        items = tuple(chance.sample(ITEMS, 4))
        now_ms += chance.choice((MINUTE_MS, 3 * MINUTE_MS, 45 * MINUTE_MS))
        yield exposure(str(number), now_ms, items, user)
        for item in items[: chance.randint(1, 4)]:
            now_ms += chance.randrange(1, 40_000)
            viewed, play_ms = chance.random() < 0.7, chance.randrange(9999)
            yield feedback(item, now_ms, str(number), view=viewed, user=user, play_ms=play_ms)
            if chance.random() < 0.3:
                now_ms += chance.randrange(1, 40_000)
                yield feedback(item, now_ms, str(number), view=False, user=user, play_ms=play_ms + 7, follow=True)


def columns(seen: UserRow | None) -> tuple[Any, ...]:
    """The features of a row. What is not among them: offsets and versions, which are no features."""
    if seen is None:
        return (*([] for _ in SEQUENCES), None)
    return (*(np.asarray(getattr(seen, name), np.int64).tolist() for name in SEQUENCES), seen.last_event_ms)


def carried(seen: Example) -> tuple[Any, ...]:
    """The same of an example."""
    past = [[int(number) for number in getattr(seen.history, name)] for name in SEQUENCES]
    return (*past, seen.history.times_ms[-1] if seen.history.times_ms else None)


def known_items() -> Catalogue:
    """What a snapshot knows of: not every item that users have seen."""
    catalogue = Catalogue()
    for item in ITEMS:
        if item % 7:
            catalogue.put(item, [])
    return catalogue


def training_inputs(examples: Sequence[Example]) -> TowerInputs:
    """What a tower learns on: as the trainer makes it."""
    batch = encode(examples, known_items(), WINDOW)
    return TowerInputs(batch.rows, batch.mask, batch.lag)


def serving_inputs(examples: Sequence[Example], saw: Mapping[str, UserRow | None]) -> TowerInputs:
    """What a tower would have been given: as a replica makes it, for a request at the moment of the behaviour."""
    inputs = []
    for example in examples:
        row = saw[example.event_id]
        user = positives(*(np.empty(0, np.int64),) * 2, np.empty(0, np.bool_)) if row is None else positives_of(row)
        inputs.append(tower_inputs([user], np.array([example.time_ms]), known_items().item_ids, WINDOW))
    return TowerInputs(*map(np.concatenate, zip(*inputs, strict=True)))


def archived(settings: Settings, count: int) -> None:
    """Have the archive put `count` examples into the offline store."""
    files = OfflineFiles(prepare(settings.feature_repo))
    consumer = consumers.consumer(settings.kafka, [], settings.kafka.topic_prefix + "archive", wait_ms=20)
    producer = bus.producer(settings.kafka)
    with files.claim():
        archive = Archive(settings, consumer, producer, files, ManualClock(SENT_MS))
        while count > 0:
            count -= archive.step()
        archive.finish()
    consumer.close()
    producer.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_an_example_carries_what_serving_saw(apache: KafkaSettings, repo: Path, tmp_path: Path, seed: int) -> None:
    settings = settings_for(apache, tmp_path, history_limit=HISTORY)
    features = UserSequences(repo)
    saw: dict[str, UserRow | None] = {}
    sender = Sender(apache)
    sender.items(*ITEMS)
    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        for event in behave(seed):
            if not isinstance(event, Exposure):
                (saw[event.event_id],) = features.read([event.user_id])
            sender.events(event)
            running.take(1)
    sender.close()

    examples = [Example.FromString(value) for value in read_all(apache, bus.EXAMPLES)]
    assert len(examples) > 20
    assert max(len(example.history.item_ids) for example in examples) == HISTORY
    for example in examples:
        assert carried(example) == columns(saw[example.event_id])

    learned, served = training_inputs(examples), serving_inputs(examples, saw)
    for name in TowerInputs._fields:
        np.testing.assert_array_equal(getattr(learned, name), getattr(served, name))
    assert learned.mask.all(axis=1).any(), "no window was ever full"

    archived(settings, len(examples))
    users, times = [e.user_id for e in examples], [e.time_ms - 1 for e in examples]
    for example, past in zip(examples, historical(repo, users, times), strict=True):
        assert columns(past) == columns(saw[example.event_id])
        # Serving cannot know yet that the session which it saw open has ended; the past tells it as the example does.
        expected = len(example.history.item_ids)
        if example.session in example.history.sessions:
            expected = saw[example.event_id].session_start  # type: ignore[union-attr]
        assert past is None or past.session_start == expected
