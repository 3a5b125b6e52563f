"""Tables of Parquet files and of any SQL engine that Ibis speaks to, streamed as Arrow batches."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from contracts.config.experiment import SettingsError

if TYPE_CHECKING:
    import ibis.expr.types as ir

BATCH = 131_072  # rows asked for at a time


class DataError(SettingsError):
    """Data that cannot be used; one sentence says what, how often and where."""


def opened(data: str | Path, table: str | None = None) -> "ir.Table":
    """A table where the data are; nothing is read yet.

    Args:
        data: a Parquet file, a folder of them (partitioned by Hive's ``name=value`` folders or not), a glob, or the
            URL of an engine, such as ``duckdb:///data/warehouse.duckdb``, ``sqlite:///data/days.db``,
            ``postgres://host/db``.
        table: with a URL, the table's name or a SELECT statement.

    Raises:
        DataError: there is nothing like that, or the engine does not open it.

    """
    text = str(data)
    if "://" not in text:
        if table is not None:
            raise DataError(f"{text} is Parquet; a table's name goes with the URL of an engine.")
        return _parquet(text)
    if table is None:
        raise DataError(f"Which table of {_shown(text)}? Name one, or give a SELECT statement.")
    scheme, _, path = text.partition("://")
    if scheme in {"duckdb", "sqlite"} and not Path(path).is_file():  # either would make an empty one
        raise DataError(f"There is no file {path.replace('//', '/', 1) if path.startswith('//') else path}.")
    try:
        return _duckdb(path, table) if scheme == "duckdb" else _engine(text, table)
    except Exception as error:  # each engine's driver has exceptions of its own
        raise DataError(f"Cannot open '{table}' at {_shown(text)}: {_line(error)}.") from error


def batches(table: "ir.Table", columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a table, by at most `BATCH` rows, in the engine's order.

    Raises:
        DataError: the engine fails on the way.

    """
    import ibis

    wanted = table.select(*columns)
    engine = ibis.get_backend(table)
    try:
        if engine.name == "duckdb":  # Ibis 12 asks DuckDB 2 for a stream by a name that it no longer has
            yield from engine.con.sql(wanted.compile()).to_arrow_reader(BATCH)
        else:
            yield from wanted.to_pyarrow_batches(chunk_size=BATCH)
    except DataError:
        raise
    except Exception as error:  # each engine's driver has exceptions of its own
        raise DataError(f"The {engine.name} engine failed while rows were read: {_line(error)}.") from error


def _engine(url: str, table: str) -> "ir.Table":
    import ibis

    engine = ibis.connect(url)
    return engine.sql(table) if _is_query(table) else engine.table(table)


def _duckdb(path: str, table: str) -> "ir.Table":
    """A query becomes a view: Ibis 12 asks DuckDB 2 for a query's schema by a name that it no longer has."""
    import ibis

    engine = ibis.duckdb.connect(path, read_only=True)
    if not _is_query(table):
        return engine.table(table)
    engine.raw_sql(f"CREATE TEMP VIEW driftline_rows AS {table}")
    return engine.table("driftline_rows", database="temp.main")


def _is_query(table: str) -> bool:
    return len(table.split()) > 1


def _parquet(text: str) -> "ir.Table":
    import ibis

    path = Path(text)
    pattern = str(path / "**" / "*.parquet") if path.is_dir() else text
    has_files = any(path.rglob("*.parquet")) if path.is_dir() else bool(_matches(text))
    if not has_files:
        raise DataError(f"There is no Parquet file at {text}.")
    try:
        # By name, so that a column has one type that holds all files' numbers, and not the first file's.
        return ibis.duckdb.connect().read_parquet(pattern, hive_partitioning=True, union_by_name=True)
    except Exception as error:  # DuckDB's own, and whatever a damaged file brings about
        raise DataError(f"Cannot read {text} as Parquet: {_line(error)}.") from error


def _matches(pattern: str) -> list[str]:
    from glob import glob

    return glob(pattern, recursive=True)  # noqa: PTH207 an absolute pattern, which Path.glob refuses


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _shown(url: str) -> str:
    """Without a password.

    >>> _shown("postgres://me:secret@host/db")
    'postgres://host/db'
    """
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
