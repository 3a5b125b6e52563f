"""One loaded snapshot answers: nearest first, unseen only, k filled."""

from dataclasses import replace

import numpy as np
import pytest

from contracts.features import Positives
from serving.model import NOTHING_KEPT, Candidates, LoadedModel, Want
from tests.serving.serving_cases import make_snapshot


def watched(*items: int, user_id: int = 1, k: int = 3, seen: tuple[int, ...] = (), version: int = NOTHING_KEPT) -> Want:
    positives = Positives(np.array(items, np.int64), np.zeros(len(items), np.int64))
    return Want(user_id, positives, version, 0, k, seen)


def recall(model: LoadedModel, want: Want) -> Candidates:
    (found,) = model.recall([want])
    return found


def test_the_nearest_items_come_first_with_their_inner_products() -> None:
    found = recall(LoadedModel(make_snapshot()), watched(1))
    assert found.item_ids == [1, 2, 3]
    vectors = make_snapshot().item_vectors
    assert found.user_vector is not None
    np.testing.assert_allclose(found.scores, vectors[:3] @ found.user_vector, rtol=1e-6)


def test_seen_items_are_left_out_and_k_is_still_filled() -> None:
    found = recall(LoadedModel(make_snapshot()), watched(1, seen=(1, 2, 99)))
    assert found.item_ids == [3, 4, 5]


def test_a_search_goes_on_until_k_is_filled() -> None:
    """Whoever has seen nearly everything near is searched for farther away."""
    rows = 500
    nearly_all = tuple(range(1, rows - 3))
    found = recall(LoadedModel(make_snapshot(rows=rows)), watched(1, seen=nearly_all))
    assert found.item_ids == [rows - 3, rows - 2, rows - 1]


def test_what_nobody_gets_any_more_is_left_out_wherever_it_stands() -> None:
    model = LoadedModel(make_snapshot(rows=100))
    want = watched(1)._replace(hidden=lambda item: item < 98)
    assert recall(model, want).item_ids == [98, 99, 100]
    assert model.popular(want).item_ids == [100, 99, 98]


def test_a_catalogue_smaller_than_k_is_given_whole() -> None:
    found = recall(LoadedModel(make_snapshot(rows=2)), watched(1, k=50, seen=(2,)))
    assert found.item_ids == [1]


def test_popular_items_are_those_watched_most() -> None:
    found = LoadedModel(make_snapshot()).popular(watched(seen=(5,)))
    assert found.item_ids == [6, 4, 3]
    assert found.scores == [6, 4, 3]
    assert found.user_vector is None


def test_an_empty_history_has_a_finite_answer() -> None:
    found = recall(LoadedModel(make_snapshot()), watched(k=2))
    assert np.isfinite(found.scores).all()
    assert len(found.item_ids) == 2


def test_a_vector_is_kept_as_long_as_neither_row_nor_moment_nor_snapshot_change() -> None:
    model = LoadedModel(make_snapshot(), kept_vectors=10)
    first = recall(model, watched(1, version=5))
    for same in (watched(1, version=5), watched(1, version=5, k=1)._replace(now_ms=1)):
        assert recall(model, same).scores[0] == first.scores[0]
    assert model.vectors_made == 1
    recall(model, watched(1, 2, version=6))
    recall(model, watched(1, version=5, user_id=2))
    recall(model, watched(1, version=5)._replace(now_ms=60_000))
    assert model.vectors_made == 4, "another row, another user, another moment"
    recall(model, watched(3))
    recall(model, watched(3))
    assert model.vectors_made == 6, "what has no version is not kept"


def test_no_more_vectors_are_kept_than_may_be() -> None:
    model = LoadedModel(make_snapshot(), kept_vectors=2)
    for user_id in (1, 2, 3, 1):
        recall(model, watched(1, version=1, user_id=user_id))
    assert model.vectors_made == 4
    assert len(model._kept) == 2


def test_warming_up_takes_recorded_requests_or_none() -> None:
    LoadedModel(make_snapshot()).warm_up([watched(2, 3)], 4)
    LoadedModel(make_snapshot(rows=0)).warm_up([], 4)


def test_a_damaged_tower_raises_at_loading() -> None:
    with pytest.raises(Exception, match=r"(?i)protobuf"):
        LoadedModel(replace(make_snapshot(), tower=b"not a graph"))
