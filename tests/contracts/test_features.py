"""The arrays that a tower sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.features import Positives, gather, moment_of, positives, rows_of, sampling_noise, tower_inputs

CATALOGUE = np.array([10, 20, 30, 40])


def user(*behaviours: tuple[int, int]) -> Positives:
    return Positives(np.array([b[0] for b in behaviours], np.int64), np.array([b[1] for b in behaviours], np.int64))


def test_a_history_ends_at_the_right_edge() -> None:
    inputs = tower_inputs([user((10, 0), (30, 4000))], np.array([5000]), CATALOGUE, window=4)
    assert inputs.rows.tolist() == [[-1, -1, 0, 2]]
    assert inputs.mask.tolist() == [[0, 0, 1, 1]]
    np.testing.assert_allclose(inputs.lag, [[0, 0, np.log1p(5), np.log1p(1)]], rtol=1e-6)


def test_unknown_items_are_left_out_before_the_window_is_cut() -> None:
    inputs = tower_inputs([user((10, 0), (20, 1), (99, 2))], np.array([3]), CATALOGUE, window=2)
    assert inputs.rows.tolist() == [[0, 1]]


def test_an_empty_history_and_an_empty_catalogue_are_all_padding() -> None:
    for catalogue in (CATALOGUE, np.empty(0, np.int64)):
        inputs = tower_inputs([user(), user((10, 0))], np.array([1, 1]), catalogue, window=2)
        assert inputs.rows[0].tolist() == [-1, -1]
        assert not inputs.mask[0].any()


def test_positives_are_the_effective_views() -> None:
    kept = positives(np.array([1, 2, 3]), np.array([4, 5, 6]), np.array([True, False, True]))
    assert kept.item_ids.tolist() == [1, 3]
    assert kept.times_ms.tolist() == [4, 6]


@given(st.lists(st.integers(1, 50), unique=True), st.lists(st.integers(1, 50)))
def test_rows_point_at_the_ids_they_were_asked_for(catalogue: list[int], wanted: list[int]) -> None:
    ids = np.array(sorted(catalogue), np.int64)
    for asked, row in zip(wanted, rows_of(np.array(wanted, np.int64), ids).tolist(), strict=True):
        assert (row == -1) == (asked not in catalogue)
        assert row == -1 or ids[row] == asked


def test_padding_gathers_zeros() -> None:
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert gather(np.array([[-1, 3]]), vectors).tolist() == [[[0, 0], [6, 7]]]


def test_noise_is_a_function_of_user_and_snapshot() -> None:
    one = sampling_noise(5, 7, (3, 2))
    assert np.array_equal(one, sampling_noise(5, 7, (3, 2)))
    assert not np.array_equal(one, sampling_noise(6, 7, (3, 2)))
    assert not np.array_equal(one, sampling_noise(5, 8, (3, 2)))


@pytest.mark.parametrize("wait_ms", [0, 999, 12_345, 3_600_000, 30 * 86_400_000])
def test_the_moment_is_the_wait_to_within_a_hundredth_of_its_logarithm(wait_ms: int) -> None:
    last = Positives(np.array([1]), np.array([10**12]))
    rounded_ms = moment_of(last, 10**12 + wait_ms) - 10**12
    assert abs(np.log1p(rounded_ms / 1000) - np.log1p(wait_ms / 1000)) <= 1 / 128 + 1e-3
