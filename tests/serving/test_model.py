"""One loaded snapshot answers: nearest first, unseen only, k filled."""

from dataclasses import replace

import numpy as np
import pytest

from contracts.features import Positives
from serving.model import LoadedModel
from tests.serving.serving_cases import make_snapshot

NOBODY = np.empty(0, np.int64)


def watched(*items: int) -> Positives:
    return Positives(np.array(items, np.int64), np.zeros(len(items), np.int64))


def test_the_nearest_items_come_first_with_their_inner_products() -> None:
    model = LoadedModel(make_snapshot())
    found = model.recall(1, watched(1), NOBODY, 0, 3)
    assert found.item_ids.tolist() == [1, 2, 3]
    vectors = make_snapshot().item_vectors
    np.testing.assert_allclose(found.scores, vectors[:3] @ found.user_vector, rtol=1e-6)


def test_seen_items_are_left_out_and_k_is_still_filled() -> None:
    found = LoadedModel(make_snapshot()).recall(1, watched(1), np.array([1, 2, 99]), 0, 3)
    assert found.item_ids.tolist() == [3, 4, 5]


def test_a_catalogue_smaller_than_k_is_given_whole() -> None:
    found = LoadedModel(make_snapshot(rows=2)).recall(1, watched(1), np.array([2]), 0, 50)
    assert found.item_ids.tolist() == [1]


def test_popular_items_are_those_watched_most() -> None:
    found = LoadedModel(make_snapshot()).popular(np.array([5]), 3)
    assert found.item_ids.tolist() == [6, 4, 3]
    assert found.scores.tolist() == [6, 4, 3]
    assert found.user_vector is None


def test_an_empty_history_has_a_finite_answer() -> None:
    found = LoadedModel(make_snapshot()).recall(1, watched(), NOBODY, 0, 2)
    assert np.isfinite(found.scores).all()
    assert len(found.item_ids) == 2


def test_warming_up_takes_recorded_requests_or_none() -> None:
    LoadedModel(make_snapshot()).warm_up([(1, watched(2, 3), 0)])
    LoadedModel(make_snapshot(rows=0)).warm_up([])


def test_a_damaged_tower_raises_at_loading() -> None:
    with pytest.raises(Exception, match=r"(?i)protobuf"):
        LoadedModel(replace(make_snapshot(), tower=b"not a graph"))
