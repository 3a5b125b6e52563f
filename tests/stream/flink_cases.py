"""A log that is sent bit by bit, a job on Flink over it, and what a worker makes of the same log."""

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from contracts.config.settings import KafkaSettings, Settings
from contracts.config.store import StoreSettings
from contracts.kafka import bus
from contracts.runtime.clock import DAY_MS, SystemClock
from driftline.errors import UsageError
from driftline.processes import broker, flink, flink_job, kafka
from driftline.processes import process as processes
from driftline.processes.flink import Cluster
from driftline.processes.server import Server
from feature_repo.store import UserSequences, apply
from stream.flink.rows import RowWriter
from tests.conftest import need_servers, own_topics
from tests.stream.log_cases import BEGIN_MS, ITEMS, Outcome, Sent, make_log, outcome
from tests.stream.step_cases import exposure, feedback
from tests.stream.stream_cases import Running, Sender, settings_for

WAIT_S = 240.0


def need_flink() -> None:
    """Skip where there is no Java 17 or Flink was not installed."""
    need_servers()
    try:
        flink.compiler()
        kafka.java(flink.NAME)
    except UsageError as error:
        pytest.skip(str(error))
    if not flink.installed(flink.default_home()):
        pytest.skip(f"{flink.NAME} is not installed; `make flink` does it")


@contextmanager
def cluster(
    directory: Path, taskmanagers: int = 2, slots: int = 1, store: StoreSettings | None = None
) -> Iterator[Cluster]:
    """A cluster of the test's own."""
    with Cluster(flink.default_home(), directory, store=store) as running:
        running.start(taskmanagers, slots)
        yield running


def prepared(server: Server, directory: Path, partitions: int = 2) -> Settings:
    """Topics and a feature store."""
    topics = own_topics(server).model_copy(update={"partitions": partitions})
    broker.prepare(topics)
    directory.mkdir()
    apply(directory / "features")
    return settings_for(topics, directory)


def send(topics: KafkaSettings, records: Sequence[Sent], *, items: bool = False) -> None:
    """Append to the logs; `items`: the catalogue first."""
    sender = Sender(topics)
    if items:
        sender.items(*ITEMS)
        sender.send(bus.ITEMS, b"\xff", 99, BEGIN_MS)
    for record in records:
        sender.send(record.topic, record.value, record.user_id, record.timestamp_ms)  # type: ignore[arg-type]
    sender.flush()
    sender.close()


def by_worker(server: Server, directory: Path, records: Sequence[Sent], partitions: int = 2) -> Outcome:
    """What a worker makes of a log."""
    settings = prepared(server, directory, partitions)
    send(settings.kafka, records, items=True)
    with Running(settings) as running:
        running.take(len(records))

        def given_up() -> bool:
            """Whether no feedback waits: a slow worker takes the logs for silent, and looks at timers every 5 s."""
            running.worker.step()
            return running.value("stream_held_feedback") == 0

        until(given_up, "feedback waits at the end")
        for _ in range(10):  # what falls due at the end
            running.worker.step()
    return outcome(settings)


def until(done: Callable[[], bool], what: str) -> None:
    """Wait."""
    processes.wait_until(done, lambda: None, lambda: AssertionError(what), timeout_s=WAIT_S, clock=SystemClock())


def examples_of(settings: Settings) -> int:
    """How many examples are committed."""
    return sum(map(len, outcome(settings).examples.values()))


class Rows:
    """Writes what there is of rows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._writer = RowWriter(settings.kafka, UserSequences(settings.feature_repo))

    def write(self) -> None:
        """Everything that is committed."""
        places = bus.partitions_of(self._settings.kafka, [bus.ROWS])
        while self._writer.step() or not self._writer.at_end(places):
            pass

    def close(self) -> None:
        self._writer.close()


def settled(settings: Settings, rows: Rows, expected: Outcome) -> Outcome:
    """Wait until as much has come as is expected; all that has come then."""

    def enough() -> bool:
        rows.write()
        found = outcome(settings)
        return (
            all(len(found.examples[each]) >= len(expected.examples[each]) for each in found.examples)
            and len(found.dead_letters) >= len(expected.dead_letters)
            and found.rows == expected.rows
        )

    with suppress(AssertionError):
        until(enough, "not enough")
    return outcome(settings)


def compare(found: Outcome, expected: Outcome) -> None:
    """Equal, part by part, so that a failure says which."""
    assert found.examples == expected.examples
    assert found.dead_letters == expected.dead_letters
    assert found.rows == expected.rows


def kill_one(running: Cluster, settings: Settings, chance: random.Random) -> str:
    """Kill something of a cluster and let it be there again; what it was."""
    kind = chance.choice(("taskmanager", "taskmanager", "python", "jobmanager"))
    number = chance.choice(running.taskmanagers())
    match kind:
        case "taskmanager":
            running.kill_taskmanager(number)
            running.start_taskmanager(number)
        case "python":
            for process in running.pythons(number)[:1]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
        case "jobmanager":
            running.kill_jobmanager()
            running.start_jobmanager()
            until(lambda: flink_job.slots_of(running) >= 2, "the TaskManagers did not come back")
            flink_job.submit(running, settings, parallelism=2, checkpoint_ms=1000)
    return kind


def in_parts(seed: int, size: int, parts: int, partitions: int = 2) -> list[list[Sent]]:
    """A log in parts.

    Its last events are two days later than the others, so that all feedback without an exposure has been given up when
    they have come: else the clock would do so while the logs are silent, the later the longer that lasts.
    """
    at_ms = BEGIN_MS + 2 * DAY_MS
    records = make_log(seed, size)
    for user in range(1, partitions + 1):
        shown, told = exposure(f"end-{user}", at_ms, (1, 2), user), f"end-{user}/1"
        event = feedback(1, at_ms, f"end-{user}", view=True, event=told, user=user)
        records.append(Sent(at_ms, bus.EXPOSURES, user, shown.SerializeToString()))
        records.append(Sent(at_ms, bus.FEEDBACK, user, event.SerializeToString()))
    step = -(-len(records) // parts)
    return [records[at : at + step] for at in range(0, len(records), step)]


def readable_by_others(running: Cluster, secret: str) -> list[str]:
    """Where a secret stands that other users of the machine could read: arguments of processes, and open files."""
    processes_of = [each.cmdline() for number in running.taskmanagers() for each in running.pythons(number)]
    processes_of += [psutil.Process(running.pid_of(number)).cmdline() for number in running.taskmanagers()]
    found = [" ".join(each) for each in processes_of if secret in " ".join(each)]
    files = [each for each in running.directory.rglob("*") if each.is_file() and each.stat().st_mode & 0o044]
    return found + [str(each) for each in files if secret.encode() in each.read_bytes()]
