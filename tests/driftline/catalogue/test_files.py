"""Rows as files have them, each with the number that a person finds it by."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftline.catalogue.files import Format, Row, columns_of, format_of, require, rows
from driftline.errors import UsageError


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, kind: Format) -> None:
    columns_of(path, kind)
    list(rows(path, kind))


def test_a_csv_row_knows_its_line_also_after_one_that_spans_two(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", '\ufeffitem_id,title\r\n7,"two\nlines"\r\n\r\n8,b\r\n9\r\n')
    assert columns_of(path, "csv") == ["item_id", "title"]
    first, second, short = rows(path, "csv")
    assert first == Row(1, 2, {"item_id": "7", "title": "two\nlines"})
    assert second == Row(2, 5, {"item_id": "8", "title": "b"})
    assert (short.place, short.fault) == ("row 3 (line 6)", "it has 1 cells, and the header has 2")


def test_a_line_that_is_no_json_object_is_a_fault_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '{"item_id": 7}\n\n[1]\n{"item_id": \n' + "[" * 100_000 + "\n")
    assert columns_of(path, "jsonl") is None
    good, listed, broken, deep = rows(path, "jsonl")
    assert good == Row(1, 1, {"item_id": 7})
    assert (listed.place, listed.fault[:15]) == ("row 2 (line 3)", "it is no object")
    assert broken.fault.startswith("it is no JSON (")
    assert deep.fault.startswith("it is no JSON (")


def test_parquet_comes_as_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"item_id": [7, 8], "category_ids": [[3, 5], []], "blocked": [True, None]}), path)
    assert columns_of(path, "parquet") == ["item_id", "category_ids", "blocked"]
    first, second = rows(path, "parquet")
    assert first == Row(1, None, {"item_id": 7, "category_ids": [3, 5], "blocked": True})
    assert second.place == "row 2"


@pytest.mark.parametrize(
    ("name", "kind", "content", "said"),
    [
        ("a.csv", "csv", b"", "has no header: its first line names the columns"),
        ("a.csv", "csv", b"id,id\n", "has two columns called 'id'"),
        ("a.csv", "csv", b"id\n\xff\n", "it is not UTF-8 at byte 3"),
        ("a.csv", "csv", b'id\n"' + b"x" * 200_000 + b'"\n', "as CSV: field larger than field limit"),
        ("a.jsonl", "jsonl", b"\xff\n", "it is not UTF-8 at byte 0"),
        ("a.parquet", "parquet", b"no parquet at all", "as Parquet: Parquet magic bytes not found"),
        ("a.parquet", "parquet", b"", "Parquet file size is 0 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, name: str, kind: Format, content: bytes, said: str
) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(UsageError) as caught:
        read(path, kind)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_and_a_name_that_tells_no_format(tmp_path: Path) -> None:
    for kind in ("csv", "parquet"):
        with pytest.raises(UsageError, match=r"^Cannot read .*absent: .*[Nn]o such file"):
            columns_of(tmp_path / "absent", kind)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"a\.xlsx does not end in \.csv, .*; --format says what it is"):
        format_of(Path("a.xlsx"))
    assert format_of(Path("A.CSV")) == "csv"


@pytest.mark.parametrize(
    ("header", "columns", "said"),
    [
        (
            ["video"],
            {},
            (
                "f.csv has no column 'item_id', but 'video'; --column item_id=NAME says which one holds the ids, "
                "or --column item_key=NAME if they are texts."
            ),
        ),
        (["item_id"], {"blocked": "off"}, "f.csv has no column 'off', but 'item_id'."),
        (["item_id;title"], {}, "f.csv has no column 'item_id', but 'item_id;title'; it is separated by ';'"),
    ],
)
def test_a_column_that_is_not_there_is_named(header: list[str], columns: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        require(Path("f.csv"), header, columns)
    assert str(caught.value).startswith(said)
    require(Path("f.jsonl"), None, columns)
    require(Path("f.csv"), ["off", "item_id"], {"blocked": "off"})
