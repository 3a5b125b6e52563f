"""A process is waited for while it may still come, and ended whether it wants to or not."""

import subprocess
import sys
from pathlib import Path
from typing import Literal

import psutil
import pytest

from contracts.runtime.clock import ManualClock, SystemClock
from driftline.processes import process
from tests.driftline.processes.test_supervisor import SLEEPER


def late() -> TimeoutError:
    return TimeoutError("late")


def test_what_is_done_is_not_waited_for() -> None:
    process.wait_until(lambda: True, pytest.fail, late, timeout_s=0, clock=ManualClock())


def test_what_does_not_come_in_time_raises_what_the_caller_says() -> None:
    clock = ManualClock()
    with pytest.raises(TimeoutError, match="late"):
        process.wait_until(lambda: False, lambda: clock.advance(1000), late, timeout_s=1.5, clock=clock)
    assert clock.now_ms() == 2000


def test_a_process_that_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    started = process.start(SLEEPER, tmp_path / "log", "wb", {}, session=False)
    process.end([started], lambda _: None, timeout_s=0, clock=SystemClock())
    assert started.returncode == -9


@pytest.mark.parametrize(("mode", "lines"), [("ab", 2), ("wb", 1)])
def test_a_log_is_kept_or_replaced(tmp_path: Path, mode: Literal["ab", "wb"], lines: int) -> None:
    for _ in range(2):
        process.start(["/bin/echo", "hello"], tmp_path / "log", mode, {}, session=True).wait()
    assert (tmp_path / "log").read_text() == "hello\n" * lines


PARENT = """
import sys
from pathlib import Path
from driftline.processes import process
child = process.start(["/bin/sleep", "300"], Path(sys.argv[1]), "wb", {}, session=False)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        process.wait_until(
            lambda: child.name() == "sleep", lambda: None, late, timeout_s=20, clock=SystemClock()
        )  # until then it has not asked
        parent.kill()
    child.wait(20)


def test_a_program_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        process.start(["no-such-program"], tmp_path / "log", "wb", {}, session=False)
