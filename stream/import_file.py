"""A historical log in a file as events, in the order of their time. DuckDB reads, judges and sorts; memory is bounded.

A row is an item that a user was shown, and what came of it. Rows with one `request_id` are one page; without that
column each row is a page of its own. Without `effective_view` every row is an effective view: a log of positives alone.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb

from contracts.config.calendar import SECONDS_END, unit_hint
from contracts.messages.events import MAX_ITEMS_PER_EXPOSURE, MAX_PLAY_TIME_MS, SCHEMA_VERSION
from contracts.messages.ids import LONGEST_TEXT_BYTES, BadTextId, id_of_text
from contracts.wire.events_pb2 import Exposure, Feedback

Format = Literal["csv", "parquet", "jsonl"]
LONGEST_REQUEST_BYTES = 1024  # every example of a page has it
FIELDS = {
    "user_id": "a whole number above 0",
    "user_key": f"text of at most {LONGEST_TEXT_BYTES} bytes, whose number user_id is where both are given",
    "item_id": "a whole number above 0, of an item in the catalogue",
    "item_key": f"text of at most {LONGEST_TEXT_BYTES} bytes, of an item in the catalogue",
    "time_ms": "when it was shown or began to play, in Unix milliseconds",
    "request_id": f"text of at most {LONGEST_REQUEST_BYTES:,} bytes: the page that showed it, one user's, "
    f"of at most {MAX_ITEMS_PER_EXPOSURE} items",
    "effective_view": "true or false",
    "play_time_ms": "whole milliseconds, 0 to a day",
    "follow": "true or false",
}
REQUIRED = (("user_id", "user_key"), ("item_id", "item_key"), ("time_ms",))  # of each one at least
SHOWN_FAULTS = 20
FETCHED_ROWS = 5_000
LINK = "file"  # to the file, among the scratch files
DUCKDB_KIND = r"^[A-Z][A-Za-z ]*Error: "
CSV_REASONS = ("Expected Number", "Invalid unicode", "Value with", "Maximum line size")  # after DuckDB's first line
MEMORY = "256MB"  # of DuckDB's, beyond which it goes to the disk
# Nothing is guessed of a sample: no dialect of CSV (it leaves lines out, as comments or as what comes before a header),
# no types of JSON (they make times of texts), nor its keys. Each column of JSON lines is JSON.
READERS: dict[Format, str] = {
    "csv": "read_csv($file, columns = $columns, header = true, auto_detect = false, delim = ',', quote = '\"', "
    "escape = '\"', hive_partitioning = false)",
    "parquet": "read_parquet($file, hive_partitioning = false)",
    "jsonl": "read_json($file, format = 'newline_delimited', sample_size = -1, maximum_depth = 1, "
    "map_inference_threshold = -1, hive_partitioning = false)",
}
# A whole number may end in .0: that is how a column with gaps comes out of pandas.
MACROS = r"""
CREATE MACRO whole(t) AS CASE WHEN regexp_full_match(trim(t), '[+-]?[0-9]{1,19}(\.0*)?')
    THEN TRY_CAST(split_part(trim(t), '.', 1) AS BIGINT) END;
CREATE MACRO truth(t) AS CASE WHEN lower(trim(t)) IN ('true', '1') THEN true
    WHEN lower(trim(t)) IN ('false', '0') THEN false END;
CREATE MACRO is_key(t) AS coalesce(t, '') <> '';
CREATE MACRO named(id, key) AS CASE WHEN NOT is_key(key) THEN whole(id)
    WHEN id IS NULL OR whole(id) = number_of(key) THEN number_of(key) END;
