import uuid
from decimal import Decimal

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abtest.incremental import read as incremental
from abtest.read.engines import DataError, opened
from abtest.read.rows import read
from abtest.read.users import keys_of
from tests.abtest.abtest_cases import experiment
from tests.abtest.read.read_cases import METRICS, WEEK, assert_same, parquet

NAMES = {
    "text": lambda i: f"user-{i}",
    "UUIDs as text": lambda i: str(uuid.UUID(int=i * 2**64 + 17)),
    "UUIDs": lambda i: uuid.UUID(int=i * 2**64 + 17).bytes,
    "bytes": lambda i: i.to_bytes(9, "big"),
    "digits with zeros": lambda i: f"{i:012d}",
    "decimals": lambda i: Decimal(i + 10**25),
    "doubles": float,
    "below zero": lambda i: -i - 1,
    "large": lambda i: 2**63 - 1 - i,
    "above 2^63": lambda i: 2**63 + i,
}


def renamed(days, pre, name):
    """The same users by other names, as Arrow."""
    places = {user: place for place, user in enumerate(pre.user_id)}
    kind = {"UUIDs": pa.binary(16), "above 2^63": pa.uint64()}.get(name)
    tables = []
    for frame in (days, pre):
        ids = pa.array([NAMES[name](places[user]) for user in frame.user_id], kind)
        table = pa.Table.from_pandas(frame, preserve_index=False)
        tables.append(table.set_column(0, "user_id", ids))
    return tables


@pytest.mark.parametrize("name", NAMES)
def test_users_are_anything_that_can_be_equal(tmp_path, crowd, name):
    days, pre = crowd
    by_number = read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))
    for table, file in zip(renamed(days, pre, name), ("a.parquet", "b.parquet"), strict=True):
        pq.write_table(table, tmp_path / file)
    data, before = opened(tmp_path / "a.parquet"), opened(tmp_path / "b.parquet")
    for counted in (read(data, WEEK, before), incremental.read(tmp_path / "kept", data, WEEK, before)):
        assert counted.counts == by_number.counts
        for arm in ("control", "treatment"):
            a, b = counted.aggregate.moments[arm], by_number.aggregate.moments[arm]
            assert a.n == b.n
            np.testing.assert_allclose(a.means, b.means, rtol=1e-12)


def test_a_uuid_column_meets_the_same_users_written_as_text(tmp_path, crowd):
    import duckdb

    days, pre = crowd
    named, before = renamed(days, pre, "UUIDs as text")
    pq.write_table(before, tmp_path / "pre.parquet")
    path = tmp_path / "days.duckdb"
    with duckdb.connect(str(path)) as engine:
        engine.register("named", named)
        engine.execute("CREATE TABLE days AS SELECT * REPLACE (user_id::UUID AS user_id) FROM named")
    counted = read(opened(f"duckdb://{path}", "days"), WEEK, opened(tmp_path / "pre.parquet"))
    assert "users_without_pre" not in counted.counts


@pytest.mark.parametrize("ids", [["a", None, "b", None], [b"a", None, b"b", None], [1.0, None, 2.0, float("nan")]])
def test_rows_without_a_user_are_refused_with_their_number(tmp_path, ids):
    rows = pa.table(
        {
            "user_id": pa.array(ids),
            "arm": ["control"] * 4,
            "day": [0] * 4,
            "views": [1] * 4,
            "effective_views": [1] * 4,
            "play_s": [1.0] * 4,
        }
    )
    pq.write_table(rows, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"column 'user_id' has 2 missing values"):
        read(opened(tmp_path / "rows.parquet"), WEEK)


@pytest.mark.parametrize("wrong", [2.5, 2.0**53, -(2.0**60), float("inf")])
def test_a_double_that_may_be_several_users_is_refused(tmp_path, crowd, wrong):
    days = crowd[0].assign(user_id=np.where(np.arange(len(crowd[0])) == 3, wrong, crowd[0].user_id % 10**6 * 1.0))
    with pytest.raises(DataError, match=r"'user_id' has 1 value that is no whole number below 2⁵³"):
        read(opened(parquet(tmp_path, days)), WEEK)


def test_users_of_another_type_in_the_table_of_covariates_are_refused(tmp_path, crowd):
    days, pre = crowd
    before = opened(parquet(tmp_path, pre.assign(user_id=pre.user_id.astype(str)), "pre.parquet"))
    with pytest.raises(DataError, match="'user_id' is int64 in the table and string in that of covariates"):
        read(opened(parquet(tmp_path, days)), WEEK, before)
    with pytest.raises(DataError, match="'user_id' is int64 in the table and string in that of covariates"):
        incremental.read(tmp_path / "kept", opened(parquet(tmp_path, days)), WEEK, before)


def test_a_tester_is_left_out_by_number_and_by_text(tmp_path, crowd):
    days, _ = crowd
    tester = int(days.user_id.iloc[0])
    plan = experiment(metrics=METRICS, overrides={"treatment": (tester,)})
    counts = [
        read(opened(parquet(tmp_path, days.assign(user_id=days.user_id.astype(kind)))), plan).counts
        for kind in (np.int64, str)
    ]
    assert counts[0] == counts[1]
    assert counts[0]["rows_of_testers"] == int((days.user_id == tester).sum())


def test_many_names_have_as_many_keys_and_the_same_in_any_batch():
    names = [f"{i:x}" for i in range(200_000)]
    keys = keys_of(pa.array(names))
    assert len(np.unique(keys)) == len(names)
    assert (keys_of(pa.array(names[5:9])) == keys[5:9]).all()
    assert (keys_of(pa.array(names).dictionary_encode()) == keys).all()


def test_tables_in_memory_are_read_too(crowd, tmp_path):
    days, pre = crowd
    expected = read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))
    for given in (ibis.memtable, lambda frame: frame, lambda frame: pa.Table.from_pandas(frame, preserve_index=False)):
        found = read(given(days), WEEK, given(pre))
        assert_same(found.aggregate, expected.aggregate)
        assert found.counts == expected.counts
    assert isinstance(days, pd.DataFrame)


def test_what_is_said_of_a_user_is_said_by_the_name_that_the_table_has(tmp_path, crowd):
    days, pre = (frame.assign(user_id="user-" + frame.user_id.astype(str)) for frame in crowd)
    twice = opened(parquet(tmp_path, pd.concat([days, days.iloc[[5]]])))
    one_day = days[days.day == days.day.iloc[5]]
    said = f"has 1 row of a user and day that another row has .first: {days.user_id.iloc[5]}, day"
    with pytest.raises(DataError, match=said):
        read(twice, WEEK)
    with pytest.raises(DataError, match=said):
        incremental.read(tmp_path / "kept", opened(parquet(tmp_path, pd.concat([one_day, days.iloc[[5]]]))), WEEK)
    again = opened(parquet(tmp_path, pd.concat([pre, pre.iloc[[2]]]), "pre.parquet"))
    for given in (read, lambda *others: incremental.read(tmp_path / "other", *others)):
        with pytest.raises(DataError, match=f"table of covariates .first: {pre.user_id.iloc[2]}"):
            given(opened(parquet(tmp_path, days)), WEEK, again)
