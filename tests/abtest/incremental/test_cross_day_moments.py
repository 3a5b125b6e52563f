import numpy as np
import pytest

from abtest.incremental import cross_day_moments
from abtest.incremental.add_day import add_day
from abtest.incremental.cross_day_moments import DayRows, summarised
from abtest.incremental.store import Group, RunKey, create
from abtest.stats.columns import Column
from abtest.stats.moments import Moments
from tests.abtest.incremental.incremental_cases import ARMS, COLUMNS, COVARIATES, WEEK, Crowd

KNOWN, NEW = "known from before", "new"


def test_a_day_has_means_of_all_who_came_and_of_newcomers_covariates(tmp_path):
    kept = create(tmp_path, WEEK, COLUMNS, COVARIATES)
    returning, newcomers = RunKey(0, "control", KNOWN), RunKey(1, "control", KNOWN)
    rows = DayRows(
        np.array([4, 7, 8]), np.array([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]]), np.array([[3.0, 30.0], [5.0, 50.0]])
    )
    runs = {returning: slice(0, 1), newcomers: slice(1, 3)}
    day = summarised(kept, 1, slice(7, 9), runs, rows, row_count=3)
    group = Group("control", KNOWN)
    np.testing.assert_allclose(day.about[group], [3.0, 30.0, 0.0, 0.0, 4.0, 40.0])
    np.testing.assert_allclose(day.sums[group], [0.0, 0.0, 3.0, 2.0, 0.0, 0.0], atol=1e-12)
    assert not day.about[Group("treatment", NEW)].any()  # nobody came
    assert not day.sums[Group("treatment", NEW)].any()


def test_a_runs_covariates_are_those_of_its_rows():
    rows = DayRows(np.arange(3), np.zeros((3, 1)), np.array([[1.0], [2.0]]))
    assert rows.returning == 1
    assert rows.pre_of(slice(2, 3)).tolist() == [[2.0]]


@pytest.mark.parametrize("chunk", [3, 65_536])
def test_days_covary_as_the_users_rows_laid_out_densely(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(cross_day_moments, "CHUNK", chunk)  # also where a run is summed in several pieces
    crowd, kept = Crowd(50), create(tmp_path, WEEK, COLUMNS, COVARIATES)
    for day in range(3):
        kept = add_day(kept, crowd.table([day]))
    seen = crowd.seen[:, :3]
    for i, arm in enumerate(ARMS):
        inside = seen.any(axis=1) & (crowd.arm[:, 0] == i) & crowd.pre.any(axis=1)
        views = np.where(seen, crowd.values[:, :3, 0], 0.0)[inside]
        dense = Moments.of(("0", "1", "2"), views)
        moments = kept.moments[KNOWN][arm]
        at = [moments.place(Column("views", day)) for day in range(3)]
        assert moments.n == inside.sum()
        np.testing.assert_allclose(moments.means[at], dense.means, rtol=1e-12)
        np.testing.assert_allclose(moments.products[np.ix_(at, at)], dense.products, rtol=1e-9, atol=1e-9)
