"""The peer's service, as users of BentoML write one: Feast's features, an ONNX tower, an index, adaptive batching.

Tower and index are the snapshot's own. It runs in a process of its own, with driftline's environment and what `make
bench-serving` lays over it; where its files are comes in the environment, since BentoML imports this module in every
worker.
"""

import os
from pathlib import Path
from typing import Any

import bentoml
import faiss
import numpy as np
from feast import FeatureStore

from contracts.features import Positives, gather, positives, tower_inputs
from contracts.snapshots import delta, snapshot
from contracts.snapshots.index import Index
from contracts.snapshots.tower import Tower
from feature_repo.store import SERVICE

MAX_BATCH = 32


@bentoml.service(workers=int(os.environ["PEER_WORKERS"]), traffic={"timeout": 30})
class Recall:
    """Answers `recall` for the users of a batch."""

    def __init__(self) -> None:
        root, model = Path(os.environ["PEER_SNAPSHOTS"]), os.environ["PEER_MODEL"]
        version = snapshot.live(root, model)
        assert version
        named = delta.read(root, model, version)
        self._manifest, self._item_ids, self._vectors = named.manifest, named.item_ids, named.item_vectors
        self._tower = Tower.of(named)
        faiss.omp_set_num_threads(1)
        self._index = Index.load(named.index, named.item_ids, named.item_vectors)
        self._store = FeatureStore(repo_path=os.environ["PEER_FEATURES"])
        self._features = self._store.get_feature_service(SERVICE)
        self._k, self._now_ms = int(os.environ["PEER_K"]), int(os.environ["PEER_NOW_MS"])

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH)  # type: ignore[untyped-decorator]
    def recall(self, user_ids: list[int]) -> list[dict[str, Any]]:
        """Items and scores for each user, best first, without those that the user has watched."""
        rows = self._store.get_online_features(
            features=self._features, entity_rows=[{"user_id": user_id} for user_id in user_ids]
        ).to_dict()
        watched = [
            positives(np.array(items or [], np.int64), np.array(times or [], np.int64), np.array(views or [], np.bool_))
            for items, times, views in zip(rows["item_ids"], rows["times_ms"], rows["effective_views"], strict=True)
        ]
        reach = min(self._k + max(len(each.item_ids) for each in watched), len(self._item_ids))
        scores, ids = self._index.search(self._vectors_of(user_ids, watched), reach)
        return [
            self._reply(of_user, of_scores, each) for of_user, of_scores, each in zip(ids, scores, watched, strict=True)
        ]

    def _vectors_of(self, user_ids: list[int], watched: list[Positives]) -> np.ndarray:
        inputs = tower_inputs(watched, np.full(len(watched), self._now_ms), self._item_ids, self._manifest.window)
        return self._tower.users(gather(inputs.rows, self._vectors), inputs.mask, inputs.lag, user_ids)

    def _reply(self, ids: np.ndarray, scores: np.ndarray, watched: Positives) -> dict[str, Any]:
        fresh = ~np.isin(ids, watched.item_ids)
        return {"item_ids": ids[fresh][: self._k].tolist(), "scores": scores[fresh][: self._k].tolist()}
