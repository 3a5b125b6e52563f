"""Users that the table of covariates lacks: CUPED is told who they are, and takes what it can from the others."""

import numpy as np
import pandas as pd
import pytest

from abtest.analyse.analysis import report
from abtest.incremental import read as incremental
from abtest.read.engines import DataError, as_table
from abtest.read.rows import read
from contracts.config.experiment import MetricPlan
from tests.abtest.abtest_cases import experiment
from tests.abtest.read.read_cases import assert_same

PLAN = experiment(days=2, metrics=(MetricPlan(name="spend", kind="mean", columns=("spend",), role="primary"),))


def world(users=20_000, seed=3):
    """Users whose spend is to 94 % what it was before: a correlation of √.94; half of it on each of two days."""
    random = np.random.default_rng(seed)
    taste, noise = random.normal(50, np.sqrt(0.94), users), random.normal(0, np.sqrt(0.06), users)
    ids = np.arange(users) + 1
    arm = random.choice(["control", "treatment"], users)
    both = [pd.DataFrame({"user_id": ids, "arm": arm, "day": d, "spend": (taste + noise) / 2}) for d in (0, 1)]
    return pd.concat(both), pd.DataFrame({"user_id": ids, "spend": taste})


def removed(rows, pre):
    found = report(read(rows, PLAN, pre).aggregate, PLAN)
    return found.metrics[0].effects[0].variance_removed


def test_with_thirty_percent_unknown_the_variance_removed_falls_to_seventy_percent_of_it_and_not_to_a_tenth():
    rows, pre = world()
    known = pre.user_id.isin(np.random.default_rng(1).choice(pre.user_id, 14_000, replace=False))
    assert removed(rows, pre) == pytest.approx(0.94, abs=0.005)
    assert removed(rows, pre[known]) == pytest.approx(0.66, abs=0.01)
    as_zero = pre.assign(spend=np.where(known, pre.spend, 0.0))
    assert removed(rows, as_zero) < 0.15  # what it is to count the unknown as 0


def test_the_adjusted_difference_is_that_of_a_regression_on_the_covariate_and_the_indicator():
    rows, pre = world(2000)
    pre = pre[pre.user_id % 3 > 0]
    found = report(read(rows, PLAN, pre).aggregate, PLAN).metrics[0].effects[0]
    users = rows.groupby("user_id").agg(arm=("arm", "first"), spend=("spend", "sum")).reset_index()
    before = users.user_id.map(pre.set_index("user_id").spend)
    X = np.column_stack([before.fillna(0), before.isna()])
    centred = X - X.mean(axis=0)
    y = users.spend.to_numpy()
    theta = np.linalg.lstsq(centred, y - y.mean(), rcond=None)[0]
    adjusted = y - centred @ theta
    treated = (users.arm == "treatment").to_numpy()
    assert found.adjusted.difference == pytest.approx(adjusted[treated].mean() - adjusted[~treated].mean(), rel=1e-9)


def test_where_every_user_is_known_there_is_no_indicator_and_no_figure_changes():
    rows, pre = world(500)
    strangers = pd.concat([pre, pd.DataFrame({"user_id": [10**6], "spend": [1.0]})])
    counted = read(rows, PLAN, strangers)
    assert counted.aggregate.covariates == ("pre.spend",)
    inside = rows.merge(pre.rename(columns={"spend": "pre.spend"}), on="user_id")
    assert_same(counted.aggregate, read(inside, PLAN).aggregate)


def test_days_that_are_added_have_the_indicator_too_and_known_users_stay_known(tmp_path):
    rows, pre = world(600)
    pre = pre[pre.user_id % 4 > 0]
    whole = read(rows, PLAN, pre)
    kept = incremental.read(tmp_path / "kept", *(each for each in (as_ibis(rows), PLAN, as_ibis(pre))))
    assert whole.aggregate.covariates == ("pre.spend", "pre.unknown")
    assert_same(kept.aggregate, whole.aggregate)
    assert kept.counts == whole.counts
    segments = {name: sum(m.n for m in by_arm.values()) for name, by_arm in whole.aggregate.segments.items()}
    assert segments == {"known from before": 450, "new": 150}
    everyone = incremental.read(tmp_path / "all", as_ibis(rows), PLAN, as_ibis(world(600)[1]))
    assert everyone.aggregate.covariates == ("pre.spend",)


def as_ibis(frame):
    import ibis

    return ibis.memtable(frame)


def test_a_covariate_called_as_the_indicator_is_refused():
    rows, pre = world(20)
    with pytest.raises(DataError, match=r"'unknown' says which users the table of covariates lacks.*another name"):
        read(rows, PLAN, pre.assign(unknown=1))


def test_covariates_that_follow_from_others_or_never_vary_are_named_in_the_report():
    rows, pre = world(800)
    more = pre.assign(cents=pre.spend * 100, visits=pre.user_id % 5, one=1.0)
    more["both"] = more.spend - 2 * more.visits
    found = report(read(rows, PLAN, more).aggregate, PLAN)
    said = next(check for check in found.checks if check.name == "dropped_covariates")
    assert said.numbers == {
        "pre.cents": "follows from pre.spend",
        "pre.one": "is the same for all users, or lacks a value in some arm",
        "pre.both": "follows from pre.spend, pre.visits",
    }
    assert "CUPED goes by pre.spend, pre.visits. Left out: pre.cents follows from pre.spend;" in said.said
    fewer = report(read(rows, PLAN, pre.assign(visits=pre.user_id % 5)).aggregate, PLAN)
    a, b = found.metrics[0].effects[0].adjusted, fewer.metrics[0].effects[0].adjusted
    assert (a.difference, a.ci_low, a.ci_high) == pytest.approx((b.difference, b.ci_low, b.ci_high), rel=1e-9)
    assert not any(check.name == "dropped_covariates" for check in fewer.checks)


@pytest.mark.parametrize("where", ["beside", "inside"])
@pytest.mark.parametrize("kept", [False, True])
def test_a_covariate_that_is_null_is_that_of_a_user_who_is_unknown(tmp_path, where, kept):
    """As if the table of covariates lacked the user."""
    rows, pre = world(2000)
    known = pre.user_id % 3 > 0
    expected = read(rows, PLAN, pre[known])
    nulls = pre.assign(spend=pre.spend.where(known))
    arguments = (rows, nulls)
    if where == "inside":
        arguments = (rows.merge(nulls.rename(columns={"spend": "pre.spend"}), on="user_id"), None)
    if kept:
        table, before = (None if each is None else as_table(each) for each in arguments)
        found = incremental.read(tmp_path / "kept", table, PLAN, before)
    else:
        found = read(arguments[0], PLAN, arguments[1])
    assert_same(found.aggregate, expected.aggregate)
    assert found.counts["users_without_pre"] == expected.counts["users_without_pre"] == 666


@pytest.mark.parametrize("kept", [False, True])
def test_users_without_a_covariate_who_turn_up_in_two_arms_are_not_counted_as_without(tmp_path, kept):
    rows, _ = world(300)
    wide = rows.assign(**{"pre.spend": rows.user_id.where(rows.user_id > 30).astype(float)})
    last = wide.day == 1
    wide.loc[last & (wide.user_id <= 10), "arm"] = "control"
    wide.loc[~last & (wide.user_id <= 10), "arm"] = "treatment"
    found = incremental.read(tmp_path / "kept", as_table(wide), PLAN) if kept else read(wide, PLAN)
    assert found.counts["users_in_two_arms"] == 10
    assert found.counts["users_without_pre"] == 20
