"""The files of the offline store: what a row looks like, where rows lie, and how a file comes to be there whole.

Two directories: the rows that Feast reads, and the examples that they were made from. The listing of the former is the
archive's state. A file is named by the partition and the half-open range of `examples`
offsets that it holds, and gets its name only once all of it is on the disk. Needs pyarrow, but not Feast.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.config.settings import SettingsError
from contracts.runtime.durable import LockedError, lock_file, sync_directory, sync_file
from feature_repo import row

SEQUENCES = row.SEQUENCES
_ints = pa.list_(pa.int64())
SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        *((name, _ints) for name in SEQUENCES),
        ("session_start", pa.int64()),
        ("last_event_ms", pa.int64()),
        ("feedback_offset", pa.int64()),
        ("written_us", pa.int64()),
        ("event_timestamp", pa.timestamp("us", "UTC")),
        ("created", pa.timestamp("us", "UTC")),
    ]
)
# Every example without its features, in the order of the log: an entity dataframe as Feast takes it, with the label and
# all else that learning needs.
EXAMPLES = pa.schema(
    [
        ("offset", pa.int64()),
        ("event_id", pa.string()),
        ("request_id", pa.string()),
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("time_ms", pa.int64()),
        ("logged_ms", pa.int64()),
        ("sent_at_ms", pa.int64()),
        ("play_time_ms", pa.int64()),
        ("follow", pa.bool_()),
        ("session", pa.int64()),
        ("arm", pa.string()),
    ]
)
EMPTY = "schema.parquet"  # no rows: Feast cannot read a directory without a file

_NAME = re.compile(r"p(\d{5})-(\d{20})-(\d{20})\.parquet")


class Piece(NamedTuple):
    """One file: the examples of a partition with `start` <= offset < `end`."""

    partition: int
    start: int
    end: int

    @property
    def name(self) -> str:
        """The file's name; names of one partition sort by offset.

        >>> Piece(3, 0, 2000).name
        'p00003-00000000000000000000-00000000000000002000.parquet'
        """
        return f"p{self.partition:05}-{self.start:020}-{self.end:020}.parquet"


def parse(name: str) -> Piece | None:
    """The piece that a file's name tells of; None for a file that is not one.

    >>> parse(Piece(3, 0, 2000).name), parse("schema.parquet")
    (Piece(partition=3, start=0, end=2000), None)
    """
    match = _NAME.fullmatch(name)
    return Piece(*(int(part) for part in match.groups())) if match else None


def ends(names: Iterable[str]) -> dict[int, int]:
    """The offset from which each partition goes on.

    >>> ends([Piece(0, 5, 9).name, Piece(0, 0, 5).name, "schema.parquet"])
    {0: 9}
    """
    by_partition: dict[int, int] = {}
    for piece in filter(None, map(parse, names)):
        by_partition[piece.partition] = max(piece.end, by_partition.get(piece.partition, 0))
    return by_partition


def directory(repo: Path) -> Path:
    """Where the offline rows of a repository lie; `feature_repo.definitions` names the same place."""
    return repo / "data" / "user_sequence"


def examples_directory(repo: Path) -> Path:
    """Where the examples of a repository lie, in files of the same names."""
    return repo / "data" / "examples"


def prepare(repo: Path) -> Path:
    """Make the directory, so that Feast can read it from the first minute on, and return it."""
    target = directory(repo)
    target.mkdir(parents=True, exist_ok=True)
    examples_directory(repo).mkdir(exist_ok=True)
    if not (target / EMPTY).exists():
        OfflineFiles(target).write(EMPTY, [])
    return target


class OfflineFiles:
    """Writes files that are there whole or not at all, whenever the process is killed.

    `replace` gives a finished file its name.
    """

    def __init__(
        self, target: Path, replace: Callable[[Path, Path], Any] = os.replace, schema: pa.Schema = SCHEMA
    ) -> None:
        self._target = target
        self._replace = replace
        self._schema = schema

    def claim(self) -> TextIO:
        """Be the only writer until the file that is returned is closed, and remove what a killed one left behind.

        Raises:
            SettingsError: another process is writing here.

        """
        try:
            held = lock_file(self._target / ".lock")
        except LockedError as error:
            raise SettingsError(f"Another archive is writing to {self._target}; one is enough.") from error
        for leftover in self._target.glob(".*.tmp"):
            leftover.unlink()
        return held

    def ends(self) -> dict[int, int]:
        """The offset from which each partition goes on."""
        return ends(path.name for path in self._target.iterdir())

    def names(self) -> set[str]:
        """Names of the files that are there."""
        return {path.name for path in self._target.glob("*.parquet")}

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove all other files, finished or not."""
        for path in self._target.iterdir():
            if path.name not in names:
                path.unlink()

    def write(self, name: str, tables: Iterable[pa.Table]) -> None:
        """Write tables of the schema, one row group each, as one file."""
        hidden = self._target / f".{name}.tmp"
        with hidden.open("wb") as file:
            with pq.ParquetWriter(file, self._schema, compression="zstd") as writer:
                for table in tables:
                    writer.write_table(table)
            sync_file(file)
        self._replace(hidden, self._target / name)
        sync_directory(self._target)
