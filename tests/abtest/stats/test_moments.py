import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abtest.stats.moments import Moments

COLUMNS = ("met", "x", "y")


def users(seed, n=60, share=0.6):
    """Users (n, 3) who are all zeros where they were not met."""
    random = np.random.default_rng(seed)
    met = random.random(n) < share
    return np.stack([np.ones(n), 1 + random.poisson(5, n), random.normal(3, 1, n)], axis=1) * met[:, None]


def assert_same(a: Moments, b: Moments):
    assert a.columns == b.columns
    assert a.n == b.n
    np.testing.assert_allclose(a.means, b.means, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(a.products, b.products, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 2**32), st.integers(0, 50), st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=40)
def test_moments_within_an_indicator_are_those_of_its_users_alone(seed, n, share):
    values = users(seed, n, share)
    assert_same(Moments.of(COLUMNS, values).within("met"), Moments.of(COLUMNS, values[values[:, 0] == 1]))


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_sums_of_columns_are_those_of_users_sums(seed):
    values = users(seed)
    summed = Moments.of(COLUMNS, values).sums([("both", ["x", "y"]), ("x", ["x"]), ("twice", ["y", "y"])])
    direct = np.stack([values[:, 1] + values[:, 2], values[:, 1], 2 * values[:, 2]], axis=1)
    assert_same(summed, Moments.of(("both", "x", "twice"), direct))


@given(st.integers(0, 2**32), st.integers(0, 60))
@settings(max_examples=20)
def test_what_is_merged_may_be_cut_anywhere_and_combined_before_or_after(seed, cut):
    values = users(seed)
    a, b, whole = (Moments.of(COLUMNS, part) for part in (values[:cut], values[cut:], values))
    assert_same(a + b, whole)
    assert_same(b + a, whole)
    wanted = [("both", ["x", "y"])]
    assert_same(a.sums(wanted) + b.sums(wanted), whole.sums(wanted))


def test_moments_of_different_columns_do_not_merge():
    with pytest.raises(ValueError, match="do not merge"):
        Moments.of(("x",), np.ones((2, 1))) + Moments.of(("y",), np.ones((2, 1)))


def test_a_column_that_is_not_there_is_an_error():
    with pytest.raises(KeyError, match="z"):
        Moments.of(COLUMNS, users(0)).mean("z")
