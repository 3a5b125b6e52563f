"""Days of a table that are kept, and only new ones read, against reading all of it at once."""

import re
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abtest.analyse import data_quality as quality
from abtest.incremental import read as kept_days
from abtest.read import rows
from abtest.read.engines import DataError, opened
from contracts.config.experiment import MetricPlan, Winsorize
from contracts.runtime.durable import StateError
from tests.abtest.abtest_cases import experiment
from tests.abtest.read.read_cases import FIRST, METRICS, WEEK, assert_same, parquet, people


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


def test_days_come_as_they_are_over_and_the_week_is_that_of_reading_all_at_once(tmp_path, crowd):
    days, pre = crowd
    before = opened(parquet(tmp_path, pre, "pre.parquet"))
    for which in ([0], [1, 2], [3], [], [4, 5, 6]):
        table = daily(tmp_path / "rows", days, which)
        counted = kept_days.read(tmp_path / "kept", table, WEEK, before)
        expected = rows.read(table, WEEK, before)
        assert_same(counted.aggregate, expected.aggregate)
        assert counted.counts == expected.counts
    assert counted.counts["rows"] == len(days)


def test_a_day_that_is_kept_is_not_read_again_and_need_not_be_there(tmp_path, crowd):
    days, _ = crowd
    days = days.assign(**{"pre.play_s": days.user_id % 97})
    kept_days.read(tmp_path / "kept", daily(tmp_path / "a", days, [0, 1]), WEEK)
    later = days.assign(play_s=days.play_s.where(days.day != FIRST, -1.0))  # would be refused
    counted = kept_days.read(tmp_path / "kept", daily(tmp_path / "b", later, [0, 2]), WEEK)
    expected = rows.read(daily(tmp_path / "c", days, [0, 1, 2]), WEEK)
    assert_same(counted.aggregate, expected.aggregate)


def test_a_bad_day_is_refused_and_the_days_before_it_stay(tmp_path, crowd):
    days, _ = crowd
    bad = days.assign(views=days.views.where(days.day != FIRST + timedelta(days=1), -1))
    with pytest.raises(DataError, match="negative values"):
        kept_days.read(tmp_path / "kept", daily(tmp_path / "rows", bad, [0, 1]), WEEK)
    counted = kept_days.read(tmp_path / "kept", daily(tmp_path / "rows", days, [0, 1]), WEEK)
    assert_same(counted.aggregate, rows.read(opened(tmp_path / "rows"), WEEK).aggregate)


def test_what_is_met_in_a_day_is_told_on_later_days_too(tmp_path, crowd):
    days, pre = crowd
    tester, mixed = days.user_id.value_counts().index[:2]
    design = experiment(metrics=METRICS, overrides={"treatment": (int(tester),)})
    before = opened(parquet(tmp_path, pre[:300], "pre.parquet"))
    switched = (days.user_id == mixed) & (days.day > FIRST + timedelta(days=3))
    other = days.arm.map({"control": "treatment", "treatment": "control"})
    days = days.assign(arm=days.arm.where(~switched, other))
    for which in ([0, 1], [2, 3, 4], [5, 6]):
        counted = kept_days.read(tmp_path / "kept", daily(tmp_path / "rows", days, which), design, before)
    expected = rows.read(opened(tmp_path / "rows"), design, before)
    assert counted.counts["rows_of_testers"] > 0
    assert counted.counts["users_in_two_arms"] == 1
    assert counted.counts["users_without_pre"] > 0
    assert counted.counts == expected.counts


def test_a_day_that_comes_after_a_later_one_is_refused_and_what_is_kept_stays(tmp_path, crowd):
    days, _ = crowd
    kept_days.read(tmp_path / "kept", daily(tmp_path / "rows", days, [0, 1, 3]), WEEK)
    with pytest.raises(DataError, match="Day 1970-01-13 came after a later one was kept"):
        kept_days.read(tmp_path / "kept", daily(tmp_path / "rows", days, [2]), WEEK)
    (tmp_path / "rows" / "day=1970-01-13" / "part.parquet").unlink()
    counted = kept_days.read(tmp_path / "kept", opened(tmp_path / "rows"), WEEK)
    assert_same(counted.aggregate, rows.read(opened(tmp_path / "rows"), WEEK).aggregate)


