"""A snapshot made ready to answer: its tower, its vectors and its index, as one object that never changes.

A request is answered by one `LoadedModel`, so that tower and index cannot be of different snapshots.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from contracts.features import Floats, Ints, Positives, gather, moment_of, rows_of, tower_inputs
from contracts.snapshots import canary, delta
from contracts.snapshots.canary import Canary
from contracts.snapshots.delta import Delta
from contracts.snapshots.index import Index
from contracts.snapshots.snapshot import Manifest, Snapshot
from contracts.snapshots.tower import Tower

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

    def __init__(self, snapshot: Snapshot, kept_vectors: int = 0, tower: Tower | None = None) -> None:
        self._tower = tower or Tower.of(snapshot)
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
        """Another one, with the deltas that follow; both run the same tower, for a delta has its base's.

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
            candidates = _allowed(want, self._item_ids[rows].tolist(), self._counts[rows].tolist(), None)
            if len(candidates.item_ids) == want.k or reach >= self.items:
                return candidates
            reach *= WIDEN

    def unseen(self, want: Want) -> Ints:
        """The rows of all items that the user has not seen, (M,); hidden ones are among them."""
        unseen = np.ones(self.items, bool)
        seen = rows_of(np.fromiter(want.seen, np.int64, len(want.seen)), self._item_ids)
        unseen[seen[seen >= 0]] = False
        return np.flatnonzero(unseen)

    def scored(self, rows: Ints, user_vector: Floats | None) -> Candidates:
        """Items by their rows, in that order, with the scores that `recall`, or without a vector `popular`, gives."""
        scores = self._counts[rows] if user_vector is None else self._vectors[rows] @ user_vector
        return Candidates(self._item_ids[rows].tolist(), scores.tolist(), user_vector)

    def user_vectors(self, wants: Sequence[Want]) -> Floats:
        """The users' vectors, (B, d): a function of the snapshot, the user's row and the moment of the request."""
        vectors: list[Floats | None] = []
        keys: list[tuple[int, int, int]] = []
        moments = np.empty(len(wants), np.int64)
        for i, want in enumerate(wants):
            moments[i] = moment_of(want.positives, want.now_ms)
            keys.append((want.user_id, want.row_version, int(moments[i])))
            vectors.append(self._kept.get(keys[i]) if want.row_version != NOTHING_KEPT else None)
        missing = [i for i, vector in enumerate(vectors) if vector is None]
        if missing:
            computed = self._run([wants[i] for i in missing], moments[missing])
            for i, vector in zip(missing, computed, strict=True):
                vectors[i] = vector
                if self._kept_vectors and wants[i].row_version != NOTHING_KEPT:
                    self._kept[keys[i]] = vector
            while len(self._kept) > self._kept_vectors:
                self._kept.popitem(last=False)
        out: Floats = np.stack([vector for vector in vectors if vector is not None])
        return out

    def warm_up(self, recorded: Sequence[Want], batch: int) -> None:
        """Answer some requests whose answers nobody waits for, so that the first real one is as fast as the rest."""
        nobody = Want(1, Positives(np.empty(0, np.int64), np.empty(0, np.int64)), NOTHING_KEPT, 0, 10, ())
        samples = [want._replace(row_version=NOTHING_KEPT) for want in recorded] or [nobody]
        for size in (1, batch):
            self.recall((samples * batch)[:size])

    def _run(self, wants: Sequence[Want], moments: Ints) -> Floats:
        self.vectors_made += len(wants)
        inputs = tower_inputs([want.positives for want in wants], moments, self._item_ids, self.manifest.window)
        sequence = gather(inputs.rows, self._vectors)
        return self._tower.users(sequence, inputs.mask, inputs.lag, [want.user_id for want in wants])

    def _nearest(self, vectors: Floats, wants: Sequence[Want]) -> list[Candidates]:
        # What a user has seen is filtered after the search. Most of it is not among the nearest, so a search goes about
        # twice as far as k, and farther only for those whom that leaves short.
        reach = max(want.k + min(len(want.seen), want.k) for want in wants)
        candidates: list[Candidates] = [Candidates((), (), None)] * len(wants)
        short = list(range(len(wants)))
        while short:
            reach = min(reach, self.items)
            scores, ids = self._index.search(np.ascontiguousarray(vectors[short]), reach)
            for i, of_ids, of_scores in zip(short, ids.tolist(), scores.tolist(), strict=True):
                candidates[i] = _allowed(wants[i], of_ids, of_scores, vectors[i])
            short = [i for i in short if len(candidates[i].item_ids) < wants[i].k] if reach < self.items else []
            reach *= WIDEN
        return candidates


class OnTrial(NamedTuple):
    """A snapshot that answers some requests, ready for them, and which requests these are."""

    model: LoadedModel
    canary: Canary

    def answers(self, user_id: int, time_ms: int) -> bool:
        """Whether it answers a user's request at an event time."""
        return canary.answers(self.model.manifest.model, self.canary, user_id, time_ms)


def _allowed(want: Want, ids: Sequence[int], scores: Sequence[float], vector: Floats | None) -> Candidates:
    """The first k of what was found that may be returned; -1 is no item."""
    seen, hidden = want.seen, want.hidden
    places = [place for place, item in enumerate(ids) if item not in seen and item >= 0]
    if hidden:
        places = [place for place in places if not hidden(ids[place])]
    places = places[: want.k]
    return Candidates([ids[place] for place in places], [scores[place] for place in places], vector)
