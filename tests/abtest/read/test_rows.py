from datetime import timedelta

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.user_days import arranged
from abtest.analyse import data_quality
from abtest.analyse.analysis import report
from abtest.incremental.read import read as read_incrementally
from abtest.read import rows
from abtest.read.engines import DataError, opened
from abtest.read.rows import read
from tests.abtest.abtest_cases import experiment, into_sqlite
from tests.abtest.read.read_cases import FIRST, METRICS, WEEK, assert_same, parquet

COLUMNS, COVARIATES = ("effective_views", "views", "play_s"), ("pre.views", "pre.play_s")


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


def test_a_parquet_file_gives_the_aggregate_of_its_rows(tmp_path, crowd, expected):
    days, pre = crowd
    counted = read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))
    assert_same(counted.aggregate, expected)
    assert counted.counts == {"rows": len(days), "pre_users_without_rows": len(pre) - sum(expected.users.values())}


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
    with pytest.raises(DataError, match=r"column 'play_s' has [\d,]+ missing values"):
        read(opened(tmp_path), WEEK)
    days[50:].astype({"play_s": str}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="Column 'play_s' of the table is string; it must be a number"):
        read(opened(tmp_path), WEEK)


def test_covariates_may_be_columns_that_are_constant_per_user(tmp_path, crowd, expected):
    days, pre = crowd
    wide = days.merge(pre.rename(columns={"views": "pre.views", "play_s": "pre.play_s"}), on="user_id")
    assert_same(read(opened(parquet(tmp_path, wide)), WEEK).aggregate, expected)
    wide.loc[3, "pre.views"] += 1
    with pytest.raises(DataError, match=r"'pre.views' has 1 row that differs from another row of its user"):
        read(opened(parquet(tmp_path, wide)), WEEK)


def test_the_same_query_gives_the_same_numbers_on_sqlite_and_on_duckdb(tmp_path, crowd, expected):
    days, pre = crowd
    days = days.assign(day=[(d - FIRST).days for d in days.day], weekday="a column that nobody needs")
    into_sqlite(tmp_path / "days.sqlite", days=days, pre=pre)
    with duckdb.connect(str(tmp_path / "days.duckdb")) as database:
        database.execute("CREATE TABLE days AS FROM days")
        database.execute("CREATE TABLE pre AS FROM pre")
    query = "SELECT user_id, arm, day, views, effective_views, play_s FROM days WHERE views > 0"
    counted = [
        read(opened(url, query), WEEK, opened(url, "pre"))
        for url in (f"sqlite://{tmp_path}/days.sqlite", f"duckdb://{tmp_path}/days.duckdb")
    ]
    assert counted[0].counts == counted[1].counts
    for each in counted:
        assert_same(each.aggregate, expected)


def test_how_the_rows_are_cut_into_pieces_changes_nothing(tmp_path, crowd, expected, monkeypatch):
    monkeypatch.setattr(rows, "GROUP", 30)
    days, pre = crowd
    counted = read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))
    assert_same(counted.aggregate, expected)


def test_a_report_is_made_of_rows_as_of_events(tmp_path, crowd):
    days, pre = crowd
    counted = read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))
    reported = report(counted.aggregate, WEEK)
    play = days.groupby(["arm", "user_id"]).play_s.sum().groupby("arm").mean()
    values = {arm.arm: arm.value for arm in reported.metrics[1].arms}
    assert values == pytest.approx(play.to_dict(), rel=1e-12)
    assert reported.metrics[0].effects[0].adjusted is not None