def test_rows_that_come_late_for_a_day_are_counted(tmp_path, crowd):
    days, _ = crowd
    daily(tmp_path / "rows", days, [0, 1])
    late = days[days.day == FIRST + timedelta(days=1)].drop(columns="day")
    late[9:].to_parquet(tmp_path / "rows" / "day=1970-01-12" / "part.parquet")
    kept_days.read(tmp_path / "kept", opened(tmp_path / "rows"), WEEK)
    late[:9].to_parquet(tmp_path / "rows" / "day=1970-01-12" / "late.parquet")
    for which in ([], [2]):
        counted = kept_days.read(tmp_path / "kept", daily(tmp_path / "rows", days, which), WEEK)
        assert counted.counts["rows_late"] == 9
    _, check = quality.rows(counted.counts, 400)
    assert (check.name, check.level, check.said[:8]) == (
        "rows_late",
        "warning",
        "9 of " + str(counted.counts["rows"] + 9)[:3],
    )


@pytest.mark.parametrize("name", ["values-1.npy", "totals-2.npy", "kept.npz"])
def test_a_damaged_file_is_named_before_anything_is_done(tmp_path, crowd, name):
    days, _ = crowd
    table = daily(tmp_path / "rows", days, [0, 1, 2])
    kept_days.read(tmp_path / "kept", table, WEEK)
    path = tmp_path / "kept" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StateError, match=f"{name} is damaged"):
        kept_days.read(tmp_path / "kept", table, WEEK)


def test_a_folder_of_other_things_is_not_written_into(tmp_path, crowd):
    days, _ = crowd
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "week.yaml").write_text("name: week")
    with pytest.raises(DataError, match="has other files in it"):
        kept_days.read(tmp_path / "kept", daily(tmp_path / "rows", days, [0]), WEEK)


def test_covariates_have_to_come_as_they_did_when_the_folder_was_begun(tmp_path, crowd):
    days, pre = crowd
    before = opened(parquet(tmp_path, pre, "pre.parquet"))
    plain = daily(tmp_path / "rows", days, [0, 1])
    own = daily(tmp_path / "own", days.assign(**{"pre.play_s": days.user_id % 97}), [0, 1])
    kept_days.read(tmp_path / "with", own, WEEK)
    with pytest.raises(DataError, match=r"was begun with pre\.play_s in the table of days"):
        kept_days.read(tmp_path / "with", plain, WEEK)
    kept_days.read(tmp_path / "without", plain, WEEK)
    with pytest.raises(DataError, match="was begun with no covariates"):
        kept_days.read(tmp_path / "without", plain, WEEK, before)


def test_days_may_be_numbers_and_lie_outside_the_experiment(tmp_path, crowd):
    days, _ = crowd
    numbers = np.array([(day - FIRST).days for day in days.day]) + 3  # the last ones are past the end
    path = parquet(tmp_path, days.assign(day=numbers))
    counted = kept_days.read(tmp_path / "kept", opened(path), WEEK)
    assert_same(counted.aggregate, rows.read(opened(path), WEEK).aggregate)
    assert counted.counts["days_without_rows"] == 3


def test_a_missing_day_is_refused(tmp_path, crowd):
    days, _ = crowd
    path = parquet(tmp_path, days.assign(day=days.day.where(days.index != 7)))
    with pytest.raises(DataError, match=r"column 'day' has 1 missing value .first: user_id -?\d+, day missing"):
        kept_days.read(tmp_path / "kept", opened(path), WEEK)


def capped(**how):
    play = METRICS[1].model_copy(update={"winsorize": Winsorize(**how)})
    spread = MetricPlan(name="p90", kind="quantile", columns=("play_s",), q=0.9)
    return experiment(metrics=(METRICS[0], play, spread))


@pytest.mark.parametrize("how", [{"at": 300}, {"quantile": 0.8, "of": "pre"}])
def test_a_cap_known_before_the_first_day_is_kept_and_gives_what_reading_all_at_once_gives(tmp_path, crowd, how):
    days, pre = crowd
    turned = days[(days.day == FIRST) & (days.arm == "treatment")].user_id.iloc[:9]  # in the other arm on day 4
    later = (days.day == FIRST + timedelta(days=4)) & days.user_id.isin(turned)
    days = days.assign(arm=days.arm.where(~later, "control"))
    before = opened(parquet(tmp_path, pre, "pre.parquet"))
    for which in ([0], [1, 2], [3, 4], [5, 6]):
        table = daily(tmp_path / "rows", days, which)
        counted = kept_days.read(tmp_path / "kept", table, capped(**how), before if which == [0] else None)
        expected = rows.read(table, capped(**how), before)
        assert_same(counted.aggregate, expected.aggregate)
        assert counted.aggregate.caps == expected.aggregate.caps
    assert counted.counts["users_in_two_arms"] > 0
    (cap,) = counted.aggregate.caps.values()
    assert min(cap.capped.values()) > 5


