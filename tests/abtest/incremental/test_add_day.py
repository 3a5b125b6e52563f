import numpy as np
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.analyse.analysis import report
from abtest.incremental.add_day import add_day, places_of
from abtest.incremental.store import create, load
from abtest.read.engines import DataError
from tests.abtest.incremental.incremental_cases import ARMS, COLUMNS, COVARIATES, WEEK, Crowd


def assert_same(added, expected, rtol=1e-12):
    assert (added.users, added.days) == (expected.users, expected.days)
    for arm in ARMS:
        a, b = added.moments[arm], expected.moments[arm]
        assert a.columns == b.columns
        np.testing.assert_allclose(a.means, b.means, rtol=rtol)
        scale = np.sqrt(np.outer(b.products.diagonal(), b.products.diagonal()))
        assert (abs(a.products - b.products) <= rtol * (scale + 1e-3 * scale.max())).all()  # some are exactly 0
        np.testing.assert_allclose(added.buckets[arm].sums, expected.buckets[arm].sums, rtol=1e-12, atol=1e-9)
        np.testing.assert_array_equal(added.buckets[arm].counts, expected.buckets[arm].counts)
        for day in expected.buckets_through:
            through, other = added.buckets_through[day][arm], expected.buckets_through[day][arm]
            np.testing.assert_allclose(through.sums, other.sums, rtol=1e-12, atol=1e-9)
            np.testing.assert_array_equal(through.counts, other.counts)
        for column, by_arm in expected.histograms.items():
            np.testing.assert_array_equal(added.histograms[column][arm].counts, by_arm[arm].counts)
        for segment, by_arm in expected.segments.items():
            segment_moments, other = added.segments[segment][arm], by_arm[arm]
            assert segment_moments.n == other.n
            np.testing.assert_allclose(segment_moments.means, other.means, rtol=1e-11)
            np.testing.assert_allclose(segment_moments.products, other.products, rtol=1e-9, atol=1e-6)


def day_by_day(crowd, folder, days, pre=None):
    kept = create(folder, WEEK, COLUMNS, COVARIATES, pre, spread=("play_s",))
    for day in days:
        kept = add_day(load(folder, WEEK), crowd.table([day]))
    return kept


@pytest.mark.parametrize("days", [range(1), range(7), (0, 2, 3, 6), (2, 3)])
def test_days_added_one_by_one_are_as_if_all_had_been_read_at_once(tmp_path, days):
    crowd = Crowd()
    added = day_by_day(crowd, tmp_path, days).aggregate
    assert_same(added, aggregate(crowd.table(days), spread=("play_s",), looks=range(7)))


def test_means_that_are_large_against_their_spread_lose_no_digits(tmp_path):
    crowd = Crowd(mean=1e6)
    crowd.seen[:] = True
    added = day_by_day(crowd, tmp_path, range(4)).aggregate
    assert_same(added, aggregate(crowd.table(range(4)), spread=("play_s",), looks=range(7)), rtol=1e-8)
    assert added.moments["control"].products[0, 0] == pytest.approx(
        ((crowd.values[:, 0, 0] - crowd.values[crowd.arm[:, 0] == 0, 0, 0].mean()) ** 2)[crowd.arm[:, 0] == 0].sum(),
        rel=1e-9,
    )


def test_covariates_may_be_given_once_for_all_users(tmp_path):
    crowd = Crowd()
    added = day_by_day(crowd, tmp_path, range(7), (crowd.ids, crowd.pre)).aggregate
    assert_same(added, aggregate(crowd.table(range(7)), spread=("play_s",), looks=range(7)))


def test_a_user_who_turns_up_in_the_other_arm_leaves_with_all_that_it_did(tmp_path):
    crowd = Crowd()
    mixed = np.arange(600) % 50 == 0
    crowd.seen[mixed, 1], crowd.seen[mixed, 4] = True, True
    crowd.arm[mixed, 4:] = 1 - crowd.arm[mixed, 4:]
    added = day_by_day(crowd, tmp_path, range(7)).aggregate
    assert_same(added, aggregate(crowd.table(range(7), ~mixed), spread=("play_s",), looks=range(7)), rtol=1e-11)
    assert added.in_two_arms == mixed.sum()


def test_a_report_is_that_of_all_days_read_at_once(tmp_path):
    crowd = Crowd()
    added = report(day_by_day(crowd, tmp_path, range(7)).aggregate, WEEK)
    expected = report(aggregate(crowd.table(range(7)), spread=("play_s",), looks=range(7)), WEEK)
    for a, b in zip(added.metrics, expected.metrics, strict=True):
        assert a.effects[0].effect.p_value == pytest.approx(b.effects[0].effect.p_value, rel=1e-9)
    assert added.courses[0].trend.slope == pytest.approx(expected.courses[0].trend.slope, rel=1e-9)


def test_a_crash_before_a_day_is_there_leaves_the_days_before(tmp_path, monkeypatch):
    crowd = Crowd()
    day_by_day(crowd, tmp_path, range(3))

    def fails(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("abtest.incremental.store.write_archive", fails)
        with pytest.raises(OSError, match="disk full"):
            add_day(load(tmp_path, WEEK), crowd.table([3]))
    assert load(tmp_path, WEEK).aggregate.days == 3
    added = add_day(load(tmp_path, WEEK), crowd.table([3])).aggregate
    assert_same(added, aggregate(crowd.table(range(4)), spread=("play_s",), looks=range(7)))


def test_days_come_in_order_each_once_and_alone(tmp_path):
    crowd = Crowd()
    kept = day_by_day(crowd, tmp_path, range(3))
    for days in ([2], [1]):
        with pytest.raises(DataError, match="comes after day 2, which is kept already"):
            add_day(kept, crowd.table(days))
    for days in ([3, 4], []):
        with pytest.raises(DataError, match="rows of that day alone"):
            add_day(kept, crowd.table(days))


def test_places_are_those_of_the_users_asked_for_in_their_order():
    ids, places = np.array([10, 20, 30]), np.array([2, 0, 1])
    np.testing.assert_array_equal(places_of(ids, places, np.array([30, 5, 10, 40, 20])), [1, -1, 2, -1, 0])
    assert places_of(np.zeros(0, np.int64), np.zeros(0, np.int64), np.array([5])).tolist() == [-1]


def test_runs_have_keys_and_stand_side_by_side(tmp_path):
    crowd = Crowd(60)
    kept = day_by_day(crowd, tmp_path, range(3))
    places = list(kept.runs.values())
    assert [run.stop for run in places] == [*(run.start for run in places[1:]), kept.places]
    for key, run in kept.runs.items():
        arm, first = ARMS.index(key.arm), crowd.seen[:, :3].argmax(axis=1)
        came = crowd.seen[:, :3].any(axis=1) & (first == key.day) & (crowd.arm[:, 0] == arm)
        known = crowd.pre.any(axis=1) == (key.segment == "known from before")
        assert run.stop - run.start == (came & known).sum()
