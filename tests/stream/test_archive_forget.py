"""The archive forgets a user, and lets go of what is old."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings, RetentionSettings, Settings
from contracts.kafka import bus, consumers
from contracts.runtime.clock import HOUR_MS, ManualClock
from contracts.wire.events_pb2 import Example, Forget
from feature_repo import forget as stores
from feature_repo import offline
from feature_repo.offline import EXAMPLES, OfflineFiles, examples_directory
from feature_repo.store import apply
from stream.archive import MAX_AGE_MS, Archive
from tests.feature_repo.feast_cases import historical
from tests.stream.stream_cases import Sender, settings_for
from tests.stream.test_archive import example

USER, OTHER = 7, 9  # of one partition


class Archived:
    """An archive in this process, with files of four offsets."""

    def __init__(self, settings: Settings) -> None:
        self.clock = ManualClock(0)
        self._files = OfflineFiles(offline.prepare(settings.feature_repo))
        self._lock = self._files.claim()
        self._consumer = consumers.consumer(settings.kafka, [], settings.kafka.topic("archive"))
        self._producer = bus.producer(settings.kafka)
        self.archive = Archive(settings, self._consumer, self._producer, self._files, self.clock, file_examples=4)

    def take(self, count: int) -> None:
        while count > 0:
            count -= self.archive.step()

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()
        self._lock.close()


@pytest.fixture
def settings(embedded: KafkaSettings, tmp_path: Path) -> Settings:
    apply(tmp_path / "features")
    made = settings_for(embedded, tmp_path)
    return made.model_copy(update={"retention": RetentionSettings(archive_ms=10 * HOUR_MS)})


@pytest.fixture
def archived(settings: Settings) -> Iterator[Archived]:
    made = Archived(settings)
    yield made
    made.close()


def forget(user: int) -> Example:
    return Example(schema_version=1, event_id="f", user_id=user, time_ms=1, forget=Forget())


def send(sender: Sender, *examples: Example) -> None:
    for each in examples:
        sender.send(bus.EXAMPLES, each.SerializeToString(), each.user_id, each.time_ms)
    sender.flush()


def test_a_user_leaves_the_files_and_what_waits(settings: Settings, archived: Archived) -> None:
    sender = Sender(settings.kafka)
    send(sender, *(example(user, 1000 * n, [10]) for n in range(1, 4) for user in (USER, OTHER)))
    archived.take(6)
    assert stores.archived(settings.feature_repo, USER)
    names = OfflineFiles(offline.directory(settings.feature_repo)).names()
    send(sender, forget(USER), example(USER, 9000))
    archived.take(2)
    archived.clock.advance(MAX_AGE_MS)
    archived.archive.step()
    after = OfflineFiles(offline.directory(settings.feature_repo))
    assert names < after.names()
    assert after.ends() == {1: 8}
    rows = historical(settings.feature_repo, [USER, USER, OTHER], [8999, 9001, 8999])
    assert [row and list(row.times_ms) for row in rows] == [None, [9000], [10, 3000]]  # only what came after
    pieces = [offline.parse(path.name) for path in stores.archived(settings.feature_repo, USER)]
    assert [piece and piece.end for piece in pieces] == [8, 8]  # the examples, and their rows
    send(sender, forget(USER))
    archived.take(1)
    assert not stores.archived(settings.feature_repo, USER)
    assert stores.archived(settings.feature_repo, OTHER)
    sender.close()


def test_what_is_old_is_emptied_and_the_archive_goes_on(settings: Settings, archived: Archived) -> None:
    sender = Sender(settings.kafka)
    send(sender, *(example(OTHER, 1000 * n) for n in range(1, 5)))
    archived.take(4)
    send(sender, example(OTHER, 8 * HOUR_MS))
    archived.take(1)
    archived.clock.advance(11 * HOUR_MS)
    archived.archive.step()
    files = OfflineFiles(offline.directory(settings.feature_repo))
    assert files.ends() == {1: 5}
    names = sorted(path.name for path in examples_directory(settings.feature_repo).glob("*.parquet"))
    sizes = {name: len(pq_read(examples_directory(settings.feature_repo) / name)) for name in names}
    assert [*sizes.values()] == [0, 1]
    send(sender, example(OTHER, 9 * HOUR_MS))
    archived.take(1)
    archived.clock.advance(MAX_AGE_MS)
    archived.archive.step()
    assert files.ends() == {1: 6}
    sender.close()


def pq_read(path: Path) -> list[int]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    assert table.schema.equals(EXAMPLES)
    offsets: list[int] = table["offset"].to_pylist()
    return offsets
