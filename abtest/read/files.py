"""Which files hold the rows: Parquet and CSV by their names, without those that a writer has not committed."""

import re
from base64 import b64decode
from collections.abc import Sequence
from glob import escape, glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from abtest.read.csv_files import csv_table
from abtest.read.problems import DataError

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend

PARQUET, CSV = (".parquet", ".pq", ".parq"), (".csv", ".tsv", ".csv.gz", ".tsv.gz")
REMOTE = ("s3", "s3a", "gs", "gcs", "r2", "http", "https")
MAGIC = b"PAR1"

Format = Literal["Parquet", "CSV"]


def files_of(place: str) -> tuple[Format, list[str]]:
    """Their format and the files at a path, a folder, a glob, or a ``file://`` URL of one, in order.

    Of a folder or a glob, names that begin with ``_`` or ``.`` are no data at any depth below what is written out.

    Raises:
        DataError: there are none, of both formats, or one that is not what its name says.

    """
    text = unquote(urlsplit(place).path) if place.startswith("file://") else place
    path = Path(text)
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and is_data(file.relative_to(path).parts))
    else:
        parts = path.parts
        fixed = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts))
        met = map(Path, glob(text, recursive=True))  # noqa: PTH207 an absolute pattern, which Path.glob refuses
        files = sorted(file for file in met if file.is_file() and is_data(file.parts[fixed:]))
    by_format: dict[Format, list[Path]] = {}
    for file in files:
        by_name = format_of(file.name)
        if by_name is not None:
            by_format.setdefault(by_name, []).append(file)
    if not by_format:
        ends = ", ".join((*PARQUET, *CSV))
        others = f"; {files[0].name} is neither by its name, which would end in one of {ends}" if files else ""
        raise DataError(f"There is no Parquet or CSV file at {place}{others}.")
    if len(by_format) > 1:
        (a, first), (b, second) = ((name, each[0].name) for name, each in by_format.items())
        raise DataError(f"{place} has {a} ({first}) and {b} ({second}); give those of one format.")
    ((kind, chosen),) = by_format.items()
    for file in chosen:
        _require_whole(file, kind)
    return kind, [escape(str(file)) for file in chosen]


def is_data(parts: Sequence[str]) -> bool:
    """Whether no name of a path below its folder begins with ``_`` or ``.``, as those of Hadoop's committers do.

    >>> is_data(["day=3", "a.parquet"]), is_data(["_temporary", "0", "a.parquet"]), is_data([".a.parquet"])
    (True, False, False)
    """
    return not any(part.startswith(("_", ".")) for part in parts)


def format_of(name: str) -> Format | None:
    """By the end of a file's name; None where it is neither.

    >>> format_of("a.PQ"), format_of("a.csv.gz"), format_of("a.parquet.crc")
    ('Parquet', 'CSV', None)
    """
    lower = name.lower()
    return "Parquet" if lower.endswith(PARQUET) else "CSV" if lower.endswith(CSV) else None


def _require_whole(file: Path, kind: Format) -> None:
    try:
        with file.open("rb") as opened:
            begin = opened.read(4)
            size = opened.seek(0, 2)
            opened.seek(max(size - 4, 0))
            end = opened.read(4)
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}.") from error
    if not size:
        raise DataError(f"{file} is empty.")
    if kind == "CSV" and begin == MAGIC:
        raise DataError(f"{file} is called CSV, but is Parquet; give it a name that ends in .parquet.")
    if kind == "Parquet" and begin != MAGIC:
        raise DataError(f"Cannot read {file} as Parquet: it does not begin as Parquet does.")
    if kind == "Parquet" and (end != MAGIC or size < 12):
        raise DataError(f"Cannot read {file} as Parquet: it breaks off before its end.")


def table_of(place: str, engine: "Backend", user: str = "user_id", arm: str = "arm") -> "ir.Table":
    """A table of the files at a place, see `files_of`, or at the URL of an object store (`REMOTE`).

    `user`, `arm`: the columns of users and arms, see `csv_table`.

    Raises:
        DataError: there is nothing that can be read.

    """
    scheme = place.partition("://")[0] if "://" in place else ""
    try:
        kind, files = _remote(place, engine) if scheme in REMOTE else files_of(place)
        _require_agreement(files, kind, engine)
        # By name, so that a column has one type that holds all files' numbers, and not the first file's.
        if kind == "Parquet":
            table = typed(engine, engine.read_parquet(files, hive_partitioning=True, union_by_name=True))
            return _with_durations(engine, table, files)
        return csv_table(_with_rows(files, place, engine), engine, user, (arm,))
    except DataError:
        raise
    except Exception as error:  # DuckDB's own, and whatever a damaged file brings about
        raise DataError(f"Cannot read {place}: {_why(error)}.") from error


def typed(engine: "Backend", table: "ir.Table") -> "ir.Table":
    """With moments in microseconds where Ibis has no name for their type: nanoseconds with a zone, as pandas writes."""
    unnamed = [name for name, kind in table.schema().items() if kind.is_unknown() and "TIMESTAMP" in str(kind)]
    if not unnamed:
        return table
    return _replaced(engine, table, {name: f"{_quoted(name)}::TIMESTAMPTZ" for name in unnamed})


