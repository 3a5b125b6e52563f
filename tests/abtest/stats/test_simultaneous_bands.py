import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from abtest.stats.simultaneous_bands import band, bands, sup_t

LASTING = 0.4 + 0.6 * np.eye(7)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_independent_days_have_sidaks_value_and_equal_ones_the_pointwise(alpha):
    assert sup_t(np.eye(7), alpha) == pytest.approx(norm.isf((1 - (1 - alpha) ** (1 / 7)) / 2), abs=1e-3)
    assert sup_t(np.ones((7, 7)), alpha) == pytest.approx(norm.isf(alpha / 2), abs=1e-3)
    assert sup_t(np.eye(1), alpha) == pytest.approx(norm.isf(alpha / 2), abs=1e-12)


def test_the_value_agrees_with_scipys_integral():
    critical = np.full(7, sup_t(LASTING))
    assert multivariate_normal.cdf(critical, cov=LASTING, lower_limit=-critical) == pytest.approx(0.95, abs=2e-4)
    assert norm.isf(0.025) < critical[0] < norm.isf(0.025 / 7)


@pytest.mark.parametrize("days", [2, 7, 14, 28])
def test_all_days_are_held_at_once_as_often_as_stated(days):
    scale = np.linspace(1, 3, days)
    covariance = np.outer(scale, scale) * (0.4 + 0.6 * np.eye(days))
    truth = np.linspace(-0.2, 0.2, days)
    drawn = np.random.default_rng(days).multivariate_normal(truth, covariance, 40_000)
    margin = band(truth, covariance).high - truth
    assert (np.abs(drawn - truth) <= margin).all(axis=1).mean() == pytest.approx(0.95, abs=0.005)


def test_a_band_is_the_same_twice_and_has_relative_ends():
    effects = np.linspace(0, 0.1, 7)
    one, two = band(effects, 1e-4 * LASTING), band(effects, 1e-4 * LASTING)
    np.testing.assert_array_equal(one.low, two.low)
    np.testing.assert_allclose(np.log1p(one.ci_low), one.low)
    assert np.isfinite(band(np.array([0.0, 2.0]), 1e8 * np.eye(2)).ci_high).all()


def test_what_is_no_covariance_or_no_alpha_is_refused():
    with pytest.raises(ValueError, match="finite variance"):
        sup_t(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="alpha"):
        sup_t(np.eye(2), 1.0)


def test_bands_of_several_are_each_as_if_it_were_alone():
    random = np.random.default_rng(3)
    each = [
        (random.normal(size=days), 1e-4 * LASTING[:days, :days] * scale) for days in (7, 3, 0, 1, 7) for scale in (1, 2)
    ]
    for found, (effects, covariance) in zip(bands(each), each, strict=True):
        if len(effects):
            alone = band(effects, covariance)
            assert found.critical == alone.critical
            np.testing.assert_array_equal(found.ci_low, alone.ci_low)
            np.testing.assert_array_equal(found.ci_high, alone.ci_high)
        else:
            assert found.ci_low.shape == found.ci_high.shape == (0,)
