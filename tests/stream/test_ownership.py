"""Partitions go from worker to worker as these join, leave, die and hang: nothing is lost and nothing comes twice."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.config.settings import KafkaSettings, Settings
from contracts.kafka import bus, consumers
from contracts.runtime.clock import SystemClock
from contracts.wire.events_pb2 import Example
from driftline.processes import broker
from feature_repo.offline import OfflineFiles, prepare
from feature_repo.store import UserSequences, apply
from stream.archive import Archive, rows
from tests.stream.crash_cases import Zygote, zygote
from tests.stream.log_cases import ITEMS, USERS, Log, expected_examples, make_log
from tests.stream.stream_cases import Running, Sender, read_all, settings_for

PARTITIONS = 4
BATCH = 25
SESSION_TIMEOUT_MS = 2000
FILE_EXAMPLES = 20
WAITING = "waiting for the partition's last owner"

pytestmark = pytest.mark.timeout(300)

News = dict[str, Any]


class Growing:
    """A log that is written in parts while workers run."""

    def __init__(self, kafka: KafkaSettings, seed: int, size: int, parts: int) -> None:
        self.records = make_log(seed, size)
        self.written: Counter[int] = Counter()  # records by partition
        self._kafka = kafka
        step = -(-len(self.records) // parts)
        self._parts = [self.records[start : start + step] for start in range(0, len(self.records), step)]
        self._sender = Sender(kafka)
        self._sender.items(*ITEMS)

    def grow(self) -> None:
        """Write the next part."""
        for each in self._parts.pop(0):
            self._sender.send(each.topic, each.value, each.user_id, each.timestamp_ms)  # type: ignore[arg-type]
            self.written[bus.partition_of(each.user_id, self._kafka.partitions)] += 1
        self._sender.flush()

    def finish(self) -> None:
        """Write the rest."""
        while self._parts:
            self.grow()
        self._sender.close()

    def taken(self, news: News) -> bool:
        """Whether a worker has taken in all that was written to its partitions, and looked at the time since."""
        return bool(news["quiet"]) and all(count == self.written[int(p)] for p, count in news["owned"].items())


def until(workers: Zygote, name: str, done: Callable[[News], bool]) -> News:
    """Listen to a worker until it says what is waited for."""
    while not done(news := workers.heard(name)):
        assert "exit" not in news, f"{name} has ended"
    assert news["partitions"] == len(news["owned"])
    return news


def owns(count: int) -> Callable[[News], bool]:
    return lambda news: len(news.get("owned", ())) == count


def said(directory: Path, what: str) -> int:
    """How often the workers have logged something."""
    return (directory / "zygote.log").read_text().count(what)


def files_of(settings: Settings, news: News) -> list[Path]:
    """What lies in the states of the partitions that a worker owns."""
    return sorted(f for p in news["owned"] for f in (settings.state / "stream" / f"{int(p):05d}").iterdir())


def prepared(kafka: KafkaSettings, directory: Path) -> Settings:
    """Topics with more partitions than the fixture's."""
    prefix = f"{kafka.topic_prefix}{directory.name}."
    timeout_ms = kafka.session_timeout_ms if kafka.gapless else SESSION_TIMEOUT_MS
    own = kafka.model_copy(update={"topic_prefix": prefix, "partitions": PARTITIONS, "session_timeout_ms": timeout_ms})
    broker.prepare(own)
    directory.mkdir()
    apply(directory / "features")
    return settings_for(own, directory, poll_records=BATCH)


def rows_of(settings: Settings) -> list[tuple[Any, ...]]:
    """Users' rows, column by column, but for the order in which the two logs were read."""
    found = UserSequences(settings.feature_repo).read(list(USERS))
    return [
        (
            row.user_id,
            *map(list, (row.item_ids, row.times_ms, row.play_times_ms, row.effective_views, row.follows, row.sessions)),
            row.last_event_ms,
            row.session_start,
        )
        for row in found
        if row is not None
    ]


def check_against_an_undisturbed_run(kafka: KafkaSettings, settings: Settings, log: Growing, directory: Path) -> None:
    alone = prepared(kafka, directory / "undisturbed")
    again = Growing(alone.kafka, 1, len(log.records), 1)
    again.finish()
    assert again.records == log.records
    with Running(alone) as running:
        running.take(len(log.records))
        for _ in range(2):
            running.worker.step()
    sent = [Example.FromString(value).event_id for value in read_all(settings.kafka, bus.EXAMPLES)]
    assert sorted(sent) == sorted(expected_examples(log.records, PARTITIONS)), "each example once, and no other"
    assert rows_of(settings) == rows_of(alone)


