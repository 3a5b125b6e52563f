"""A snapshot made ready to answer: its tower, its vectors and its index, as one object that never changes.

A request takes one `LoadedModel` at its start and answers from it alone, so that tower and index cannot be of
different snapshots.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from contracts import delta
from contracts.delta import Delta
from contracts.features import Floats, Ints, Positives, gather, sampling_noise, tower_inputs
from contracts.index import Index
from contracts.snapshot import Manifest, Snapshot


@dataclass(frozen=True)
class Candidates:
    """Items best first, (m,), and the user vector (d,) that found them; None where none was made."""

    item_ids: Ints
    scores: Floats
    user_vector: Floats | None


class LoadedModel:
    """One snapshot, ready to answer.

    Raises:
        RuntimeError: the tower cannot be loaded.
        ValueError: the index cannot be.

    """

    def __init__(self, snapshot: Snapshot, tower: onnxruntime.InferenceSession | None = None) -> None:
        self._tower = tower or _session(snapshot.tower)
        self._wanted = {entry.name for entry in self._tower.get_inputs()}
        self._index = Index.load(snapshot.index, snapshot.item_ids, snapshot.item_vectors)
        self._item_ids = snapshot.item_ids
        self._vectors = snapshot.item_vectors
        self._popular = np.argsort(-snapshot.item_counts, kind="stable")
        self._counts = snapshot.item_counts
        self._snapshot = snapshot  # what deltas are applied to
        self.manifest: Manifest = snapshot.manifest

    def updated(self, deltas: Sequence[Delta]) -> "LoadedModel":
        """Another one, with the deltas that follow; both run the same session, for a delta has its base's tower.

        Raises:
            GapError: they don't follow.

        """
        return LoadedModel(delta.apply(self._snapshot, *deltas), self._tower)

    @property
    def items(self) -> int:
        """How many items the catalogue of this snapshot has."""
        return int(self._item_ids.size)

    def user_vector(self, user_id: int, positives: Positives, now_ms: int) -> Floats:
        """Run the tower for one user; (d,). The noise is a function of user and snapshot."""
        manifest = self.manifest
        inputs = tower_inputs([positives], np.array([now_ms]), self._item_ids, manifest.window)
        feed: dict[str, Any] = {
            "sequence": gather(inputs.rows, self._vectors),
            "mask": inputs.mask,
            "lag": inputs.lag,
            "noise": sampling_noise(user_id, manifest.sampling_seed, (1, *manifest.noise_shape)),
        }
        (vectors,) = self._tower.run(["user"], {name: array for name, array in feed.items() if name in self._wanted})
        vector: Floats = vectors[0]
        return vector

    def recall(self, user_id: int, positives: Positives, seen: Ints, now_ms: int, k: int) -> Candidates:
        """The k items nearest to the user's vector that the user has not seen."""
        vector = self.user_vector(user_id, positives, now_ms)
        # Seen items are filtered after the search, so that many more are asked for: k is still filled.
        reach = min(k + int(seen.size), self.items)
        scores, ids = self._index.search(vector[None, :], reach)
        fresh = (ids[0] >= 0) & ~np.isin(ids[0], seen)
        return Candidates(ids[0][fresh][:k], scores[0][fresh][:k], vector)

    def popular(self, seen: Ints, k: int) -> Candidates:
        """The k items with the most positives that the user has not seen."""
        ids = self._item_ids[self._popular[: k + int(seen.size)]]
        fresh = ~np.isin(ids, seen)
        rows = self._popular[: k + int(seen.size)][fresh][:k]
        return Candidates(self._item_ids[rows], self._counts[rows], None)

    def warm_up(self, recorded: Sequence[tuple[int, Positives, int]]) -> None:
        """Answer some requests whose answers nobody waits for, so that the first real one is as fast as the rest."""
        empty = np.empty(0, np.int64)
        for user_id, positives, now_ms in recorded or [(1, Positives(empty, empty), 0)]:
            if self.items:
                self.recall(user_id, positives, empty, now_ms, min(10, self.items))


def _session(tower: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread: replicas scale by processes, and two threads are slower on a tower of this size.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(tower, options, providers=["CPUExecutionProvider"])
