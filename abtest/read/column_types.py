"""Which columns a table must have, and of which types; what is wrong is shown by the first value that is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from abtest.read.csv_files import files_of_csv, first_that, hint, no_number
from abtest.read.days import is_day, shown
from abtest.read.engines import DataError, batches
from abtest.read.problems import ARM, DAY
from abtest.read.spill import USER

if TYPE_CHECKING:
    import ibis.expr.types as ir


def require(
    schema: Mapping[str, Any],
    columns: Sequence[str],
    what: str,
    table: "ir.Table | None" = None,
    called: Mapping[str, str] | None = None,
) -> None:
    """That a table has these columns, of types that can be used.

    Args:
        schema: of the table, types of Ibis by column.
        columns: that it must have.
        what: the table is, in a sentence.
        table: where it is at hand, so that the first value that is wrong can be shown.
        called: what the user calls columns that have other names here.

    Raises:
        DataError: it does not.

    """
    names = called or {}
    lacking = [column for column in columns if column not in schema]
    if lacking:
        lacks, has = ", ".join(f"'{name}'" for name in lacking), ", ".join(schema)
        unnamed = table is not None and {USER, ARM, DAY} <= {*lacking} and files_of_csv(table)
        hint_ = "; the first line of a CSV file has to name its columns" if unnamed else ""
        raise DataError(f"{what[0].upper()}{what[1:]} lacks {lacks}; it has {has}{hint_}.")
    for column in columns:
        kind = schema[column]
        wanted = {ARM: "text", DAY: "a date, a midnight, text of ISO 8601, or an integer"}.get(column, "a number")
        fits = {
            USER: not (kind.is_unknown() or kind.is_null()),
            ARM: kind.is_string(),
            DAY: kind.is_integer() or kind.is_date() or kind.is_timestamp() or kind.is_string(),
        }.get(column, kind.is_numeric() or kind.is_boolean())
        if table is not None and kind.is_string() and (column == DAY or not fits):
            _require_texts_that_fit(table, column, names.get(column, column))
        if not fits:
            is_kind = "has no type, as where there are no rows" if kind.is_unknown() or kind.is_null() else f"is {kind}"
            met = f" (first: {_first(table, column)})" if column == DAY and table is not None else ""
            raise DataError(f"Column '{names.get(column, column)}' of {what} {is_kind}{met}; it must be {wanted}.")


def _require_texts_that_fit(table: "ir.Table", column: str, name: str) -> None:
    """Of a CSV file's column that is text because some of it is: which line to mend.

    Raises:
        DataError: there is one.

    """
    wrong = first_that(table, name, no_number if column != DAY else lambda text: not is_day(text))
    if wrong is not None:
        no, todo = "number", hint(wrong.text)
        if column == DAY:
            no, todo = "day", "write a date such as 2026-03-01, or the number of the day, the first one being 0"
        raise DataError(f"{wrong.place}: column '{name}' has '{wrong.text}', which is no {no}; {todo}.")
    if column != DAY and files_of_csv(table):
        raise DataError(f"Column '{name}' has no value in any row; it must be a number.")


def _first(table: "ir.Table", column: str) -> str:
    for batch in batches(table.limit(1), [column]):
        for value in batch.column(column).to_pylist():
            return shown(value)
    return "none"
