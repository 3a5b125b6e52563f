import sqlite3
from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.user_days import arranged
from abtest.analyse import data_quality as quality
from abtest.analyse.analysis import report
from abtest.read import rows
from abtest.read.engines import DataError, opened
from abtest.read.rows import read
from contracts.config.experiment import MetricPlan
from tests.abtest.abtest_cases import experiment, into_sqlite

METRICS = (
    MetricPlan(name="evr", kind="ratio", columns=("effective_views", "views"), role="primary"),
    MetricPlan(name="play", kind="mean", columns=("play_s",)),
)
COLUMNS, COVARIATES = ("effective_views", "views", "play_s"), ("pre.views", "pre.play_s")
FIRST = date(1970, 1, 11)
WEEK = experiment(metrics=METRICS)


def people(users=400, seed=5):
    """Rows of users and days in no order, and what the users did before."""
    random = np.random.default_rng(seed)
    ids = random.choice(10**12, users, replace=False) - 10**11
    arm = np.where(random.random(users) < 0.5, "control", "treatment")
    user, day = np.nonzero(random.random((users, 7)) < 0.5)
    order = random.permutation(len(user))
    user, day = user[order], day[order]
    views = random.poisson(6, len(user)) + 1
    days = pd.DataFrame(
        {
            "user_id": ids[user],
            "arm": arm[user],
            "day": [FIRST + timedelta(days=int(d)) for d in day],
            "views": views,
            "effective_views": random.binomial(views, 0.3),
            "play_s": views * random.exponential(9.5, len(user)),
        }
    )
    pre = pd.DataFrame({"user_id": ids, "views": random.poisson(20, users), "play_s": random.exponential(300, users)})
    return days, pre


@pytest.fixture(scope="module")
def crowd():
    return people()


@pytest.fixture(scope="module")
def expected(crowd):
    days, pre = crowd
    ids, user = np.unique(days.user_id.to_numpy(), return_inverse=True)
    arm = np.zeros(len(ids), np.int64)
    arm[user] = days.arm == "treatment"
    before = pre.set_index("user_id").loc[ids].to_numpy(np.float64)
    day = np.array([(d - FIRST).days for d in days.day])
    values = days[list(COLUMNS)].to_numpy(np.float64)
    return aggregate(arranged(("control", "treatment"), COLUMNS, COVARIATES, ids, arm, before, day, user, values))


def parquet(tmp_path, days, name="days.parquet"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    days.to_parquet(path, index=False)
    return path


def assert_same(found, expected):
    assert (found.columns, found.covariates, found.days, found.users) == (
        expected.columns,
        expected.covariates,
        expected.days,
        expected.users,
    )
    for arm in expected.arms:
        np.testing.assert_allclose(found.moments[arm].means, expected.moments[arm].means, rtol=1e-12)
        a, b = found.moments[arm].products, expected.moments[arm].products
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.sqrt(np.outer(b.diagonal(), b.diagonal())).max())
        np.testing.assert_allclose(found.buckets[arm].sums, expected.buckets[arm].sums, rtol=1e-12)
        for segment, by_arm in expected.segments.items():
            np.testing.assert_allclose(found.segments[segment][arm].means, by_arm[arm].means, rtol=1e-12)


def test_a_parquet_file_gives_the_aggregate_of_its_rows(tmp_path, crowd, expected):
    days, pre = crowd
    found = read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))
    assert_same(found.aggregate, expected)
    assert found.counts == {"rows": len(days), "pre_users_without_rows": len(pre) - sum(expected.users.values())}


def test_files_partitioned_by_day_and_a_glob_of_files_are_one_table(tmp_path, crowd, expected):
    days, pre = crowd
    for day, part in days.groupby("day"):
        parquet(tmp_path, part.drop(columns="day"), f"hive/day={day}/part-0.parquet")
    for i in range(3):
        parquet(tmp_path, days.iloc[i::3], f"flat/{i}.parquet")
    before = opened(parquet(tmp_path, pre, "pre.parquet"))
    for data in (tmp_path / "hive", tmp_path / "flat" / "*.parquet", tmp_path / "flat"):
        assert_same(read(opened(data), WEEK, before).aggregate, expected)


@pytest.mark.parametrize("first", ["0", "6"])
def test_a_day_written_as_whole_numbers_does_not_round_those_of_others(tmp_path, crowd, first):
    days, _ = crowd
    whole = (days.day == FIRST + timedelta(days=int(first))).to_numpy()
    days = days.assign(play_s=np.where(whole, np.round(days.play_s), days.play_s / 1000))
    days[whole].astype({"play_s": np.int64}).to_parquet(tmp_path / f"{first}.parquet")
    days[~whole].to_parquet(tmp_path / "5.parquet")
    assert_same(read(opened(tmp_path), WEEK).aggregate, read(opened(parquet(tmp_path / "one", days)), WEEK).aggregate)


