import math

import mpmath as mp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abtest.stats.effects import compare, minimum_detectable, quantile, two_sided
from abtest.stats.estimates import Estimate
from benchmarks.abtest.golden import tails

values = st.floats(0.5, 2)
variances = st.floats(1e-6, 0.05)
sizes = st.integers(5, 10_000)


@given(values, variances, variances, sizes, sizes, st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from(["normal", "t"]))
def test_every_p_value_agrees_with_its_own_interval(t, v_t, v_c, n_t, n_c, alpha, distribution):
    effect = compare(Estimate(n_t, t, v_t), Estimate(n_c, 1.0, v_c), alpha=alpha, distribution=distribution)
    for p_value, low, high in (
        (effect.p_value, effect.ci_low, effect.ci_high),
        (effect.difference_p_value, effect.difference_low, effect.difference_high),
    ):
        if abs(p_value - alpha) > 1e-9:
            assert (p_value < alpha) == (low > 0 or high < 0)
    assert 10**effect.log10_p == pytest.approx(effect.p_value, rel=1e-9)
    assert effect.alpha == alpha


@given(values, variances, variances)
def test_fieller_excludes_no_difference_exactly_where_the_plain_difference_does(t, v_t, v_c):
    effect = compare(Estimate(50, t, v_t), Estimate(50, 1.0, v_c))
    if effect.fieller_reason is None and abs(effect.difference_p_value - 0.05) > 1e-9:
        assert (effect.difference_p_value < 0.05) == (effect.fieller_low > 0 or effect.fieller_high < 0)


@given(values, variances, variances, st.floats(1e-3, 1e3))
def test_relative_differences_do_not_depend_on_the_unit(t, v_t, v_c, scale):
    plain = compare(Estimate(50, t, v_t), Estimate(50, 1.0, v_c))
    scaled = compare(Estimate(50, scale * t, scale**2 * v_t), Estimate(50, scale, scale**2 * v_c))
    for name in ("relative", "ci_low", "ci_high", "p_value", "fieller_low", "fieller_high"):
        if getattr(plain, name) is not None:
            assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-6, abs=1e-9)


def test_the_log_interval_cannot_reach_below_minus_a_hundred_percent():
    effect = compare(Estimate(9, 0.1, 0.25), Estimate(9, 1.0, 0.01))
    assert -1 < effect.ci_low < -0.99
    assert effect.difference_low < -1.8


def test_a_value_that_is_all_error_has_no_relative_interval():
    effect = compare(Estimate(9, 1e-9, 100.0), Estimate(9, 1.0, 0.01))
    assert effect.ci_low is effect.p_value is None
    assert "too near 0" in effect.reason


def test_fieller_has_no_interval_where_the_control_may_be_zero():
    unsure = compare(Estimate(99, 1.0, 0.01), Estimate(99, 1.0, (1 / 1.95) ** 2))
    sure = compare(Estimate(99, 1.0, 0.01), Estimate(99, 1.0, (1 / 1.97) ** 2))
    assert unsure.fieller_low is unsure.fieller_high is None
    assert "control is not significantly different from 0" in unsure.fieller_reason
    assert sure.fieller_low < 0 < sure.fieller_high
    assert sure.fieller_high > 50  # nearly unbounded
    assert unsure.ci_low is not None  # the log ratio's does not see it


def test_fieller_and_the_difference_are_told_of_values_below_zero_where_a_log_ratio_is_not():
    effect = compare(Estimate(99, -2.0, 0.01), Estimate(99, -1.0, 0.01))
    assert "negative in arm treatment" in effect.reason
    assert effect.p_value is effect.ci_low is effect.relative is None
    assert effect.fieller_low < 1.0 < effect.fieller_high
    assert effect.difference_p_value < 1e-6


def test_no_variance_at_all_makes_no_interval():
    effect = compare(Estimate(9, 2.0, 0.0), Estimate(9, 1.0, 0.0))
    assert effect.difference == effect.relative == 1.0
    assert "no variance" in effect.reason
    assert "no variance" in effect.fieller_reason
    assert effect.difference_low is effect.difference_p_value is effect.fieller_low is None


def test_welch_is_wider_than_normal_and_comes_to_it_with_many_users():
    few, many = ((Estimate(n, 1.1, 0.01), Estimate(n, 1.0, 0.01)) for n in (5, 10**9))
    assert compare(*few, distribution="t").ci_high > compare(*few).ci_high
    assert compare(*many, distribution="t").ci_high == pytest.approx(compare(*many).ci_high, rel=1e-6)


def test_a_level_outside_zero_and_one_is_refused():
    with pytest.raises(ValueError, match=r"alpha is 1\.5; it must lie between 0 and 1"):
        compare(Estimate(9, 1.0, 0.1), Estimate(9, 1.0, 0.1), alpha=1.5)


def test_tails_are_right_to_nine_digits_down_to_1e_300_and_told_below():
    assert max(pair.error for pair in tails()) < 1e-9
    assert two_sided(200.0)[0] == 0
    assert two_sided(200.0)[1] < -8000


@pytest.mark.parametrize(
    ("df", "statistic"), [(12_345.6, 45.0), (2e6, 38.5), (2e6, 60.0), (998.0, 1e90), (1e8, 2000.0)]
)
def test_a_tail_too_small_for_a_float_has_the_logarithm_of_its_integral(df, statistic):
    """Oracle: Student's density integrated in forty digits, over log t."""
    with mp.workdps(40):
        z, n = mp.mpf(statistic), mp.mpf(df)
        scale = (n + z**2) / (z**2 * (n + 1))
        tail = mp.quad(
            lambda u: mp.exp(-(n + 1) / 2 * mp.log1p((z * mp.exp(u)) ** 2 / n) + u),
            [0, *(scale * 2**i for i in range(10))],
        )
        density = mp.gamma((n + 1) / 2) / mp.gamma(n / 2) / mp.sqrt(n * mp.pi)
        oracle = float(mp.log10(2 * z * density * tail))
    p_value, log10_p = two_sided(statistic, df)
    assert p_value < 1e-300
    assert log10_p == pytest.approx(oracle, rel=1e-11)


@pytest.mark.parametrize("df", [2.0, 30.0, math.inf])
@pytest.mark.parametrize("tail", [1e-12, 0.005, 0.025, 0.3])
def test_quantiles_are_the_inverse_of_tails(df, tail):
    assert two_sided(quantile(tail, df), df)[0] == pytest.approx(2 * tail, rel=1e-9)


def test_a_stricter_level_detects_less():
    assert minimum_detectable(0.01, alpha=0.01) > minimum_detectable(0.01) > minimum_detectable(0.01, power=0.5)
