"""Days of a table that are kept, and only new ones read, against reading all of it at once."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abtest import kept_days, rows
from abtest.engines import DataError, opened
from contracts.experiment import MetricPlan
from tests.abtest.abtest_cases import experiment
from tests.abtest.test_rows import FIRST, METRICS, WEEK, assert_same, parquet, people


@pytest.fixture(scope="module")
def crowd():
    return people()


def daily(folder, days, which):
    for day in which:
        at = FIRST + timedelta(days=day)
        part = days[days.day == at].drop(columns="day")
        path = folder / f"day={at}" / "part.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), path)
    return opened(folder)


def told(counts):
    return {name: count for name, count in counts.items() if name != "pre_users_without_rows"}


def test_days_come_as_they_are_over_and_the_week_is_that_of_reading_all_at_once(tmp_path, crowd):
    days, pre = crowd
    before = opened(parquet(tmp_path, pre, "pre.parquet"))
    for which in ([0], [1, 2], [3], [], [4, 5, 6]):
        table = daily(tmp_path / "rows", days, which)
        found = kept_days.read(tmp_path / "kept", table, WEEK, before)
        expected = rows.read(table, WEEK, before)
        assert_same(found.aggregate, expected.aggregate)
        assert found.counts == told(expected.counts)
    assert found.counts["rows"] == len(days)


def test_a_day_that_is_kept_is_not_read_again_and_need_not_be_there(tmp_path, crowd):
    days, _ = crowd
    days = days.assign(**{"pre.play_s": days.user_id % 97})
    kept_days.read(tmp_path / "kept", daily(tmp_path / "a", days, [0, 1]), WEEK)
    later = days.assign(play_s=days.play_s.where(days.day != FIRST, -1.0))  # would be refused
    found = kept_days.read(tmp_path / "kept", daily(tmp_path / "b", later, [0, 2]), WEEK)
    expected = rows.read(daily(tmp_path / "c", days, [0, 1, 2]), WEEK)
    assert_same(found.aggregate, expected.aggregate)


def test_a_bad_day_is_refused_and_the_days_before_it_stay(tmp_path, crowd):
    days, _ = crowd
    bad = days.assign(views=days.views.where(days.day != FIRST + timedelta(days=1), -1))
    with pytest.raises(DataError, match="negative values"):
        kept_days.read(tmp_path / "kept", daily(tmp_path / "rows", bad, [0, 1]), WEEK)
    found = kept_days.read(tmp_path / "kept", daily(tmp_path / "rows", days, [0, 1]), WEEK)
    assert_same(found.aggregate, rows.read(opened(tmp_path / "rows"), WEEK).aggregate)


def test_what_is_met_in_a_day_is_told_on_later_days_too(tmp_path, crowd):
    days, pre = crowd
    tester, mixed = days.user_id.value_counts().index[:2]
    of = experiment(metrics=METRICS, overrides={"treatment": (int(tester),)})
    before = opened(parquet(tmp_path, pre[:300], "pre.parquet"))
    switched = (days.user_id == mixed) & (days.day > FIRST + timedelta(days=3))
    other = days.arm.map({"control": "treatment", "treatment": "control"})
    days = days.assign(arm=days.arm.where(~switched, other))
    for which in ([0, 1], [2, 3, 4], [5, 6]):
        found = kept_days.read(tmp_path / "kept", daily(tmp_path / "rows", days, which), of, before)
    expected = rows.read(opened(tmp_path / "rows"), of, before)
    assert found.counts["rows_of_testers"] > 0
    assert found.counts["users_in_two_arms"] == 1
    assert found.counts["users_without_pre"] > 0
    assert found.counts == told(expected.counts)


def test_days_may_be_numbers_and_lie_outside_the_experiment(tmp_path, crowd):
    days, _ = crowd
    numbers = np.array([(day - FIRST).days for day in days.day]) + 3  # the last ones are past the end
    path = parquet(tmp_path, days.assign(day=numbers))
    found = kept_days.read(tmp_path / "kept", opened(path), WEEK)
    assert_same(found.aggregate, rows.read(opened(path), WEEK).aggregate)
    assert found.counts["days_without_rows"] == 3


def test_a_missing_day_is_refused(tmp_path, crowd):
    days, _ = crowd
    path = parquet(tmp_path, days.assign(day=days.day.where(days.index != 7)))
    with pytest.raises(DataError, match="column 'day' has missing values"):
        kept_days.read(tmp_path / "kept", opened(path), WEEK)


def test_a_metric_of_a_column_that_is_not_kept_is_refused(tmp_path, crowd):
    days, _ = crowd
    table = daily(tmp_path / "rows", days.assign(shown=1), [0])
    kept_days.read(tmp_path / "kept", table, WEEK)
    more = experiment(metrics=(*METRICS, MetricPlan(name="shown", kind="mean", columns=("shown",))))
    with pytest.raises(DataError, match="does not keep shown"):
        kept_days.read(tmp_path / "kept", table, more)
