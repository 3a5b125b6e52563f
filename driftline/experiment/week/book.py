"""What a runner has done and whom it has yet to tell, in one file, so that a restart goes on from there."""

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from contracts.runtime.durable import StateError, replace_file
from driftline.experiment.week.notices import Notice

FILE, FORMAT = "run.json", 1


@dataclass(frozen=True)
class Waiting:
    """A notice that is to be taken yet. `to`: which of the senders. `next_ms`: when it is tried again."""

    notice: Notice
    to: str
    tries: Annotated[int, Field(ge=0)] = 0
    next_ms: int = 0


@dataclass(frozen=True)
class Page:
    """All that the file says.

    `experiment`: its name. `hash`: of its definition. `done`: keys of jobs. `told`: keys of notices. `lost`: subjects
    of those that nobody took in the end. `report`: the newest folder. `said`: its verdicts, by arm. `ended`: whether
    nothing is to be done any more. `next`, `next_ms`: what is to be done next.
    """

    format: int
    experiment: str
    hash: str
    done: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    lost: tuple[str, ...] = ()
    report: str = ""
    said: tuple[tuple[str, str], ...] = ()
    ended: bool = False
    next: str = ""
    next_ms: int = 0

    __pydantic_config__ = ConfigDict(extra="forbid")


_PAGE = TypeAdapter(Page)


def read(home: Path) -> Page | None:
    """What the file in a folder says; None where there is none.

    Raises:
        StateError: it is none of driftline's, or of another format.

    """
    file = home / FILE
    try:
        data: Any = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(f"{file} cannot be read; bring it back, or move it away.") from error
    written = data.get("format") if isinstance(data, dict) else None
    if written != FORMAT or isinstance(written, bool):
        raise StateError(f"{file} has format {written!r}; this build reads {FORMAT}.")
    try:
        return _PAGE.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise StateError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}; move it away.") from error


class Book:
    """The page of one experiment. Each change is on the disk when it returns; threads may share it."""

    def __init__(self, home: Path, experiment: str, definition: str) -> None:
        """Open the file in `home`, or begin one.

        Raises:
            StateError: it cannot be used, or it is of another definition of the experiment.

        """
        found = read(home)
        if found is not None and (found.experiment, found.hash) != (experiment, definition):
            raise StateError(
                f"{home} has the reports of {found.experiment} ({found.hash}), and this is {experiment} "
                f"({definition}); give another --out."
            )
        self._file = home / FILE
        self._lock = threading.Lock()
        self._page = found or Page(FORMAT, experiment, definition)

    @property
    def page(self) -> Page:
        """What it says now."""
        return self._page

    def change(self, **values: Any) -> None:
        """Write other values, of jobs, reports and what comes next."""
        with self._lock:
            self._write(replace(self._page, **values))

    def did(self, keys: Iterable[str]) -> None:
        """Write down that jobs are done."""
        with self._lock:
            self._write(replace(self._page, done=(*self._page.done, *keys)))

    def tell(self, notice: Notice, to: Iterable[str]) -> bool:
        """Write down what is to be told, and by which senders; False where it was told before."""
        with self._lock:
            page = self._page
            if notice.key in page.told:
                return False
            waiting = (*page.waiting, *(Waiting(notice, each) for each in to))
            self._write(replace(page, told=(*page.told, notice.key), waiting=waiting))
            return True

    def settle(self, one: Waiting, again: Waiting | None, *, lost: bool = False) -> None:
        """Write down what came of a try: taken, to be tried `again`, or lost."""
        with self._lock:
            rest = [again if each == one else each for each in self._page.waiting]
            gone = (*self._page.lost, f"{one.to}: {one.notice.subject}") if lost else self._page.lost
            self._write(replace(self._page, waiting=tuple(each for each in rest if each is not None), lost=gone))

    def _write(self, page: Page) -> None:
        replace_file(self._file, json.dumps(_PAGE.dump_python(page), indent=1, ensure_ascii=False).encode())
        self._page = page
