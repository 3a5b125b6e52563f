"""The peers' environment is not driftline's, and `make bench` alone builds it."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_peers_environment_has_what_they_import_of_driftline() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    declared = {_name(each) for group in (project["dependencies"], *extras) for each in group}
    code = "import sys, benchmarks.stream.peers; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    of = packages_distributions()
    imported = {_name(each) for module in done.stdout.split() for each in of.get(module, ())}
    pinned = {
        _name(line) for line in (ROOT / "benchmarks/stream/requirements.txt").read_text().splitlines() if "==" in line
    }
    assert "kafka-python" in imported & declared
    assert imported & declared <= pinned


def _name(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name
    return re.sub(r"[._]", "-", name[0]).lower()
