"""Rows of which a metric is capped: the threshold is that of all users, however the rows are read and cut."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.user_days import arranged
from abtest.aggregate.winsorize import capped, caps_of, pooled_sums
from abtest.analyse.analysis import report
from abtest.read import rows
from abtest.read.engines import DataError, opened
from abtest.read.rows import read
from abtest.stats.metrics import capped_columns
from contracts.config.experiment import AnalysisPlan, MetricPlan, SettingsError, Winsorize
from tests.abtest.abtest_cases import experiment, into_sqlite
from tests.abtest.read.read_cases import FIRST, METRICS, assert_same, parquet

POOLED, PRE, AT = Winsorize(quantile=0.97), Winsorize(quantile=0.97, of="pre"), Winsorize(at=500)


def week(how, **changes):
    play = METRICS[1].model_copy(update={"winsorize": how})
    ratio = MetricPlan(name="r", kind="ratio", columns=("play_s", "views"), winsorize=how)
    return experiment(metrics=(METRICS[0], play, ratio), **changes)


def users_of(days):
    ids, user = np.unique(days.user_id.to_numpy(), return_inverse=True)
    arm = np.zeros(len(ids), np.int64)
    arm[user] = days.arm == "treatment"
    day = np.array([(d - FIRST).days for d in days.day])
    columns = ("effective_views", "views", "play_s")
    values = days[list(columns)].to_numpy(np.float64)
    return arranged(("control", "treatment"), columns, (), ids, arm, np.zeros((len(ids), 0)), day, user, values)


@pytest.mark.parametrize("how", [POOLED, AT])
def test_pieces_are_capped_as_all_users_at_once(tmp_path, crowd, monkeypatch, how):
    monkeypatch.setattr(rows, "GROUP", 50)  # many groups of pieces
    days, _ = crowd
    wanted = capped_columns(week(how))
    users = users_of(days)
    expected = aggregate(capped(users, caps_of(wanted, pooled_sums(users, wanted), {}, in_advance=False)))
    found = read(opened(parquet(tmp_path, days)), week(how)).aggregate
    assert_same(found, expected)
    assert found.caps == expected.caps
    (cap,) = found.caps.values()
    totals = days.groupby("user_id").play_s.sum().to_numpy()
    assert sum(cap.capped.values()) == (totals > cap.threshold * (1 + 1e-12)).sum() > 0
    if how is POOLED:
        assert cap.threshold == pytest.approx(np.sort(totals)[int(np.ceil(0.97 * len(totals))) - 1], rel=1e-12)


def test_frames_arrow_csv_and_sql_are_capped_alike(tmp_path, crowd):
    days, _ = crowd
    numbered = days.assign(day=[(d - FIRST).days for d in days.day])
    numbered.to_csv(tmp_path / "days.csv", index=False)
    into_sqlite(tmp_path / "days.db", days=numbered)
    expected = read(numbered, week(POOLED)).aggregate
    for table in (
        pa.Table.from_pandas(numbered, preserve_index=False),
        opened(tmp_path / "days.csv"),
        opened(f"sqlite:///{tmp_path / 'days.db'}", "days"),
    ):
        found = read(table, week(POOLED)).aggregate
        assert found.caps == expected.caps
        assert_same(found, expected)


def test_a_quantile_of_covariates_is_of_all_users_of_their_table_and_of_those_with_rows_where_they_are_in_the_rows(
    crowd,
):
    days, pre = crowd
    more = pd.DataFrame({"user_id": np.arange(100) - 10**12, "views": 1, "play_s": 1e6 + np.arange(100)})
    before = pd.concat([pre, more])  # people who have not come
    found = read(days, week(PRE), before).aggregate.caps["play_s capped at quantile 0.97 of pre"]
    plays = np.sort(before.play_s.to_numpy())
    assert (found.threshold, found.among) == (plays[int(np.ceil(0.97 * len(plays))) - 1], len(plays))
    assert found.in_advance
    prefixed = before.rename(columns={"play_s": "pre.play_s"})
    assert read(days, week(PRE), prefixed).aggregate.caps["play_s capped at quantile 0.97 of pre"] == found
    inside = days.merge(pre.rename(columns={"views": "pre.views", "play_s": "pre.play_s"}), on="user_id")
    own = read(inside, week(PRE)).aggregate.caps["play_s capped at quantile 0.97 of pre"]
    seen = np.sort(pre.set_index("user_id").loc[np.unique(days.user_id)].play_s.to_numpy())
    assert (own.threshold, own.among) == (seen[int(np.ceil(0.97 * len(seen))) - 1], len(seen))
    assert not own.in_advance


def test_a_plan_with_looks_takes_covariates_of_all_users_and_refuses_those_of_the_rows(crowd):
    days, pre = crowd
    inside = days.merge(pre.rename(columns={"views": "pre.views", "play_s": "pre.play_s"}), on="user_id")
    looks = week(PRE, analysis=AnalysisPlan(kind="group-sequential"))
    assert report(read(days, looks, pre).aggregate, looks).winsorized[0].of == "pre"
    with pytest.raises(
        SettingsError, match="moves from look to look of analysis kind group-sequential; give all users'"
    ):
        report(read(inside, looks).aggregate, looks)
    assert report(read(inside, week(PRE)).aggregate, week(PRE)).winsorized[0].of == "pre"


def test_users_in_two_arms_testers_and_other_days_are_in_no_quantile(crowd):
    days, _ = crowd
    ids = np.unique(days.user_id)
    rich = days.assign(play_s=np.where(np.isin(days.user_id, ids[:60]), 1e6, days.play_s))
    both = pd.DataFrame({"user_id": ids[:30], "day": FIRST, "views": 1, "effective_views": 0, "play_s": 1e6})
    two_arms = pd.concat([rich, *(both.assign(arm=arm) for arm in ("control", "treatment"))])
    wanted = week(POOLED, overrides={"control": tuple(ids[30:60].tolist())})
    (cap,) = read(two_arms, wanted).aggregate.caps.values()
    assert cap.among == len(ids) - 60
    assert cap.threshold < 1e6


def test_what_no_cap_can_be_made_of_is_refused(crowd):
    days, pre = crowd
    with pytest.raises(
        SettingsError, match=r"Metric 'play' is capped .* there is no 'pre.play_s'; known from before: not"
    ):
        read(days, week(PRE))
    with pytest.raises(SettingsError, match=r"there is no 'pre.play_s'; known from before: pre.views, pre.unknown"):
        read(days, week(PRE), pre[["user_id", "views"]])
    with pytest.raises(DataError, match="lacks 'play_s'"):
        read(days.drop(columns="play_s"), week(AT))
    of_days = experiment(metrics=(METRICS[0], MetricPlan(name="d", kind="mean", columns=("day",), winsorize={"at": 3})))
    with pytest.raises(DataError, match="Metric 'd' is of column 'day', which says whose row it is"):
        read(days, of_days)


def test_a_saved_aggregate_that_was_capped_otherwise_is_refused(crowd):
    days, _ = crowd
    for before, after in ((POOLED, AT), (None, POOLED)):
        with pytest.raises(
            SettingsError, match=r"Metric 'play': there is no column 'play_s capped at .* read those again"
        ):
            report(read(days, week(before)).aggregate, week(after))


def test_a_day_with_two_rows_of_a_user_is_refused_as_without_a_cap(crowd):
    days, _ = crowd
    with pytest.raises(DataError, match="rows of a user and day that another row has"):
        read(pd.concat([days, days[:3]]), week(POOLED))
