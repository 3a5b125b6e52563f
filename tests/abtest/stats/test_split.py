import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr
from scipy.stats import kstest
from statsmodels.stats.power import NormalIndPower

from abtest.stats.split import (
    ALPHA,
    Effect,
    Estimate,
    Moments,
    compare,
    mean_estimate,
    minimum_detectable,
    ratio_estimate,
    split_check,
)

COLUMNS = ("views", "ev")


def users_and_rows(seed=0, users=400):
    """Users' sums (users, 2), and the same as one row per view: user and whether it was effective."""
    random = np.random.default_rng(seed)
    views = random.integers(1, 30, users)
    ev = random.binomial(views, random.beta(2, 3, users))
    rows = np.concatenate([np.repeat([1.0, 0.0], [e, v - e]) for v, e in zip(views, ev, strict=True)])
    return np.stack([views, ev], 1).astype(float), np.repeat(np.arange(users), views), rows


def test_a_ratio_and_its_error_are_those_of_clustered_ols_on_event_rows():
    sums, user, rows = users_and_rows()
    ours = ratio_estimate(Moments.of(COLUMNS, sums), "ev", "views")
    oracle = sm.OLS(rows, np.ones(len(rows))).fit(
        cov_type="cluster", cov_kwds={"groups": user, "use_correction": False}
    )
    small_sample = len(sums) / (len(sums) - 1)  # we divide by n − 1, the oracle by n
    assert ours.value == pytest.approx(oracle.params[0], rel=1e-12)
    assert ours.variance == pytest.approx(oracle.cov_params()[0, 0] * small_sample, rel=1e-9)


def test_a_difference_of_ratios_is_that_of_clustered_ols_with_an_arm_column():
    (s0, u0, r0), (s1, u1, r1) = users_and_rows(1), users_and_rows(2)
    t, c = (ratio_estimate(Moments.of(COLUMNS, s), "ev", "views") for s in (s1, s0))
    arm = np.repeat([0.0, 1.0], [len(r0), len(r1)])
    oracle = sm.OLS(np.concatenate([r0, r1]), sm.add_constant(arm)).fit(
        cov_type="cluster", cov_kwds={"groups": np.concatenate([u0, u1 + len(s0)]), "use_correction": False}
    )
    effect = compare(t, c)
    assert effect.difference == pytest.approx(oracle.params[1], rel=1e-9)
    assert effect.difference_std_error == pytest.approx(oracle.bse[1] * math.sqrt(400 / 399), rel=1e-9)


def test_a_relative_effect_is_the_clustered_poisson_regressions():
    """A Poisson regression on the arm models the log ratio; with robust errors its interval is the delta method's."""
    (s0, u0, r0), (s1, u1, r1) = users_and_rows(1), users_and_rows(2)
    t, c = (ratio_estimate(Moments.of(COLUMNS, s), "ev", "views") for s in (s1, s0))
    arm = np.repeat([0.0, 1.0], [len(r0), len(r1)])
    oracle = sm.GLM(np.concatenate([r0, r1]), sm.add_constant(arm), family=sm.families.Poisson()).fit(
        tol=1e-14, cov_type="cluster", cov_kwds={"groups": np.concatenate([u0, u1 + len(s0)]), "use_correction": False}
    )
    effect = compare(t, c)
    assert effect.relative == pytest.approx(math.expm1(oracle.params[1]), rel=1e-9)
    ours = (math.log1p(effect.ci_high) - math.log1p(effect.ci_low)) / 2 / 1.959963984540054
    assert ours == pytest.approx(oracle.bse[1] * math.sqrt(400 / 399), rel=1e-9)


@given(st.lists(st.integers(0, 60), min_size=3, max_size=3), st.integers(0, 2**32))
@settings(max_examples=40)
def test_merged_moments_are_those_of_all_users_at_once(sizes, seed):
    values = np.random.default_rng(seed).normal(1e4, 1.0, (sum(sizes), 2))
    a, b, c = (Moments.of(COLUMNS, part) for part in np.split(values, np.cumsum(sizes)[:-1]))
    whole = Moments.of(COLUMNS, values)
    for merged in ((a + b) + c, c + (b + a)):
        assert merged.n == whole.n
        np.testing.assert_allclose(merged.means, whole.means, rtol=1e-12)
        np.testing.assert_allclose(merged.products, whole.products, rtol=1e-9, atol=1e-6)


