"""A page of the manual as the script that it is: its console blocks run in one shell, each held against what it shows.

A command is a line of a console block that begins with `$ `; what follows up to the next is what it prints, where `…`
stands for anything. Where nothing follows, what it prints is not looked at.
"""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from contracts.runtime.clock import Clock

END = "end-of-command"
LONGEST_S = 900.0  # of one command
END_S = 70.0  # above `stop_within_s` of the settings


class Step(NamedTuple):
    """One command of a page."""

    heading: str
    command: str
    shown: str  # what the page says that it prints; empty: nothing is said


class Ran(NamedTuple):
    """What a command came to."""

    code: int
    printed: str
    seconds: float


class PageError(Exception):
    """A command did not do what the page says."""


def steps(page: str) -> list[Step]:
    r"""The commands of a page, in their order.

    >>> steps("## One\n```console\n$ echo a\na\n$ true\n```\nText\n```yaml\n$ no\n```\n")
    [Step(heading='One', command='echo a', shown='a'), Step(heading='One', command='true', shown='')]
    """
    found: list[Step] = []
    heading, fence = "", ""
    for line in page.splitlines():
        if line.startswith("```"):
            fence = "" if fence else line
        elif not fence and line.startswith("## "):
            heading = line.removeprefix("## ")
        elif fence == "```console" and line.startswith("$ "):
            found.append(Step(heading, line.removeprefix("$ "), ""))
        elif fence == "```console" and found:
            found[-1] = found[-1]._replace(shown="\n".join(filter(None, (found[-1].shown, line))))
    return found


def agrees(shown: str, printed: str) -> bool:
    """Whether a command printed what the page shows.

    >>> agrees("a … c", "a b c"), agrees("a", "b"), agrees("", "anything")
    (True, False, True)
    """
    pattern = ".*".join(re.escape(part) for part in shown.split("…"))
    return not shown or re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def with_ports(text: str, ports: Mapping[int, int]) -> str:
    """A page or its settings with other ports, so that it can be followed where these are taken.

    >>> with_ports("port: 7001", {7001: 5})
    'port: 5'
    """
    for port, other in ports.items():
        text = re.sub(rf"\b{port}\b", str(other), text)
    return text


class Shell:
    """A bash that runs one command after another, as a reader of a page does. What it has started ends with it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], clock: Clock) -> None:
        self._clock = clock
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal(signal.SIGTERM)
        try:
            self._bash.communicate(timeout=END_S)  # whoever it started holds its output
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._bash.communicate()

    def run(self, command: str, longest_s: float = LONGEST_S) -> Ran:
        """Run a command to its end.

        Raises:
            PageError: the shell has ended, or the command took too long.

        """
        began_s = self._clock.elapsed_s()
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f'{{ {command}\n}} </dev/null; echo "{END} $?"\n')
        self._bash.stdin.flush()
        watchdog = threading.Timer(longest_s, self._signal, [signal.SIGKILL])
        watchdog.start()
        printed: list[str] = []
        try:
            for line in self._bash.stdout:
                before, mark, code = line.rpartition(END)
                if mark:
                    return Ran(int(code), "".join([*printed, before]), self._clock.elapsed_s() - began_s)
                printed.append(line)
        finally:
            watchdog.cancel()
        raise PageError(f"`{command}` did not end within {longest_s:.0f} s, or ended the shell.\n{''.join(printed)}")

    def follow(self, step: Step) -> Ran:
        """Run a step of a page.

        Raises:
            PageError: it failed, or printed something else than the page shows.

        """
        ran = self.run(step.command)
        if ran.code:
            raise PageError(f"`{step.command}` ended with exit code {ran.code}.\n{ran.printed}")
        if not agrees(step.shown, ran.printed):
            raise PageError(f"`{step.command}` printed\n{ran.printed}\nand the page says\n{step.shown}")
        return ran

    def _signal(self, signum: int) -> None:
        try:
            os.killpg(self._bash.pid, signum)
        except ProcessLookupError:
            return
