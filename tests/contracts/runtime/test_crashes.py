"""Real processes that crash, in every way that Python knows: each line that they leave is JSON."""

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

CRASHES = {
    "crashed": "raise ValueError('no')",
    "a thread crashed": """
import threading

def fail():
    raise ValueError('no')

thread = threading.Thread(target=fail, name="catalogue")
thread.start()
thread.join()
""",
    "Task exception was never retrieved": """
import asyncio, gc

async def fail():
    raise ValueError('no')

async def main():
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()

asyncio.run(main())
""",
    "an exception had nobody to go to": """
class Resource:
    def __del__(self):
        raise ValueError('no')

Resource()
""",
}


def logged(program: str) -> tuple[int, list[dict[str, Any]]]:
    """Its exit code, and the lines of its log, each of which must be JSON."""
    begin = "from contracts.runtime.worker import configure_logs\nconfigure_logs()\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + program], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize("event", CRASHES)
def test_a_crash_is_one_line_with_its_traceback(event: str) -> None:
    code, (line,) = logged(CRASHES[event])
    assert code == (1 if event == "crashed" else 0)
    assert line["event"].startswith(event)
    assert line["level"] in {"error", "critical"}
    assert line["exception"].rstrip().endswith("ValueError: no")


def test_a_warning_is_a_line() -> None:
    code, (line,) = logged("import warnings\nwarnings.warn('old')")
    assert (code, line["level"], line["logger"]) == (0, "warning", "py.warnings")
    assert "UserWarning: old" in line["event"]


def test_an_interrupt_before_there_is_a_handler_is_no_crash() -> None:
    code, (line,) = logged("raise KeyboardInterrupt")
    assert (code, line["event"], line["level"]) == (-signal.SIGINT, "interrupted", "warning")
