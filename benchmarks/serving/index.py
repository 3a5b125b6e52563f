"""Indexes side by side: what they cost to make, to keep and to update, how fast they answer, and what they find.

    python -m benchmarks.serving.index [--items 10000 100000 1000000] [--learned 300] [--hnsw-up-to 100000] [--json]
    python -m benchmarks.serving.index --learned 100 --drift 1 10 50 200

Vectors are `clustered`, as real catalogues are: N items around 2 √N centres, of which few are popular, at .6 of the
centres' deviation, with lengths of a log-normal (σ .25); a user is an item plus .3 of another plus noise. At 100,000
there are also `uniform` ones (standard normal items and users, the worst case), and with `--learned` those that a
two-tower model has come to after so many steps on the crowd of `benchmarks.crowd`, with its users.

Each kind may look as far as gives it a mean recall@100 of .99 over 256 users; the recall that is told is that of 256
others. `exact` and `ours` are contracts/snapshots/index.py, `ours` without its least size: lists or none, as it finds
worth it. The others are Faiss: flat, lists of scalar-quantized vectors (SQ8), and HNSW. `bytes` come on top of the item
vectors, in memory. `update_s` is from a delta of 5 % of the items to an index that answers; where nothing can be moved
or removed, that is to build it again. All is one thread's CPU time.

With `--drift`, what deltas do to `ours` over 100,000 learned items: after so many further steps a delta brings all of
them anew; `recall` is that of the users of the first tower, which deltas are served with, and `recall_without` what it
would be if the number of visits had stayed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import faiss
import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.crowd import Crowd, catalogue, dated, examples
from contracts.config.settings import ModelName, ModelSettings, TrainerSettings
from contracts.features import Floats, Ints
from contracts.snapshots import index
from contracts.snapshots.index import Index
from trainer.data.batches import Batch, encode
from trainer.data.catalogue import Catalogue
from trainer.gate.served_model import Served
from trainer.learn.learner import Learner
from trainer.publish.onnx_export import TowerTemplate
from trainer.publish.snapshots import manifest_of, snapshot_of

DIM, K, RECALL = 64, 100, 0.99
USERS = 256  # to be measured by, and as many others
TOUCHED = 0.05
AT = 100_000  # items of the other vectors
HNSW_LINKS, HNSW_BEAM = 32, 80

MODELS: tuple[ModelName, ...] = ("two_tower", "t2diff")

T = TypeVar("T")
Search = Callable[[Floats, int], tuple[Floats, Ints]]


class Vectors(NamedTuple):
    """What is searched for whom."""

    kind: str
    items: Floats  # (N, d)
    users: Floats  # (2 · USERS, d)


@dataclass
class Row:
    """One index over some vectors."""

    vectors: str
    items: int
    index: str
    build_s: float
    bytes: int
    us_alone: float  # a query, of batches of one
    us_in_16: float
    recall: float
    update_s: float


def clustered(items: int, dim: int = DIM) -> Vectors:
    """See the top."""
    random = np.random.default_rng(0)
    count = round(2 * items**0.5)
    popularity = np.arange(1, count + 1) ** -0.7
    centres = random.standard_normal((count, dim), np.float32)
    cluster_of = random.choice(count, items, p=popularity / popularity.sum())
    vectors = centres[cluster_of] + np.float32(0.6) * random.standard_normal((items, dim), np.float32)
    vectors *= random.lognormal(0, 0.25, (items, 1)).astype(np.float32)
    one, other = random.choice(items, (2, 2 * USERS))
    noise = random.standard_normal((2 * USERS, dim), np.float32)
    return Vectors("clustered", vectors, vectors[one] + np.float32(0.3) * (vectors[other] + noise))


def uniform(items: int) -> Vectors:
    """See the top."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((items + 2 * USERS, DIM), np.float32)
    return Vectors("uniform", vectors[:items], vectors[items:])


