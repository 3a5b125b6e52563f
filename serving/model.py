"""A snapshot made ready to answer: its tower, its vectors and its index, as one object that never changes.

A request is answered by one `LoadedModel`, so that tower and index cannot be of different snapshots.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from contracts.features import Floats, Ints, Positives, gather, sampling_noise, tower_inputs
from contracts.snapshots import delta
from contracts.snapshots.delta import Delta
from contracts.snapshots.index import Index
from contracts.snapshots.snapshot import Manifest, Snapshot

MOMENTS = 64  # to a factor of e: how finely the wait since the last behaviour is told apart
WIDEN = 4  # how much farther a search goes that has not found enough
NOTHING_KEPT = -1

Hidden = Callable[[int], bool]


class Want(NamedTuple):
    """What one request wants of one model."""

    user_id: int
    positives: Positives
    row_version: int  # of the user's row; with user and moment it decides the vector. NOTHING_KEPT: not to be kept
    now_ms: int
    k: int
    seen: Collection[int]  # items that are not to be returned
    hidden: Hidden | None = None  # the same of items that nobody gets any more


class Candidates(NamedTuple):
    """At most k items, best first, with their scores, and the user vector (d,) that found them; None: none did."""

    item_ids: Sequence[int]
    scores: Sequence[float]
    user_vector: Floats | None


class LoadedModel:
    """One snapshot, ready to answer. Its answers are for one thread at a time.

    Raises:
        RuntimeError: the tower cannot be loaded.
        ValueError: the index cannot be.

    """

    def __init__(
        self, snapshot: Snapshot, kept_vectors: int = 0, tower: onnxruntime.InferenceSession | None = None
    ) -> None:
        self._tower = tower or _session(snapshot.tower)
        self._wanted = {entry.name for entry in self._tower.get_inputs()}
        self._index = Index.load(snapshot.index, snapshot.item_ids, snapshot.item_vectors)
        self._item_ids = snapshot.item_ids
        self._vectors = snapshot.item_vectors
        self._popular = np.argsort(-snapshot.item_counts, kind="stable")
        self._counts = snapshot.item_counts
        self._snapshot = snapshot  # what deltas are applied to
        self._kept: OrderedDict[tuple[int, int, int], Floats] = OrderedDict()
        self._kept_vectors = kept_vectors
        self.manifest: Manifest = snapshot.manifest
        self.vectors_made = 0

    def updated(self, deltas: Sequence[Delta]) -> "LoadedModel":
        """Another one, with the deltas that follow; both run the same session, for a delta has its base's tower.

        Raises:
            GapError: they don't follow.

        """
        return LoadedModel(delta.apply(self._snapshot, *deltas), self._kept_vectors, self._tower)

    @property
    def items(self) -> int:
        """How many items the catalogue of this snapshot has."""
        return int(self._item_ids.size)

    @property
    def index(self) -> str:
        """How its items are searched."""
        return self._index.describe()

    def recall(self, wants: Sequence[Want]) -> list[Candidates]:
        """For each the k items nearest to the user's vector that may be returned; fewer only where there are none."""
        if not wants or not self.items:
            return [Candidates((), (), None) for _ in wants]
        vectors = self.user_vectors(wants)
        return self._nearest(vectors, wants)

    def popular(self, want: Want) -> Candidates:
        """The k items with the most positives that may be returned."""
        reach = want.k + len(want.seen)
        while True:
            rows = self._popular[:reach]
            found = _allowed(want, self._item_ids[rows].tolist(), self._counts[rows].tolist(), None)
            if len(found.item_ids) == want.k or reach >= self.items:
                return found
            reach *= WIDEN

    def user_vectors(self, wants: Sequence[Want]) -> Floats:
        """The users' vectors, (B, d): a function of the snapshot, the user's row and the moment of the request."""
        found: list[Floats | None] = []
        keys: list[tuple[int, int, int]] = []
        moments = np.empty(len(wants), np.int64)
        for i, want in enumerate(wants):
            moments[i] = moment_of(want.positives, want.now_ms)
            keys.append((want.user_id, want.row_version, int(moments[i])))
            found.append(self._kept.get(keys[i]) if want.row_version != NOTHING_KEPT else None)
        missing = [i for i, vector in enumerate(found) if vector is None]
        if missing:
            made = self._run([wants[i] for i in missing], moments[missing])
            for i, vector in zip(missing, made, strict=True):
                found[i] = vector
                if self._kept_vectors and wants[i].row_version != NOTHING_KEPT:
                    self._kept[keys[i]] = vector
            while len(self._kept) > self._kept_vectors:
                self._kept.popitem(last=False)
        out: Floats = np.stack([vector for vector in found if vector is not None])
        return out

    def warm_up(self, recorded: Sequence[Want], batch: int) -> None:
        """Answer some requests whose answers nobody waits for, so that the first real one is as fast as the rest."""
        nobody = Want(1, Positives(np.empty(0, np.int64), np.empty(0, np.int64)), NOTHING_KEPT, 0, 10, ())
        samples = [want._replace(row_version=NOTHING_KEPT) for want in recorded] or [nobody]
        for size in (1, batch):
            self.recall((samples * batch)[:size])

    def _run(self, wants: Sequence[Want], moments: Ints) -> Floats:
        self.vectors_made += len(wants)
        manifest = self.manifest
        inputs = tower_inputs([want.positives for want in wants], moments, self._item_ids, manifest.window)
        feed: dict[str, Any] = {
            "sequence": gather(inputs.rows, self._vectors),
            "mask": inputs.mask,
            "lag": inputs.lag,
        }
        if "noise" in self._wanted:
            shape = manifest.noise_shape
            feed["noise"] = np.stack([sampling_noise(want.user_id, manifest.sampling_seed, shape) for want in wants])
        (vectors,) = self._tower.run(["user"], {name: array for name, array in feed.items() if name in self._wanted})
        out: Floats = vectors
        return out

    def _nearest(self, vectors: Floats, wants: Sequence[Want]) -> list[Candidates]:
        # What a user has seen is filtered after the search. Most of it is not among the nearest, so a search goes about
        # twice as far as k, and farther only for those whom that leaves short.
        reach = max(want.k + min(len(want.seen), want.k) for want in wants)
        found: list[Candidates] = [Candidates((), (), None)] * len(wants)
        short = list(range(len(wants)))
        while short:
            reach = min(reach, self.items)
            scores, ids = self._index.search(np.ascontiguousarray(vectors[short]), reach)
            for i, of_ids, of_scores in zip(short, ids.tolist(), scores.tolist(), strict=True):
                found[i] = _allowed(wants[i], of_ids, of_scores, vectors[i])
            short = [i for i in short if len(found[i].item_ids) < wants[i].k] if reach < self.items else []
            reach *= WIDEN
        return found


