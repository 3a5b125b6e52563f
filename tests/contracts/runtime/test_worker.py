"""Real processes: one that ends when asked to, and one that would not."""

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import sys, threading
from contracts.runtime.worker import configure_logs, stop_on_signal

configure_logs()
stop = stop_on_signal(float(sys.argv[1]))
never = threading.Event()


def hang_in_close():
    never.wait()


hanging = threading.Thread(target=hang_in_close, name="catalogue", daemon=True)
hanging.start()
print("ready", flush=True)
stop.wait()
if sys.argv[2] == "hangs":
    hanging.join()
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_does_not_stop_says_at_what_it_is_and_ends(signum: signal.Signals) -> None:
    code, said = _signalled(signum, "0.2", "hangs")
    assert code == 1
    assert said["event"] == "not stopped in time, so the process ends here"
    assert said["threads"].keys() >= {"MainThread", "catalogue"}
    assert "hang_in_close" in said["threads"]["catalogue"]


def test_a_process_that_stops_says_nothing() -> None:
    assert _signalled(signal.SIGTERM, "60", "stops") == (0, {})


def _signalled(signum: signal.Signals, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Its exit code, and the last line that it has logged."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signum)
        _, logged = process.communicate(timeout=30)
    return process.returncode, json.loads(logged.splitlines()[-1]) if logged else {}
