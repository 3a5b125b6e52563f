"""A sink that fails or hangs, at each numbered step: the stream ends where an undisturbed one does, byte for byte.

The sinks are the real ones, behind thin wrappers that fail at chosen calls, or servers that are killed or stopped.
"""

import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from kafka import TopicPartition

from contracts.config.settings import KafkaSettings, Settings
from contracts.kafka import bus
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import Example
from driftline.processes import broker
from driftline.processes import redis as redis_server_of
from driftline.processes.server import Server
from feature_repo.store import apply
from stream import deliver
from stream.deliver import At, Stopped
from stream.worker import StreamWorker
from tests.conftest import need_servers, own_topics
from tests.stream.log_cases import Log, Outcome, outcome, write_log
from tests.stream.sink_cases import (
    FAILURES,
    PATIENCE_S,
    Dead,
    FailingFeatures,
    FailingProducer,
    FailsAt,
    Fault,
    HangsAt,
    Interrupted,
)
from tests.stream.stream_cases import SENT_MS, Running, settings_for

SEED, SIZE = 7, 360
BATCH = 20  # records, so that the log makes many batches
STEPS = ("commit", "committed", "send", "sent", "written", "acknowledged", "reported")
WITHIN_A_DELIVERY = ("send", "sent", "written", "acknowledged")
OUTAGE_S = 4.0


def prepared(
    kafka: KafkaSettings, directory: Path, redis: str | None = None, batch: int = BATCH
) -> tuple[Settings, Log]:
    apply(directory / "features", redis)
    return settings_for(kafka, directory, poll_records=batch), write_log(kafka, SEED, SIZE)


def ready(_: Running) -> None:
    """A worker as it is."""


def finish(
    settings: Settings,
    log: Log,
    at: At = lambda _: None,
    change: Callable[[Running], None] = ready,
) -> None:
    """Run a worker until it has taken in the log and put out what comes of it."""
    with Running(settings, clock=ManualClock(SENT_MS), at=at) as running:
        change(running)
        while not took_in(running.worker, log):
            running.worker.step()
            assert running.value("stream_waiting_bytes") == sum(waiting_bytes(running.worker))
        for _ in range(4):  # a timer that the last batch set may set one more
            running.worker.step()


def took_in(worker: StreamWorker, log: Log) -> bool:
    positions = {
        (name, where.partition): getattr(owned.store.position, name) for owned, name, where in worker._ownership.logs()
    }
    return all(positions.get(which) == end for which, end in log.ends.items())


def waiting_bytes(worker: StreamWorker) -> Iterator[int]:
    for owned, name, _ in worker._ownership.logs():
        yield owned.waiting(name).size_bytes


def undisturbed(server: Server, directory: Path, redis: str | None = None) -> Outcome:
    """The outcome where nothing fails, in one large batch: where batches end changes nothing either."""
    kafka = own_topics(server)
    broker.prepare(kafka)
    settings, log = prepared(kafka, directory, redis, batch=2000)
    finish(settings, log)
    found = outcome(settings)
    ids = [Example.FromString(value).event_id for records in found.examples.values() for _, value, _ in records]
    assert sorted(ids) == sorted(log.expected_examples), "each example once, and no other"
    assert min(len(found.rows), len(found.dead_letters)) > 20
    return found


