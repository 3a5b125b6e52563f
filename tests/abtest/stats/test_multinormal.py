import numpy as np
import pytest
from scipy.stats import multivariate_normal

from abtest.stats.multinormal import correlation, falling_root, rectangle


@pytest.mark.parametrize("seed", range(4))
def test_rectangles_agree_with_scipys(seed):
    random = np.random.default_rng(seed)
    values = random.normal(size=(5, 8))
    correlations = correlation(values @ values.T)
    low, high = -random.uniform(0.5, 3, 5), random.uniform(0.5, 3, 5)
    expected = multivariate_normal.cdf(high, cov=correlations, lower_limit=low)
    assert rectangle(correlations, low, high, 2048) == pytest.approx(expected, rel=2e-3)


def test_a_covariance_becomes_the_correlation_and_what_is_none_is_refused():
    np.testing.assert_allclose(correlation(np.array([[4.0, 1.0], [1.0, 1.0]])), [[1.0, 0.5], [0.5, 1.0]])
    with pytest.raises(ValueError, match="covariance"):
        correlation(np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_roots_are_found_each_as_if_it_were_alone():
    targets = np.array([0.1, 1.0, 7.0])
    low, high = np.zeros(3), np.full(3, 3.0)
    roots = falling_root(lambda x: targets - x**2, low, high, targets - 9)
    np.testing.assert_allclose(roots, np.sqrt(targets), atol=2e-4)
