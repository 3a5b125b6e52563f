import numpy as np
import pytest
from scipy.stats import kstest

from abtest.stats.columns import Column
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Moments
from abtest.stats.novelty import Course, course, on_day, pre_period, trend

DAYS = 5
COLUMNS = tuple(Column(name, day) for day in range(DAYS) for name in ("exposed", "views", "ev"))
EVR = [on_day(Ratio("evr", "", "", "", "ev", "views"), day) for day in range(DAYS)]
VIEWS = [on_day(Mean("views", "", "", "", "views"), day) for day in range(DAYS)]


def users(seed, n=1500, lifts=(0.0,) * DAYS):
    """Users (n, 3 · days) whose taste lasts, so that their days are alike; they come on some of the days."""
    random = np.random.default_rng(seed)
    taste, activity = random.beta(2, 4, n), random.gamma(3, 3, n)
    columns = []
    for lift in lifts:
        exposed = random.random(n) < 0.7
        views = (1 + random.poisson(activity)) * exposed
        columns += [exposed, views, random.binomial(views, np.minimum(1, taste * (1 + lift)))]
    return np.stack(columns, axis=1).astype(float)


def arm(seed, **given):
    return Moments.of(COLUMNS, users(seed, **given))


def test_a_days_mean_is_that_over_the_users_exposed_on_it():
    values = users(1)
    exposed = values[:, 0] == 1
    found = VIEWS[0].estimate(Moments.of(COLUMNS, values))
    assert found.value == pytest.approx(values[exposed, 1].mean())
    within = Mean("v", "", "", "", Column("views", 0)).estimate(Moments.of(COLUMNS, values[exposed]))
    assert found.variance == pytest.approx(within.variance, rel=2e-3)  # n − 1 of all users, not of the day's


@pytest.mark.parametrize("metrics", [EVR, VIEWS])
def test_the_days_covariance_is_that_of_their_linear_forms(metrics):
    t, c = users(2), users(3)
    found = course(metrics, Moments.of(COLUMNS, t), Moments.of(COLUMNS, c))
    expected = np.zeros((DAYS, DAYS))
    for values in (t, c):
        linear = []
        for metric in metrics:
            y, x = (values[:, COLUMNS.index(column)] for column in metric.columns)
            linear.append(y / y.mean() - x / x.mean())  # of the log ratio
        expected += np.cov(np.stack(linear)) / len(values)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9, atol=1e-15)
    assert found.covariance[0, 1] > 0.1 * found.covariance[0, 0] or metrics is VIEWS
    assert found.effects[0] == pytest.approx(
        np.log(metrics[0].estimate(Moments.of(COLUMNS, t)).value / metrics[0].estimate(Moments.of(COLUMNS, c)).value)
    )


def test_the_slope_is_least_squares_on_whitened_days():
    found = course(EVR, arm(4), arm(5))
    whiten = np.linalg.inv(np.linalg.cholesky(found.covariance))
    X = np.stack([np.ones(DAYS), np.arange(DAYS)], axis=1)
    expected, *_ = np.linalg.lstsq(whiten @ X, whiten @ found.effects)
    spread = np.linalg.inv((whiten @ X).T @ (whiten @ X))
    got = trend(found)
    assert got.slope == pytest.approx(expected[1], rel=1e-9)
    assert got.start == pytest.approx(expected[0], rel=1e-9)
    assert got.std_error == pytest.approx(np.sqrt(spread[1, 1]), rel=1e-9)
    assert (got.p_value < 0.05) == (got.low > 0 or got.high < 0)


def test_an_effect_that_wears_off_has_a_slope_and_a_lasting_one_has_not():
    fading = trend(course(EVR, arm(6, n=6000, lifts=(0.4, 0.3, 0.2, 0.1, 0.0)), arm(7, n=6000)))
    lasting = trend(course(EVR, arm(6, n=6000, lifts=(0.2,) * DAYS), arm(7, n=6000)))
    assert fading.p_value < 1e-6
    assert fading.low < np.log(1 / 1.4) / 4 < fading.high
    assert lasting.p_value > 0.001
    assert lasting.low < 0 < lasting.high


def test_without_a_slope_its_p_values_are_uniform():
    p_values = [trend(course(EVR, arm(2 * i, n=400), arm(2 * i + 1, n=400))).p_value for i in range(300)]
    assert kstest(p_values, "uniform").pvalue > 0.001


def test_days_without_a_value_are_left_out_and_too_few_say_so():
    silent = users(8)
    silent[:, 3:6] = 0
    found = course(EVR, Moments.of(COLUMNS, silent), arm(9))
    assert found.days.tolist() == [0, 2, 3, 4]
    assert trend(found).days == 4
    assert trend(course(EVR[:2], arm(8), arm(9))).reason == "2 days with an effect; a slope that can be judged needs 3"
    empty = Moments.of(COLUMNS, np.zeros((0, len(COLUMNS))))
    assert trend(course(EVR, empty, arm(9))).reason.startswith("0 days")


def test_days_that_are_the_same_have_no_slope():
    assert "full rank" in trend(Course(np.arange(3.0), np.ones(3), np.ones((3, 3)))).reason


BEFORE = ("pre.views", "pre.play")


def before(seed, n=500, shift=0.0):
    random = np.random.default_rng(seed)
    views = random.gamma(2, 5, n) + shift
    return Moments.of(BEFORE, np.stack([views, 10 * views + random.normal(0, 10, n)], axis=1))


def test_arms_that_differed_before_the_start_are_found_and_others_are_not():
    fine, biased = pre_period({"c": before(1), "t": before(2), "u": before(3, shift=2.0)}, BEFORE, "c")
    assert (fine.arm, fine.biased, fine.degrees) == ("t", False, 2)
    assert biased.biased
    assert biased.p_value < 1e-6
    assert biased.effects["pre.views"].difference == pytest.approx(2.0, abs=1.5)


def test_the_joint_p_value_is_uniform_where_arms_were_alike():
    p_values = [pre_period({"c": before(2 * i), "t": before(2 * i + 1)}, BEFORE, "c")[0].p_value for i in range(500)]
    assert kstest(p_values, "uniform").pvalue > 0.001


def test_a_column_that_repeats_another_counts_once():
    twice = {
        name: of.sums([*((c, [c]) for c in BEFORE), ("again", ["pre.views"] * 2)])
        for name, of in (("c", before(1)), ("t", before(2)))
    }
    once, more = pre_period(twice, BEFORE, "c")[0], pre_period(twice, (*BEFORE, "again"), "c")[0]
    assert more.degrees == once.degrees == 2
    assert more.p_value == pytest.approx(once.p_value, rel=1e-6)


def test_one_column_is_the_plain_z_test():
    (found,) = pre_period({"c": before(1), "t": before(2)}, ["pre.views"], "c")
    assert found.p_value == pytest.approx(found.effects["pre.views"].difference_p_value, rel=1e-9)


def test_nothing_known_from_before_is_not_a_bias():
    unknown = {name: Moments.of(BEFORE, np.zeros((9, 2))) for name in ("c", "t")}
    (found,) = pre_period(unknown, BEFORE, "c")
    assert found.p_value is None
    assert not found.biased
    assert found.reason
    assert pre_period(unknown, [], "c")[0].reason == "no columns from before"
    empty = {"c": before(1), "t": Moments.of(BEFORE, np.zeros((0, 2)))}
    assert pre_period(empty, BEFORE, "c")[0].reason == "no users in arm t"