@pytest.fixture(scope="module")
def expected(apache_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What the log comes to, whatever the broker."""
    return undisturbed(apache_server, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is logged of failures that are meant is not rendered, which would take most of the time."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures of one call are over at once, so there is nothing to wait for."""
    monkeypatch.setattr(deliver, "FIRST_PAUSE_S", 0.001)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_again_and_again(apache: KafkaSettings, tmp_path: Path, expected: Outcome, step: str) -> None:
    """Sinks are tried again; a worker that fails elsewhere ends, and the next one goes on."""
    settings, log = prepared(apache, tmp_path)
    fails = FailsAt(step)
    ended = 0
    while True:
        try:
            finish(settings, log, fails)
            break
        except Fault:
            ended += 1
    assert outcome(settings) == expected
    assert fails.failed == FAILURES
    assert ended == (0 if step in WITHIN_A_DELIVERY else fails.failed)


@pytest.mark.usefixtures("impatient")
def test_a_store_that_fails_before_amid_and_after_its_writes(
    kafka: KafkaSettings, tmp_path: Path, expected: Outcome
) -> None:
    settings, log = prepared(kafka, tmp_path)
    failing: list[FailingFeatures] = []

    def change(running: Running) -> None:
        failing.append(FailingFeatures(running.worker._delivery._features))
        running.worker._delivery._features = failing[0]  # type: ignore[assignment]

    finish(settings, log, change=change)
    assert outcome(settings) == expected
    assert failing[0].failed == 3 * FAILURES


@pytest.mark.usefixtures("impatient")
def test_a_client_that_refuses_loses_and_forgets(kafka: KafkaSettings, tmp_path: Path, expected: Outcome) -> None:
    settings, log = prepared(kafka, tmp_path)
    failing: list[FailingProducer] = []

    def change(running: Running) -> None:
        failing.append(FailingProducer(running.worker._delivery._producer))
        running.worker._delivery._producer = failing[0]

    finish(settings, log, change=change)
    assert outcome(settings) == expected
    failures = failing[0].failures
    assert min(failures[name] for name in ("refused", "full", "late", "lost", "unacknowledged")) >= FAILURES


def reported(kafka: KafkaSettings) -> dict[TopicPartition, int]:
    """The offsets that the group has committed."""
    client = bus.admin(kafka)
    group = kafka.topic_prefix + "stream"
    known = client.list_group_offsets([group])[group]
    client.close()
    return {where: each.offset for where, each in known.items()}


def test_while_a_sink_hangs_memory_is_bounded_and_progress_stands_still(
    kafka: KafkaSettings, tmp_path: Path, expected: Outcome
) -> None:
    settings, log = prepared(kafka, tmp_path)
    hangs = HangsAt()
    workers: queue.Queue[StreamWorker] = queue.Queue()
    ended: queue.Queue[BaseException | None] = queue.Queue()

    def work() -> None:
        try:
            finish(settings, log, hangs, lambda running: workers.put(running.worker))
            ended.put(None)
        except BaseException as error:  # noqa: BLE001  (the test's own thread raises it)
            ended.put(error)

    thread = threading.Thread(target=work)
    thread.start()
    worker = workers.get(timeout=PATIENCE_S)
    seen, were_paused, before = [], 0, {}
    for _ in STEPS:
        seen.append(hangs.hangs.get(timeout=PATIENCE_S))
        waiting = {where: owned.waiting(name) for owned, name, where in worker._ownership.logs()}
        assert all(len(each.records) < BATCH + 4 * BATCH for each in waiting.values()), "one fetch beyond a full log"
        were_paused += len(worker._consumer.paused())
        now = reported(kafka)
        for where, each in waiting.items():
            assert before.get(where, 0) <= now.get(where, 0) <= each.end - len(each.records)
        if seen[-1] in {"committed", "send", "sent", "written", "acknowledged"}:
            behind = [where for where, each in waiting.items() if now.get(where, 0) < each.end - len(each.records)]
            assert behind, "what the sinks lack is not reported"
        before = now
        hangs.let_go.release()
    failure = ended.get(timeout=PATIENCE_S)
    thread.join()
    assert failure is None, failure
    assert sorted(seen) == sorted(STEPS)
    assert were_paused > 0
    assert outcome(settings) == expected


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sink", ["store", "client"])
def test_a_worker_that_is_asked_to_stop_while_a_sink_fails_leaves_the_rest_to_the_next(
    kafka: KafkaSettings, tmp_path: Path, expected: Outcome, sink: str
) -> None:
    settings, log = prepared(kafka, tmp_path)

    def change(running: Running) -> None:
        def at(step: str) -> None:
            nonlocal sends
            sends += step == "send"
            if sends == 4:
                setattr(delivery, *broken)

        sends = 0
        delivery = running.worker._delivery
        broken = ("_features", Dead(running.stop)) if sink == "store" else ("_producer", Dead(running.stop))
        delivery._at = at

    with pytest.raises(Stopped):
        finish(settings, log, change=change)
    assert outcome(settings) != expected
    finish(settings, log)
    assert outcome(settings) == expected


# Servers


def test_redis_is_killed_and_comes_back(
    apache_server: Server, apache: KafkaSettings, redis_server: Server, tmp_path: Path
) -> None:
    undisturbed_dir = tmp_path / "undisturbed"
    undisturbed_dir.mkdir()
    expected = undisturbed(apache_server, undisturbed_dir, f"{redis_server.address},db=7")
    need_servers()
    lasting = {"appendonly": "yes", "appendfsync": "always"}
    with redis_server_of.start(redis_server_of.default_home(), tmp_path / "redis", extra=lasting) as server:
        settings, log = prepared(apache, tmp_path, server.address)
        told: Counter[str] = Counter()

        def at(step: str) -> None:
            told[step] += 1
            if step == "send" and told["killed"] and not told["started"]:  # it is tried again
                server.start()
                told["started"] += 1

        def kill() -> None:
            server.kill()
            told["killed"] += 1

        def change(running: Running) -> None:
            features = running.worker._delivery._features
            # A batch of items alone writes no rows, and what a batch holds is the broker's to say.
            running.worker._delivery._features = Interrupted(features, 3, kill)  # type: ignore[assignment]

        finish(settings, log, at, change)
        assert told["sent"] - told["written"] == 1, "one write failed"
        assert outcome(settings) == expected


def test_kafka_stands_still_for_a_while(apache_of_its_own: Server, tmp_path: Path, expected: Outcome) -> None:
    kafka = own_topics(apache_of_its_own)
    broker.prepare(kafka)
    settings, log = prepared(kafka, tmp_path)
    told: Counter[str] = Counter()
    process = apache_of_its_own.pid
    timers: list[threading.Timer] = []

    def at(step: str) -> None:
        told[step] += 1
        if (step, told[step]) in {("send", 3), ("written", 5)}:
            os.kill(process, signal.SIGSTOP)
            timers.append(threading.Timer(OUTAGE_S, os.kill, (process, signal.SIGCONT)))
            timers[-1].start()

    try:
        finish(settings, log, at)
    finally:
        os.kill(process, signal.SIGCONT)
    assert len(timers) == 2
    assert outcome(settings) == expected
