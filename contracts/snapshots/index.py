"""The index of a snapshot: how the items with the largest inner products are found.

A small catalogue is searched exactly, over the item vectors that the snapshot has anyway, so there is nothing to write
and the index is empty, b"". A larger one is cut into lists (IVF-Flat: k-means of the items' directions), of which a
search visits those nearest to the query. The index is then, as the bytes of an .npz file,

    centroids (L, d) float32; lists (N,) int32, the list of each item
    queries (Q, d) float32, user vectors; recall (), what is wanted of them
    nprobes (D,) int32: lists to visit so that so many (`DEPTHS`) items are found; 0: exactly, as this costs no more

Item vectors are not in it twice. A delta puts what it brings into the lists that are there, and the number of visits
is derived anew by the same queries, which are for the tower that a delta is served with. So the wanted recall holds for
any mixture of old and new; where the lists no longer fit, the search is exact until the next full snapshot.
"""

import math
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from contracts.features import Floats, Ints, rows_of
from contracts.runtime import arrays

EXACT = b""
EXACT_BELOW = 100_000  # items; half as many are searched in 0.2 ms (measured, as are the next three)
QUERIES = 256  # by which the recall is measured
QUERIES_OF_UPDATE = 64  # the same of a delta, which replicas apply while they answer; with fewer the margin is wider
MARGIN = 2  # standard errors by which the measured recall must be above what is wanted: other users ask, too
DEPTHS = (100, 200, 400, 800)  # items asked for, with those that the user has seen; deeper searches are exact
WORTH = 0.2  # share of the items that a search may look at: at more, an exact one of a batch is as fast
LISTS = 3.0  # by √N; with more of them a search is no faster, and making them takes longer
SAMPLE, ROUNDS = 39, 5  # of k-means: items a list, iterations; six times the work finds no better lists
SCORES_AT_ONCE = 1 << 21  # of an exact search: what is reused from batch to batch costs no fresh pages
GPU_DEPTH = 2048  # Faiss searches no deeper there


KINDS = {"centroids": "<f4", "lists": "<i4", "queries": "<f4", "recall": "<f8", "nprobes": "<i4"}


class _Lists(NamedTuple):
    """See the top."""

    centroids: Floats
    lists: npt.NDArray[np.int32]
    queries: Floats
    recall: npt.NDArray[np.float64]
    nprobes: npt.NDArray[np.int32]


def build(
    vectors: Floats, queries: Floats, *, seed: int, exact_below: int = EXACT_BELOW, recall: float = 0.99
) -> bytes:
    """The index of item vectors; a function of its arguments, whatever the number of threads.

    Args:
        vectors: (N, d)
        queries: (Q, d) user vectors that are typical, the first `QUERIES` of them count; where there are fewer, items
            that have been moved about stand in for users.
        seed: of k-means and of the stand-ins.
        exact_below: so many items are searched exactly.
        recall: wanted mean share of the best items that a search finds.

    """
    # K-means can't take what is no number; the gate doesn't pass such vectors.
    if len(vectors) < max(exact_below, 1) or not np.isfinite(vectors).all():
        return EXACT
    queries = queries[np.isfinite(queries).all(1)][:QUERIES]
    queries = np.concatenate((queries, _stand_ins(vectors, QUERIES - len(queries), seed)))
    with threadpool_limits(1):
        centroids = _centroids(vectors, seed)
        trained = _Lists(
            centroids, _nearest(vectors, centroids), queries, np.array(recall), np.zeros(len(DEPTHS), np.int32)
        )
        trained = trained._replace(nprobes=_nprobes(trained, vectors))
    return _written(trained) if trained.nprobes.any() else EXACT


def updated(index: bytes, before: Ints, ids: Ints, vectors: Floats, touched: Ints) -> bytes:
    """The index after changes: what is new or has moved goes to its nearest list, nothing is trained.

    It depends on where the items are now, not on the steps in which they came there.

    Args:
        index: of the items `before`.
        before: (M,) sorted.
        ids: (N,) sorted; with the next one, what is there now.
        vectors: (N, d)
        touched: (T,) items whose vectors may be others than before; they may be gone.

    Raises:
        ValueError: it is that of other items, or cannot be read.

    """
    if not index:
        return EXACT
    stored = _read_for(index, len(before), vectors)
    lists = np.full(len(ids), -1, np.int32)
    rows = rows_of(ids, before)
    lists[rows >= 0] = stored.lists[rows[rows >= 0]]
    rows = rows_of(touched, ids)
    lists[rows[rows >= 0]] = -1
    lists[lists < 0] = _nearest(vectors[lists < 0], stored.centroids)
    stored = stored._replace(lists=lists)
    fewer = stored._replace(queries=stored.queries[:QUERIES_OF_UPDATE])
    return _written(stored._replace(nprobes=_nprobes(fewer, vectors)))


