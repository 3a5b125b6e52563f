"""Workers that are killed with SIGKILL, over and over, until they have taken a log in."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from contracts import bus
from contracts.settings import Settings, dump
from tests.stream.log_cases import Log


class Zygote:
    """Runs workers, one after the other; see `crash_zygote`."""

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

    def run(self, **how: float | str | None) -> int:
        """Run a worker to its end; its exit code, which is -9 where it was killed."""
        self.begin(**how)
        return self.ended()

    def begin(self, **how: float | str | None) -> None:
        """Start a worker."""
        stdin: IO[str] = self._process.stdin  # type: ignore[assignment]
        stdin.write(json.dumps(self._order | how) + "\n")
        stdin.flush()

    def ended(self) -> int:
        """Wait until the worker has ended."""
        stdout: IO[str] = self._process.stdout  # type: ignore[assignment]
        answer: Mapping[str, int] = json.loads(stdout.readline())
        return answer["exit"]


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
