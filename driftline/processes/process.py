"""One process: start it with a log, wait for something of it, end it. For the children of a run and for servers."""

import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import psutil

from contracts.runtime.clock import Clock

POLL_S = 0.02
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


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
        log: a file.
        mode: whether what was in the log is replaced or kept.
        environment: all of its environment.
        session: whether it gets a session of its own too. Linux shares the processors out between sessions first
            (sched_autogroup), and niceness counts only within one, so that a replica's loading thread would hold up
            all the others.
        detached: whether it outlives this process.

    """
    with log.open(mode) as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=session,
            process_group=None if session else 0,
            preexec_fn=None if detached else _die_with_parent,  # noqa: PLW1509  (one system call, no Python locks)
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


def _die_with_parent() -> None:
    """Ask Linux to send SIGTERM when the parent is gone: after a kill -9 it cannot stop its children itself."""
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
