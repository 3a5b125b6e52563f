"""Redis by the command and by the library."""

import subprocess
import sys
from pathlib import Path

import pytest
import redis as client

from driftline.errors import UsageError
from driftline.processes import redis
from driftline.processes import server as servers
from driftline.processes.server import Server
from tests.conftest import need_servers, serve


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "driftline", "redis", *arguments, "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def connect(address: str) -> client.Redis:
    host, port = address.split(":")
    return client.Redis(host=host, port=int(port))


def test_it_answers(redis_server: Server) -> None:
    with connect(redis_server.address) as connection:
        connection.set("driftline-test", "1")
        assert connection.get("driftline-test") == b"1"


def test_by_the_command_it_starts_keeps_its_data_and_stops(tmp_path: Path) -> None:
    need_servers()
    unpacked = redis.default_home() / "root"
    if unpacked.exists():
        (tmp_path / "root").symlink_to(unpacked)
    try:
        for expected in (None, b"kept"):
            started = command(tmp_path, "start", "--port", "0")
            assert started.returncode == 0, started.stderr
            running = servers.find(tmp_path / "data")
            assert running
            assert running.address in started.stdout
            with connect(running.address) as connection:
                assert connection.get("k") == expected
                connection.set("k", "kept")
            assert command(tmp_path, "status").returncode == 0
            assert command(tmp_path, "stop").stdout == "Redis has stopped.\n"
            assert not running.process.is_running()
        assert command(tmp_path, "status").returncode == 1
    finally:
        command(tmp_path, "stop")


def test_a_killed_one_comes_back_empty_on_its_port(tmp_path: Path) -> None:
    for server in serve(lambda: redis.start(redis.default_home(), tmp_path)):
        address = server.address
        with connect(address) as connection:
            connection.set("k", "lost")
        server.kill()
        server.restart()
        assert server.address == address
        with connect(address) as connection:
            assert connection.get("k") is None


def test_a_taken_port_and_a_missing_binary_are_said(
    redis_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(redis_server.address.split(":")[1])
    with pytest.raises(UsageError, match=f"Port {port} of 127.0.0.1 is taken"):
        redis.start(redis.default_home(), tmp_path, port)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="run `driftline redis install`"):
        redis.start(tmp_path, tmp_path / "data")
    with pytest.raises(UsageError, match="no apt-get"):
        redis.install(tmp_path)
