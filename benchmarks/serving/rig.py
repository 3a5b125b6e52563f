"""What the serving benchmarks stand on: broker, features, snapshots, and replicas as processes.

Everything is made by the project's own tools (`feature_repo.store`, `contracts.snapshots.snapshot`,
`trainer.publish.onnx_export`) and asked over gRPC, so nothing here depends on how a replica works inside.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.serving.world import NOW_MS, World, full
from contracts.config.settings import Arm, Experiment, KafkaSettings, ModelName, ServingSettings, Settings, dump
from contracts.kafka import bus
from contracts.messages.events import SCHEMA_VERSION
from contracts.runtime.clock import SystemClock
from contracts.snapshots import snapshot
from contracts.snapshots.snapshot import Snapshot
from contracts.wire.events_pb2 import Item
from driftline.processes import broker
from driftline.processes.supervisor import Child, Supervisor
from feature_repo.store import UserSequences, apply

ROWS_PER_WRITE = 1000
READY_S = 120.0
SERVICE = "driftline.v1.RecallService"


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
        published = full(self.world, model, number)
        snapshot.write(self.snapshots, published)
        snapshot.publish(self.snapshots, model, published.manifest.version)
        return published

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


def write_catalogue(kafka: KafkaSettings, world: World) -> None:
    """Every item into the topic that replicas read."""
    producer = bus.producer(kafka, batch_size=512 << 10)
    texts = world.texts if world.text_ids else [""] * world.items
    for item_id, text in zip(world.item_ids.tolist(), texts, strict=True):
        value = Item(schema_version=SCHEMA_VERSION, item_id=item_id, item_key=text).SerializeToString()
        producer.send(kafka.topic(bus.ITEMS), value, bus.key_of(item_id), partition=0)
    producer.flush()
    producer.close()


@contextmanager
def rig(world: World, directory: Path, models: Sequence[str] = (), redis: str | None = None) -> Iterator[Rig]:
    """A rig for as long as the context lasts, with a first snapshot of each of `models`."""
    clock = SystemClock()
    with Supervisor(directory / "logs", clock) as supervisor:
        kafka = broker.start_embedded(supervisor, clock)
        broker.prepare(kafka)
        bench = Rig(world, directory, kafka, supervisor)
        apply(bench.features, redis)
        write_users(bench.features, world)
        for model in models:
            bench.publish(model)
        yield bench


def cpu_s(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """CPU seconds, of user and system, that each process has used so far."""
    return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
