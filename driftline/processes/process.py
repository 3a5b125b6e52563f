"""One process: start it with a log, wait for something of it, end it. For the children of a run and for servers."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import psutil

from contracts.runtime.clock import Clock

POLL_S = 0.02
# Asks Linux for SIGTERM when the parent is gone, then becomes the command: after a kill -9 the parent cannot stop its
# children itself. It runs in the child and not between fork and exec (`preexec_fn`), where gRPC's own fork handlers run
# too and have been seen to abort the child.
LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[3:])
"""


class Endable(Protocol):
    """A process that may be ended: `subprocess.Popen` and `psutil.Process` are such."""

    def kill(self) -> None:
        """Send SIGKILL."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has ended."""


def start(
    command: Sequence[str],
    log: Path,
    mode: Literal["wb", "ab"],
    environment: Mapping[str, str],
    *,
    session: bool,
    detached: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a process whose output goes to `log`, in a process group of its own, so that Ctrl-C does not reach it.

    Args:
        command: its arguments.
        log: a file; made, it is readable by its owner alone, as what servers print may hold what they were given.
        mode: whether what was in the log is replaced or kept.
        environment: all of its environment.
        session: whether it gets a session of its own too. Linux shares the processors out between sessions first
            (sched_autogroup), and niceness counts only within one, so that a replica's loading thread would hold up
            all the others.
        detached: whether it outlives this process.

    """
    with open(log, mode, opener=partial(os.open, mode=0o600)) as output:
        return subprocess.Popen(
            command if detached or sys.platform != "linux" else _dying_with_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=session,
            process_group=None if session else 0,
            env=environment,
        )


def wait_until(
    done: Callable[[], bool],
    check: Callable[[], None],
    late: Callable[[], Exception],
    *,
    timeout_s: float,
    clock: Clock,
) -> None:
    """Wait until `done`; meanwhile `check` may raise, and after `timeout_s` what `late` gives is raised."""
    pause = threading.Event()
    deadline = clock.elapsed_s() + timeout_s
    while not done():
        check()
        if clock.elapsed_s() > deadline:
            raise late()
        pause.wait(POLL_S)


P = TypeVar("P", bound=Endable)


def end(processes: Sequence[P], ask: Callable[[P], None], *, timeout_s: float, clock: Clock) -> None:
    """Ask all at once to end, and kill those that have not within `timeout_s`."""
    for process in processes:
        ask(process)
    deadline = clock.elapsed_s() + timeout_s
    for process in processes:
        try:
            process.wait(max(deadline - clock.elapsed_s(), 0))
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            process.kill()
            process.wait()


def tail(log: str, lines: int) -> str:
    r"""The last lines of what a process printed.

    >>> tail("a\nb\nc\n", 2)
    'b\nc'
    """
    return "\n".join(log.splitlines()[-lines:])


def _dying_with_parent(command: Sequence[str]) -> list[str]:
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(2, os.strerror(2), command[0])
    return [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), program, *command]
