"""A real replica process on a real broker and a real Feast repository; only the towers are small."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from contracts.config.settings import Arm, Experiment, KafkaSettings, ServingSettings, Settings, dump
from contracts.kafka import bus, consumers
from contracts.runtime.clock import SystemClock
from contracts.snapshots import snapshot
from contracts.wire.events_pb2 import Exposure
from contracts.wire.recall_pb2 import Context, RecallReply, RecallRequest
from contracts.wire.recall_pb2_grpc import RecallServiceStub
from driftline.inspect.metrics import read_metrics
from driftline.processes.supervisor import Child, Supervisor
from feature_repo.store import UserRow, UserSequences, apply
from tests.serving.serving_cases import make_snapshot

KNOWN_USER = 11
DEADLINE_S = 30.0


@dataclass
class Replica:
    """A running replica and what it stands on."""

    settings: Settings
    stub: RecallServiceStub
    channel: grpc.Channel
    child: Child
    supervisor: Supervisor

    def recall(self, user_id: int = KNOWN_USER, k: int = 3, **context: object) -> RecallReply:
        request = RecallRequest(user_id=user_id, k=k, context=Context(time_ms=1000, explain=True, **context))
        reply: RecallReply = self.stub.Recall(request, timeout=10)
        return reply

    def status_of(self, **request: int) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.recall(**request)
        return caught.value.code(), caught.value.details()

    def publish(self, number: int, *, model: str = "two_tower", rows: int = 6, scale: float = 1.0) -> Path:
        made = make_snapshot(model, number, rows, scale)
        path = snapshot.write(self.settings.snapshots, made)
        snapshot.publish(self.settings.snapshots, model, made.manifest.version)
        return path

    def wait_for(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric has reached a value: the swap is the replica's own doing."""
        clock, port = SystemClock(), int(self.child.facts["metrics_port"])
        deadline = clock.elapsed_s() + DEADLINE_S
        while read_metrics([port]).total(name, **labels) < value:
            assert clock.elapsed_s() < deadline, f"{name} did not reach {value}"

    def exposures(self, count: int) -> list[Exposure]:
        """The first so many exposures of the log, and whatever came with them."""
        consumer = consumers.consumer(self.settings.kafka, [bus.EXPOSURES], None)
        logged: list[Exposure] = []
        clock = SystemClock()
        deadline = clock.elapsed_s() + DEADLINE_S
        while len(logged) < count:
            assert clock.elapsed_s() < deadline, f"{len(logged)} of {count} exposures came"
            logged += [Exposure.FromString(r.value) for records in consumer.poll(100).values() for r in records]
        consumer.close()
        return logged


def prepared(
    folder: Path, kafka: KafkaSettings, arm: dict[str, Any] | None = None, redis: str | None = None, **serving: Any
) -> Settings:
    """Settings whose both arms are `arm`, and a Feast repository that knows one user."""
    definition = Arm(weight=1, **arm or {"model": "two_tower"})
    settings = Settings(
        kafka=kafka,
        feature_repo=folder / "features",
        snapshots=folder / "snapshots",
        state=folder / "state",
        serving=ServingSettings(**{"max_k": 50, "pointer_poll_ms": 10, **serving}),
        experiment=Experiment(
            name="e", salt="s", start_ms=0, end_ms=10_000, arms={"a": definition, "b": definition}, control="a"
        ),
    )
    apply(settings.feature_repo, redis)
    UserSequences(settings.feature_repo).write(
        [UserRow(KNOWN_USER, [1, 6], [10, 20], [5, 5], [1, 0], [0, 0], [0, 0], 20, 2)]
    )
    return settings


@contextmanager
def running(folder: Path, kafka: KafkaSettings, **options: Any) -> Iterator[Replica]:
    """A replica on what `prepared` makes; it is stopped on the way out."""
    settings = prepared(folder, kafka, **options)
    dump(settings, folder / "settings.yaml")
    with Supervisor(folder / "logs", SystemClock()) as supervisor:
        child = supervisor.start_worker("replica", ["serve"], folder / "settings.yaml")
        supervisor.wait_ready([child])
        with grpc.insecure_channel(f"127.0.0.1:{child.facts['port']}") as channel:
            yield Replica(settings, RecallServiceStub(channel), channel, child, supervisor)