class Learned:
    """A learner on the crowd, and users who ask its first tower, as they do while deltas are served."""

    def __init__(self, model: ModelName, items: int, steps: int) -> None:
        torch.set_num_threads(1)
        crowd = Crowd(items=items)
        self._known = Catalogue()
        for item in catalogue(crowd):
            self._known.put(item.item_id, item.category_ids)
        self._settings = TrainerSettings(model=ModelSettings(dim=DIM), softmax="sampled")
        self._learner = Learner(model, self._settings, 0, torch.device("cpu"))
        self._learner.follow(self._known)
        self._coming = (dated(example, 10**12) for example in examples(crowd))
        self.learn(steps)
        template = TowerTemplate(self._learner.model.encoder, DIM, self._settings.model.window)
        snapshot = snapshot_of(self._learner, self._known, template, manifest_of(self._learner, 1))
        self.users = Served.of(snapshot, torch.device("cpu")).users(self._next(2 * USERS), self._known)

    def learn(self, steps: int) -> None:
        """Take so many batches."""
        for _ in range(steps):
            self._learner.learn(self._next(self._settings.model.batch_size))

    def vectors(self) -> Floats:
        """The items', now."""
        return self._learner.item_vectors(self._known)

    def _next(self, count: int) -> Batch:
        return encode([*islice(self._coming, count)], self._known, self._settings.model.window)


def learned(items: int, steps: int) -> Vectors:
    """See the top."""
    model = Learned("two_tower", items, steps)
    return Vectors(f"learned ({steps} steps)", model.vectors(), model.users)


def drifted(items: int, steps: int, further: list[int]) -> Iterator[dict[str, Any]]:
    """What an index still finds when a delta brings nearly all items from so many steps further."""
    for model in MODELS:
        learned_model = Learned(model, items, steps)
        first, ids, queries = learned_model.vectors(), np.arange(items), learned_model.users[USERS:]
        base = index.build(first, learned_model.users[:USERS], seed=0, exact_below=0)
        at = 0
        for step in further:
            learned_model.learn(step - at)
            at, now = step, learned_model.vectors()
            content, update_s = spent(partial(index.updated, base, ids, ids, now, ids))
            truth = index.exact(queries, now, K)[1]
            lengths = np.linalg.norm(first, axis=1)
            after, without_visits = Index.load(content, ids, now), Index.load(with_visits_of(base, content), ids, now)
            yield {
                "model": model,
                "steps": step,
                "moved": float(np.median(np.linalg.norm(now - first, axis=1) / lengths)),
                "before": Index.load(base, ids, first).describe(),
                "after": after.describe(),
                "recall": overlap(after.search(queries, K)[1], truth),
                "recall_without": overlap(without_visits.search(queries, K)[1], truth),
                "update_s": update_s,
            }


def with_visits_of(base: bytes, content: bytes) -> bytes:
    """An index that visits as many lists as its base did."""
    with np.load(BytesIO(base), allow_pickle=False) as old, np.load(BytesIO(content), allow_pickle=False) as new:
        buffer = BytesIO()
        np.savez(buffer, **{**new, "nprobes": old["nprobes"]})
    return buffer.getvalue()


