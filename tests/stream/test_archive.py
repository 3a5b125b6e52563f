"""The archive: every example's rows once, wherever it is killed, and features at a time as they were seen then."""

import contextlib
import os
import random
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.config.settings import KafkaSettings, Settings, SettingsError, StreamSettings, dump
from contracts.kafka import bus, consumers
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example, History
from feature_repo import offline
from feature_repo.offline import OfflineFiles
from feature_repo.store import UserRow, apply
from stream.archive import MAX_AGE_MS, Archive, entities, rows
from tests.feature_repo.feast_cases import historical
from tests.stream.stream_cases import settings_for

LIMIT = 200
FILE_EXAMPLES = 7


def example(user_id: int, time_ms: int, past_ms: Sequence[int] = (), session: int = 0) -> Example:
    """An example of item 10,000 + its time; so are the items of its past, which is of session 0."""
    return Example(
        schema_version=1,
        event_id=f"{user_id}/{time_ms}",
        user_id=user_id,
        item_id=10_000 + time_ms,
        time_ms=time_ms,
        play_time_ms=time_ms % 100,
        follow=time_ms % 2 == 1,
        session=session,
        history=History(
            item_ids=[10_000 + t for t in past_ms],
            times_ms=past_ms,
            play_times_ms=[t % 100 for t in past_ms],
            effective_views=[t % 3 > 0 for t in past_ms],
            follows=[False for _ in past_ms],
            sessions=[0 for _ in past_ms],
        ),
    )


def carried(seen: Example) -> UserRow | None:
    """The row that an example says its user had."""
    past = seen.history
    if not past.item_ids:
        return None
    return UserRow(
        seen.user_id,
        list(past.item_ids),
        list(past.times_ms),
        list(past.play_times_ms),
        [int(flag) for flag in past.effective_views],
        [int(flag) for flag in past.follows],
        list(past.sessions),
        last_event_ms=past.times_ms[-1],
        feedback_offset=0,
        session_start=bisect_left(past.sessions, seen.session),
    )


# Rows of one example


def test_an_example_is_a_row_before_it_and_a_row_after_it() -> None:
    before, after = rows([(example(3, 50, [10, 20]), 90)], LIMIT).to_pylist()
    assert (before["user_id"], before["item_ids"], before["last_event_ms"]) == (3, [10_010, 10_020], 20)
    assert (after["user_id"], after["item_ids"], after["last_event_ms"]) == (3, [10_010, 10_020, 10_050], 50)
    assert (after["effective_views"], after["play_times_ms"]) == ([1, 1, 1], [10, 20, 50])
    assert [round(row["event_timestamp"].timestamp() * 1e6) for row in (before, after)] == [49_000, 50_001]
    assert [row["written_us"] for row in (before, after)] == [49_000, 50_001]
    assert [round(row["created"].timestamp() * 1e3) for row in (before, after)] == [90, 90]


def test_the_row_after_drops_the_oldest_behaviour_where_there_is_no_room() -> None:
    before, after = rows([(example(3, 50, [10, 20, 30]), 90)], 3).to_pylist()
    assert before["times_ms"] == [10, 20, 30]
    assert after["times_ms"] == [20, 30, 50]


@pytest.mark.parametrize(("session", "before", "after"), [(0, 0, 0), (1, 3, 2)])
def test_the_open_session_is_the_one_that_the_example_belongs_to(session: int, before: int, after: int) -> None:
    table = rows([(example(3, 50, [10, 20, 30], session), 90)], 3)
    assert table["session_start"].to_pylist() == [before, after]


# Features at a time


def behave(seed: int, users: int = 4, events: int = 400) -> list[tuple[Example, int]]:
    """Examples as a stream of behaviours makes them, with the time at which the log received each.

    Behaviours are dense in time, come late, are followed later on, and half of them are not positive.
    """
    chance = random.Random(seed)
    made: list[tuple[Example, int]] = []
    pasts: dict[int, dict[int, list[int]]] = {user: {} for user in range(1, users + 1)}
    for received_ms in range(1000, 1000 + events):
        user = chance.randint(1, users)
        past = pasts[user]
        if past and chance.random() < 0.2:
            past[chance.choice(list(past))][3] = 1  # a follow is folded in
            continue
        time_ms = received_ms - chance.choice((0, 0, 0, 1, 2, 3, 7, 30))
        if time_ms in past:
            continue
        positive, session = int(chance.random() < 0.5), time_ms // 50
        if positive:
            before = sorted(t for t in past if t < time_ms)[-LIMIT:]
            columns = list(zip(*(past[t] for t in before), strict=True)) or [[]] * 5
            history = History(
                item_ids=columns[0],
                times_ms=before,
                play_times_ms=columns[1],
                effective_views=[bool(flag) for flag in columns[2]],
                follows=[bool(flag) for flag in columns[3]],
                sessions=columns[4],
            )
            event = Example(schema_version=1, user_id=user, item_id=received_ms, time_ms=time_ms, session=session)
            event.history.CopyFrom(history)
            made.append((event, received_ms))
        past[time_ms] = [received_ms, chance.randint(0, 99), positive, 0, session]
    return made