def test_a_file_that_lacks_a_column_or_has_text_in_it_is_refused(tmp_path, crowd):
    days, _ = crowd
    days[:50].to_parquet(tmp_path / "a.parquet")
    days[50:].drop(columns="play_s").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"column 'play_s' has \d+ missing values"):
        read(opened(tmp_path), WEEK)
    days[50:].astype({"play_s": str}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="Column 'play_s' of the table is string; it must be a number"):
        read(opened(tmp_path), WEEK)


def test_covariates_may_be_columns_that_are_constant_per_user(tmp_path, crowd, expected):
    days, pre = crowd
    wide = days.merge(pre.rename(columns={"views": "pre.views", "play_s": "pre.play_s"}), on="user_id")
    assert_same(read(opened(parquet(tmp_path, wide)), WEEK).aggregate, expected)
    wide.loc[3, "pre.views"] += 1
    with pytest.raises(DataError, match=r"'pre.views' has \d+ rows that differ from another row of their user"):
        read(opened(parquet(tmp_path, wide)), WEEK)


def test_the_same_query_gives_the_same_numbers_on_sqlite_and_on_duckdb(tmp_path, crowd, expected):
    days, pre = crowd
    days = days.assign(day=[(d - FIRST).days for d in days.day], weekday="a column that nobody needs")
    into_sqlite(tmp_path / "days.sqlite", days=days, pre=pre)
    with duckdb.connect(str(tmp_path / "days.duckdb")) as database:
        database.execute("CREATE TABLE days AS FROM days")
        database.execute("CREATE TABLE pre AS FROM pre")
    query = "SELECT user_id, arm, day, views, effective_views, play_s FROM days WHERE views > 0"
    found = [
        read(opened(url, query), WEEK, opened(url, "pre"))
        for url in (f"sqlite://{tmp_path}/days.sqlite", f"duckdb://{tmp_path}/days.duckdb")
    ]
    assert found[0].counts == found[1].counts
    for each in found:
        assert_same(each.aggregate, expected)


def test_how_the_rows_are_cut_into_pieces_changes_nothing(tmp_path, crowd, expected, monkeypatch):
    monkeypatch.setattr(rows, "GROUP", 30)
    days, pre = crowd
    found = read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))
    assert_same(found.aggregate, expected)


def test_a_report_is_made_of_rows_as_of_events(tmp_path, crowd):
    days, pre = crowd
    counted = read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))
    found = report(counted.aggregate, WEEK)
    play = days.groupby(["arm", "user_id"]).play_s.sum().groupby("arm").mean()
    values = {arm.arm: arm.value for arm in found.metrics[1].arms}
    assert values == pytest.approx(play.to_dict(), rel=1e-12)
    assert found.metrics[0].effects[0].adjusted is not None


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("play_s", np.nan, "column 'play_s' has 2 values that are not a number"),
        ("play_s", -1.0, "column 'play_s' has 2 negative values"),
        ("views", -3, "column 'views' has 2 negative values"),
        ("play_s", np.inf, "column 'play_s' has 2 infinite values"),
        ("views", None, "column 'views' has 2 missing values"),
        ("user_id", None, "column 'user_id' has 2 missing values"),
        ("day", None, "column 'day' has 2 missing values"),
        ("arm", None, "column 'arm' has 2 missing values"),
        ("arm", "contrl", "column 'arm' has 2 values other than 'control', 'treatment'"),
    ],
)
def test_rows_that_no_number_may_be_made_of_are_named_and_counted(tmp_path, crowd, column, value, said):
    days = crowd[0].copy()
    if column in {"views", "user_id"}:
        days[column] = days[column].astype("Int64")
    days.iloc[[10, 13], days.columns.get_loc(column)] = value
    table = pa.Table.from_pandas(days, preserve_index=False)
    if column == "play_s":  # not a number is not missing
        table = table.set_column(table.schema.get_field_index(column), column, pa.array(days.play_s.to_numpy()))
    path = tmp_path / "days.parquet"
    pq.write_table(table, path)
    with pytest.raises(DataError, match=f"^The data cannot be used: {said}") as raised:
        read(opened(path), WEEK)
    assert column == "user_id" or f"first: user_id {days.user_id.iloc[10]}" in str(raised.value)