def measured(vectors: Vectors, hnsw_up_to: int) -> Iterator[Row]:
    """A row an index."""
    items, users = vectors.items, vectors.users[:USERS]
    ids = np.arange(len(items))
    moved = np.sort(np.random.default_rng(1).choice(ids, round(TOUCHED * len(ids)), replace=False))
    after = items.copy()
    after[moved] += np.float32(0.1) * items.std()

    def row(name: str, search: Search, build_s: float, size: int, update_s: float) -> Row:
        truth = index.exact(vectors.users[USERS:], items, K)[1]
        recall = overlap(search(vectors.users[USERS:], K)[1], truth)
        return Row(
            vectors.kind,
            len(items),
            name,
            build_s,
            size,
            timed(search, users, 1),
            timed(search, users, 16),
            recall,
            update_s,
        )

    yield row("exact", Index.load(index.EXACT, ids, items).search, 0.0, 0, 0.0)
    flat, build_s = spent(lambda: filled(faiss.IndexFlatIP(DIM), items))
    yield row("Faiss flat", flat.search, build_s, items.nbytes, build_s)

    content, build_s = spent(lambda: index.build(items, users, seed=0, exact_below=0))
    ours = Index.load(content, ids, items)
    _, update_s = spent(lambda: Index.load(index.updated(content, ids, ids, after, moved), ids, after))
    yield row(f"ours: {ours.describe()}", ours.search, build_s, len(content) + bool(content) * items.nbytes, update_s)

    truth = index.exact(users, items, K)[1]
    sq8, build_s = spent(lambda: quantized(items))
    effort = least(sq8, sq8, "nprobe", users, truth, sq8.nlist)

    def replaced() -> None:
        sq8.remove_ids(moved)
        sq8.add_with_ids(after[moved], moved)

    size = len(faiss.serialize_index(sq8))
    before = row(f"SQ8 ivf{sq8.nlist}, nprobe {effort}", sq8.search, build_s, size, 0.0)
    yield replace(before, update_s=spent(replaced)[1])

    if len(items) <= hnsw_up_to:
        hnsw = faiss.IndexHNSWFlat(DIM, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        hnsw.hnsw.efConstruction = HNSW_BEAM
        _, build_s = spent(lambda: filled(hnsw, items))
        effort = least(hnsw, hnsw.hnsw, "efSearch", users, truth, 2**11)
        size = len(faiss.serialize_index(hnsw))
        yield row(f"HNSW{HNSW_LINKS}, efSearch {effort}", hnsw.search, build_s, size, build_s)


def quantized(items: Floats) -> Any:
    """SQ8 lists, made as `contracts.snapshots.index` makes its own."""
    lists = round(index.LISTS * len(items) ** 0.5)
    ivf = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(DIM), DIM, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    ivf.cp.niter, ivf.cp.max_points_per_centroid, ivf.cp.min_points_per_centroid = index.ROUNDS, index.SAMPLE, 1
    ivf.train(items)
    return filled(ivf, items)


def filled(empty: Any, items: Floats) -> Any:
    """The same Faiss index, with the items in it."""
    empty.add(items)
    return empty


def least(lists: Any, holder: Any, name: str, users: Floats, truth: Ints, most: int) -> int:
    """Set the smallest effort, an attribute of `holder`, that finds enough; `most`, if none does."""

    def enough(value: int) -> bool:
        setattr(holder, name, value)
        return overlap(lists.search(users, K)[1], truth) >= RECALL

    low, high = 0, 1
    while high < most and not enough(high):
        low, high = high, min(2 * high, most)
    while high - low > max(low // 32, 1):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    enough(high)
    return high


def overlap(returned: Ints, truth: Ints) -> float:
    """Mean share of the truth (B, k) that was found."""
    return float(np.mean([np.isin(wanted, got).mean() for got, wanted in zip(returned, truth, strict=True)]))


def spent(act: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the CPU seconds that it took."""
    began = time.process_time()
    return act(), time.process_time() - began


def timed(search: Search, users: Floats, batch: int) -> float:
    """Microseconds a query, the best of three rounds; a round is 64 queries at least."""
    parts = [users[start : start + batch] for start in range(0, 64 * min(batch, 4), batch)]
    rounds = [spent(lambda: [search(part, K) for part in parts])[1] for _ in range(3)]
    return min(rounds) / len(parts) / batch * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--learned", type=int, default=0, help="steps; 0: no learned vectors")
    parser.add_argument("--hnsw-up-to", type=int, default=100_000, help="items; more take it many minutes")
    parser.add_argument("--drift", type=int, nargs="*", default=[], help="steps after --learned; instead of the rest")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.drift:
        for figures in drifted(AT, options.learned, options.drift):
            sys.stdout.write(f"{json.dumps(figures)}\n")
            sys.stdout.flush()
        return
    for items in options.items:
        kinds = [partial(clustered, items)]
        if items == AT:
            kinds.append(partial(uniform, items))
            if options.learned:
                kinds.append(partial(learned, items, options.learned))
        for make in kinds:
            with threadpool_limits(1):
                for row in measured(make(), options.hnsw_up_to):
                    sys.stdout.write(f"{json.dumps(asdict(row)) if options.json else line(row)}\n")
                    sys.stdout.flush()


def line(row: Row) -> str:
    """For people."""
    return (
        f"{row.vectors:<20} {row.items:>9,} {row.index:<28} build {row.build_s:7.2f} s {row.bytes / 1e6:7.1f} MB  "
        f"alone {row.us_alone:7.0f} us  of 16 {row.us_in_16:7.0f} us  recall {row.recall:.4f}  "
        f"update {row.update_s:6.2f} s"
    )


if __name__ == "__main__":
    main()
