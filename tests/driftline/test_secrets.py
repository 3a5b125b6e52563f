"""Secrets on the way through the commands: not in an argument, not in a file that others can read, not in an error."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from contracts.config.settings import SettingsError, dump, parse
from contracts.runtime.worker import announce
from driftline.errors import UsageError
from driftline.experiment.data import report_on
from driftline.processes import kafka, redis
from driftline.processes.redis import default_home
from feature_repo.config import online_store
from feature_repo.store import apply
from tests.conftest import need_servers, serve
from tests.contracts.config.test_settings import sound

SECRET = "tr0ub4dor"  # noqa: S105


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """Files are as open as on most machines unless their writer says otherwise."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("REDIS_PW", "REDIS_PW_FILE", "DB_PW", "DB_PW_FILE"):
        monkeypatch.setenv(name, "")  # so that it is taken back, too
        monkeypatch.delenv(name)
    monkeypatch.setattr("feature_repo.config._PROVIDED", set())
    return monkeypatch


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "driftline", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("init", "-s", "s.yaml", "--redis", f"redis:6379,db=1,password={SECRET}"),
        ("experiment", "report", "-s", "s.yaml", "--data", f"postgres://me:{SECRET}@db/x", "--table", "t"),
        ("experiment", "report", "-s", "s.yaml", "--data", "x", "--pre", f"postgres://db/x?password={SECRET}"),
        ("experiment", "plan", "s.yaml", "--data", f"mysql://me:{SECRET}@db/x", "--table", "t"),
    ],
)
def test_a_password_on_a_command_line_is_refused(arguments: tuple[str, ...]) -> None:
    ended = command(*arguments)
    assert ended.returncode == 2
    assert "has a password in it, and others can read a command line; write '${NAME}' in its place" in ended.stderr
    assert SECRET not in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_url_takes_its_password_from_the_environment_or_a_file_and_nothing_says_it(
    tmp_path: Path, variables: pytest.MonkeyPatch
) -> None:
    experiment = parse(sound()).experiment
    arguments = ("t", None, None, None, None)
    url = "postgres://me:${DB_PW}@127.0.0.1:1/x"
    with pytest.raises(SettingsError, match="neither DB_PW nor DB_PW_FILE is set"):
        report_on(experiment, url, *arguments)
    (tmp_path / "pw").write_text(SECRET)
    for name, value in (("DB_PW_FILE", str(tmp_path / "pw")), ("DB_PW", SECRET)):
        variables.setenv(name, value)
        with pytest.raises(SettingsError, match=r"Cannot open 't' at postgres://127\.0\.0\.1:1/x") as caught:
            report_on(experiment, url, *arguments)
        assert SECRET not in str(caught.value)
        variables.delenv(name)


def test_redis_has_its_password_from_a_file_for_us_and_for_feast(tmp_path: Path, variables: pytest.MonkeyPatch) -> None:
    need_servers()
    home, repo, file = default_home(), tmp_path / "features", tmp_path / "pw"
    file.write_text(SECRET + "\n")
    for server in serve(lambda: redis.start(home, tmp_path / "redis", extra={"requirepass": SECRET})):
        where = f"{server.address},password=${{REDIS_PW}}"
        with pytest.raises(SettingsError, match="neither REDIS_PW nor REDIS_PW_FILE is set"):
            apply(repo, where)
        variables.setenv("REDIS_PW_FILE", str(file))
        apply(repo, where)
        assert SECRET not in (repo / "feature_store.yaml").read_text()
        assert mode(repo / "feature_store.yaml") == 0o600
        store = online_store(repo)
        assert store.redis == f"{server.address},password={SECRET}"
        assert SECRET not in " ".join(Path(f"/proc/{server.pid}/cmdline").read_text().split("\0"))
        assert mode(tmp_path / "redis" / "redis.conf") == 0o600
        variables.setenv("REDIS_PW", "both")
        variables.setattr("feature_repo.config._PROVIDED", set())
        with pytest.raises(SettingsError, match="REDIS_PW and REDIS_PW_FILE of the environment both give"):
            online_store(repo)


def test_a_feature_store_yaml_that_is_none_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(f"online_store: {{connection_string: 'r:1,password={SECRET}")
    with pytest.raises(SettingsError, match=r"feature_store\.yaml is not valid YAML: .*, in line 1") as caught:
        online_store(tmp_path)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_is_written_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    for name in ("ready.json", "settings.yaml"):
        (tmp_path / name).write_text("of an earlier run")
        (tmp_path / name).chmod(0o666)
    announce(tmp_path / "ready.json", {"port": 1})
    dump(parse(sound()), tmp_path / "settings.yaml")
    apply(tmp_path / "features")
    kafka._write(tmp_path / "server.properties", {"a": SECRET})
    redis._write(tmp_path / "redis.conf", {"requirepass": 'a "b" \\'})
    assert (tmp_path / "redis.conf").read_text() == 'requirepass "a \\"b\\" \\\\"\n'
    assert json.loads((tmp_path / "ready.json").read_text())["port"] == 1
    assert yaml.safe_load((tmp_path / "features" / "feature_store.yaml").read_text())["project"] == "driftline"
    written = ["ready.json", "settings.yaml", "server.properties", "redis.conf", "features/feature_store.yaml"]
    assert {name: mode(tmp_path / name) for name in written} == dict.fromkeys(written, 0o600)


def test_a_report_without_data_is_refused_as_before() -> None:
    with pytest.raises(UsageError, match="Give --data or --state"):
        report_on(parse(sound()).experiment, None, None, None, None, None, None)