def test_two_rows_of_one_user_and_day_are_refused(tmp_path, crowd):
    days = pd.concat([crowd[0], crowd[0].iloc[[5, 6, 5]]])
    with pytest.raises(DataError, match="'user_id' has 3 rows of a user and day that another row has"):
        read(opened(parquet(tmp_path, days)), WEEK)


def test_a_user_who_stands_twice_in_the_table_of_covariates_is_refused(tmp_path, crowd):
    days, pre = crowd
    pre = pd.concat([pre, pre.iloc[[2]]])
    with pytest.raises(DataError, match=f"1 repeated users in the table of covariates .first: {pre.user_id.iloc[2]}"):
        read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))


def test_what_is_left_out_or_missing_is_counted_by_name(tmp_path, crowd):
    days, pre = crowd
    days = days[(days.day != FIRST + timedelta(days=2)) & (days.arm == "treatment")]
    tester, outside, mixed = days.user_id.unique()[:3]
    extra = days.iloc[[0]].assign(user_id=outside, day=FIRST - timedelta(days=1))
    other = days[days.user_id == mixed].iloc[:1].assign(arm="control", day=FIRST + timedelta(days=2))
    days = pd.concat([days, extra, other])
    testers = experiment(metrics=METRICS, overrides={"treatment": (int(tester),)})
    found = read(
        opened(parquet(tmp_path, days[days.day != FIRST + timedelta(days=2)])),
        testers,
        opened(parquet(tmp_path, pre.iloc[:300], "pre.parquet")),
    )
    in_pre = set(pre.user_id.iloc[:300])
    kept = set(days.user_id) - {tester}
    assert found.counts == {
        "rows": len(days) - 1,
        "rows_outside_days": 1,
        "rows_of_testers": int((days.user_id == tester).sum()),
        "users_without_pre": len(kept - in_pre),
        "pre_users_without_rows": len(in_pre - kept),
        "days_without_rows": 1,
        "arms_without_users": 1,
    }
    assert found.aggregate.in_two_arms == 0
    both = read(opened(parquet(tmp_path, days)), testers)
    assert (both.counts["users_in_two_arms"], both.aggregate.in_two_arms) == (1, 1)
    assert both.aggregate.users == {"control": 0, "treatment": len(kept) - 1}


@pytest.mark.parametrize(("outside", "level"), [(0, "ok"), (5, "warning"), (200, "invalid")])
def test_rows_left_out_are_a_named_state_of_the_report(outside, level):
    counts = {"rows": 1000, "rows_outside_days": outside, "rows_of_testers": 3, "users_without_pre": 7}
    left_out, past = quality.rows(counts, 100)
    assert (left_out.name, left_out.level, left_out.numbers["rows_of_testers"]) == ("rows", level, 3)
    assert past.said.startswith("Of 7 of 100 (7.00 %) users nothing is known from before")
    assert not list(quality.rows({"exposures": 9}, 100))


def test_a_table_without_rows_is_an_aggregate_of_nobody(tmp_path, crowd):
    path = tmp_path / "days.parquet"
    pq.write_table(pa.Table.from_pandas(crowd[0], preserve_index=False).slice(0, 0), path)
    found = read(opened(path), WEEK)
    assert found.aggregate.users == {"control": 0, "treatment": 0}
    assert found.counts == {"arms_without_users": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda days: days.drop(columns=["views", "arm"]), "The table lacks 'arm', 'views'; it has user_id, day"),
        (
            lambda days: days.assign(user_id=days.user_id.astype(str)),
            "Column 'user_id' of the table is string",
        ),
        (lambda days: days.assign(arm=1), "Column 'arm' of the table is int64; it must be text"),
        (lambda days: days.assign(day=pd.to_datetime(days.day)), "Column 'day' of the table is timestamp"),
        (lambda days: days.assign(views="many"), "Column 'views' of the table is string; it must be a number"),
    ],
)
def test_a_table_of_the_wrong_shape_is_refused_before_it_is_read(tmp_path, crowd, change, said):
    with pytest.raises(DataError, match=said):
        read(opened(parquet(tmp_path, change(crowd[0]))), WEEK)


def test_data_that_are_not_there_are_named(tmp_path):
    sqlite3.connect(tmp_path / "empty.sqlite").close()
    (tmp_path / "text.parquet").write_text("no parquet")
    url = f"sqlite://{tmp_path}/empty.sqlite"
    for data, table, said in (
        (tmp_path / "none", None, "There is no Parquet file at"),
        (tmp_path / "*.parquets", None, "There is no Parquet file at"),
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
