"""Server processes on this machine, such as Apache Kafka and Redis: start, find, stop. What they are is not known here.

A server lives in a directory: `server.json` says which process it is, `server.log` has what it printed. Only a process
whose arguments are those that were written down there is ever signalled: process ids are used again.
"""

import json
import os
import random
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from contracts.runtime.clock import SystemClock
from contracts.runtime.durable import LockedError, lock_file, replace_file
from driftline.errors import RunError, UsageError
from driftline.processes import process as processes

HOST = "127.0.0.1"
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
TAIL_LINES = 5
# Below the ports that Linux gives to clients: a client that tries to reach a dead server's port from that range can
# end up connected to itself, and the server could not have its port back.
PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class Launch:
    """How a server is started, and how to see that it answers."""

    name: str
    command: tuple[str, ...]  # must name `directory`, so that no other process has the same arguments
    directory: Path
    address: str  # HOST:PORT
    answers: Callable[[str], bool]  # given what it has printed since it was started
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    process: psutil.Process
    address: str


class Server:
    """A server that was started here. A context manager: on the way out it is stopped."""

    def __init__(self, launch: Launch, *, detached: bool = False) -> None:
        self._launch = launch
        self._detached = detached
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT; the same after a restart."""
        return self._launch.address

    @property
    def directory(self) -> Path:
        """Where its data, its log and its process id are."""
        return self._launch.directory

    @property
    def log(self) -> Path:
        """What it printed, over all its starts."""
        return self.directory / "server.log"

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            RunError: it does not run.

        """
        running = find(self.directory)
        if running is None:
            raise RunError(f"{self._launch.name} does not run in {self.directory}.")
        return running.process.pid

    def start(self) -> None:
        """Start it and wait until it answers; nothing is left when that fails.

        Raises:
            UsageError: it runs already, or its port is taken.
            RunError: it did not come up.

        """
        with _locked(self.directory):
            if find(self.directory):
                raise UsageError(f"{self._launch.name} runs in {self.directory} already.")
            check_free(int(self.address.rpartition(":")[2]))
            begin = self.log.stat().st_size if self.log.exists() else 0
            environment = os.environ | self._launch.environment
            self._process = processes.start(
                self._launch.command, self.log, "ab", environment, session=True, detached=self._detached
            )
            _write(self.directory, self._process.pid, self._launch)
            try:
                self._await(self._process, begin)
            except BaseException:
                self._process.kill()
                self._process.wait()
                raise

    def stop(self) -> None:
        """Stop it, if it runs, and wait until it has ended."""
        end(self.directory)
        self._reap()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        end(self.directory, signal_it=psutil.Process.kill)
        self._reap()

    def restart(self) -> None:
        """Start it again with the same data on the same port; first stop it, where it runs."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _await(self, process: subprocess.Popen[bytes], begin: int) -> None:
        name = self._launch.name

        def printed() -> str:
            return self.log.read_bytes()[begin:].decode(errors="replace")

        def check() -> None:
            if process.poll() is not None:
                tail = processes.tail(printed(), TAIL_LINES)
                raise RunError(f"{name} ended with exit code {process.returncode}; its log is {self.log}.\n{tail}")

        def late() -> RunError:
            return RunError(
                f"{name} did not answer in {START_TIMEOUT_S:.0f} s.\n{processes.tail(printed(), TAIL_LINES)}"
            )

        processes.wait_until(
            lambda: self._launch.answers(printed()), check, late, timeout_s=START_TIMEOUT_S, clock=SystemClock()
        )

    def _reap(self) -> None:
        if self._process:
            self._process.wait()
            self._process = None


def find(directory: Path) -> Running | None:
    """The server of a directory, if it runs. What an ended one has left, or another process with its id, is not it."""
    try:
        record = json.loads((directory / "server.json").read_text())
        process = psutil.Process(record["pid"])
        arguments = process.cmdline()
    except (FileNotFoundError, json.JSONDecodeError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    # The program's own name may differ: `java` can be a script that runs another.
    expected = record["command"][1:]
    return Running(process, record["address"]) if arguments[-len(expected) :] == expected else None


def end(directory: Path, *, signal_it: Callable[[psutil.Process], None] = psutil.Process.terminate) -> bool:
    """End the server of a directory and wait until it has ended; False where none runs."""
    running = find(directory)
    if running:
        processes.end([running.process], signal_it, timeout_s=STOP_TIMEOUT_S, clock=SystemClock())
    (directory / "server.json").unlink(missing_ok=True)
    return running is not None


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, and that no client is given.

    Raises:
        RunError: there is none.

    """
    for port in random.sample(PORTS, 200):
        if _is_free(port):
            return port
    raise RunError(f"No port of {HOST} from {PORTS.start} to {PORTS.stop - 1} is free.")


def check_free(port: int) -> None:
    """See that a port can be listened on.

    Raises:
        UsageError: it cannot.

    """
    if not _is_free(port):
        raise UsageError(f"Port {port} of {HOST} is taken; choose another --port.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not hold a port
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _write(directory: Path, pid: int, launch: Launch) -> None:
    record = {"pid": pid, "address": launch.address, "command": launch.command}
    replace_file(directory / "server.json", f"{json.dumps(record)}\n".encode())


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a directory while a server is started in it."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        held = lock_file(directory / "server.lock")
    except LockedError as error:
        raise UsageError(f"A server is being started in {directory} already.") from error
    with held:
        yield
