"""Tables of Parquet and CSV files and of any SQL engine that Ibis speaks to, streamed as Arrow batches."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from abtest.read.files import REMOTE, line, table_of, typed
from abtest.read.problems import DataError as DataError  # noqa: PLC0414 importers have it from here

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend

BATCH = 131_072  # rows asked for at a time


def opened(data: str | Path, table: str | None = None, user: str = "user_id", arm: str = "arm") -> "ir.Table":
    """A table where the data are; nothing is read yet.

    Args:
        data: a Parquet or CSV file, a folder of them (partitioned by Hive's ``name=value`` folders or not), a glob,
            the URL of those (``file://``, ``s3://``), or that of an engine, such as
            ``duckdb:///data/warehouse.duckdb``, ``sqlite:///data/days.db``, ``postgres://host/db``.
        table: with a URL, the table's name or a SELECT statement.
        user: the column of users, which in CSV stay as the file writes them.
        arm: the column of arms, which in CSV is text.

    Raises:
        DataError: there is nothing like that, or the engine does not open it.

    """
    text = str(data)
    if "://" not in text or text.partition("://")[0] in {"file", *REMOTE}:
        if table is not None:
            raise DataError(f"{text} is of files; a table's name goes with the URL of an engine.")
        return table_of(text, _in_memory(), user, arm)
    if table is None:
        raise DataError(f"Which table of {_shown(text)}? Name one, or give a SELECT statement.")
    scheme, _, path = text.partition("://")
    if scheme in {"duckdb", "sqlite"} and not Path(path).is_file():  # either would make an empty one
        raise DataError(f"There is no file {path.replace('//', '/', 1) if path.startswith('//') else path}.")
    try:
        return _duckdb(path, table) if scheme == "duckdb" else _engine(text, table)
    except Exception as error:  # each engine's driver has exceptions of its own
        raise DataError(f"Cannot open '{table}' at {_shown(text)}: {_without_password(line(error), text)}.") from error


def as_table(rows: Any) -> "ir.Table":
    """`rows` of Ibis as they are, those of a data frame or an Arrow table as a table of Ibis.

    Raises:
        DataError: they are none of these, have no columns, or two of one name.

    """
    import ibis

    if isinstance(rows, ibis.expr.types.Table):
        return rows
    pandas = type(rows).__module__.partition(".")[0] == "pandas"
    try:
        if rows is None or isinstance(rows, list):  # which Ibis takes for a table without columns, or of one
            raise TypeError("no table")
        # Arrow's C stream is what polars, DuckDB's relations and most others give; pandas and Arrow Ibis knows itself.
        streams = hasattr(rows, "__arrow_c_stream__") and not pandas
        held = pa.table(rows) if streams and not isinstance(rows, pa.Table) else rows
        names = list(held.columns) if pandas else held.column_names if isinstance(held, pa.Table) else []
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        table = ibis.memtable(held) if twice is None else None
    except Exception as error:  # whatever Ibis cannot make a table of
        raise DataError(
            "Rows are a data frame (pandas, polars), an Arrow table, a relation of DuckDB or a table of Ibis, not "
            f"{type(rows).__name__}: {line(error)}."
        ) from error
    if table is None:
        raise DataError(f"The {type(rows).__name__} of rows has two columns named '{twice}'.")
    if not table.columns:
        raise DataError(f"The {type(rows).__name__} of rows has no columns.")
    return table


def batches(table: "ir.Table", columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a table, by at most `BATCH` rows, in the engine's order.

    Raises:
        DataError: the engine fails on the way.

    """
    import ibis

    wanted = table.select(*columns)
    engine = ibis.get_backend(table)
    try:
        if wanted.op().find(ibis.expr.operations.InMemoryTable):  # it is in memory as a whole already
            yield from engine.to_pyarrow(wanted).to_batches(BATCH)
        elif engine.name == "duckdb":  # Ibis 12 asks DuckDB 2 for a stream by a name that it no longer has
            yield from engine.con.sql(wanted.compile()).to_arrow_reader(BATCH)
        else:
            yield from wanted.to_pyarrow_batches(chunk_size=BATCH)
    except DataError:
        raise
    except Exception as error:  # each engine's driver has exceptions of its own
        if isinstance(error, pa.ArrowException) and (mixed := _mixed(wanted)):
            raise DataError(mixed) from error
        raise DataError(f"The {engine.name} engine failed while rows were read: {line(error)}.") from error


def _mixed(table: "ir.Table") -> str | None:
    """A sentence on the first column of a data frame whose values Arrow has no one type for; None: there is none."""
    import ibis

    for memory in table.op().find(ibis.expr.operations.InMemoryTable):
        frame = memory.data.to_frame()
        for name in frame.columns:
            column = frame[name]
            if column.dtype != object:
                continue
            try:
                pa.array(column, from_pandas=True)
            except pa.ArrowException:
                firsts: dict[str, Any] = {}
                for each in column.dropna():
                    firsts.setdefault(type(each).__name__, each)
                kinds = ", ".join(f"{kind} (first: {first})" for kind, first in firsts.items())
                return f"Column '{name}' of the data frame has values that no one type holds: {kinds}."
    return None


def first_values(column: Any, most: int) -> list[Any]:
    """Different values of a column, at most so many, in no order.

    Raises:
        DataError: the engine fails.

    """
    table = column.name("value").as_table().distinct().limit(most)
    return [each for batch in batches(table, ["value"]) for each in batch.column("value").to_pylist()]


def first_row(table: "ir.Table") -> tuple[Any, ...]:
    """The values of a table's first row.

    Raises:
        DataError: the engine fails, or there is no row.

    """
    for batch in batches(table.limit(1), table.columns):
        for row in batch.to_pylist():
            return tuple(row.values())
    raise DataError("There are no rows.")


def _in_memory() -> "Backend":
    """An engine of its own, in which a moment is shown in UTC, wherever the machine stands."""
    import ibis

    engine = ibis.duckdb.connect()
    engine.raw_sql("SET TimeZone = 'UTC'")
    return engine


def _engine(url: str, table: str) -> "ir.Table":
    import ibis

    engine = ibis.connect(url)
    return engine.sql(table) if _is_query(table) else engine.table(table)


def _duckdb(path: str, table: str) -> "ir.Table":
    """A query becomes a view: Ibis 12 asks DuckDB 2 for a query's schema by a name that it no longer has."""
    import ibis

    engine = ibis.duckdb.connect(path, read_only=True)
    if not _is_query(table):
        return typed(engine, engine.table(table))
    engine.raw_sql(f"CREATE TEMP VIEW driftline_rows AS {table}")
    return typed(engine, engine.table("driftline_rows", database="temp.main"))


def _is_query(table: str) -> bool:
    return len(table.split()) > 1


def _without_password(said: str, url: str) -> str:
    """What a driver says, which may quote the URL."""
    password = urlsplit(url).password
    return said.replace(password, "***").replace(unquote(password), "***") if password else said


def _shown(url: str) -> str:
    """Without a password.

    >>> _shown("postgres://me:secret@host/db")
    'postgres://host/db'
    """
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
