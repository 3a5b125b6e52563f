import numpy as np
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.user_days import arranged
from abtest.analyse.analysis import report
from abtest.incremental.add_day import begun, opened, with_day
from abtest.read.engines import DataError
from contracts.config.experiment import MetricPlan
from contracts.runtime.durable import StateError
from tests.abtest.abtest_cases import experiment

ARMS, COLUMNS, COVARIATES = ("control", "treatment"), ("views", "play_s"), ("pre.views", "pre.play_s")
WEEK = experiment(
    metrics=(
        MetricPlan(name="play", kind="mean", columns=("play_s",), role="primary"),
        MetricPlan(name="play_p90", kind="quantile", columns=("play_s",), q=0.9),
        MetricPlan(name="views", kind="mean", columns=("views",)),
    )
)


class Crowd:
    """Users on some of a week's days; `arm` (users, days), so that one may change."""

    def __init__(self, users=600, seed=9, mean=0.0):
        random = np.random.default_rng(seed)
        self.ids = random.choice(10**9, users, replace=False)
        self.seen = random.random((users, 7)) < 0.5
        self.arm = np.repeat(random.integers(0, 2, users)[:, None], 7, axis=1)
        self.values = random.gamma(2.0, 3.0, (users, 7, 2)) + mean
        self.pre = (random.gamma(2.0, 9.0, (users, 2)) + mean) * (random.random(users) < 0.7)[:, None]

    def table(self, days, inside=None):
        came = self.seen.copy()
        came[:, [d for d in range(7) if d not in days]] = False
        if inside is not None:
            came[~inside] = False
        users = np.flatnonzero(came.any(axis=1))
        user, day = np.nonzero(came[users])
        arm = self.arm[users, came[users].argmax(axis=1)]
        pre = self.pre[users]
        return arranged(ARMS, COLUMNS, COVARIATES, self.ids[users], arm, pre, day, user, self.values[users][user, day])


def assert_same(found, expected, rtol=1e-12):
    assert (found.users, found.days) == (expected.users, expected.days)
    for arm in ARMS:
        a, b = found.moments[arm], expected.moments[arm]
        assert a.columns == b.columns
        np.testing.assert_allclose(a.means, b.means, rtol=rtol)
        scale = np.sqrt(np.outer(b.products.diagonal(), b.products.diagonal()))
        assert (abs(a.products - b.products) <= rtol * (scale + 1e-3 * scale.max())).all()  # some are exactly 0
        np.testing.assert_allclose(found.buckets[arm].sums, expected.buckets[arm].sums, rtol=1e-12, atol=1e-9)
        np.testing.assert_array_equal(found.buckets[arm].counts, expected.buckets[arm].counts)
        for column, by_arm in expected.histograms.items():
            np.testing.assert_array_equal(found.histograms[column][arm].counts, by_arm[arm].counts)
        for segment, by_arm in expected.segments.items():
            of, other = found.segments[segment][arm], by_arm[arm]
            assert of.n == other.n
            np.testing.assert_allclose(of.means, other.means, rtol=1e-11)
            np.testing.assert_allclose(of.products, other.products, rtol=1e-9, atol=1e-6)


def day_by_day(crowd, folder, days, pre=None):
    kept = begun(folder, WEEK, COLUMNS, COVARIATES, pre, spread=("play_s",))
    for day in days:
        kept = with_day(opened(folder, WEEK), crowd.table([day]))
    return kept


@pytest.mark.parametrize("days", [range(1), range(7), (0, 2, 3, 6), (2, 3)])
def test_days_added_one_by_one_are_as_if_all_had_been_read_at_once(tmp_path, days):
    crowd = Crowd()
    found = day_by_day(crowd, tmp_path, days).aggregate
    assert_same(found, aggregate(crowd.table(days), spread=("play_s",)))


def test_means_that_are_large_against_their_spread_lose_no_digits(tmp_path):
    crowd = Crowd(mean=1e6)
    crowd.seen[:] = True
    found = day_by_day(crowd, tmp_path, range(4)).aggregate
    assert_same(found, aggregate(crowd.table(range(4)), spread=("play_s",)), rtol=1e-8)
    assert found.moments["control"].products[0, 0] == pytest.approx(
        ((crowd.values[:, 0, 0] - crowd.values[crowd.arm[:, 0] == 0, 0, 0].mean()) ** 2)[crowd.arm[:, 0] == 0].sum(),
        rel=1e-9,
    )


def test_covariates_may_be_given_once_for_all_users(tmp_path):
    crowd = Crowd()
    found = day_by_day(crowd, tmp_path, range(7), (crowd.ids, crowd.pre)).aggregate
    assert_same(found, aggregate(crowd.table(range(7)), spread=("play_s",)))


def test_a_user_who_turns_up_in_the_other_arm_leaves_with_all_that_it_did(tmp_path):
    crowd = Crowd()
    mixed = np.arange(600) % 50 == 0
    crowd.seen[mixed, 1], crowd.seen[mixed, 4] = True, True
    crowd.arm[mixed, 4:] = 1 - crowd.arm[mixed, 4:]
    found = day_by_day(crowd, tmp_path, range(7)).aggregate
    assert_same(found, aggregate(crowd.table(range(7), ~mixed), spread=("play_s",)), rtol=1e-11)
    assert found.in_two_arms == mixed.sum()


def test_a_report_is_that_of_all_days_read_at_once(tmp_path):
    crowd = Crowd()
    found = report(day_by_day(crowd, tmp_path, range(7)).aggregate, WEEK)
    expected = report(aggregate(crowd.table(range(7)), spread=("play_s",)), WEEK)
    for a, b in zip(found.metrics, expected.metrics, strict=True):
        assert a.effects[0].effect.p_value == pytest.approx(b.effects[0].effect.p_value, rel=1e-9)
    assert found.courses[0].trend.slope == pytest.approx(expected.courses[0].trend.slope, rel=1e-9)


def test_a_crash_before_a_day_is_there_leaves_the_days_before(tmp_path, monkeypatch):
    crowd = Crowd()
    day_by_day(crowd, tmp_path, range(3))

    def fails(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("abtest.incremental.store.write_archive", fails)
        with pytest.raises(OSError, match="disk full"):
            with_day(opened(tmp_path, WEEK), crowd.table([3]))
    assert opened(tmp_path, WEEK).aggregate.days == 3
    found = with_day(opened(tmp_path, WEEK), crowd.table([3])).aggregate
    assert_same(found, aggregate(crowd.table(range(4)), spread=("play_s",)))


def test_days_come_in_order_each_once_and_alone(tmp_path):
    crowd = Crowd()
    kept = day_by_day(crowd, tmp_path, range(3))
    for days in ([2], [1]):
        with pytest.raises(DataError, match="comes after day 2, which is kept already"):
            with_day(kept, crowd.table(days))
    for days in ([3, 4], []):
        with pytest.raises(DataError, match="rows of that day alone"):
            with_day(kept, crowd.table(days))


def test_another_experiment_is_not_added_to(tmp_path):
    day_by_day(Crowd(), tmp_path, [0])
    with pytest.raises(StateError, match="another experiment"):
        opened(tmp_path, experiment(days=9))
