import sqlite3

import pytest

from abtest.read.engines import DataError, opened


def test_data_that_are_not_there_are_named(tmp_path):
    sqlite3.connect(tmp_path / "empty.sqlite").close()
    (tmp_path / "text.parquet").write_text("no parquet")
    url = f"sqlite://{tmp_path}/empty.sqlite"
    for data, table, said in (
        (tmp_path / "none", None, "There is no Parquet or CSV file at"),
        (tmp_path / "*.parquets", None, "There is no Parquet or CSV file at"),
        (tmp_path / "text.parquet", None, "Cannot read .* as Parquet"),
        (tmp_path / "text.parquet", "days", "a table's name goes with the URL"),
        (url, None, "Which table of"),
        (f"sqlite://{tmp_path}/none.sqlite", "days", "There is no file .*none.sqlite"),
        (f"duckdb://{tmp_path}/none.duckdb", "days", "There is no file .*none.duckdb"),
        (url, "days", "Cannot open 'days' at"),
        ("nothing://host/x", "days", "Cannot open 'days' at"),
    ):
        with pytest.raises(DataError, match=said):
            opened(data, table)


def test_a_password_in_a_url_is_not_repeated():
    with pytest.raises(DataError) as raised:
        opened("nothing://me:secret@host/db", None)
    assert "secret" not in str(raised.value)
