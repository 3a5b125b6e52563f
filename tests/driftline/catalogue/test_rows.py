"""What a cell may look like, and what is said of one that is wrong."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.messages.events import BadEvent, decode_item
from contracts.messages.ids import id_of_text
from contracts.wire.events_pb2 import Item
from driftline.catalogue.rows import BadRow, item_of

MAX_BYTES = 1000
NAN = float("nan")


def item(cells: Mapping[str, Any], **columns: str) -> Item:
    return item_of(cells, columns, max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    "cells",
    [
        {"item_id": "7", "category_ids": "3|5", "duration_ms": "12000", "expires_ms": "1800000000000", "blocked": "1"},
        {"item_id": 7, "category_ids": [3, 5], "duration_ms": 12000, "expires_ms": 1_800_000_000_000, "blocked": True},
        {"item_id": 7.0, "category_ids": "[3, 5]", "duration_ms": "12000.0", "expires_ms": 1.8e12, "blocked": "TRUE"},
        {
            "item_id": " 7 ",
            "category_ids": "3;5",
            "duration_ms": "+12000",
            "expires_ms": "1800000000000.",
            "blocked": 1,
        },
    ],
)
def test_text_numbers_and_lists_come_to_one_item(cells: Mapping[str, Any]) -> None:
    expected = Item(
        schema_version=1, item_id=7, category_ids=[3, 5], duration_ms=12_000, expires_ms=1_800_000_000_000, blocked=True
    )
    assert item(cells) == expected
    assert decode_item(expected.SerializeToString(), max_bytes=MAX_BYTES) == expected


@pytest.mark.parametrize("empty", [None, "", "  ", NAN])
def test_all_but_the_id_may_be_empty(empty: object) -> None:
    fields = dict.fromkeys(("category_ids", "duration_ms", "expires_ms", "blocked"), empty)
    assert item({"item_id": 7} | fields) == item({"item_id": 7}) == Item(schema_version=1, item_id=7)
    with pytest.raises(BadRow, match=r"^column video is empty; item_id is a whole number above 0, item_key text of"):
        item({"video": empty}, item_id="video")


def test_an_item_may_be_named_by_a_text() -> None:
    assert item({"sku": "a film", "item_id": ""}, item_key="sku") == Item(
        schema_version=1, item_id=id_of_text("a film"), item_key="a film"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"item_id": "abc"}, "column item_id is 'abc'; item_id is a whole number above 0"),
        ({"item_id": "7.5"}, "column item_id is '7.5'; item_id is a whole number above 0"),
        ({"item_id": True}, "column item_id is True; item_id is a whole number above 0"),
        ({"item_id": 0}, "column item_id is 0; item_id is 0, not above 0"),
        ({"item_id": 2**63}, f"column item_id is {2**63}; item_id is a whole number above 0"),
        ({"item_id": "9" * 5000}, f"column item_id is '{'9' * 59}…; item_id is a whole number above 0"),
        ({"item_key": 7}, "column item_key is 7; item_key is text of at most 256 bytes"),
        ({"item_key": "a film"}, "column item_key is 'a film'; item_key is 'a film', whose number is 7"),
        ({"category_ids": "3|x"}, "column category_ids is '3|x'; category_ids is whole numbers above 0, separated by"),
        ({"category_ids": [3, None]}, "column category_ids is [3, None]; category_ids is whole numbers above 0"),
        ({"category_ids": 2**31}, f"column category_ids is {2**31}; category_ids is whole numbers above 0"),
        ({"category_ids": "3|-5"}, "column category_ids is '3|-5'; category_ids has -5, not above 0"),
        ({"duration_ms": "12 s"}, "column duration_ms is '12 s'; duration_ms is whole milliseconds, 0 or more"),
        ({"duration_ms": -1}, "column duration_ms is -1; duration_ms is -1, below 0"),
        (
            {"expires_ms": "1800000000"},
            "column expires_ms is '1800000000'; expires_ms is in milliseconds, but 1800000000 is in 1970; are",
        ),
        (
            {"expires_ms": datetime(2027, 1, 1, tzinfo=UTC)},
            "column expires_ms is 2027-01-01 00:00:00+00:00; expires_ms is a time in Unix milliseconds",
        ),
        ({"blocked": "maybe"}, "column blocked is 'maybe'; blocked is true or false"),
        ({"blocked": 2}, "column blocked is 2; blocked is true or false"),
        ({"category_ids": list(range(1, 1000))}, "1878 bytes; 1000 are allowed"),
    ],
)
def test_what_is_wrong_has_its_column_its_value_and_what_is_right(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(BadRow) as caught:
        item({"item_id": 7} | changes)
    assert str(caught.value).startswith(said)


def test_what_the_workers_refuse_is_refused_in_their_words() -> None:
    refused = Item(schema_version=1, item_id=7, expires_ms=-4)
    with pytest.raises(BadEvent) as theirs:
        decode_item(refused.SerializeToString(), max_bytes=MAX_BYTES)
    with pytest.raises(BadRow) as ours:
        item({"item_id": 7, "until": "-4"}, expires_ms="until")
    assert str(ours.value) == f"column until is '-4'; {theirs.value.detail}"