"""
# A fault of one row is told first, then what is wrong among the rows of a page.
STAGED = """
CREATE TABLE staged AS
WITH valued AS (
    SELECT row,
        MAP {'user_id': user_id, 'user_key': user_key, 'item_id': item_id, 'item_key': item_key, 'time_ms': time_ms,
             'request_id': request_id, 'effective_view': effective_view, 'play_time_ms': play_time_ms,
             'follow': follow} AS raw,
        named(given.user_id, user_key) AS user_id,
        named(given.item_id, item_key) AS item_id,
        whole(given.time_ms) AS time_ms,
        CASE WHEN $has_page THEN trim(given.request_id) ELSE 'row ' || row END AS request_id,
        CASE WHEN $has_view THEN truth(given.effective_view) ELSE true END AS effective_view,
        CASE WHEN $has_play THEN whole(given.play_time_ms) ELSE 0 END AS play_time_ms,
        CASE WHEN given.follow IS NULL THEN false ELSE truth(given.follow) END AS follow
    FROM given
), alone AS (
    SELECT valued.*, CASE
        WHEN user_id IS NULL OR user_id <= 0 THEN CASE WHEN is_key(raw['user_key']) THEN 'user_key' ELSE 'user_id' END
        WHEN known.item_id IS NULL THEN CASE WHEN is_key(raw['item_key']) THEN 'item_key' ELSE 'item_id' END
        WHEN time_ms IS NULL OR time_ms < $earliest OR time_ms > $latest THEN 'time_ms'
        WHEN coalesce(request_id, '') = '' OR strlen(request_id) > $longest_request THEN 'request_id'
        WHEN effective_view IS NULL THEN 'effective_view'
        WHEN play_time_ms IS NULL OR play_time_ms NOT BETWEEN 0 AND $most_play THEN 'play_time_ms'
        WHEN follow IS NULL THEN 'follow'
    END AS wrong
    FROM valued LEFT JOIN known ON known.item_id = valued.item_id
), pages AS (
    SELECT request_id, min(time_ms) AS began, count(DISTINCT user_id) AS users, count(DISTINCT item_id) AS items
    FROM alone WHERE wrong IS NULL GROUP BY request_id
)
SELECT alone.* EXCLUDE (wrong), CASE
    WHEN wrong IS NOT NULL THEN wrong
    WHEN users > 1 OR items > $most_items THEN 'request_id'
    WHEN time_ms > began + $window THEN 'time_ms'
