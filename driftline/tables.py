"""Tables and times as the command prints them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

PIPE_WIDTH = 1000  # of a table that goes to a file or a pipe: one line a row
LEAST_WIDTH = 130  # of a table on a terminal: a narrower one breaks the lines, rather than that cells are cut


def table(columns: Mapping[str, bool], *, wraps: Sequence[str] = ()) -> "Table":
    """An empty table; `columns` says which are of numbers, and `wraps` which may break its lines."""
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, number in columns.items():
        grid.add_column(name, justify="right" if number else "left", no_wrap=name not in wraps)
    return grid


def show(shown: "Table") -> None:
    """Print a table."""
    from rich.console import Console

    console = Console()
    console.width = max(console.width, LEAST_WIDTH) if console.is_terminal else PIPE_WIDTH
    console.print(shown)


def utc(at_ms: int) -> str:
    """A time for a person; the number itself where a calendar has no such day.

    >>> utc(1_700_000_000_000), utc(10**18)
    ('2023-11-14 22:13:20', '1000000000000000000 ms')
    """
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms"


def size(count: int) -> str:
    """Bytes for a person.

    >>> size(999), size(25_600_000)
    ('999 B', '25.6 MB')
    """
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:.1f} {unit}"
    return f"{count} B"


def age(ms: int) -> str:
    """A duration for a person, in its largest unit.

    >>> age(59_999), age(90 * 60_000), age(49 * 3_600_000)
    ('59 s', '90 min', '2 d')
    """
    seconds = max(ms, 0) // 1000
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit == "min" and seconds >= length):
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
