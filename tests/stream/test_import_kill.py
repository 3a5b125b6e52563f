"""`driftline import` that is killed as a process, by signals of both kinds, and is started again."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from contracts.config.settings import dump
from driftline.processes import broker
from driftline.processes.server import Server
from tests.conftest import own_topics
from tests.stream.import_cases import rows_of, write
from tests.stream.test_import import prepared, remembered, taught

PAGES = 4000  # of five rows each: several commits of each partition
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


def test_an_import_that_is_killed_teaches_what_an_undisturbed_one_does(apache_server: Server, tmp_path: Path) -> None:
    path = write(rows_of(seed=7, pages=PAGES), tmp_path / "log.parquet")
    outcomes = []
    for name, signals in (("whole", ()), ("killed", SIGNALS)):
        kafka = own_topics(apache_server)
        broker.prepare(kafka)
        settings = prepared(kafka, tmp_path / name)
        dump(settings, tmp_path / f"{name}.yaml")
        command = [sys.executable, "-m", "driftline", "import", str(path), "-s", str(tmp_path / f"{name}.yaml")]
        chance = random.Random(8)
        for number in signals:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
                begun = tmp_path / name / "state" / "stream"
                least = committed(begun)  # a store that is opened again begins a new log
                while process.poll() is None and committed(begun) <= least:
                    continue_after(process, 0.05)
                    least = min(least, committed(begun))
                continue_after(process, chance.random())
                process.send_signal(number)
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        outcomes.append((taught(settings), remembered(settings)))
    assert outcomes[0] == outcomes[1]
    assert sum(map(len, outcomes[0][0].values())) > PAGES


def committed(state: Path) -> int:
    """Bytes that the partitions' stores have written."""
    return sum(path.stat().st_size for path in state.glob("*/*.log")) if state.exists() else 0


def continue_after(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let it run for so long, or until it ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