END AS fault
FROM alone LEFT JOIN pages USING (request_id)
"""


class HistoryError(Exception):
    """A file that cannot be imported; one sentence."""


class Fault(NamedTuple):
    """A row that cannot be imported. `row` counts from 1."""

    row: int
    column: str
    value: str
    right: str

    def __str__(self) -> str:
        return f"row {self.row:,}: column {self.column} is {self.value}; {self.right}"


@dataclass(frozen=True)
class Bounds:
    """What a row is judged by, beside itself."""

    now_ms: int
    future_tolerance_ms: int
    attribution_window_ms: int


class HistoryFile:
    """A file, staged: every row with its values, or with what is wrong with it."""

    def __init__(
        self, path: Path, kind: Format, columns: Mapping[str, str], scratch: Path, known_items: set[int], bounds: Bounds
    ) -> None:
        """Read and judge all of it.

        Args:
            path: the file.
            kind: its format.
            columns: by field (`FIELDS`), where the file calls it something else.
            scratch: an empty folder for what does not fit into memory.
            known_items: the catalogue's.
            bounds: of times.

        Raises:
            HistoryError: it cannot be read, or lacks a column.

        """
        self._names = {field: columns.get(field, field) for field in FIELDS}
        self._readable = partial(_readable, path, scratch)
        with self._readable():
            self._db = duckdb.connect(str(scratch / "staged.duckdb"))
            self._db.execute(f"SET memory_limit = '{MEMORY}'")
            self._db.execute(f"SET temp_directory = '{str(scratch).replace(chr(39), chr(39) * 2)}'")
            self._stage(path, kind, columns, scratch)
            self._judge(known_items, bounds)

    def close(self) -> None:
        """Let go of the scratch files."""
        self._db.close()

    @property
    def rows(self) -> int:
        """Of the file."""
        return self._count("SELECT count(*) FROM staged")

    @property
    def bad(self) -> int:
        """Rows that cannot be imported."""
        return self._count("SELECT count(*) FROM staged WHERE fault IS NOT NULL")

    def judgement(self, partitions: int) -> str:
        """A digest of which rows are bad, for a topic of so many partitions: with another one, other events come."""
        digest = sha256(f"{partitions}:{self.rows}".encode())
        with self._readable():
            bad = self._db.cursor().execute("SELECT row FROM staged WHERE fault IS NOT NULL ORDER BY row")
            while rows := bad.fetchmany(FETCHED_ROWS):
                digest.update(repr(rows).encode())
        return digest.hexdigest()

    def faults(self) -> list[Fault]:
        """The first of them."""
        found = self._db.execute(
            "SELECT row, fault, raw[fault] FROM staged WHERE fault IS NOT NULL ORDER BY row LIMIT ?", [SHOWN_FAULTS]
        ).fetchall()
        told = [(row, self._told(field), value) for row, field, value in found]
        return [
            Fault(row, self._names[field], "empty" if value is None else repr(value), _right(field, value))
            for row, field, value in told
        ]

    def _told(self, field: str) -> str:
        """The field that a fault of an id is told of: the text's, where the file has no numbers."""
        text = field.removesuffix("_id") + "_key"
        return text if field not in self._has and text in self._has else field

    def count(self, partition: int, partitions: int) -> int:
        """Events of a partition: one a row, and one a page."""
        return self._count(
            "SELECT count(*) + count(DISTINCT request_id) FROM staged WHERE fault IS NULL AND user_id % ? = ?",
            [partitions, partition],
        )

    def first_ms(self, partition: int, partitions: int) -> int | None:
        """Time of a partition's first event; None where it has none."""
        where = "SELECT min(time_ms) FROM staged WHERE fault IS NULL AND user_id % ? = ?"
        first = self._first(where, [partitions, partition])
        return None if first is None else int(first)

    def events(self, partition: int, partitions: int, name: str, skip: int) -> Iterator[Exposure | Feedback]:
        """A partition's events in the order of their time, pages before what came of them.

        Args:
            partition: of so many.
            partitions: of the topics.
            name: of the file, which all event ids begin with.
            skip: so many of the first are left out.

        """
        query = """
            WITH mine AS (SELECT * FROM staged WHERE fault IS NULL AND user_id % ? = ?)
            SELECT min(time_ms) AS began, 0 AS kind, min(row) AS row, request_id, any_value(user_id) AS user_id,
                   list(DISTINCT item_id ORDER BY item_id) AS items, NULL AS item_id, NULL AS effective_view,
                   NULL AS play_time_ms, NULL AS follow
            FROM mine GROUP BY request_id
            UNION ALL
            SELECT time_ms, 1, row, request_id, user_id, NULL, item_id, effective_view, play_time_ms, follow FROM mine
            ORDER BY began, kind, row OFFSET ?
        """
        with self._readable():
            found = self._db.cursor().sql(query, params=[partitions, partition, skip])
            assert found is not None
            for batch in found.to_arrow_reader(FETCHED_ROWS):
                for row in batch.to_pylist():
                    yield _exposure(row, name) if row["kind"] == 0 else _feedback(row, name)

    def _count(self, query: str, values: list[Any] | None = None) -> int:
        return int(self._first(query, values or []))

    def _first(self, query: str, values: list[Any]) -> Any:
        with self._readable():
            row = self._db.execute(query, values).fetchone()
        return row[0] if row else None

    def _stage(self, path: Path, kind: Format, columns: Mapping[str, str], scratch: Path) -> None:
        """Make `given` of the file: each field as text, NULL where it has no such column."""
        if not path.is_file():
            raise HistoryError(f"{path} is no file." if path.exists() else f"There is no file {path}.")
        source = READERS[kind]
        # By a name of ours: DuckDB takes * and ? in a name for a pattern of several files.
        link = scratch / LINK
        link.symlink_to(path.resolve())
        values: dict[str, Any] = {"file": str(link)}
        if kind == "csv":
            values["columns"] = dict.fromkeys(_header(path), "VARCHAR")
        described = self._db.execute(f"DESCRIBE SELECT * FROM {source}", values).fetchall()  # noqa: S608 of ours
        types = {name: kind for name, kind, *_ in described}
        has = ", ".join(map(repr, types))
        for name in columns.values():
            if name not in types:
                raise HistoryError(f"{path} has no column {name!r}, but {has}.")
        for either in REQUIRED:
            if not any(self._names[field] in types for field in either):
                texts = f", or --column {either[1]}=NAME if it is a text" if len(either) > 1 else ""
                raise HistoryError(
                    f"{path} has no column {either[0]!r}, but {has}; --column {either[0]}=NAME says which one it is"
                    f"{texts}."
                )
        self._has = {field for field, name in self._names.items() if name in types}
        texts = ", ".join(f"{_text(field, name, types.get(name))} AS {field}" for field, name in self._names.items())
        made = f"CREATE TABLE given AS SELECT row_number() OVER () AS row, {texts} FROM {source}"  # noqa: S608 quoted
        self._db.execute(made, values)

    def _judge(self, known_items: set[int], bounds: Bounds) -> None:
        """Make `staged` of `given`: values, and the first field that is wrong."""
        self._db.execute("CREATE TABLE known (item_id BIGINT)")
        self._db.execute("INSERT INTO known SELECT unnest(?::BIGINT[])", [sorted(known_items)])
        special: Any = "special"  # NULL is for the function to say; DuckDB 1 and 2 have different names for the word
        self._db.create_function("number_of", _number_of, ["VARCHAR"], "BIGINT", null_handling=special)
        self._db.execute(MACROS)
        values = {
            "has_page": "request_id" in self._has,
            "has_view": "effective_view" in self._has,
            "has_play": "play_time_ms" in self._has,
            "earliest": SECONDS_END,
            "latest": bounds.now_ms + bounds.future_tolerance_ms,
            "window": bounds.attribution_window_ms,
            "most_play": MAX_PLAY_TIME_MS,
            "most_items": MAX_ITEMS_PER_EXPOSURE,
            "longest_request": LONGEST_REQUEST_BYTES,
        }
        self._db.execute(STAGED, values)
        self._db.execute("DROP TABLE given")


