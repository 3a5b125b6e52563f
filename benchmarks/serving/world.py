"""Whom and what the serving benchmarks ask about: users, items, models, snapshots; everything follows from a seed.

Towers are real exports of models whose weights were set, not learned: the same operations at the same cost. Item
vectors lie in clusters, users watch items of a few of them, and the towers' weights lean towards what was watched last,
so that queries fall where items are, as they do after training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch

from benchmarks.serving.shots import text_of
from contracts.config.settings import ModelSettings
from contracts.features import Floats, Ints, Positives, TowerInputs, gather, tower_inputs
from contracts.messages.ids import id_of_text
from contracts.snapshots import delta, index, snapshot
from contracts.snapshots.delta import Delta
from contracts.snapshots.snapshot import Manifest, Snapshot, version_name
from contracts.snapshots.tower import Tower
from feature_repo.store import UserRow
from trainer.learn.model import Model
from trainer.models.base import UserEncoder
from trainer.models.t2diff import T2Diff
from trainer.models.two_tower import TwoTower
from trainer.publish.onnx_export import TowerTemplate

DIM, WINDOW = 64, 50
SHAPE = ModelSettings(dim=DIM, window=WINDOW)
ITEMS_PER_CLUSTER = 1000
CLUSTERS_PER_USER = 3
SPREAD = 0.9  # of a cluster, relative to the distance of its centre from 0
NOW_MS = 1_750_000_000_000  # of every request: a reply can then be checked against user, item vectors and tower
BETWEEN_MS = 3_600_000  # two behaviours of a user


@dataclass(frozen=True)
class World:
    """Items 1..`items` and users 1..`users`; everything about them follows from the seed.

    With `text_ids` they are named by texts of 24 characters (`shots.text_of`), and have those texts' numbers.
    """

    items: int
    users: int
    seed: int = 0
    text_ids: bool = False

    @cached_property
    def texts(self) -> list[str]:
        """The items' texts, in the order of their numbers."""
        return sorted(map(text_of, range(1, self.items + 1)), key=id_of_text)

    @cached_property
    def item_ids(self) -> Ints:
        """(N,) sorted; the first is that of item 1, and so on."""
        return np.array([*map(id_of_text, self.texts)]) if self.text_ids else np.arange(1, self.items + 1)

    @property
    def clusters(self) -> int:
        """How many there are; item i is in cluster i mod `clusters`."""
        return max(self.items // ITEMS_PER_CLUSTER, 1)

    def vectors(self, version: int) -> Floats:
        """Item vectors (N, d) of a version: in every other one, all of them are elsewhere."""
        rng = np.random.default_rng([self.seed, version])
        centres = rng.standard_normal((self.clusters, DIM), np.float32)
        vectors = np.float32(SPREAD) * rng.standard_normal((self.items, DIM), np.float32)
        vectors += centres[np.arange(1, self.items + 1) % self.clusters]
        return vectors / np.float32(DIM**0.5)

    def watched(self, user_id: int) -> Positives:
        """What a user has watched: `WINDOW` items of few clusters."""
        rng = np.random.default_rng([self.seed, user_id])
        clusters = rng.integers(self.clusters, size=CLUSTERS_PER_USER)[rng.integers(CLUSTERS_PER_USER, size=WINDOW)]
        turns = rng.integers((self.items - 1) // self.clusters, size=WINDOW)
        items = 1 + (clusters + turns * self.clusters) % self.items
        return Positives(self.item_ids[items - 1], NOW_MS - BETWEEN_MS * np.arange(WINDOW, 0, -1))

    def row(self, user_id: int) -> UserRow:
        """The same as the store holds it."""
        item_ids, times_ms = self.watched(user_id)
        ones, zeros = np.ones(WINDOW, np.int64), np.zeros(WINDOW, np.int64)
        number = id_of_text(text_of(user_id)) if self.text_ids else user_id
        return UserRow(
            number, item_ids, times_ms, 10_000 * ones, ones, zeros, zeros,
            last_event_ms=int(times_ms[-1]), feedback_offset=1,
        )  # fmt: skip


def encoder(model: str, seed: int) -> UserEncoder:
    """A user encoder with weights that no training made."""
    user_encoder = Model(model, SHAPE, seed).encoder.eval()
    eye = 8 * torch.eye(DIM)
    with torch.no_grad():
        if isinstance(user_encoder, T2Diff):
            user_encoder.last.weight += eye
            user_encoder.read.weight.normal_(0, 0.01)
        if isinstance(user_encoder, TwoTower):
            user_encoder.skip.weight[:, 3 * DIM : 4 * DIM] += eye
    return user_encoder


@lru_cache
def template(model: str) -> TowerTemplate:
    """The graph of a model, which is traced once."""
    return TowerTemplate(encoder(model, 1), DIM, WINDOW)


def full(world: World, model: str, number: int) -> Snapshot:
    """A full snapshot; its tower and its item vectors are those of no other number."""
    torch.set_num_threads(1)
    user_encoder, vectors = encoder(model, number), world.vectors(number)
    manifest = Manifest(
        model=model,
        version=version_name(number),
        dim=DIM,
        window=WINDOW,
        sampling_seed=number,
        noise_shape=user_encoder.noise_shape,
        examples=0,
        shares={},
        offsets={},
        event_time_ms=0,
        metrics={},
    )
    counts = np.arange(1, world.items + 1, dtype=np.float32)
    ids, tower = world.item_ids, template(model).fill(user_encoder)
    unindexed = Snapshot(manifest, tower, ids, vectors, counts, index.EXACT)
    users = range(1, min(world.users, index.QUERIES) + 1)
    queries = SnapshotTower(unindexed)(users, [world.watched(user) for user in users])
    return replace(unindexed, index=index.build(vectors, queries, seed=number))


def moved(base: Snapshot, share: float, sequence: int) -> Delta:
    """A delta in which a share of the items has moved by half its length."""
    rng = np.random.default_rng(sequence)
    ids, vectors, counts = base.item_ids, base.item_vectors.copy(), base.item_counts
    vectors[rng.choice(len(vectors), max(round(share * len(vectors)), 1), replace=False)] *= np.float32(1.5)
    changes = delta.difference(ids, base.item_vectors, counts, ids, vectors, counts, 0.01)
    number = snapshot.Version.parse(base.manifest.version)
    assert number
    return Delta(replace(base.manifest, version=version_name(number.number, sequence)), changes)


class SnapshotTower:
    """A snapshot's tower in this process, for one thread, and the item vectors that it is fed."""

    def __init__(self, named: Snapshot) -> None:
        self._tower, self._named = Tower.of(named), named

    def __call__(self, user_ids: Sequence[int], watched: Sequence[Positives]) -> Floats:
        """The vectors (B, d) of users who have watched so."""
        inputs, sequence = prepared(self._named, watched)
        return self._tower.users(sequence, inputs.mask, inputs.lag, user_ids)


def prepared(named: Snapshot, watched: Sequence[Positives]) -> tuple[TowerInputs, Floats]:
    """Users as a tower takes them at `NOW_MS`: masks and lags, and behaviours (B, n, d)."""
    inputs = tower_inputs(list(watched), np.full(len(watched), NOW_MS), named.item_ids, named.manifest.window)
    return inputs, gather(inputs.rows, named.item_vectors)
