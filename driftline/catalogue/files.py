"""Rows of CSV, JSON lines and Parquet, one after another, each with its number. What they mean is decided in `rows`.

Text is read by the standard library, which knows the line of each row; Parquet by pyarrow, in batches. Memory does not
grow with the file.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from driftline.errors import UsageError

Format = Literal["csv", "parquet", "jsonl"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
BATCH_ROWS = 10_000  # of Parquet, in memory at a time
HOLDS_THE_IDS = "; --column item_id=NAME says which one holds the ids, or --column item_key=NAME if they are texts"


class Row(NamedTuple):
    """One row. `number` counts rows from 1, `line` lines; None where the file has no lines."""

    number: int
    line: int | None
    cells: Mapping[str, Any]
    fault: str = ""  # why there are no cells

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        return f"row {self.number:,}" + (f" (line {self.line:,})" if self.line else "")


def format_of(path: Path) -> Format:
    """The format that a file's name tells.

    Raises:
        UsageError: it tells none.

    """
    suffix = SUFFIXES.get(path.suffix.lower())
    if suffix is None:
        known = ", ".join(SUFFIXES)
        raise UsageError(f"{path} does not end in {known}; --format says what it is ({', '.join(get_args(Format))}).")
    return suffix


def columns_of(path: Path, kind: Format) -> list[str] | None:
    """The columns of a file; None for JSON lines, where each row has its own.

    Raises:
        UsageError: it cannot be read, or has no columns.

    """
    with _readable(path):
        if kind == "jsonl":
            return None
        if kind == "parquet":
            import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
    if not header:
        raise UsageError(f"{path} has no header: its first line names the columns, separated by commas.")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise UsageError(f"{path} has two columns called {twice!r}.")
    return header


def rows(path: Path, kind: Format) -> Iterator[Row]:
    """The rows of a file.

    Raises:
        UsageError: it cannot be read on.

    """
    with _readable(path):
        yield from {"csv": _csv, "jsonl": _json_lines, "parquet": _parquet}[kind](path)


def _csv(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        number, begins = 0, reader.line_num + 1
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not cells:
                continue  # an empty line
            number += 1
            if len(cells) == len(header):
                yield Row(number, line, dict(zip(header, cells, strict=True)))
            else:
                yield Row(number, line, {}, f"it has {len(cells)} cells, and the header has {len(header)}")


def _json_lines(path: Path) -> Iterator[Row]:
    number = 0
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            number += 1
            cells, fault = _object(text)
            yield Row(number, line, cells, fault)


def _object(text: str) -> tuple[Mapping[str, Any], str]:
    wanted = 'a line is one JSON object, such as {"item_id": 7}'
    try:
        cells = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, f"it is no JSON ({' '.join(str(error).split())}); {wanted}"
    return (cells, "") if isinstance(cells, dict) else ({}, f"it is no object; {wanted}")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            for cells in batch.to_pylist():
                number += 1
                yield Row(number, None, cells)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What a file cannot be read for, as one sentence."""
    try:
        yield
    except OSError as error:
        # pyarrow's own have no number, and say in their message what is wrong.
        raise UsageError(f"Cannot read {path}: {error.strerror or _line(error)}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"Cannot read {path}: it is not UTF-8 at byte {error.start:,}.") from error
    except csv.Error as error:
        raise UsageError(f"Cannot read {path} as CSV: {error}.") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "pyarrow":  # which has a type of its own for each base
            raise
        raise UsageError(f"Cannot read {path} as Parquet: {_line(error).rstrip('.')}.") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def require(path: Path, header: Sequence[str] | None, columns: Mapping[str, str]) -> None:
    """See that the columns that items are read from are there, as far as the header tells.

    Args:
        path: the file, for the message.
        header: the file's columns; None: each row has its own.
        columns: by field of `Item`, as the user has named them; `item_id` or `item_key` is wanted, named or not.

    Raises:
        UsageError: one is not.

    """
    if header is None:
        return
    wanted = {} if "item_key" in header or "item_key" in columns else {"item_id": "item_id"}
    for field, column in (wanted | dict(columns)).items():
        if column not in header:
            hint = "" if field in columns else HOLDS_THE_IDS
            apart = next((mark for mark in (";", "\t") if len(header) == 1 and mark in header[0]), None)
            if apart:
                hint = f"; it is separated by {apart!r}, and cells are separated by commas here"
            raise UsageError(f"{path} has no column {column!r}, but {', '.join(map(repr, header))}{hint}.")
