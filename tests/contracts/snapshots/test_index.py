"""What an index finds, beside what an exact search finds; what it is made of, and what changes do to it."""

from dataclasses import replace

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from contracts.features import Floats, Ints, rows_of
from contracts.snapshots import delta
from contracts.snapshots.delta import Delta
from contracts.snapshots.index import DEPTHS, EXACT, EXACT_BELOW, Index, build, exact, updated
from contracts.snapshots.snapshot import Snapshot, version_name
from tests.contracts.snapshot_cases import make_manifest

ITEMS, DIM = 6000, 16
IDS = 7 * np.arange(1, ITEMS + 1)


def clustered(seed: int = 0, spread: float = 0.3, items: int = ITEMS) -> Floats:
    """Items around the same 60 centres, of several lengths."""
    centres = np.random.default_rng(99).standard_normal((60, DIM), np.float32)
    random = np.random.default_rng(seed)
    around = centres[random.integers(60, size=items)] + spread * random.standard_normal((items, DIM), np.float32)
    return np.float32(around * random.lognormal(0, 0.2, (items, 1)))


def users(seed: int, count: int = 256) -> Floats:
    """Users are near items, as a model that has learned makes them; others than those that an index is built with."""
    return clustered(1000 + seed, 0.4, count)


def uniform(count: int, dim: int = 64, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, dim), np.float32)


def lists_of(vectors: Floats, queries: Floats | None = None) -> bytes:
    """An index with lists, however small the catalogue is."""
    return build(vectors, users(0) if queries is None else queries, seed=0, exact_below=0)


def recall_of(index: Index, ids: Ints, vectors: Floats, queries: Floats, k: int) -> float:
    found = index.search(queries, k)[1]
    best = ids[np.argsort(-(queries @ vectors.T), axis=1)[:, :k]]
    return float(np.mean([np.isin(theirs, mine).mean() for mine, theirs in zip(found, best, strict=True)]))


def test_a_small_catalogue_is_searched_exactly_and_has_no_index() -> None:
    vectors = uniform(EXACT_BELOW - 1, dim=2)
    assert build(vectors, uniform(9, dim=2), seed=0) == EXACT
    index = Index.load(EXACT, np.array([5, 7, 9]), np.float32([[1, 0], [0, 1], [3, 0]]))
    scores, ids = index.search(np.float32([[1, 0.5]]), 3)
    assert (ids.tolist(), scores.tolist()) == ([[9, 5, 7]], [[3, 1, 0.5]])
    assert index.describe() == "flat"


@pytest.mark.parametrize("batch", [1, 16, 40])
@pytest.mark.parametrize("k", [1, 20, 3000])
def test_an_exact_search_finds_what_faiss_finds(batch: int, k: int) -> None:
    vectors, queries = uniform(3000), uniform(batch, seed=1)
    flat = faiss.IndexFlatIP(64)
    flat.add(vectors)
    scores, rows = flat.search(queries, k)
    mine, found = exact(queries, vectors, k)
    np.testing.assert_allclose(mine, scores, atol=1e-4)
    assert (found == rows).mean() > 0.999  # near ties may fall otherwise


@given(st.integers(0, 5), st.integers(0, 3), st.integers(1, 8))
def test_what_is_not_there_is_minus_one(items: int, batch: int, k: int) -> None:
    index = Index.load(EXACT, np.arange(1, items + 1), uniform(items, dim=2))
    scores, ids = index.search(uniform(batch, dim=2), k)
    assert scores.shape == ids.shape == (batch, k)
    assert ((ids == -1) == (np.arange(k) >= items)).all()


