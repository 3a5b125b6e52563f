"""Only a process that was started as a directory's server is taken for it."""

import json
import os
from pathlib import Path

import psutil

from driftline.processes import server as servers


def test_a_process_that_only_has_the_id_is_left_alone(tmp_path: Path) -> None:
    for pid in (os.getpid(), 2**22 - 1):
        record = {"pid": pid, "address": "127.0.0.1:1", "command": ["java", "kafka.Kafka", str(tmp_path)]}
        (tmp_path / "server.json").write_text(json.dumps(record))
        assert servers.find(tmp_path) is None
        assert servers.end(tmp_path) is False
        assert not (tmp_path / "server.json").exists()
    assert psutil.Process().is_running()
