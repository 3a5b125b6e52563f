"""CSV files: their types, and the line in which something stands that is no number, for whoever has to mend it.

An engine reads the files; they are read a second time here, line by line, only once it is known that one is wrong.
"""

import csv
import gzip
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from abtest.read.days import shown
from abtest.read.problems import DataError

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend

NULLS = ("", "NULL", "null", "NA", "N/A", "n/a", "#N/A", "\\N")  # how SQL engines, R and spreadsheets write nothing
DELIMITERS = ",;\t|"
FILES = "driftline_csv_files"  # a table of the engine's: which files a CSV table was read from
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|\s*[+-]?(nan|inf|infinity)\s*", re.IGNORECASE)
SEPARATED = re.compile(r"[+-]?\d[\d.,'’ \u00a0\u202f]*")
WITH_UNIT = re.compile(r"[^\d\s+-]{1,3}\s*[\d.,]+|[\d.,]+\s*[^\d\s]{1,3}")


class Value(NamedTuple):
    """What a file has somewhere: the text as it stands there, and where that is."""

    text: str
    place: str


def csv_table(
    files: Sequence[str], engine: "Backend", user: str = "user_id", arms: Collection[str] = ("arm",)
) -> "ir.Table":
    """Types by all rows; but an arm is text, and so are users whom a number would not write as the file does (007).

    Args:
        files: to be read.
        engine: reads them.
        user: the column of users.
        arms: columns that are text.

    Raises:
        DataError: a row has more or fewer fields than the first line of its file.

    """
    options: dict[str, Any] = {"union_by_name": True, "hive_partitioning": True, "nullstr": list(NULLS)}
    table = engine.read_csv(list(files), sample_size=-1, **options)
    schema = table.schema()
    types: dict[str, str] = {}
    if any(delimiter in name for name in schema for delimiter in DELIMITERS):  # no dialect fits all rows
        _require_as_many_fields(files)
    types |= {name: "VARCHAR" for name in arms if name in schema and not schema[name].is_string()}
    if user in schema and not schema[user].is_string():
        written = engine.read_csv(list(files), all_varchar=True, **options)
        as_number = written[user].try_cast("int64").cast("string")
        differs = written.filter(written[user].notnull() & ~written[user].identical_to(as_number)).count()
        if engine.con.execute(differs.compile()).fetchall()[0][0]:
            types[user] = "VARCHAR"
    engine.con.execute(f"CREATE OR REPLACE TEMP TABLE {FILES} AS SELECT unnest(?) AS file", [list(files)])
    return engine.read_csv(list(files), sample_size=-1, types=types, **options) if types else table


def first_that(table: "ir.Table", column: str, is_wrong: Callable[[str], bool]) -> Value | None:
    """The first value of a CSV table's column that is wrong; None where there is none, or the table is of no CSV."""
    for file, line, row in _rows(table):
        text = row.get(column)
        if text is not None and text not in NULLS and is_wrong(text):
            return Value(text, f"{file}, line {line}")
    return None


def no_number(text: str) -> bool:
    """Whether a text is none that is read as a number.

    >>> [no_number(text) for text in ("1", " -2.5e3", ".5", "nan", "1,234", "1.234,5", "-", "10 %")]
    [False, False, False, False, True, True, True, True]
    """
    return NUMBER.fullmatch(text) is None


def hint(text: str) -> str:
    """What to do about a text where a number is wanted.

    >>> [hint(text)[:27] for text in ("1,234", "10 %", "-")]
    ['write numbers without separ', 'write the number alone, wit', 'where nothing happened writ']
    """
    if SEPARATED.fullmatch(text.strip()):
        return "write numbers without separators of thousands and with a decimal point, such as 1234.5"
    if WITH_UNIT.fullmatch(text.strip()):
        return "write the number alone, without a unit or a currency"
    return "where nothing happened write 0"


def place_of(table: "ir.Table", row: Mapping[str, Any]) -> str | None:
    """In which line of which file a row of a CSV table is that has these values; None where it is not found.

    Columns that the files do not have, as what one row is of was made of them, say nothing.
    """
    for file, line, texts in _rows(table):
        if all(_same(texts[name] or "", value) for name, value in row.items() if name in texts):
            return f"{file}, line {line}"
    return None


def files_of_csv(table: "ir.Table") -> list[str]:
    """The CSV files that a table was read from; none where it is of something else."""
    import ibis

    engine: Any = ibis.get_backend(table)
    if engine.name != "duckdb":
        return []
    if not engine.con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [FILES]).fetchall():
        return []
    return [file for (file,) in engine.con.execute(f"FROM {FILES}").fetchall()]


def _same(text: str, value: Any) -> bool:
    if value is None:
        return text.strip() in NULLS
    if text == shown(value) or (hasattr(value, "isoformat") and text[:10] == value.isoformat()[:10]):
        return True
    try:
        return repr(float(text)) == repr(float(value))
    except (TypeError, ValueError):
        return False


def _rows(table: "ir.Table") -> Iterator[tuple[str, int, dict[str, str | None]]]:
    """File, line and fields by column of each row, as text; nothing where the table is of no CSV file at hand."""
    import ibis

    engine: Any = ibis.get_backend(table)
    for file in files_of_csv(table):
        path = unescaped(file)
        if not Path(path).is_file():
            continue
        ((delimiter, quote),) = engine.con.execute(
            "SELECT Delimiter, Quote FROM sniff_csv(?, sample_size = -1)", [file]
        ).fetchall()
        quoted = {"quotechar": quote} if len(quote) == 1 else {"quoting": csv.QUOTE_NONE}
        with _opened(path) as text:
            reader = csv.reader(text, delimiter=delimiter, **quoted)
            header = next(reader, [])
            for row in reader:
                yield path, reader.line_num, dict(zip(header, row, strict=False))


def _require_as_many_fields(files: Sequence[str]) -> None:
    for file in files:
        path = unescaped(file)
        if not Path(path).is_file():
            continue
        with _opened(path) as text:
            first = text.readline()
            delimiter = max(DELIMITERS, key=first.count)
            (header,) = csv.reader([first], delimiter=delimiter)
            reader = csv.reader(text, delimiter=delimiter)
            for row in reader:
                if row and len(row) != len(header):
                    has = "1 field" if len(row) == 1 else f"{len(row)} fields"
                    raise DataError(
                        f"{path}, line {reader.line_num + 1}: there {'is' if len(row) == 1 else 'are'} {has}, and the "
                        f"first line names {len(header)} columns ({', '.join(header)}); a field that is empty needs "
                        f"its '{delimiter}' too, and one with '{delimiter}' in it needs quotes."
                    )


def unescaped(file: str) -> str:
    """A file's name of a pattern that `glob.escape` made.

    >>> unescaped("rows [[]1].csv")
    'rows [1].csv'
    """
    return re.sub(r"\[([*?[])\]", r"\1", file)


def _opened(path: str) -> TextIOWrapper:
    if path.lower().endswith(".gz"):
        return TextIOWrapper(gzip.open(path), encoding="utf-8-sig", errors="replace", newline="")
    return Path(path).open(encoding="utf-8-sig", errors="replace", newline="")