def exact(queries: Floats, vectors: Floats, k: int) -> tuple[Floats, Ints]:
    """The k rows of `vectors` (N, d) with the largest inner products with each query (B, d), best first.

    Returns:
        scores (B, k) and rows (B, k); where there are no more, or the scores are no numbers, the row is -1.

    """
    # For a batch this is twice as fast as Faiss over a flat index, and needs no copy of the vectors.
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    width = min(k, len(vectors))
    if not width:
        return scores, rows
    step = max(SCORES_AT_ONCE // len(vectors), 1)
    for start in range(0, len(queries), step):
        every = queries[start : start + step] @ vectors.T
        best = np.argpartition(every, -width, axis=1)[:, -width:]
        if np.isnan(np.take_along_axis(every, best, 1)).any():  # they sort as the largest
            every[np.isnan(every)] = -np.inf
            best = np.argpartition(every, -width, axis=1)[:, -width:]
        of_best = np.take_along_axis(every, best, 1)
        order = np.lexsort((best, -of_best), axis=1)
        of_best, best = np.take_along_axis(of_best, order, 1), np.take_along_axis(best, order, 1)
        scores[start : start + step, :width] = of_best
        rows[start : start + step, :width] = np.where(of_best > -np.inf, best, -1)
    return scores, rows


class Index:
    """An index, loaded: answers searches and never changes, so threads may share it.

    Where Faiss has a GPU (the extra `gpu`), it is moved there, in full precision. That has never been run.
    """

    def __init__(self, item_ids: Ints, item_vectors: Floats, lists: _Lists | None) -> None:
        self._ids, self._vectors, self._lists = item_ids, item_vectors, lists
        self._nprobes = lists.nprobes.tolist() if lists else []
        self._flat = _placed(_flat(item_vectors)) if faiss.get_num_gpus() else None
        self._ivf = _placed(_filled(item_ids, item_vectors, lists)) if lists and any(self._nprobes) else None

    @classmethod
    def load(cls, index: bytes, item_ids: Ints, item_vectors: Floats) -> "Index":
        """The index of a snapshot, with its items: (N,) and (N, d).

        Raises:
            ValueError: it is that of other items.

        """
        lists = _read_for(index, len(item_ids), item_vectors) if index else None
        return cls(item_ids, item_vectors, lists)

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        """The k items with the largest inner products with each query (B, d), best first.

        Returns:
            scores (B, k) and item ids (B, k), -1 where there are no more items.

        """
        nprobe = self._nprobe(k)
        if not nprobe or self._ivf is None:
            return self._exactly(queries, k)
        how = faiss.SearchParametersIVF()
        how.nprobe = nprobe
        scores, ids = self._ivf.search(queries, k, params=how)
        short = ids[:, -1] < 0  # so few items lie in the lists of this query
        if short.any():
            scores[short], ids[short] = self._exactly(queries[short], k)
        return scores, ids

    def describe(self) -> str:
        """What it is in a few words, such as "flat", or "ivf632, nprobe 69", where the latter finds 100 items."""
        nprobe = self._nprobe(DEPTHS[0])
        return f"ivf{len(self._lists.centroids)}, nprobe {nprobe}" if self._lists and nprobe else "flat"

    def _nprobe(self, k: int) -> int:
        return next((nprobe for depth, nprobe in zip(DEPTHS, self._nprobes, strict=False) if k <= depth), 0)

    def _exactly(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        if self._flat is not None and k <= GPU_DEPTH:
            scores, rows = self._flat.search(queries, k)
        else:
            scores, rows = exact(queries, self._vectors, k)
        ids = np.full(rows.shape, -1, np.int64)
        ids[rows >= 0] = self._ids[rows[rows >= 0]]
        return scores, ids


def _centroids(vectors: Floats, seed: int) -> Floats:
    """K-means of directions, (L, d), each of length 1."""
    lists = min(max(round(LISTS * math.sqrt(len(vectors))), 1), len(vectors))
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        lists,
        niter=ROUNDS,
        seed=seed % 2**31,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE,
    )
    kmeans.train(vectors)
    return np.asarray(kmeans.centroids, np.float32)


def _nearest(vectors: Floats, centroids: Floats) -> npt.NDArray[np.int32]:
    """The list of each vector; (N, d) give (N,)."""
    if not len(vectors):
        return np.empty(0, np.int32)
    _, nearest = faiss.knn(np.ascontiguousarray(vectors), centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)
    lists: npt.NDArray[np.int32] = np.maximum(nearest[:, 0], 0).astype(np.int32)  # a vector that is no number has none
    return lists


def _nprobes(trained: _Lists, vectors: Floats) -> npt.NDArray[np.int32]:
    """The smallest numbers of visits with the wanted recall at each depth; 0 where they are not worth it.

    An inner product in a list is exact, so what a search misses is what lies in lists that it does not visit: where
    the best items lie in each query's order of visits gives the recall of every number of visits at once.
    """
    nprobes = np.zeros(len(DEPTHS), np.int32)
    if not len(vectors):
        return nprobes
    _, best = exact(trained.queries, vectors, min(DEPTHS[-1], len(vectors)))
    order = np.argsort(-(trained.queries @ trained.centroids.T), axis=1, kind="stable")
    visit = np.argsort(order, axis=1)  # of each list, from 0
    looked_at = np.bincount(trained.lists, minlength=len(trained.centroids))[order].cumsum(1).mean(0) / len(vectors)
    affordable = looked_at <= WORTH
    queries, count = visit.shape
    cell = np.arange(queries)[:, None] * count + np.take_along_axis(visit, trained.lists[best], 1)  # (query, visit)
    for at, depth in enumerate(DEPTHS):
        hits = np.bincount(cell[:, :depth].ravel(), minlength=visit.size).reshape(visit.shape).cumsum(1)
        recall = hits / min(depth, len(vectors))
        enough = recall.mean(0) - MARGIN * recall.std(0) / math.sqrt(queries) >= trained.recall
        if (enough & affordable).any():
            nprobes[at] = enough.argmax() + 1
    return nprobes


def _stand_ins(vectors: Floats, count: int, seed: int) -> Floats:
    """Queries (count, d) where there are no users: items, each moved by half of a usual item's length."""
    random = np.random.default_rng(seed)
    rows = random.choice(len(vectors), count)
    noise = random.standard_normal((count, vectors.shape[1]), np.float32)
    return vectors[rows] + np.float32(vectors.std() / 2) * noise


def _filled(item_ids: Ints, item_vectors: Floats, lists: _Lists) -> Any:
    """The lists as a Faiss index that answers with item ids."""
    count, dim = lists.centroids.shape
    index = faiss.IndexIVFFlat(_flat(lists.centroids), dim, count, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    vectors, ids, into = np.ascontiguousarray(item_vectors), item_ids, lists.lists.astype(np.int64)
    index.add_core(len(ids), faiss.swig_ptr(vectors), faiss.swig_ptr(ids), faiss.swig_ptr(into))
    return index


def _flat(vectors: Floats) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    return index


def _placed(index: Any) -> Any:
    return faiss.index_cpu_to_gpu(_gpu(), 0, index) if faiss.get_num_gpus() else index


@cache
def _gpu() -> Any:
    """What all indexes of a process share of the GPU."""
    return faiss.StandardGpuResources()


def _written(lists: _Lists) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, **lists._asdict())
    return buffer.getvalue()


def _read_for(index: bytes, items: int, vectors: Floats) -> _Lists:
    """The index of so many items, whose vectors have the width of these."""
    lists = _read(index)
    if len(lists.lists) != items or lists.centroids.shape[1:] != vectors.shape[1:]:
        raise ValueError("the index does not fit the item vectors")
    return lists


def _read(index: bytes) -> _Lists:
    stored = arrays.unzip(index)
    if stored.keys() != set(_Lists._fields):
        raise ValueError("the index has other arrays than this build reads")
    lists = _Lists(**stored)
    count = len(lists.centroids) if lists.centroids.ndim == 2 else 0
    if (
        any(stored[name].dtype != kind for name, kind in KINDS.items())
        or (lists.lists.ndim, lists.queries.ndim, lists.recall.shape) != (1, 2, ())
        or lists.nprobes.shape != (len(DEPTHS),)
        or lists.queries.shape[1:] != lists.centroids.shape[1:]
        or not count
        or (lists.lists.size and not 0 <= lists.lists.min() <= lists.lists.max() < count)
        or not 0 <= lists.nprobes.min() <= lists.nprobes.max() <= count
    ):
        raise ValueError("the arrays of the index do not fit each other")
    return lists
