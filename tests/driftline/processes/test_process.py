"""A process is waited for while it may still come, and ended whether it wants to or not."""

from pathlib import Path
from typing import Literal

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