@given(st.floats(0.5, 2), st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_a_p_value_below_five_percent_means_an_interval_without_zero(t, v_t, v_c):
    effect = compare(Estimate(50, t, v_t), Estimate(50, 1.0, v_c))
    if abs(effect.p_value - ALPHA) > 1e-12:
        assert (effect.p_value < ALPHA) == (effect.ci_low > 0 or effect.ci_high < 0)


def test_tiny_p_values_keep_their_digits():
    error = 0.1 / 37 / math.sqrt(2)
    effect = compare(Estimate(9, math.exp(0.1), (error * math.exp(0.1)) ** 2), Estimate(9, 1.0, error**2))
    assert effect.p_value == pytest.approx(2 * math.exp(log_ndtr(-37)), rel=1e-9)
    assert 0 < effect.p_value < 1e-295


def test_equal_arms_give_false_positives_as_often_as_stated():
    """A/A: 4,000 splits of fresh users. Binomial(4000, .05) lies in [.0397, .0603] with probability .997."""
    random = np.random.default_rng(5)
    p_values = []
    for _ in range(4000):
        views = random.integers(1, 20, (2, 250))
        ev = random.binomial(views, random.beta(2, 3, views.shape))
        moments = [Moments.of(COLUMNS, np.stack([v, e], 1).astype(float)) for v, e in zip(views, ev, strict=True)]
        p_values.append(compare(*(ratio_estimate(m, "ev", "views") for m in moments)).p_value)
    assert 0.0397 < np.mean(np.array(p_values) < ALPHA) < 0.0603
    assert kstest(p_values, "uniform").pvalue > 0.001


def test_the_interval_covers_a_planted_lift_as_often_as_stated():
    random = np.random.default_rng(6)
    control, treatment = random.gamma(0.5, 100, (2, 2000, 400))
    covered = 0
    for c, t in zip(control, 1.2 * treatment, strict=True):
        estimates = [mean_estimate(Moments.of(("x",), x[:, None]), "x") for x in (t, c)]
        effect = compare(*estimates)
        covered += effect.ci_low <= 0.2 <= effect.ci_high
    assert 0.935 < covered / 2000 < 0.965


def test_the_detectable_difference_is_what_statsmodels_plans_with():
    log_error = 0.01
    oracle = NormalIndPower().solve_power(None, nobs1=2 / log_error**2, alpha=ALPHA, power=0.8, ratio=1)
    assert math.log1p(minimum_detectable(log_error)) == pytest.approx(oracle, rel=1e-4)


@pytest.mark.parametrize(
    ("treatment", "control", "reason"),
    [
        (Estimate(0, None, None, "no users"), Estimate(9, 1.0, 0.1), "no users in arm treatment"),
        (Estimate(9, 1.0, 0.1), Estimate(9, None, None, "no views"), "no views in arm control"),
        (Estimate(1, 1.0, None, "fewer than 2 users"), Estimate(9, 1.0, 0.1), "fewer than 2 users in arm treatment"),
        (Estimate(9, 0.0, 0.0), Estimate(9, 1.0, 0.1), "the value is 0 in arm treatment"),
        (Estimate(9, 1.0, 0.0), Estimate(9, 1.0, 0.0), "no variance"),
    ],
)
def test_what_cannot_be_estimated_has_a_reason_instead_of_a_number(treatment, control, reason):
    effect = compare(treatment, control)
    assert reason in effect.reason
    assert effect.ci_low is effect.ci_high is effect.p_value is effect.minimum_detectable is None


def test_estimates_of_too_little_say_so():
    nothing, one = np.zeros((0, 2)), np.array([[0.0, 0.0]])
    assert ratio_estimate(Moments.of(COLUMNS, nothing), "ev", "views").reason == "no users"
    assert ratio_estimate(Moments.of(COLUMNS, one), "ev", "views").reason == "no views"
    assert mean_estimate(Moments.of(COLUMNS, nothing), "ev").reason == "no users"
    assert mean_estimate(Moments.of(COLUMNS, one), "ev").reason == "fewer than 2 users"


def test_a_split_is_tested_against_its_weights():
    assert not split_check({"a": 9000, "b": 1000}, {"a": 9, "b": 1}).mismatch
    assert split_check({"a": 9000, "b": 1300}, {"a": 9, "b": 1}).mismatch
    empty = split_check({}, {"a": 1, "b": 1})
    assert empty.p_value is None
    assert empty.reason == "no users in any arm"
    assert split_check({"a": 50}, {"a": 1, "b": 1}).users == {"a": 50, "b": 0}


def test_an_effect_knows_nothing_by_default():
    assert Effect() == Effect(None, None, None, None, None, None, None, None)
