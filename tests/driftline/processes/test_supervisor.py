"""Children are waited for, watched, and never left behind."""

import sys
from pathlib import Path

import psutil
import pytest

from contracts.runtime.clock import SystemClock
from driftline.processes.supervisor import ChildFailed, Supervisor

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path({!r}).touch(); signal.pause()",
]


def test_whatever_happens_inside_no_child_is_left(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, SystemClock())

    def interrupted() -> None:
        with supervisor:
            for name in ("one", "two"):
                supervisor.start(name, SLEEPER)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    children = supervisor.children
    assert len(children) == 2
    assert not any(psutil.pid_exists(child.process.pid) for child in children)


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.processes.supervisor.TERM_TIMEOUT_S", 0.2)
    armed = tmp_path / "armed"
    with Supervisor(tmp_path / "logs", SystemClock()) as supervisor:
        child = supervisor.start("stubborn", [*STUBBORN[:2], STUBBORN[2].format(str(armed))])
        while not armed.exists():
            supervisor.check()
    assert child.process.returncode == -9


def test_a_child_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path, SystemClock()) as supervisor:
        child = supervisor.start("brief", [sys.executable, "-c", "raise SystemExit('no luck')"])
        with pytest.raises(ChildFailed, match=r"brief ended with exit code 1(.|\n)*no luck"):
            supervisor.wait_ready([child])
