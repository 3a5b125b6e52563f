"""Pieces of a Markdown page that is written from results."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.results import Result


class NotesError(Exception):
    """The notes do not fit the page."""


@dataclass(frozen=True)
class Section:
    """A table or a figure with all that belongs to it."""

    key: str  # by which notes refer to it
    title: str
    says: str  # what is in it
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    results: list[Result]  # that it rests on
    absent: list[str]  # what should be in it and was not run
    command: str  # pattern of the runs, for `evaluation.grid --only`
    draw: Callable[[Path], None] | None = None  # its picture, to this file

    @property
    def picture(self) -> str:
        """The picture's file name."""
        return f"reproduction-{self.key}.png"


def page(title: str, intro: str, sections: list[Section], notes: dict[str, str]) -> str:
    """The whole page."""
    parts = [f"# {title}", intro, notes.get("intro", "")]
    for section in sections:
        parts += [f"## {section.title}", section.says]
        if section.rows:
            parts.append(table(section.header, section.rows))
        if section.draw:
            parts.append(f"![{section.title}](pictures/{section.picture})")
        if section.absent:
            parts.append(f"Not run: {', '.join(section.absent)}.")
        parts += [circumstances(section), notes.get(section.key, "")]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table; all columns but the first are numbers.

    >>> print(table(("a", "b"), [("x", "1")]))
    | a | b |
    |---|--:|
    | x | 1 |
    """
    rule = "|---|" + "--:|" * (len(header) - 1)
    return "\n".join([_line(header), rule, *(_line(row) for row in rows)])


def circumstances(section: Section) -> str:
    """Where, at what size and for how long the runs of a section were made, and the command that makes them."""
    sentence = f"Made by `python -m evaluation.grid … --only '{section.command}'`"
    if not section.results:
        return sentence + "."
    machines = sorted({f"{r.device}, {r.threads} thread{'s' * (r.threads > 1)}" for r in section.results})
    trained = [r for r in section.results if r.task.trains]
    parts = [sentence, "on " + " and ".join(machines)]
    if trained:
        shapes = sorted({(r.task.settings.dim, r.task.settings.id_dim or r.task.settings.dim) for r in trained})
        parts.append(" and ".join(f"d = {d} (ids {i})" for d, i in shapes))
        parts.append(f"{_span([r.parameter_bytes / 1e6 for r in trained], 3)} MB of parameters")
        parts.append(f"trained {_span([r.training_s for r in trained], 0)} s a run")
        parts.append("torch " + " and ".join(sorted({r.versions["torch"] for r in trained})))
    return "; ".join(parts) + "."


def read_notes(path: Path, keys: set[str]) -> dict[str, str]:
    """What a person has to say about each section: the file's parts under `## key`. Without the file there are none.

    Raises:
        NotesError: a key is not that of a section.

    """
    if not path.exists():
        return {}
    pieces = re.split(r"^## +(\S+) *$", path.read_text(), flags=re.MULTILINE)[1:]
    notes = dict(zip(pieces[::2], pieces[1::2], strict=True))
    unknown = sorted(set(notes) - keys - {"intro"})
    if unknown:
        raise NotesError(f"{path} has notes on '{unknown[0]}'; there are intro, {', '.join(sorted(keys))}.")
    return notes


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _span(values: list[float], digits: int) -> str:
    """The least and the most, or the one where they read the same.

    >>> _span([1.0, 2.0], 1), _span([1.0, 1.01], 1)
    ('1.0 to 2.0', '1.0')
    """
    low, high = (f"{v:.{digits}f}" for v in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
