"""Workers in processes of their own: told what to do, listened to, and killed with SIGKILL over and over."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from contracts.config.settings import Settings, dump
from contracts.kafka import bus
from contracts.wire.events_pb2 import Example
from driftline.processes import broker
from driftline.processes.server import Server
from feature_repo.store import apply
from tests.conftest import own_topics
from tests.stream.log_cases import Log, Outcome, outcome, write_log
from tests.stream.stream_cases import settings_for

BATCH = 25  # records, so that a log makes many batches


class Zygote:
    """Runs workers, one after the other or beside each other; see `crash_zygote`."""

    def __init__(self, process: "subprocess.Popen[str]", settings_file: Path, log: Log, partitions: int) -> None:
        self._process = process
        self._order: dict[str, Any] = {
            "settings": str(settings_file),
            "ends": {
                name: [log.ends.get((name, partition), 0) for partition in range(partitions)]
                for name in (bus.EXPOSURES, bus.FEEDBACK)
            },
            "instance": "worker",
        }
        self._heard: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)

    def run(self, **how: object) -> int:
        """Run a worker to its end; its exit code, which is -9 where it was killed."""
        self.begin(**how)
        return self.ended()

    def begin(self, worker: str = "worker", **how: object) -> None:
        """Start a worker."""
        stdin: IO[str] = self._process.stdin  # type: ignore[assignment]
        stdin.write(json.dumps(self._order | {"worker": worker} | how) + "\n")
        stdin.flush()

    def heard(self, worker: str = "worker") -> dict[str, Any]:
        """Wait for the next that a worker says, or is said of it."""
        stdout: IO[str] = self._process.stdout  # type: ignore[assignment]
        while not self._heard[worker]:
            news = json.loads(stdout.readline())
            self._heard[news["worker"]].append(news)
        return self._heard[worker].popleft()

    def ended(self, worker: str = "worker") -> int:
        """Wait until a worker has ended; its exit code."""
        while "exit" not in (news := self.heard(worker)):
            pass
        return int(news["exit"])


@contextmanager
def zygote(settings: Settings, log: Log, directory: Path, name: str = "zygote") -> Iterator[Zygote]:
    """A process that runs workers on `settings`; what they print goes to a file in `directory`."""
    settings_file = directory / f"{name}.yaml"
    dump(settings, settings_file)
    with (directory / f"{name}.log").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.stream.crash_zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        with process:
            try:
                yield Zygote(process, settings_file, log, settings.kafka.partitions)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # it and a worker that has not ended


def kill_until_done(workers: Zygote, chance: random.Random, most_steps: int, kills: int) -> int:
    """Kill `kills` workers, each at a random one of its steps or moments, then let one finish; how many were killed."""
    killed = 0
    for _ in range(kills):
        if chance.random() < 0.75:
            code = workers.run(kill_at=chance.randint(1, most_steps))
        else:
            code = workers.run(kill_after_s=chance.uniform(0.05, 1.0))
        if code == 0:
            break
        assert code == -signal.SIGKILL, "a worker ended by itself; its log says why"
        killed += 1
    assert workers.run() == 0
    return killed


def prepared(server: Server, directory: Path, seed: int, size: int, redis: str | None = None) -> tuple[Settings, Log]:
    """Topics with a log, and a feature store."""
    kafka = own_topics(server)
    broker.prepare(kafka)
    directory.mkdir()
    apply(directory / "features", redis)
    return settings_for(kafka, directory, poll_records=BATCH), write_log(kafka, seed, size)


def undisturbed(server: Server, directory: Path, seed: int, size: int) -> Outcome:
    """What one worker makes of a log that nothing happens to."""
    settings, log = prepared(server, directory, seed, size)
    with zygote(settings, log, directory) as workers:
        assert workers.run() == 0
    found = outcome(settings)
    sent = [Example.FromString(value).event_id for records in found.examples.values() for _, value, _ in records]
    assert sorted(sent) == sorted(log.expected_examples), "each example once, and no other"
    return found