def test_vectors_that_are_no_numbers_are_not_found() -> None:
    vectors = np.float32([[1, 0], [np.nan, 1], [2, 0]])
    assert exact(np.float32([[1, 0]]), vectors, 3)[1].tolist() == [[2, 0, -1]]
    assert exact(np.float32([[np.nan, 0]]), vectors, 2)[1].tolist() == [[-1, -1]]
    flawed = clustered()
    flawed[3, 3] = np.nan
    assert lists_of(flawed) == EXACT


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("k", [10, 100, 170])
def test_lists_find_what_is_wanted_for_users_that_they_were_not_measured_by(seed: int, k: int) -> None:
    vectors = clustered(seed)
    index = Index.load(lists_of(vectors, users(seed)), IDS, vectors)
    assert index.describe().startswith("ivf")
    assert recall_of(index, IDS, vectors, users(seed + 10, 2000), k) >= 0.99
    for batch in (users(3)[:1], users(3)):
        scores, ids = index.search(batch, k)
        shown = vectors[rows_of(ids, IDS)]
        np.testing.assert_allclose(scores, np.einsum("bd,bkd->bk", batch, shown), rtol=1e-4, atol=1e-4)


def test_no_more_lists_are_visited_than_needed_for_the_wanted_recall() -> None:
    vectors = clustered()
    nprobes = []
    for wanted in (0.5, 0.9, 0.96, 0.99):
        index = Index.load(build(vectors, users(0), seed=0, exact_below=0, recall=wanted), IDS, vectors)
        nprobes.append(int(index.describe().split()[-1]))
        assert recall_of(index, IDS, vectors, users(0), 100) >= wanted
    assert nprobes == sorted(set(nprobes))
    assert recall_of(index, IDS, vectors, users(0), 100) < 0.997


def test_searches_deeper_than_measured_are_exact_and_lists_that_hold_too_few_are_filled() -> None:
    vectors = clustered()
    index = Index.load(build(vectors, users(0), seed=0, exact_below=0, recall=0.7), IDS, vectors)
    assert recall_of(index, IDS, vectors, users(1), DEPTHS[0]) < 0.95
    assert recall_of(index, IDS, vectors, users(1), DEPTHS[-1] + 1) == 1
    few = np.concatenate((clustered(items=ITEMS - 1), np.zeros((1, DIM), np.float32) + 50))  # a list of its own
    index = Index.load(build(few, users(0), seed=0, exact_below=0, recall=0.1), IDS, few)
    assert (index.search(np.ones((1, DIM), np.float32), DEPTHS[0])[1] > 0).all()


def test_where_lists_cost_as_much_as_an_exact_search_there_are_none() -> None:
    assert build(uniform(4000), uniform(256, seed=1), seed=0, exact_below=0) == EXACT


@pytest.mark.parametrize("items", [0, 1, 2, 30])
def test_tiny_catalogues_can_be_indexed(items: int) -> None:
    vectors = clustered(items=items)
    index = Index.load(lists_of(vectors), np.arange(items), vectors)
    assert recall_of(index, np.arange(items), vectors, users(1), max(items, 1)) >= 0.99 if items else True


def test_without_users_items_stand_in_for_them() -> None:
    vectors = clustered()
    index = Index.load(lists_of(vectors, np.empty((0, DIM), np.float32)), IDS, vectors)
    assert index.describe().startswith("ivf")
    assert recall_of(index, IDS, vectors, users(1), 100) >= 0.98


def test_the_same_items_and_users_give_the_same_bytes() -> None:
    vectors = clustered()
    with threadpool_limits(1):
        alone = lists_of(vectors)
    with threadpool_limits(2):
        assert lists_of(vectors) == alone
    assert build(vectors, users(0), seed=1, exact_below=0) != alone
    assert len(alone) < vectors.nbytes / 2, "the vectors are not in it"


def test_an_index_of_other_items_is_refused() -> None:
    vectors = clustered()
    for ids, others in ((IDS[1:], vectors[1:]), (IDS, vectors[:, 1:])):
        with pytest.raises(ValueError, match="does not fit"):
            Index.load(lists_of(vectors), ids, others)


