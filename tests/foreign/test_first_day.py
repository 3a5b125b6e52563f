"""docs/first-day.md, followed command by command; of what it says only the ports are others."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.first_day.page import Shell, steps, with_ports
from contracts.runtime.clock import SystemClock
from driftline.processes import kafka as apache
from driftline.processes import server
from driftline.processes.broker import free_port
from tests.conftest import need_servers
from tests.foreign.foreign_cases import run_or_skip

ROOT = Path(__file__).parents[2]
FOLLOWED = ("Makefile", "README.md", "pyproject.toml", "constraints.txt", "proto", "examples", "docs/first-day.md")
PORTS = (9092, 7001)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """What the page needs of the repository, set up: `make setup` finds the environment of these tests."""
    need_servers()
    if shutil.which("go") is None:
        pytest.skip("there is no Go on the PATH")
    folder, ports = tmp_path / "driftline", {port: free_port() for port in PORTS}
    for name in FOLLOWED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    shutil.rmtree(folder / "examples/first-day/driftline", ignore_errors=True)  # made by whoever followed it here
    for path in (folder / "docs/first-day.md", folder / "examples/first-day/settings.yaml"):
        path.write_text(with_ports(path.read_text(), ports))
    run_or_skip(["go", "mod", "download"], folder / "examples/first-day", "Go's modules")
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv/.ready").touch()
    kafka = tmp_path / "kafka"
    kafka.mkdir()
    installed = apache.jars(apache.default_home())
    apache.jars(kafka).symlink_to(installed)
    try:
        yield folder
    finally:
        server.end(kafka / "data")


def test_the_page_leads_from_an_empty_broker_to_the_first_answer_of_a_trained_model(checkout: Path) -> None:
    environment = os.environ | {"DRIFTLINE_KAFKA_HOME": str(checkout.parent / "kafka")}
    commands = steps((checkout / "docs/first-day.md").read_text())
    assert len(commands) > 20
    with Shell(checkout, environment, SystemClock()) as shell:
        for step in commands:
            shell.follow(step)
