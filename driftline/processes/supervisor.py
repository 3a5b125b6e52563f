"""Child processes of one run: start them, wait until they are ready, and leave none behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contracts.runtime.clock import Clock
from driftline.errors import RunError
from driftline.processes import process

READY_TIMEOUT_S = 180.0  # the first import of torch on a cold disk takes most of a minute
TERM_TIMEOUT_S = 15.0
TAIL_LINES = 3
# Feast sets these in whoever imports it. A child would keep its metrics in mapped files, and wait for the disk.
FEAST_VARIABLES = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ChildFailed(RunError):
    """A child process ended or never became ready; the message ends with the last lines of its log."""


@dataclass
class Child:
    """A process that was started, where its log is, and what it announced."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    facts: dict[str, Any]
    outlives: bool


class Supervisor:
    """Starts children in process groups of their own, so that Ctrl-C reaches this process alone, and stops them all.

    A context manager: on the way out, for whatever reason, every child is stopped. It gets SIGTERM, and SIGKILL where
    it does not end in time.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self.children: list[Child] = []
        directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def stop_all(self) -> None:
        """Stop every child: all at once, but for those that the others need, which come last."""
        # A second Ctrl-C during the clean-up must not leave processes behind.
        previous = {signum: signal.signal(signum, signal.SIG_IGN) for signum in STOP_SIGNALS}
        try:
            for outlives in (False, True):
                self._stop([child for child in self.children if child.outlives is outlives])
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def start(self, name: str, command: Sequence[str], *, outlives: bool = False) -> Child:
        """Start a process; its output goes to `<directory>/<name>.log`. `outlives`: it is stopped after the others."""
        log = self._directory / f"{name}.log"
        started = process.start(command, log, "wb", _environment(), session=False)
        child = Child(name, started, log, {}, outlives)
        self.children.append(child)
        return child

    def start_worker(self, name: str, command: Sequence[str], settings: Path) -> Child:
        """Start `driftline COMMAND …` with a ready file."""
        return self.start(
            name,
            [
                *(sys.executable, "-W", "ignore", "-m", "driftline", *command),
                *("--settings", str(settings), "--ready-file", str(self._ready_file(name))),
            ],
        )

    def wait_ready(self, children: Sequence[Child]) -> None:
        """Wait until each child has announced itself.

        Raises:
            ChildFailed: one ended first, or was not ready in time.

        """
        begun_s = self._clock.elapsed_s()
        for child in children:
            path = self._ready_file(child.name)
            left_s = READY_TIMEOUT_S - (self._clock.elapsed_s() - begun_s)
            process.wait_until(path.exists, self.check, partial(_not_ready, child), timeout_s=left_s, clock=self._clock)
            child.facts = read_facts(path)

    def check(self) -> None:
        """See that every child still runs.

        Raises:
            ChildFailed: one has ended.

        """
        for child in self.children:
            code = child.process.poll()
            if code is not None:
                raise ChildFailed(
                    f"{child.name} ended with exit code {code}; its log is {child.log}.\n{_tail(child.log)}"
                )

    def stop(self, child: Child) -> None:
        """Stop one child before the others."""
        self._stop([child])
        self.children.remove(child)

    def _stop(self, children: Sequence[Child]) -> None:
        running = [child.process for child in children if child.process.poll() is None]
        process.end(running, subprocess.Popen.terminate, timeout_s=TERM_TIMEOUT_S, clock=self._clock)

    def _ready_file(self, name: str) -> Path:
        return self._directory / f"{name}.ready.json"


def _environment() -> dict[str, str]:
    # One thread each for BLAS and OpenMP: the processes share few cores, and more threads only wait.
    added = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {name: value for name, value in os.environ.items() if name not in FEAST_VARIABLES} | added


def read_facts(ready_file: Path) -> dict[str, Any]:
    """What a worker announced.

    Raises:
        ChildFailed: the file holds something else.

    """
    try:
        facts = json.loads(ready_file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ChildFailed(f"{ready_file} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(facts, dict):
        raise ChildFailed(f"{ready_file} is no JSON object.")
    return facts


def interrupt_on_stop_signals() -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal all raise KeyboardInterrupt, also where SIGINT came ignored."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.default_int_handler)


def _not_ready(child: Child) -> ChildFailed:
    return ChildFailed(f"{child.name} was not ready after {READY_TIMEOUT_S:.0f} s.\n{_tail(child.log)}")


def _tail(log: Path) -> str:
    return "\n".join(map(readable, process.tail(log.read_text(errors="replace"), TAIL_LINES).splitlines()))


def readable(line: str) -> str:
    """A line of a worker's log for a person: of one that says why the process ends, only that.

    >>> readable('{"event": "The port is taken.", "level": "critical"}'), readable("no JSON")
    ('The port is taken.', 'no JSON')
    >>> readable('{"event": "crashed", "error": "ValueError()", "level": "critical", "exception": "…"}')
    'crashed: ValueError()'
    """
    try:
        said = json.loads(line)
    except ValueError:
        return line
    if not isinstance(said, dict) or said.get("level") != "critical":
        return line
    return ": ".join(str(said[key]) for key in ("event", "error") if key in said)
