import numpy as np
import pytest

from abtest.stats.largest import Largest, without
from abtest.stats.moments import Moments


def test_parts_merge_to_the_same_in_any_order():
    random = np.random.default_rng(1)
    values = random.integers(-3, 4, (200, 3)).astype(float)  # many ties
    whole = Largest.of(("x", "y", "pre.x"), values, 2)
    for _ in range(10):
        parts = np.array_split(values[random.permutation(200)], 7)
        merged = Largest.of(("x", "y", "pre.x"), np.zeros((0, 3)), 2)
        for part in parts:
            merged += Largest.of(("x", "y", "pre.x"), part, 2)
        np.testing.assert_array_equal(merged.users, whole.users)


def test_the_smallest_is_there_only_where_it_is_below_0():
    found = Largest.of(("x",), np.array([[0.0], [2.0]]), 1)
    assert found.of_columns(["x"]).tolist() == [[2.0]]
    assert Largest.of(("x",), np.array([[-1.0], [2.0]]), 1).of_columns(["x"]).tolist() == [[-1.0], [2.0]]


def test_without_a_user_is_as_if_they_had_not_come():
    values = np.random.default_rng(1).gamma(1, 1, (50, 2))
    left = without(Moments.of(("x", "y"), values), values[7])
    expected = Moments.of(("x", "y"), np.delete(values, 7, axis=0))
    np.testing.assert_allclose(left.means, expected.means, rtol=1e-12)
    np.testing.assert_allclose(left.products, expected.products, rtol=1e-10)
    assert without(Moments.of(("x",), np.ones((1, 1))), np.ones(1)).n == 0


def test_others_do_not_merge():
    with pytest.raises(ValueError, match="other columns"):
        Largest.of(("x",), np.zeros((1, 1)), 1) + Largest.of(("y",), np.zeros((1, 1)), 1)