@pytest.mark.parametrize("seed", range(3))
def test_features_just_before_an_example_are_those_that_it_carries(tmp_path: Path, seed: int) -> None:
    apply(tmp_path)
    seen = behave(seed)
    files = OfflineFiles(offline.directory(tmp_path))
    for n, start in enumerate(range(0, len(seen), 40)):
        files.write(offline.Piece(0, n, n + 1).name, [rows(seen[start : start + 40], LIMIT)])
    users, times = [e.user_id for e, _ in seen], [e.time_ms for e, _ in seen]
    assert historical(tmp_path, users, [t - 1 for t in times]) == [carried(e) for e, _ in seen]


def test_features_at_another_time_are_as_of_the_latest_example(tmp_path: Path) -> None:
    apply(tmp_path)
    seen = [(example(3, 50, [10]), 90), (example(3, 100, [10, 50, 70]), 101)]  # 70 was not positive
    OfflineFiles(offline.directory(tmp_path)).write(offline.Piece(0, 0, 2).name, [rows(seen, LIMIT)])
    found = historical(tmp_path, [3] * 5 + [4], [40, 50, 51, 99, 101, 101])
    assert [row and row.times_ms for row in found] == [None, [10], [10, 50], [10, 50, 70], [10, 50, 70, 100], None]


# Exactly once, on a real broker


def send(settings: Settings, examples: Sequence[Example | bytes], partition: int = 0) -> None:
    producer = bus.producer(settings.kafka)
    for n, each in enumerate(examples):
        value = each if isinstance(each, bytes) else each.SerializeToString()
        producer.send(settings.kafka.topic(bus.EXAMPLES), value=value, partition=partition, timestamp_ms=1000 + n)
    producer.close()


