"""What the serving benchmarks stand on: broker, features, snapshots, and replicas as processes.

Everything is made by the project's own tools (`feature_repo.store`, `contracts.snapshot`, `trainer.export`) and asked
over gRPC, so nothing here depends on how a replica works inside. Towers are real exports of models whose weights were
set, not learned: the same operations at the same cost. Item vectors lie in clusters, users watch items of a few of
them, and the towers' weights lean towards what was watched last, so that queries fall where items are, as they do
after training.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import grpc
import numpy as np
import psutil
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contracts import delta, snapshot
from contracts.clock import SystemClock
from contracts.delta import Delta
from contracts.features import Floats, Ints, Positives
from contracts.index import EXACT, QUERIES, build
from contracts.settings import Arm, Experiment, KafkaSettings, ModelName, ModelSettings, ServingSettings, Settings, dump
from contracts.snapshot import Manifest, Snapshot, version_name
from driftline import broker
from driftline.supervise import Child, Supervisor
from feature_repo.store import UserRow, UserSequences, apply
from serving.model import NOTHING_KEPT, LoadedModel, Want
from trainer.export import TowerTemplate
from trainer.model import Model
from trainer.models.base import UserEncoder
from trainer.models.t2diff import T2Diff
from trainer.models.two_tower import TwoTower

DIM, WINDOW = 64, 50
SHAPE = ModelSettings(dim=DIM, window=WINDOW)
ITEMS_PER_CLUSTER = 100
CLUSTERS_PER_USER = 3
SPREAD = 0.5  # of a cluster, relative to the distance of its centre from 0
ROWS_PER_WRITE = 1000
NOW_MS = 1_750_000_000_000  # of every request: a reply can then be checked against user, item vectors and tower
BETWEEN_MS = 3_600_000  # two behaviours of a user
READY_S = 120.0
SERVICE = "driftline.v1.RecallService"


@dataclass(frozen=True)
class World:
    """Items 1..`items` and users 1..`users`; everything about them follows from the seed."""

    items: int
    users: int
    seed: int = 0

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
        return Positives(items, NOW_MS - BETWEEN_MS * np.arange(WINDOW, 0, -1))

    def row(self, user_id: int) -> UserRow:
        """The same as the store holds it."""
        item_ids, times_ms = self.watched(user_id)
        ones, zeros = np.ones(WINDOW, np.int64), np.zeros(WINDOW, np.int64)
        return UserRow(
            user_id, item_ids, times_ms, 10_000 * ones, ones, zeros, zeros,
            last_event_ms=int(times_ms[-1]), feedback_offset=1,
        )  # fmt: skip


def encoder(model: str, seed: int) -> UserEncoder:
    """A user encoder with weights that no training made."""
    made = Model(model, SHAPE, seed).encoder.eval()
    eye = 8 * torch.eye(DIM)
    with torch.no_grad():
        if isinstance(made, T2Diff):
            made.last.weight += eye
            made.read.weight.normal_(0, 0.01)
        if isinstance(made, TwoTower):
            made.skip.weight[:, 3 * DIM : 4 * DIM] += eye
    return made


@lru_cache
def template(model: str) -> TowerTemplate:
    """The graph of a model, which is traced once."""
    return TowerTemplate(encoder(model, 1), DIM, WINDOW)


def full(world: World, model: str, number: int) -> Snapshot:
    """A full snapshot; its tower and its item vectors are those of no other number."""
    torch.set_num_threads(1)
    made, vectors = encoder(model, number), world.vectors(number)
    manifest = Manifest(
        model=model,
        version=version_name(number),
        dim=DIM,
        window=WINDOW,
        sampling_seed=number,
        noise_shape=made.noise_shape,
        examples=0,
        shares={},
        offsets={},
        event_time_ms=0,
        metrics={},
    )
    counts = np.arange(1, world.items + 1, dtype=np.float32)
    tower = template(model).fill(made)
    exact = Snapshot(manifest, tower, np.arange(1, world.items + 1), vectors, counts, EXACT)
    # As the trainer does: the index's recall is measured by users.
    users = range(world.users, max(world.users - QUERIES, 0), -1)
    wants = [Want(user, world.watched(user), NOTHING_KEPT, NOW_MS, 1, ()) for user in users]
    queries = LoadedModel(exact).user_vectors(wants)
    return replace(exact, index=build(vectors, queries, seed=number))


def moved(base: Snapshot, share: float, sequence: int) -> Delta:
    """A delta in which a share of the items has moved by half its length."""
    rng = np.random.default_rng(sequence)
    ids, vectors, counts = base.item_ids, base.item_vectors.copy(), base.item_counts
    vectors[rng.choice(len(vectors), max(round(share * len(vectors)), 1), replace=False)] *= np.float32(1.5)
    changes = delta.difference(ids, base.item_vectors, counts, ids, vectors, counts, 0.01)
    number = snapshot.Version.parse(base.manifest.version)
    assert number
    return Delta(replace(base.manifest, version=version_name(number.number, sequence)), changes)


@dataclass
class Rig:
    """A running broker, an applied Feast repository with users in it, and a directory for snapshots."""

    world: World
    directory: Path
    kafka: KafkaSettings
    supervisor: Supervisor

    @property
    def snapshots(self) -> Path:
        """Where they are."""
        return self.directory / "snapshots"

    @property
    def features(self) -> Path:
        """Where the Feast repository is."""
        return self.directory / "features"

    def publish(self, model: str, number: int = 1) -> Snapshot:
        """Write a full snapshot and let it go live."""
        made = full(self.world, model, number)
        snapshot.write(self.snapshots, made)
        snapshot.publish(self.snapshots, model, made.manifest.version)
        return made

    def settings(self, arms: Sequence[ModelName], **serving: int) -> Settings:
        """Settings of replicas that answer half of the users from each of two models, which may be the same.

        No user vector is kept (`cached_vectors`), unless `serving` says so: every answer is computed.
        """
        one, other = arms
        return Settings(
            kafka=self.kafka,
            feature_repo=self.features,
            snapshots=self.snapshots,
            state=self.directory / "state",
            serving=ServingSettings.model_validate({"cached_vectors": 0, **serving}),
            experiment=Experiment(
                name="benchmark",
                salt="benchmark",
                start_ms=0,
                end_ms=2 * NOW_MS,
                arms={"one": Arm(weight=1, model=one), "other": Arm(weight=1, model=other)},
                control="one",
            ),
        )

    def start(self, name: str, settings: Settings) -> "Replica":
        """Start a replica and wait until it answers from its snapshots."""
        path = self.directory / f"{name}.yaml"
        dump(settings, path)
        began_s = time.perf_counter()
        child = self.supervisor.start_worker(name, ["serve"], path)
        self.supervisor.wait_ready([child])
        replica = Replica(child, f"127.0.0.1:{child.facts['port']}", int(child.facts["metrics_port"]))
        replica.wait_serving()
        return replace(replica, ready_s=time.perf_counter() - began_s)

    @contextmanager
    def replicas(self, arms: Sequence[ModelName], count: int = 1, **serving: int) -> "Iterator[list[Replica]]":
        """So many replicas for as long as the context lasts."""
        settings = self.settings(arms, **serving)
        started: list[Replica] = []
        try:
            started.extend(self.start(f"replica-{number}", settings) for number in range(count))
            yield started
        finally:
            for replica in started:
                self.stop(replica)

    def stop(self, replica: "Replica") -> None:
        """Stop a replica, if it still runs, and forget that it was ready: another may take its name."""
        self.supervisor.stop(replica.child)
        (self.directory / "logs" / f"{replica.child.name}.ready.json").unlink(missing_ok=True)


@dataclass(frozen=True)
class Replica:
    """A replica that runs."""

    child: Child
    address: str
    metrics_port: int
    ready_s: float = 0.0  # from its process's start until it answered

    @property
    def process(self) -> psutil.Process:
        """What the machine knows of it."""
        return psutil.Process(self.child.process.pid)

    def wait_serving(self) -> None:
        """Wait until its health says that it serves.

        Raises:
            grpc.RpcError: it did not in time.

        """
        with grpc.insecure_channel(self.address, [("grpc.enable_http_proxy", 0)]) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service=SERVICE), timeout=READY_S, wait_for_ready=True
            )
            for reply in watch:
                if reply.status == health_pb2.HealthCheckResponse.SERVING:
                    watch.cancel()
                    return


def write_users(repo: Path, world: World) -> None:
    """Every user's row into the store."""
    store = UserSequences(repo)
    for first in range(1, world.users + 1, ROWS_PER_WRITE):
        store.write([world.row(user) for user in range(first, min(first + ROWS_PER_WRITE, world.users + 1))])


@contextmanager
def rig(world: World, directory: Path, models: Sequence[str] = (), redis: str | None = None) -> Iterator[Rig]:
    """A rig for as long as the context lasts, with a first snapshot of each of `models`."""
    clock = SystemClock()
    with Supervisor(directory / "logs", clock) as supervisor:
        kafka = broker.start_embedded(supervisor, clock)
        broker.prepare(kafka)
        made = Rig(world, directory, kafka, supervisor)
        apply(made.features, redis)
        write_users(made.features, world)
        for model in models:
            made.publish(model)
        yield made


def cpu_s(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """CPU seconds, of user and system, that each process has used so far."""
    return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}


def ids_of(world: World) -> Ints:
    """All users, in an order that follows from the seed."""
    return np.random.default_rng(world.seed).permutation(np.arange(1, world.users + 1))
