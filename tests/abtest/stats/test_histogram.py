"""Histograms: where values fall, how exact they are, and that merging is exact in any order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abtest.stats.histogram import ACCURACY, CELLS, EDGES, HIGHEST, LARGE, LOWEST, SMALL, ZEROS, Histogram

VALUES = st.lists(st.floats(0, 1e12) | st.integers(0, 1000).map(float), max_size=50).map(np.array)


@given(st.floats(LOWEST, HIGHEST, exclude_max=True))
def test_a_value_lies_in_its_bin_whose_middle_is_within_the_accuracy(value):
    cell = int(np.flatnonzero(Histogram.of(np.array([value])).counts)[0])
    low, high = EDGES[cell - SMALL], EDGES[cell - SMALL + 1]
    assert low <= value < high
    assert abs((low + high) / 2 - value) <= ACCURACY * value


@pytest.mark.parametrize(
    ("value", "cell"),
    [(0.0, ZEROS), (-0.0, ZEROS), (5e-324, SMALL), (LOWEST * 0.999, SMALL), (LOWEST, SMALL + 1),
     (HIGHEST * 0.9999, LARGE - 1), (HIGHEST, LARGE), (1e308, LARGE)],
)  # fmt: skip
def test_zeros_small_and_large_values_have_cells_of_their_own(value, cell):
    counts = Histogram.of(np.array([value, value])).counts
    assert counts[cell] == counts.sum() == 2


@pytest.mark.parametrize("bad", [-1.0, -1e-300, np.nan, np.inf])
def test_what_is_no_amount_is_refused_wherever_it_stands(bad):
    for place in (0, 40_000, 99_999):
        values = np.ones(100_000)
        values[place] = bad
        with pytest.raises(ValueError, match="negative, infinite or not a number"):
            Histogram.of(values)


@given(VALUES, VALUES, VALUES)
def test_any_order_of_merging_gives_the_histogram_of_all_values(a, b, c):
    whole = Histogram.of(np.concatenate([a, b, c])).counts
    x, y, z = (Histogram.of(part) for part in (a, b, c))
    assert np.array_equal(((x + y) + z).counts, whole)
    assert np.array_equal((z + (y + x)).counts, whole)


def test_a_long_column_is_counted_whole():
    values = np.random.default_rng(1).lognormal(2, 2, 100_003) * (np.arange(100_003) % 3 > 0)
    found = Histogram.of(values)
    cells = np.searchsorted(EDGES, values, side="right")
    assert found.n == 100_003
    assert found.counts[ZEROS] == (values == 0).sum()
    assert np.array_equal(found.counts[1:], np.bincount(cells[values > 0], minlength=CELLS)[1:])


def test_a_full_cell_does_not_wrap_around():
    full = Histogram(np.full(CELLS, 2**32 - 1, np.uint32))
    with pytest.raises(ValueError, match="at most"):
        full + Histogram.of(np.ones(1))


@given(VALUES.filter(len), st.floats(0.001, 1))
def test_a_quantile_is_in_the_bin_of_the_user_who_has_it(values, share):
    exact = np.quantile(values, share, method="inverted_cdf")
    found = float(Histogram.of(values).quantiles(np.array(share)))
    if exact >= HIGHEST:
        assert found == np.inf
    elif exact < LOWEST:
        assert 0 <= found <= LOWEST
        assert (found == 0) == (exact == 0)
    else:
        assert abs(found - exact) <= 2 * ACCURACY * exact * (1 + 1e-9)


def test_inside_a_bin_a_smooth_density_loses_next_to_nothing():
    random = np.random.default_rng(2)
    values = random.lognormal(3, 1.5, 1_000_000)
    shares = np.array([0.1, 0.5, 0.9, 0.99])
    assert Histogram.of(values).quantiles(shares) == pytest.approx(np.quantile(values, shares), rel=2e-4)


def test_without_users_there_is_no_quantile():
    assert np.isnan(Histogram.of(np.array([])).quantiles(np.array([0.5]))).all()