def changed(seed: int, ids: Ints, vectors: Floats) -> tuple[Ints, Floats, Ints]:
    """Some items go, some come, some move elsewhere; ids, vectors and which items are others than before."""
    random = np.random.default_rng(seed)
    stay = random.random(len(ids)) > 0.2
    fresh = np.setdiff1d(random.integers(1, 8 * ITEMS, 900), ids)
    all_ids = np.concatenate((ids[stay], fresh))
    order = np.argsort(all_ids)
    moved = vectors[stay].copy()
    at = random.random(len(moved)) < random.choice([0.05, 0.9])
    moved[at] = clustered(seed + 50, items=int(at.sum()))
    after = np.concatenate((moved, clustered(seed + 60, items=len(fresh))))
    return all_ids[order], after[order], np.concatenate((ids[stay][at], fresh, ids[~stay]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_after_changes_every_item_is_found_at_once_by_its_own_vector(seed: int) -> None:
    vectors = clustered()
    ids, after, touched = changed(seed, IDS, vectors)
    after /= np.linalg.norm(after, axis=1, keepdims=True)
    before = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Index.load(updated(lists_of(before), IDS, ids, after, np.unique(touched)), ids, after)
    assert index.describe().startswith("ivf")
    for rows in np.array_split(np.arange(len(ids)), 20):
        assert (index.search(after[rows], 1)[1][:, 0] == ids[rows]).mean() == 1
    assert not np.isin(index.search(before[rows_of(np.setdiff1d(IDS, ids), IDS)], 20)[1], np.setdiff1d(IDS, ids)).any()


@settings(max_examples=10)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_changes_one_after_the_other_or_at_once_come_to_the_same(one: int, two: int) -> None:
    vectors = clustered()
    served = base = Snapshot(
        make_manifest("v000001"), b"", IDS, vectors, np.zeros(ITEMS, np.float32), lists_of(vectors)
    )
    base = served = replace(base, manifest=replace(base.manifest, dim=DIM))
    line = []
    for sequence, seed in enumerate((one, two), 1):
        ids, after, _ = changed(seed, served.item_ids, served.item_vectors)
        counts = np.zeros(len(ids), np.float32)
        changes = delta.difference(served.item_ids, served.item_vectors, served.item_counts, ids, after, counts, 0)
        line.append(Delta(replace(base.manifest, version=version_name(1, sequence)), changes))
        served = delta.apply(served, line[-1])
    assert served.index == delta.apply(base, *line).index != base.index
    assert Index.load(served.index, served.item_ids, served.item_vectors).describe().startswith("ivf")


@pytest.mark.parametrize("drift", [0.1, 0.3, 0.6])
def test_the_wanted_recall_holds_after_drift(drift: float) -> None:
    """Nearly all items have moved, by so much of their length, and nothing was trained."""
    vectors = clustered()
    index = lists_of(vectors)
    kept = Index.load(index, IDS, vectors).describe()
    for step in range(3):
        away = uniform(ITEMS, DIM, seed=step) / np.sqrt(DIM) * np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.float32(vectors + drift * away)
        index = updated(index, IDS, IDS, vectors, IDS[: ITEMS * 99 // 100])
    after = Index.load(index, IDS, vectors)
    assert after.describe() != kept, "the number of visits was derived anew"
    assert recall_of(after, IDS, vectors, users(1, 2000), 100) >= 0.99


def test_where_the_lists_no_longer_fit_the_search_is_exact_until_they_do_again() -> None:
    vectors, scattered = clustered(), uniform(ITEMS, DIM)
    index = updated(lists_of(vectors), IDS, IDS, scattered, IDS)
    assert Index.load(index, IDS, scattered).describe() == "flat"
    assert recall_of(Index.load(index, IDS, scattered), IDS, scattered, users(1), 100) == 1
    back = updated(index, IDS, IDS, vectors, IDS)
    assert back == updated(lists_of(vectors), IDS, IDS, vectors, IDS), "where items are counts, not how they came there"


def test_the_last_item_may_go_and_another_come() -> None:
    none, vectors = np.empty(0, np.int64), clustered()
    index = updated(lists_of(vectors), IDS, none, np.empty((0, DIM), np.float32), IDS)
    assert Index.load(index, none, np.empty((0, DIM), np.float32)).search(users(0), 3)[1].max() == -1
    again = updated(index, none, IDS[:1], vectors[:1], IDS[:1])
    assert Index.load(again, IDS[:1], vectors[:1]).search(users(0), 3)[1].tolist() == [[7, -1, -1]] * 256


def test_changes_to_a_catalogue_that_is_searched_exactly_leave_it_so() -> None:
    assert updated(EXACT, IDS, IDS[1:], clustered()[1:], IDS[:9]) == EXACT