def _replaced(engine: "Backend", table: "ir.Table", by_name: dict[str, str]) -> "ir.Table":
    """A view in which some columns are what an expression says."""
    casts = ", ".join(f"{expression} AS {_quoted(name)}" for name, expression in by_name.items())
    view, source = f"driftline_{table.get_name()}", _quoted(table.get_name())
    engine.raw_sql(f'CREATE TEMP VIEW "{view}" AS SELECT * REPLACE ({casts}) FROM {source}')  # noqa: S608 quoted names
    return engine.table(view, database="temp.main")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _with_durations(engine: "Backend", table: "ir.Table", files: Sequence[str]) -> "ir.Table":
    """With durations as intervals, which are no number: Parquet holds whole ones, and only Arrow's schema has their
    unit.
    """
    query = "SELECT DISTINCT value FROM parquet_kv_metadata(?) WHERE key = 'ARROW:schema'"
    schemas = [
        pa.ipc.read_schema(pa.py_buffer(b64decode(value)))
        for (value,) in engine.con.execute(query, [list(files)]).fetchall()
    ]
    durations = {field.name for schema in schemas for field in schema if pa.types.is_duration(field.type)}
    by_name = {
        name: f"to_microseconds({_quoted(name)}::BIGINT)"
        for name, kind in table.schema().items()
        if name in durations and kind.is_numeric()
    }
    return _replaced(engine, table, by_name) if by_name else table


def _require_agreement(files: Sequence[str], kind: Format, engine: "Backend") -> None:
    """A folder ``name=value`` says of its files what a column of that name in them says, or the engine would take the
    folder's word and not the file's.

    Raises:
        DataError: a file has another value.

    """
    keys = sorted({key.lower() for file in files for key in re.findall(r"[/\\]([^/\\=]+)=[^/\\]*(?=[/\\])", file)})
    if not keys:
        return
    options = "union_by_name = true, hive_partitioning = false, filename = 'driftline_file'"
    reader = "read_parquet(?, " if kind == "Parquet" else "read_csv(?, sample_size = -1, "
    source = f"{reader}{options})"
    columns = engine.con.execute(f"DESCRIBE SELECT * FROM {source}", [list(files)]).fetchall()  # noqa: S608 of ours
    for name, kind_of_column, *_ in columns:
        if name.lower() not in keys:
            continue
        # An arm is text: 01 is not 1. All else is compared as what it is in the file: 2026-03-01 may be a midnight.
        compared = "VARCHAR" if name.lower() == "arm" else kind_of_column
        query = f"""
            SELECT driftline_file, in_file::VARCHAR, in_folder FROM (
                SELECT driftline_file, {_quoted(name)} AS in_file,
                    url_decode(regexp_extract(driftline_file, ?, 1)) AS in_folder
                FROM {source} WHERE regexp_matches(driftline_file, ?)
            ) WHERE in_file IS NOT NULL AND in_file::{compared} IS DISTINCT FROM TRY_CAST(in_folder AS {compared})
            LIMIT 1
        """  # noqa: S608 a quoted name, and a type that the engine gave
        folder = rf"(?i)[/\\]{re.escape(name)}=([^/\\]*)[/\\]"
        for file, in_file, in_folder in engine.con.execute(query, [folder, list(files), folder]).fetchall():
            raise DataError(
                f"Column '{name}' of {file} has {in_file}, but the file's folder says {in_folder}; make them the same."
            )


def _with_rows(files: Sequence[str], place: str, engine: "Backend") -> list[str]:
    """Without the CSV files that have a header alone, from which every column would seem to be text.

    Raises:
        DataError: none has a row.

    """
    query = "SELECT 1 FROM read_csv(?, all_varchar = true, header = true) LIMIT 1"
    having = [file for file in files if engine.con.execute(query, [file]).fetchall()]
    if not having:
        raise DataError(f"{place} has no rows.")
    return having


def _remote(place: str, engine: "Backend") -> tuple[Format, list[str]]:
    by_name = format_of(place)
    if place.startswith("http") and by_name is not None:
        return by_name, [place]
    whole = place if by_name is not None else f"{place.rstrip('/')}/**"
    fixed = whole.partition("*")[0].rpartition("/")[0]
    rows = engine.con.execute("SELECT file FROM glob(?)", [whole]).fetchall()
    files = sorted(file for (file,) in rows if is_data(file.removeprefix(fixed).strip("/").split("/")))
    formats = {format_of(file) for file in files} - {None}
    if len(formats) != 1:
        raise DataError(f"There have to be Parquet files at {place}, or CSV, and not both.")
    (kind,) = formats
    return kind or "Parquet", [file for file in files if format_of(file) == kind]


def _why(error: Exception) -> str:
    """As `line`; of a CSV file the reason stands below the line that is wrong."""
    said = str(error)
    if "This file is not utf-8 encoded" in said:
        at = line(error).rpartition("Line: ")[2]
        return f"the text of line {at} is not in UTF-8; save the file as UTF-8"
    return line(error)


def line(error: Exception) -> str:
    """What an engine's exception says, in one line without its full stop."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
