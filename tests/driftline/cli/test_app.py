"""The command says what is wrong in one sentence, and helps."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest


def driftline(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "driftline", *arguments], capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize(
    ("command", "mentions"),
    [
        ([], ["demo", "stream", "trainer", "serve", "recall", "experiment"]),
        (["demo"], ["--data", "--days", "--seed", "--out", "--broker"]),
        (["experiment"], ["collect", "assign"]),
    ],
)
def test_help_names_what_there_is(command: list[str], mentions: list[str]) -> None:
    shown = driftline(*command, "--help")
    assert shown.returncode == 0
    assert all(word in shown.stdout for word in mentions)


def test_the_version_is_the_package_s() -> None:
    shown = driftline("--version")
    assert (shown.returncode, shown.stdout) == (0, f"driftline {version('driftline')}\n")


def test_a_data_folder_without_its_files_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    ended = driftline("demo", "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert ended.returncode == 2
    assert "log_standard" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ended.stderr


def test_bad_settings_are_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("kafka: {}\n")
    ended = driftline("serve", "--settings", str(tmp_path / "s.yaml"))
    assert ended.returncode == 2
    assert "kafka.bootstrap_servers" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_broker_that_is_not_there_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    small = ["--users", "20", "--items", "60", "--days", "1", "--warmup-days", "1"]
    ended = driftline("demo", *small, "--broker", "127.0.0.1:1", "--out", str(tmp_path))
    assert ended.returncode == 2
    assert ended.stderr.startswith("driftline: No Kafka broker answers at 127.0.0.1:1")
    assert "Traceback" not in ended.stderr