@contextmanager
def archiving(settings: Settings) -> Iterator[None]:
    """An archive beside the stream, which goes on until it has every example; its files are checked then."""
    kafka = settings.kafka
    files = OfflineFiles(prepare(settings.feature_repo))
    consumer = consumers.consumer(kafka, [], kafka.topic_prefix + "archive", wait_ms=20)
    producer = bus.producer(kafka)
    archive = Archive(settings, consumer, producer, files, SystemClock(), FILE_EXAMPLES)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            archive.step()

    with files.claim(), ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield
        finally:
            done.set()
            working.result()
        beside = sum(files.ends().values())
        examples = [list(consumers.read_to_end(kafka, bus.EXAMPLES, p, 0)) for p in range(PARTITIONS)]
        while sum(files.ends().values()) < sum(map(len, examples)):
            archive.step()
            archive.finish()
    consumer.close()
    producer.close()
    assert beside > 0, "it wrote files while partitions moved"
    for partition, records in enumerate(examples):
        paths = sorted((settings.feature_repo / "data" / "user_sequence").glob(f"p{partition:05}-*.parquet"))
        table = pa.concat_tables([pq.read_table(path) for path in paths]).combine_chunks()
        received = [(Example.FromString(record.value), record.timestamp) for record in records]
        assert table.equals(rows(received, settings.stream.history_limit))


@pytest.mark.parametrize("kafka", ["apache", pytest.param("embedded", marks=pytest.mark.proof)], indirect=True)
def test_workers_join_leave_and_die(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = prepared(kafka, tmp_path / "live")
    log = Growing(settings.kafka, seed=1, size=1500, parts=7)
    with (
        archiving(settings),
        zygote(settings, Log([], {}, set()), tmp_path) as workers,
    ):
        log.grow()
        workers.begin("a", stays=True, instance=None)
        until(workers, "a", owns(4))
        until(workers, "a", lambda news: sum(news["owned"].values()) > 0)

        workers.begin("b", stays=True, instance=None)  # while a works
        log.grow()
        b = until(workers, "b", owns(2))
        a = until(workers, "a", owns(2))
        assert a["owned"].keys() | b["owned"].keys() == {"0", "1", "2", "3"}
        log.grow()
        for name in "ab":
            until(workers, name, log.taken)

        log.grow()
        os.kill(b["pid"], signal.SIGTERM)
        assert workers.ended("b") == 0
        until(workers, "a", owns(4))

        workers.begin("c", stays=True, instance=None)
        log.grow()
        c = until(workers, "c", owns(2))
        until(workers, "a", owns(2))
        log.grow()
        until(workers, "c", lambda news: sum(news["owned"].values()) > sum(c["owned"].values()))
        os.kill(c["pid"], signal.SIGKILL)
        assert workers.ended("c") == -signal.SIGKILL
        log.finish()
        a = until(workers, "a", lambda news: owns(4)(news) and log.taken(news))
        os.kill(a["pid"], signal.SIGTERM)
        assert workers.ended("a") == 0
    check_against_an_undisturbed_run(kafka, settings, log, tmp_path)


@pytest.mark.parametrize(
    ("busy", "then"),
    [
        (True, "continued"),
        pytest.param(False, "killed", marks=pytest.mark.proof),
        pytest.param(True, "killed", marks=pytest.mark.proof),
        pytest.param(False, "continued", marks=pytest.mark.proof),
    ],
)
def test_nobody_touches_what_a_hung_worker_owns(kafka: KafkaSettings, tmp_path: Path, busy: bool, then: str) -> None:
    settings = prepared(kafka, tmp_path / "live")
    log = Growing(settings.kafka, seed=1, size=600, parts=3)
    with zygote(settings, Log([], {}, set()), tmp_path) as workers:
        workers.begin("a", stays=True, instance=None)
        until(workers, "a", owns(4))
        workers.begin("b", stays=True, instance=None)
        b = until(workers, "b", owns(2))
        a = until(workers, "a", owns(2))
        if busy:
            log.grow()
            until(workers, "a", lambda news: sum(news["owned"].values()) > 0)
        os.kill(a["pid"], signal.SIGSTOP)
        until(workers, "b", lambda news: owns(2)(news) and news["wanted"] == 4)
        waits, files = said(tmp_path, WAITING), files_of(settings, a)
        log.grow()
        mine = until(workers, "b", lambda news: owns(2)(news) and log.taken(news))
        assert mine["owned"].keys() == b["owned"].keys(), "it goes on with its own, and leaves the others alone"
        assert (said(tmp_path, WAITING), files_of(settings, a)) == (waits, files), "it waits in silence"
        if then == "killed":
            os.kill(a["pid"], signal.SIGKILL)
            assert workers.ended("a") == -signal.SIGKILL
            log.finish()
            until(workers, "b", lambda news: owns(4)(news) and log.taken(news))
        else:
            os.kill(a["pid"], signal.SIGCONT)
            log.finish()
            for name in "ab":
                until(workers, name, lambda news: owns(2)(news) and log.taken(news))
            os.kill(a["pid"], signal.SIGTERM)
            assert workers.ended("a") == 0
        os.kill(b["pid"], signal.SIGTERM)
        assert workers.ended("b") == 0
    check_against_an_undisturbed_run(kafka, settings, log, tmp_path)
