from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from abtest.read.spill import PIECES, USER, Pieces, by_piece, in_order, piece_of


@pytest.fixture
def records():
    records = np.zeros(500, [(USER, "<i8"), ("views", "<f8")])
    records[USER] = np.random.default_rng(1).integers(-100, 100, 500)
    records["views"] = np.arange(500)
    return records


def test_all_rows_of_a_user_come_together_again_and_none_is_lost(records):
    with Pieces(records.dtype) as pieces:
        for batch in np.split(records, 5):
            pieces.write(*by_piece(batch))
        groups = list(pieces.groups(100))
        parts = [pieces.piece(group) for group in groups]
    assert [piece for group in groups for piece in group] == list(range(PIECES))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)["views"]), records["views"])
    users = [set(part[USER].tolist()) for part in parts]
    assert sum(map(len, users)) == len(set().union(*users))


def test_records_are_ordered_by_piece_and_counted(records):
    ordered, sizes = by_piece(records)
    assert (np.diff(piece_of(ordered[USER]).astype(int)) >= 0).all()
    np.testing.assert_array_equal(sizes, np.bincount(piece_of(records[USER]), minlength=PIECES))


def test_results_come_in_the_order_of_the_items_and_no_more_are_begun_than_stated():
    begun = []
    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, lambda item: begun.append(item) or item, range(10), ahead=3)
        assert next(results) == 0
        assert len(begun) <= 3
        assert list(results) == list(range(1, 10))