def test_a_cap_that_moves_as_users_come_is_refused_and_nothing_is_kept(tmp_path, crowd):
    days, pre = crowd
    table, before = daily(tmp_path / "rows", days, [0]), opened(parquet(tmp_path, pre, "pre.parquet"))
    with pytest.raises(
        DataError, match=r"Metric 'play' is capped at a pooled quantile, which .*, or cap it at a value"
    ):
        kept_days.read(tmp_path / "kept", table, capped(quantile=0.9), before)
    inside = daily(tmp_path / "wide", days.assign(**{"pre.play_s": days.user_id % 97}), [0])
    with pytest.raises(DataError, match=r"a quantile of what the users with rows did before, .* of: pre with --pre"):
        kept_days.read(tmp_path / "kept", inside, capped(quantile=0.9, of="pre"))
    assert not (tmp_path / "kept").exists()


def test_another_cap_than_the_folder_was_begun_with_is_refused(tmp_path, crowd):
    days, _ = crowd
    for first, later in (({"at": 300}, {"at": 301}), (None, {"at": 300})):
        folder = tmp_path / f"kept {later} after {first}"
        of_first = capped(**first) if first else experiment(metrics=METRICS)
        kept_days.read(folder, daily(tmp_path / "rows", days, [0]), of_first)
        with pytest.raises(DataError, match=r"does not keep .*play_s capped at .*; begin another folder"):
            kept_days.read(folder, daily(tmp_path / "rows", days, [1]), capped(**later))


def test_a_metric_of_a_column_that_is_not_kept_is_refused(tmp_path, crowd):
    days, _ = crowd
    table = daily(tmp_path / "rows", days.assign(shown=1), [0])
    kept_days.read(tmp_path / "kept", table, WEEK)
    more = experiment(metrics=(*METRICS, MetricPlan(name="shown", kind="mean", columns=("shown",))))
    with pytest.raises(DataError, match="does not keep shown"):
        kept_days.read(tmp_path / "kept", table, more)


def both(days):
    """Each row twice, once in each arm."""
    return pd.concat([days.assign(arm="control"), days.assign(arm="treatment")])


@pytest.mark.parametrize("which", [[0], [1], [0, 1], [0, 1, 2]])
def test_a_day_all_of_whose_users_are_in_two_arms_is_read_as_any_other(tmp_path, crowd, which):
    days, pre = crowd
    days = days[days.day < FIRST + timedelta(days=3)]
    numbers = days.day.map(lambda day: (day - FIRST).days)
    mixed = pd.concat([both(days[numbers.isin(which)]), days[~numbers.isin(which)]])
    before = opened(parquet(tmp_path, pre, "pre.parquet"))
    counted = kept_days.read(tmp_path / "kept", opened(parquet(tmp_path, mixed)), WEEK, before)
    expected = rows.read(opened(parquet(tmp_path, mixed)), WEEK, before)
    if len(which) < 3:
        assert_same(counted.aggregate, expected.aggregate)
    assert counted.aggregate.users == expected.aggregate.users
    assert counted.counts["users_in_two_arms"] == expected.counts["users_in_two_arms"] > 0
    assert sum(counted.aggregate.users.values()) == days.user_id.nunique() - counted.counts["users_in_two_arms"]


def numbered(days):
    return days.assign(day=days.day.map(lambda day: (day - FIRST).days))


@pytest.mark.parametrize(
    "change",
    [
        lambda days: days.assign(day=days.day.where(days.index % 5 > 0)),
        lambda days: days.assign(day=20260301),
        lambda days: numbered(days).assign(day=lambda each: each.day.astype(str)),
        lambda days: numbered(days).assign(day=lambda each: each.day + 0.5),
        lambda days: days.assign(**{"pre.views": numbered(days).day}),
        lambda days: days.drop(columns="views"),
        lambda days: days.assign(views="many"),
    ],
)
def test_what_is_wrong_is_said_with_the_count_and_the_first_row_as_without_keeping(tmp_path, crowd, change):
    table = opened(parquet(tmp_path, change(crowd[0])))
    with pytest.raises(DataError) as plain:
        rows.read(table, WEEK)
    with pytest.raises(DataError) as kept:
        kept_days.read(tmp_path / "kept", table, WEEK)
    one, other = (re.sub(r"has [\d,]+ |user_id -?\d+", "", str(each.value)) for each in (plain, kept))
    assert one == other
    assert ("first: " in one) is ("lacks" not in one and "string" not in one)


def test_rows_on_no_day_of_the_experiment_are_counted_as_without_keeping(tmp_path, crowd):
    late = numbered(crowd[0])
    for days in (late.assign(day=late.day + 10), late.assign(day=late.day + 4)):
        table = opened(parquet(tmp_path, days))
        counted = kept_days.read(tmp_path / f"kept{days.day.min()}", table, WEEK)
        expected = rows.read(table, WEEK)
        assert counted.counts["rows_outside_days"] == expected.counts["rows_outside_days"] > 0
        assert counted.counts["rows"] == expected.counts["rows"]