def table(settings: Settings, partition: int, home: Path | None = None) -> pa.Table:
    """All rows of a partition, in the order of offsets."""
    paths = sorted((home or offline.directory(settings.feature_repo)).glob(f"p{partition:05}-*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths]).combine_chunks()


def expected(examples: Sequence[Example]) -> pa.Table:
    return rows([(each, 1000 + n) for n, each in enumerate(examples)], LIMIT)


@contextlib.contextmanager
def archiving(
    settings: Settings, clock: ManualClock, replace: Callable[[Path, Path], None] = os.replace
) -> Iterator[Archive]:
    files = OfflineFiles(offline.prepare(settings.feature_repo), replace)
    consumer = consumers.consumer(settings.kafka, [], settings.kafka.topic_prefix + "archive", wait_ms=20)
    producer = bus.producer(settings.kafka)
    try:
        with files.claim():
            yield Archive(settings, consumer, producer, files, clock, FILE_EXAMPLES)
    finally:
        consumer.close()
        producer.close()


def step_until(archive: Archive, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        archive.step()


def consume(archive: Archive, count: int) -> None:
    deadline = time.monotonic() + 60
    while count > 0:
        assert time.monotonic() < deadline
        count -= archive.step()


def ends(settings: Settings) -> dict[int, int]:
    return OfflineFiles(offline.directory(settings.feature_repo)).ends()


class Killed(Exception):
    """Stands for the end of the process."""


class Killer:
    """Gives files their names, until it is killed at the `at`-th: before it has the name, or just after."""

    def __init__(self, at: int, before: bool) -> None:
        self._left = at
        self._before = before

    def __call__(self, hidden: Path, name: Path) -> None:
        self._left -= 1
        if self._left == 0 and self._before:
            raise Killed
        hidden.replace(name)
        if self._left == 0:
            raise Killed


@pytest.mark.parametrize("before", [True, False], ids=["before the rename", "after the rename"])
def test_wherever_it_is_killed_each_row_is_there_once(kafka: KafkaSettings, tmp_path: Path, before: bool) -> None:
    settings = settings_for(kafka, tmp_path, poll_records=10)
    sent = {p: [example(2 + p, 50 + n, [10, 20 + n]) for n in range(40)] for p in range(2)}
    for partition, examples in sent.items():
        send(settings, examples, partition)
    offline.prepare(settings.feature_repo)  # it names a file too
    clock = ManualClock(0)
    deaths = 0
    while sum(ends(settings).values()) < 70:
        with contextlib.suppress(Killed), archiving(settings, clock, Killer(2, before)) as archive:
            try:
                step_until(archive, lambda: sum(ends(settings).values()) >= 70)
            except Killed:
                deaths += 1
    assert deaths >= 4
    with archiving(settings, clock) as archive:
        consume(archive, 10)
        assert archive.metrics.registry.get_sample_value("archive_lag") == 10
        clock.advance(MAX_AGE_MS)
        archive.step()
        assert archive.metrics.registry.get_sample_value("archive_lag") == 0
    for partition, examples in sent.items():
        assert table(settings, partition).equals(expected(examples))
        asked = entities([(each, 1000 + n) for n, each in enumerate(examples)], range(40))
        assert table(settings, partition, offline.examples_directory(settings.feature_repo)).equals(asked)
    assert not list(offline.directory(settings.feature_repo).glob(".*.tmp"))


def test_files_end_at_the_same_offsets_however_records_were_polled(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = settings_for(kafka, tmp_path, poll_records=10)
    send(settings, [example(2, 50 + n) for n in range(3)])
    with archiving(settings, ManualClock(0)) as archive:
        consume(archive, 3)
        send(settings, [example(2, 60 + n) for n in range(20)])
        consume(archive, 20)
        archive.finish()
    pieces = sorted(filter(None, (offline.parse(p.name) for p in offline.directory(settings.feature_repo).iterdir())))
    assert [(piece.start, piece.end) for piece in pieces] == [(0, 7), (7, 14), (14, 21), (21, 23)]


def test_bad_examples_are_dead_letters_and_hold_nothing_up(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = settings_for(kafka, tmp_path, poll_records=10)
    good = [example(2, 50), example(2, 51, [50])]
    send(settings, [good[0], b"\xff\xff", good[1], example(2, 2**62)])
    with archiving(settings, ManualClock(0)) as archive:
        consume(archive, 4)
        archive.finish()
    assert ends(settings) == {0: 4}
    assert table(settings, 0)["last_event_ms"].to_pylist() == [None, 50, 50, 51]
    letters = [DeadLetter.FromString(r.value) for r in consumers.read_to_end(kafka, bus.DEAD_LETTERS, 0, 0)]
    assert [(letter.reason, letter.offset) for letter in letters] == [("undecodable", 1), ("out_of_range", 3)]


def test_files_of_another_log_are_refused(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = settings_for(kafka, tmp_path, poll_records=10)
    OfflineFiles(offline.prepare(settings.feature_repo)).write(offline.Piece(0, 0, 2).name, [])
    send(settings, [example(2, 50)])
    with (
        archiving(settings, ManualClock(0)) as archive,
        pytest.raises(SettingsError, match="has no such log"),
    ):
        consume(archive, 1)


def test_one_archive_at_a_time_writes(tmp_path: Path) -> None:
    files = OfflineFiles(offline.prepare(tmp_path))
    with files.claim(), pytest.raises(SettingsError, match="Another archive is writing"):
        files.claim()


# The process


@pytest.mark.e2e
def test_the_process_survives_kill_9(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = settings_for(kafka, tmp_path, poll_records=10).model_copy(update={"stream": StreamSettings()})
    settings_file = tmp_path / "settings.yaml"
    dump(settings, settings_file)
    offline.prepare(settings.feature_repo)
    sent = {p: [example(2 + p, 500 + n, range(n % 50)) for n in range(6000)] for p in range(2)}
    for partition, examples in sent.items():
        send(settings, examples, partition)

    def start(log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as err:
            command = [Path(sys.executable).with_name("driftline"), "archive", "-s", settings_file]
            return subprocess.Popen(command, stderr=err)

    def wait_for(done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.001)

    for n in range(3):
        log, found = tmp_path / f"killed-{n}.log", len(ends(settings))
        process, files = start(log), sum(1 for _ in offline.directory(settings.feature_repo).glob("p*"))
        hidden = offline.directory(settings.feature_repo)
        wait_for(lambda: any(hidden.glob(".*.tmp")) or len(list(hidden.glob("p*"))) > files, process, log)  # noqa: B023
        process.kill()
        process.wait()
        assert found <= len(ends(settings))
    log = tmp_path / "last.log"
    process = start(log)
    wait_for(lambda: ends(settings) == {0: 6000, 1: 6000}, process, log)
    process.terminate()
    assert process.wait(30) == 0, log.read_text()
    for partition, examples in sent.items():
        assert table(settings, partition).equals(expected(examples))