def _number_of(text: str | None) -> int | None:
    try:
        return None if text is None else id_of_text(text)
    except BadTextId:
        return None


def _right(field: str, value: str | None) -> str:
    """What is right of a field, and what was probably done."""
    hint = unit_hint(int(value)) if field == "time_ms" and value and value.isdigit() else ""
    return f"{field} is {FIELDS[field]}" + (f", but {hint}" if hint else ".")


def _text(field: str, name: str, kind: str | None) -> str:
    """A field's column as text; its time as Unix milliseconds."""
    if kind is None:
        return "NULL::VARCHAR"
    quoted = '"' + name.replace('"', '""') + '"'
    if kind == "JSON":
        return f"{quoted} ->> '$'"
    is_time = field == "time_ms" and kind.startswith(("TIMESTAMP", "DATE"))
    return f"epoch_ms({quoted})::VARCHAR" if is_time else f"{quoted}::VARCHAR"


def _header(path: Path) -> list[str]:
    """The columns of a CSV file.

    Raises:
        HistoryError: it has none, or one twice.

    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
    except UnicodeDecodeError as error:
        raise HistoryError(f"Cannot read {path}: it is not UTF-8 at byte {error.start:,}.") from error
    except csv.Error as error:
        raise HistoryError(f"Cannot read {path} as CSV: {error}.") from error
    if not header:
        raise HistoryError(f"{path} has no header: its first line names the columns, separated by commas.")
    if len({name.lower() for name in header}) < len(header):  # as DuckDB tells names apart
        names = [name.lower() for name in header]
        twice = next(name for name in header if names.count(name.lower()) > 1)
        raise HistoryError(f"{path} has two columns called {twice!r}.")
    return header


@contextmanager
def _readable(path: Path, scratch: Path) -> Iterator[None]:
    """What a file cannot be read for, as one sentence."""
    try:
        yield
    except duckdb.Error as error:
        first, *more = str(error).replace(str(scratch / LINK), str(path)).splitlines()
        why = [re.sub(DUCKDB_KIND, "", first), *(line for line in more if line.startswith(CSV_REASONS))][:2]
        raise HistoryError(f"Cannot read {path}: {'; '.join(why).rstrip('. ')}.") from error
    except OSError as error:
        raise HistoryError(f"Cannot read {path}: {error.strerror}.") from error


def _exposure(row: Mapping[str, Any], name: str) -> Exposure:
    exposure = Exposure(
        schema_version=SCHEMA_VERSION,
        event_id=f"{name}/page {row['row']}",
        request_id=f"{name}/{row['request_id']}",
        user_id=row["user_id"],
        time_ms=row["began"],
    )
    for item_id in row["items"]:
        exposure.items.add(item_id=item_id)
    return exposure


def _feedback(row: Mapping[str, Any], name: str) -> Feedback:
    return Feedback(
        schema_version=SCHEMA_VERSION,
        event_id=f"{name}/{row['row']}",
        request_id=f"{name}/{row['request_id']}",
        user_id=row["user_id"],
        item_id=row["item_id"],
        time_ms=row["began"],
        play_time_ms=row["play_time_ms"],
        effective_view=row["effective_view"],
        follow=row["follow"],
    )
