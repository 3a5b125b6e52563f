"""Apache Kafka by the command, as a newcomer starts it, and by the library, as a crash proof does."""

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.kafka import bus, consumers
from driftline.errors import UsageError
from driftline.processes import broker, kafka
from driftline.processes import server as servers
from driftline.processes.server import Server
from tests.conftest import need_servers, own_topics


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "driftline", "kafka", *arguments, "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own with the jars of the real one."""
    need_servers()
    (tmp_path / kafka.VERSION).symlink_to(kafka.jars(kafka.default_home()))
    return tmp_path


def test_it_starts_says_where_it_is_and_stops(home: Path) -> None:
    try:
        started = command(home, "start", "--port", "0")
        assert started.returncode == 0, started.stderr
        running = servers.find(home / "data")
        assert running
        assert running.address in started.stdout
        assert str(running.process.pid) in started.stdout

        # Once more: it says so, and starts no second one.
        again = command(home, "start", "--port", "0")
        assert again.stdout == started.stdout
        elsewhere = command(home, "start", "--port", "1")
        assert elsewhere.returncode == 2
        assert elsewhere.stderr.startswith(f"driftline: Apache Kafka runs already, on {running.address}")
        assert command(home, "status").returncode == 0
    finally:
        stopped = command(home, "stop")
    assert stopped.stdout == "Apache Kafka has stopped.\n"
    assert not running.process.is_running()
    assert command(home, "status").returncode == 1
    assert command(home, "stop").stdout == "Apache Kafka did not run.\n"


def test_what_is_installed_is_not_fetched_again(home: Path) -> None:
    # Nobody answers there: whoever asked would fail.
    assert kafka.install(home, "http://127.0.0.1:1/maven") == home / kafka.VERSION


def test_a_failed_installation_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    need_servers()
    ended = command(tmp_path / "new", "install", "--repository", "http://127.0.0.1:1/maven")
    assert ended.returncode == 1
    assert ended.stderr.startswith("driftline: Apache Kafka could not be fetched:")
    assert len(ended.stderr.strip().splitlines()) == 1
    assert list((tmp_path / "new").iterdir()) == []


def test_without_java_or_without_the_jars_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="run `driftline kafka install`"):
        kafka.start(tmp_path, tmp_path / "data")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs Java 17 or newer, and there is none on the PATH"):
        kafka.java()
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    old.chmod(0o755)
    with pytest.raises(UsageError, match="is 11"):
        kafka.java()


def test_a_killed_broker_comes_back_on_its_port_with_its_records(apache_of_its_own: Server) -> None:
    settings = own_topics(apache_of_its_own)
    broker.prepare(settings)
    producer = bus.producer(settings)
    sent = [producer.send(settings.topic(bus.ITEMS), key=bus.key_of(n), value=b"kept") for n in range(100)]
    for one in sent:
        one.get(10)
    producer.close()
    address, pid = apache_of_its_own.address, apache_of_its_own.pid
    apache_of_its_own.kill()
    assert servers.find(apache_of_its_own.directory) is None
    apache_of_its_own.restart()
    assert apache_of_its_own.address == address
    assert apache_of_its_own.pid != pid
    assert len(list(consumers.read_to_end(settings, bus.ITEMS, 0, 0))) == 100
