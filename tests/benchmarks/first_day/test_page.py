"""A page is followed as it stands: what it shows must come, and nothing outlives it."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.first_day.__main__ import CACHES, PAGE, ROOT, environment
from benchmarks.first_day.page import PageError, Shell, Step, agrees, steps, with_ports
from contracts.runtime.clock import SystemClock
from tests.serving.replicas import until


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, os.environ, SystemClock())


def step(command: str, shown: str = "") -> Step:
    return Step("", command, shown)


def test_only_console_blocks_are_commands() -> None:
    page = (
        "## 1. One\n```console\n$ echo a\na\nb\n$ true\n```\n$ no\n## Two\n```yaml\n$ no\n```\n```console\n$ x\n```\n"
    )
    assert steps(page) == [Step("1. One", "echo a", "a\nb"), Step("1. One", "true", ""), Step("Two", "x", "")]
    followed = [each.command.split()[0] for each in steps((ROOT / PAGE).read_text())]
    assert {"make", "driftline", "buf", "go", "run/first-day", "kill"} <= set(followed)


def test_what_is_shown_has_to_come() -> None:
    assert agrees("a … c\n…", "a b\nb c\nd\n")
    assert not agrees("a … c", "a b")
    assert not agrees("a.c", "abc")
    assert agrees("", "anything")
    assert with_ports("h:7001 17001 x70011 7001", {7001: 5}) == "h:5 17001 x70011 5"


def test_commands_share_a_shell_and_one_that_reads_does_not_eat_the_next(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with shell:
        shell.follow(step("cd there"))
        shell.follow(step("export WHERE=$(basename $PWD)"))
        shell.follow(step("cat"))
        ran = shell.follow(step("echo it is $WHERE; echo to stderr >&2", "it is there\nto …"))
        assert (ran.code, ran.printed) == (0, "it is there\nto stderr\n")
        assert shell.run("printf 'no end of line'").printed == "no end of line"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (step("echo why; false"), "ended with exit code 1.\nwhy"),
        (step("echo b", "a"), "printed\nb\n\nand the page says\na"),
        (step("exit 3"), "did not end"),
    ],
)
def test_a_command_that_does_not_do_what_the_page_says_ends_it(shell: Shell, bad: Step, said: str) -> None:
    with shell, pytest.raises(PageError) as caught:
        shell.follow(bad)
    assert said in str(caught.value)


def test_a_command_without_an_end_is_ended(shell: Shell) -> None:
    with shell, pytest.raises(PageError, match="did not end within 0 s"):
        shell.run("tail -f /dev/null", longest_s=0.2)


def has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_what_was_started_ends_with_the_shell(shell: Shell) -> None:
    with shell:
        process = psutil.Process(int(shell.run("tail -f /dev/null >/dev/null & echo $!").printed))
        assert process.is_running()
    until(lambda: has_ended(process))  # it lets go of its files, and a moment later it is gone


def test_a_newcomer_has_neither_caches_nor_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin{os.pathsep}/usr/bin")
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.setenv("GOFLAGS", "-buildvcs=false")
    cold, warm = (environment(tmp_path, warm=warm) for warm in (False, True))
    assert (cold["PATH"], cold["GOFLAGS"], "VIRTUAL_ENV" in cold) == ("/usr/bin", "-buildvcs=false -modcacherw", False)
    assert {Path(cold[name]).parent for name in CACHES} == {tmp_path / "caches"}
    assert all(warm.get(name) == os.environ.get(name) for name in CACHES)