def _allowed(want: Want, ids: Sequence[int], scores: Sequence[float], vector: Floats | None) -> Candidates:
    """The first k of what was found that may be returned; -1 is no item."""
    seen, hidden = want.seen, want.hidden
    places = [place for place, item in enumerate(ids) if item not in seen and item >= 0]
    if hidden:
        places = [place for place in places if not hidden(ids[place])]
    places = places[: want.k]
    return Candidates([ids[place] for place in places], [scores[place] for place in places], vector)


def moment_of(positives: Positives, now_ms: int) -> int:
    """The time that a tower is told instead of the request's: the wait since the last behaviour, rounded to 1.6 %.

    The trainer's towers know time by its logarithm, log1p of seconds; this moves it by at most 1/128. A user who asks
    again soon asks at the same moment, and gets the same vector without the tower's being run.

    >>> last = Positives(np.array([7]), np.array([1_000_000]))
    >>> [moment_of(last, 1_000_000 + ms) for ms in (0, 2_000, 600_000, 603_000)]
    [1000000, 1001985, 1604618, 1604618]
    """
    if not positives.times_ms.size:
        return 0
    last = int(positives.times_ms[-1])
    steps = round(MOMENTS * float(np.log1p(max(now_ms - last, 0) / 1000)))
    return last + round(1000 * float(np.expm1(steps / MOMENTS)))


def _session(tower: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread: replicas scale by processes, and two threads are slower on a tower of this size.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(tower, options, providers=["CPUExecutionProvider"])
