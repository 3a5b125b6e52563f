import numpy as np
import pytest

from abtest.stats.estimates import covariance, mean_estimate, ratio_estimate
from abtest.stats.moments import Moments
from tests.abtest.stats.test_moments import COLUMNS, users


def test_the_influence_is_the_slope_of_the_estimate():
    """A step in the means moves the estimate by influence · step, to first order."""
    moments = Moments.of(COLUMNS, users(1))
    step = 1e-6 * np.array([0.3, -0.7, 0.5])
    moved = Moments(COLUMNS, moments.n, moments.means + step, moments.products)
    for estimate in (lambda m: ratio_estimate(m, "y", "x"), lambda m: mean_estimate(m, "y")):
        change = estimate(moved).value - estimate(moments).value
        assert change == pytest.approx(float(estimate(moments).influence @ step), rel=1e-5)


def test_estimates_of_the_same_users_have_the_covariance_of_their_linear_forms():
    values = users(2, share=1.0)
    moments = Moments.of(COLUMNS, values)
    ratio, mean = ratio_estimate(moments, "y", "x"), mean_estimate(moments, "x")
    linear = (values[:, 2] - ratio.value * values[:, 1]) / values[:, 1].mean()
    assert covariance(moments, ratio, mean) == pytest.approx(np.cov(linear, values[:, 1])[0, 1] / len(values), rel=1e-9)
    assert covariance(moments, ratio, ratio) == pytest.approx(ratio.variance, rel=1e-12)
    empty = ratio_estimate(Moments.of(COLUMNS, values[:0]), "y", "x")
    with pytest.raises(ValueError, match="no covariance"):
        covariance(moments, empty, mean)