def test_what_is_left_out_or_missing_is_counted_by_name(tmp_path, crowd):
    days, pre = crowd
    days = days[(days.day != FIRST + timedelta(days=2)) & (days.arm == "treatment")]
    tester, outside, mixed = days.user_id.unique()[:3]
    extra = days.iloc[[0]].assign(user_id=outside, day=FIRST - timedelta(days=1))
    other = days[days.user_id == mixed].iloc[:1].assign(arm="control", day=FIRST + timedelta(days=2))
    days = pd.concat([days, extra, other])
    testers = experiment(metrics=METRICS, overrides={"treatment": (int(tester),)})
    counted = read(
        opened(parquet(tmp_path, days[days.day != FIRST + timedelta(days=2)])),
        testers,
        opened(parquet(tmp_path, pre.iloc[:300], "pre.parquet")),
    )
    in_pre = set(pre.user_id.iloc[:300])
    kept = set(days.user_id) - {tester}
    assert counted.counts == {
        "rows": len(days) - 1,
        "rows_outside_days": 1,
        "rows_of_testers": int((days.user_id == tester).sum()),
        "users_without_pre": len(kept - in_pre),
        "pre_users_without_rows": len(in_pre - kept),
        "days_without_rows": 1,
        "arms_without_users": 1,
    }
    assert counted.aggregate.in_two_arms == 0
    both = read(opened(parquet(tmp_path, days)), testers)
    assert (both.counts["users_in_two_arms"], both.aggregate.in_two_arms) == (1, 1)
    assert both.aggregate.users == {"control": 0, "treatment": len(kept) - 1}


def test_a_table_without_rows_is_an_aggregate_of_nobody(tmp_path, crowd):
    path = tmp_path / "days.parquet"
    pq.write_table(pa.Table.from_pandas(crowd[0], preserve_index=False).slice(0, 0), path)
    counted = read(opened(path), WEEK)
    assert counted.aggregate.users == {"control": 0, "treatment": 0}
    assert counted.counts == {"arms_without_users": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda days: days.drop(columns=["views", "arm"]), "The table lacks 'arm', 'views'; it has user_id, day"),
        (lambda days: days.assign(user_id=None), "Column 'user_id' of the table has no type"),
        (lambda days: days.assign(arm=1), "Column 'arm' of the table is int64; it must be text"),
        (lambda days: days.assign(day=0.5), r"Column 'day' of the table is float64 \(first: 0.5\); it must be a date"),
        (
            lambda days: days.assign(views=timedelta(1)),
            "Column 'views' of the table is interval.*; it must be a number",
        ),
        (lambda days: days.assign(views="many"), "Column 'views' of the table is string; it must be a number"),
    ],
)
def test_a_table_of_the_wrong_shape_is_refused_before_it_is_read(tmp_path, crowd, change, said):
    with pytest.raises(DataError, match=said):
        read(opened(parquet(tmp_path, change(crowd[0]))), WEEK)


@pytest.mark.parametrize("column", ["user_id", "arm", "day"])
def test_a_metric_of_a_column_that_describes_the_row_is_named(tmp_path, crowd, column):
    plan = experiment(metrics=[{"name": "odd", "kind": "mean", "columns": [column], "role": "primary"}])
    with pytest.raises(DataError, match=f"^Metric 'odd' is of column '{column}'"):
        read(opened(parquet(tmp_path, crowd[0])), plan)


def test_an_arm_and_a_day_in_the_table_of_covariates_are_left_out_and_said(tmp_path, crowd):
    days, pre = crowd
    rows, own = opened(parquet(tmp_path, days)), opened(parquet(tmp_path, pre, "pre.parquet"))
    more = opened(parquet(tmp_path, pre.assign(arm="control", day=3), "more.parquet"))
    without, counted = read(rows, WEEK, own), read(rows, WEEK, more)
    assert_same(counted.aggregate, without.aggregate)
    assert counted.counts == {**without.counts, "pre_arm_left_out": 1, "pre_day_left_out": 1}
    kept = read_incrementally(tmp_path / "state", rows, WEEK, more)
    assert kept.counts == counted.counts
    assert kept.aggregate.covariates == without.aggregate.covariates
    (check,) = [check for check in data_quality.rows(counted.counts, 800) if check.name == "no_covariates"]
    assert check.said == (
        "Left out of the table of covariates: arm and day; such a column describes a row and not a user."
    )
