import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abtest.analyse.analysis import report
from abtest.incremental import read as incremental
from abtest.read.engines import DataError, opened
from abtest.read.rows import read
from contracts.config.experiment import MetricPlan
from tests.abtest.abtest_cases import experiment
from tests.abtest.read.read_cases import METRICS, WEEK, assert_same, parquet


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("play_s", np.nan, "column 'play_s' has 2 values that are not a number"),
        ("views", -3, "column 'views' has 2 negative values"),
        ("play_s", np.inf, "column 'play_s' has 2 infinite values"),
        ("play_s", 1.1e60, "column 'play_s' has 2 values beyond ±1e60"),
        ("play_s", -np.finfo(float).max, "column 'play_s' has 2 values beyond ±1e60"),
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
    with pytest.raises(DataError, match=f"1 repeated user in the table of covariates .first: {pre.user_id.iloc[2]}"):
        read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))


def test_a_mean_may_be_of_negative_values_and_so_may_a_ratio_s_numerator_and_covariates(tmp_path, crowd):
    days, pre = crowd
    random = np.random.default_rng(3)
    days = days.assign(play_s=random.normal(2, 30, len(days)), effective_views=random.integers(-3, 4, len(days)))
    pre = pre.assign(play_s=-pre.play_s)
    counted = read(opened(parquet(tmp_path, days)), WEEK, opened(parquet(tmp_path, pre, "pre.parquet")))
    play = days.groupby(["arm", "user_id"]).play_s.sum().groupby("arm").mean()
    for arm, moments in counted.aggregate.through(6).items():
        assert moments.mean("play_s") == pytest.approx(play[arm], rel=1e-12)


@pytest.mark.parametrize("name", ["views", "recalls"])
def test_what_is_counted_or_divided_by_may_not_be_negative(tmp_path, crowd, name):
    days = crowd[0].assign(recalls=5)
    days.loc[days.index[[4, 9]], name] = -1
    with pytest.raises(
        DataError, match=f"column '{name}' has 2 negative values, though it counts something or is what"
    ):
        read(opened(parquet(tmp_path, days)), WEEK)


def test_what_a_quantile_is_of_may_not_be_negative(tmp_path, crowd):
    plan = experiment(metrics=(*METRICS, MetricPlan(name="p90", kind="quantile", columns=("play_s",), q=0.9)))
    days = crowd[0].copy()
    days.loc[days.index[7], "play_s"] = -0.5
    with pytest.raises(DataError, match="column 'play_s' has 1 negative value,"):
        read(opened(parquet(tmp_path, days)), plan)


@pytest.mark.parametrize("again", [[0], [0, 1], [1, 3]])
def test_a_user_in_two_arms_on_one_day_is_left_out_as_one_on_two_days_is(tmp_path, crowd, again):
    """`again`: the user's days, by their place, on which there is a row in the other arm too."""
    days, pre = crowd
    many = days.user_id.value_counts()
    user = many.index[(many >= 4)][2]
    mine = days[days.user_id == user].sort_values("day")
    other = mine.iloc[again].assign(arm="control" if mine.arm.iloc[0] == "treatment" else "treatment")
    with_both = pd.concat([days, other])
    data, before = opened(parquet(tmp_path, with_both)), opened(parquet(tmp_path, pre, "pre.parquet"))
    without = opened(parquet(tmp_path, days[days.user_id != user], "without.parquet"))
    expected = read(without, WEEK, before).aggregate
    for number, counted in enumerate(
        (read(data, WEEK, before), incremental.read(tmp_path / "kept", data, WEEK, before))
    ):
        assert_same(counted.aggregate, expected)
        assert (counted.aggregate.in_two_arms, counted.counts["users_in_two_arms"]) == (1, 1), number
    assert read(data, WEEK, before).counts == incremental.read(tmp_path / "kept", data, WEEK, before).counts


def test_a_user_in_two_arms_on_the_first_of_one_s_days_may_come_again_and_is_in_none(tmp_path):
    day = pd.DataFrame({"user_id": [1, 2, 3, 4], "arm": ["control", "treatment"] * 2, "views": 2, "effective_views": 1})
    day = day.assign(play_s=1.0)
    rows = pd.concat([day.assign(day=0), day[:1].assign(day=0, arm="treatment"), day.assign(day=1), day.assign(day=2)])
    data = opened(parquet(tmp_path, rows))
    for counted in (read(data, WEEK), incremental.read(tmp_path / "kept", data, WEEK)):
        assert counted.aggregate.users == {"control": 1, "treatment": 2}
        assert counted.aggregate.in_two_arms == 1


@pytest.mark.parametrize("unit", [1e-61, 1e-170, 5e-324])
def test_a_column_whose_squares_vanish_is_refused(tmp_path, crowd, unit):
    days = crowd[0].assign(play_s=(crowd[0].views % 2) * unit)
    with pytest.raises(DataError, match=r"'play_s' has no value further from 0 than .*; give it in a smaller unit"):
        read(opened(parquet(tmp_path, days)), WEEK)


def test_values_near_0_beside_larger_ones_are_0_for_all_that_they_do(tmp_path, crowd):
    days = crowd[0]
    tiny = days.assign(play_s=days.play_s.where(days.views > 5, 1e-200))
    zero = days.assign(play_s=days.play_s.where(days.views > 5, 0.0))
    found, expected = (report(read(opened(parquet(tmp_path, each)), WEEK).aggregate, WEEK) for each in (tiny, zero))
    assert found.metrics == expected.metrics
