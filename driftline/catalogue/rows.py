"""A row of a file as an item, judged by the function that the workers judge by; or what is wrong with it. Pure.

What a cell may look like is decided here, and what an item may be in `contracts.messages.events.decode_item`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from contracts.messages.events import ITEM, SCHEMA_VERSION, BadEvent, decode_item
from contracts.messages.ids import LONGEST_TEXT_BYTES
from contracts.wire.events_pb2 import Item

WANTED = {
    "item_id": "a whole number above 0",
    "item_key": f"text of at most {LONGEST_TEXT_BYTES} bytes",
    "category_ids": "whole numbers above 0, separated by | or ; or , or spaces",
    "duration_ms": "whole milliseconds, 0 or more",
    "expires_ms": "a time in Unix milliseconds, as a whole number",
    "blocked": "true or false",
}  # by field of `Item`; in a file, any but one of the first two may be left out or empty
WHOLE = re.compile(r"[+-]?[0-9]{1,19}(\.0*)?")  # 12000.0 is how a column with gaps comes out of pandas
BETWEEN = re.compile(r"[|;,\s]+")
EXACT = 2**53  # a float holds whole numbers below it as they are
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
SHOWN_CHARACTERS = 60


class BadRow(Exception):
    """A row that is no item; one sentence says which column, its value, and what is right."""


def item_of(cells: Mapping[str, Any], columns: Mapping[str, str], *, max_bytes: int) -> Item:
    """The item that a row is about.

    >>> item_of({"id": "7", "category_ids": "3|5", "duration_ms": "12000.0"}, {"item_id": "id"}, max_bytes=100)
    schema_version: 1
    item_id: 7
    category_ids: 3
    category_ids: 5
    duration_ms: 12000
    <BLANKLINE>

    Args:
        cells: by column; a cell is text, or what Parquet or JSON has as numbers, booleans and lists.
        columns: by field of `Item`, where the file calls it something else.
        max_bytes: of a record.

    Raises:
        BadRow: it is none.

    """
    item = Item(schema_version=SCHEMA_VERSION)
    if all(_is_empty(cells.get(columns.get(field, field))) for field in ITEM):
        column = columns.get("item_id", columns.get("item_key", "item_id"))
        raise BadRow(f"column {column} is empty; item_id is {WANTED['item_id']}, item_key {WANTED['item_key']}")
    for field, take in _TAKES.items():
        cell = cells.get(columns.get(field, field))
        if _is_empty(cell):
            continue
        try:
            take(item, cell)
        except ValueError:
            raise BadRow(_complaint(cell, columns.get(field, field), f"{field} is {WANTED[field]}")) from None
    try:
        return decode_item(item.SerializeToString(), max_bytes=max_bytes)
    except BadEvent as error:
        named = next((each for each in WANTED if error.detail.startswith(each)), None)
        if named is None:  # it is about the whole
            raise BadRow(error.detail) from error
        column = columns.get(named, named)
        raise BadRow(_complaint(cells[column], column, error.detail)) from error


def sentence(why: str) -> str:
    """What is wrong as a whole sentence; it may end with a question.

    >>> sentence("it is 5"), sentence("it is 5; are these seconds?")
    ('it is 5.', 'it is 5; are these seconds?')
    """
    return why if why.endswith("?") else f"{why}."


def _complaint(cell: Any, column: str, right: str) -> str:
    shown = str(cell) if isinstance(cell, date) else repr(cell)
    if len(shown) > SHOWN_CHARACTERS:
        shown = shown[:SHOWN_CHARACTERS] + "…"
    return f"column {column} is {shown}; {right}"


def _is_empty(cell: Any) -> bool:
    """Whether nothing is said: no value, empty text, or the NaN by which a float column has gaps."""
    return cell is None or (isinstance(cell, str) and not cell.strip()) or (isinstance(cell, float) and cell != cell)  # noqa: PLR0124


def _whole(cell: Any, bits: int = 64) -> int:
    """The number in a cell.

    >>> _whole("12000.0"), _whole(7.0), _whole(" 7 ")
    (12000, 7, 7)

    Raises:
        ValueError: there is none, or it does not fit.

    """
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < EXACT:
        number = int(cell)
    elif isinstance(cell, str) and WHOLE.fullmatch(cell.strip()):
        number = int(cell.strip().partition(".")[0])
    elif isinstance(cell, int) and not isinstance(cell, bool):
        number = cell
    else:
        raise ValueError
    if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise ValueError
    return number


def _take_id(item: Item, cell: Any) -> None:
    item.item_id = _whole(cell)


def _take_key(item: Item, cell: Any) -> None:
    if not isinstance(cell, str):
        raise ValueError(cell)  # noqa: TRY004 -- as of all cells
    item.item_key = cell


def _take_categories(item: Item, cell: Any) -> None:
    if isinstance(cell, str):
        parts: Sequence[Any] = [part for part in BETWEEN.split(cell.strip().strip("[]")) if part]
    elif isinstance(cell, list | tuple):
        parts = cell
    else:
        parts = [cell]
    item.category_ids.extend(_whole(part, bits=32) for part in parts)


def _take_duration(item: Item, cell: Any) -> None:
    item.duration_ms = _whole(cell)


def _take_expiry(item: Item, cell: Any) -> None:
    item.expires_ms = _whole(cell)


def _take_blocked(item: Item, cell: Any) -> None:
    if isinstance(cell, bool):
        item.blocked = cell
    elif (said := BOOLEANS.get(str(cell).strip().lower())) is not None:
        item.blocked = said
    else:
        raise ValueError


_TAKES: dict[str, Callable[[Item, Any], None]] = {
    "item_id": _take_id,
    "item_key": _take_key,
    "category_ids": _take_categories,
    "duration_ms": _take_duration,
    "expires_ms": _take_expiry,
    "blocked": _take_blocked,
}
