"""A real replica process: broker, Feast and gRPC are the real ones; only the towers are small."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from contracts import bus, delta, snapshot
from contracts.clock import SystemClock
from contracts.settings import Arm, Experiment, KafkaSettings, ServingSettings, Settings, dump
from contracts.wire.events_pb2 import Exposure
from contracts.wire.recall_pb2 import Context, RecallReply, RecallRequest
from contracts.wire.recall_pb2_grpc import RecallServiceStub
from driftline import scrape
from driftline.supervise import Child, Supervisor
from feature_repo.store import UserRow, UserSequences, apply
from tests.serving.serving_cases import make_delta, make_snapshot

KNOWN_USER = 11
DEADLINE_S = 30.0


@dataclass
class Replica:
    """A running replica and what it stands on."""

    settings: Settings
    stub: RecallServiceStub
    channel: grpc.Channel
    child: Child

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
        while scrape.read([port]).total(name, **labels) < value:
            assert clock.elapsed_s() < deadline, f"{name} did not reach {value}"


@pytest.fixture
def replica(tmp_path: Path, kafka: KafkaSettings) -> Iterator[Replica]:
    clock = SystemClock()
    with Supervisor(tmp_path / "logs", clock) as supervisor:
        settings = Settings(
            kafka=kafka,
            feature_repo=tmp_path / "features",
            snapshots=tmp_path / "snapshots",
            state=tmp_path / "state",
            serving=ServingSettings(max_k=50, pointer_poll_ms=10),
            experiment=Experiment(
                name="e",
                salt="s",
                start_ms=0,
                end_ms=10_000,
                arms={"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="two_tower")},
                control="a",
            ),
        )
        apply(settings.feature_repo)
        UserSequences(settings.feature_repo).write(
            [UserRow(KNOWN_USER, [1, 6], [10, 20], [5, 5], [1, 0], [0, 0], [0, 0], 20, 2)]
        )
        dump(settings, tmp_path / "settings.yaml")
        child = supervisor.start_worker("replica", ["serve"], tmp_path / "settings.yaml")
        supervisor.wait_ready([child])
        with grpc.insecure_channel(f"127.0.0.1:{child.facts['port']}") as channel:
            yield Replica(settings, RecallServiceStub(channel), channel, child)


def test_a_replica_from_no_snapshot_to_a_damaged_one(replica: Replica) -> None:
    # Before the first snapshot there is nothing to answer from; bad requests are told so even then.
    assert replica.status_of()[0] == grpc.StatusCode.UNAVAILABLE
    for request, complaint in (
        ({"k": 0}, "k is 0; 1 to 50 are allowed."),
        ({"k": 51}, "k is 51; 1 to 50 are allowed."),
        ({"user_id": 0}, "user_id is 0; it must be above 0."),
    ):
        assert replica.status_of(**request) == (grpc.StatusCode.INVALID_ARGUMENT, complaint)

    # An empty catalogue is no answer either.
    replica.publish(1, rows=0)
    replica.wait_for("serving_swaps_total", 1)
    code, details = replica.status_of()
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "catalogue" in details

    # A snapshot answers: nearest unseen items, scores from its own vectors.
    replica.publish(2)
    replica.wait_for("serving_swaps_total", 2)
    reply = replica.recall()
    assert (reply.snapshot_version, reply.model, reply.fallback) == ("v000002", "two_tower", "")
    assert reply.arm in {"a", "b"}
    assert [item.item_id for item in reply.items] == [2, 3, 4]
    expected = make_snapshot(number=2).item_vectors[1:4] @ np.array(reply.user_vector, np.float32)
    np.testing.assert_allclose([item.score for item in reply.items], expected, rtol=1e-5)

    # An unknown user gets popular items and is told.
    unknown = replica.recall(user_id=999)
    assert (unknown.fallback, unknown.items[0].source) == ("unknown user", "popular")
    assert [item.item_id for item in unknown.items] == [6, 5, 4]

    # A swap brings tower and index over together.
    replica.publish(3, scale=2.0)
    replica.wait_for("serving_swaps_total", 3)
    swapped = replica.recall()
    assert swapped.snapshot_version == "v000003"
    np.testing.assert_allclose(swapped.user_vector, np.array(reply.user_vector) * 4, rtol=1e-5)

    # A delta brings items and vectors; the tower stays.
    delta.write(replica.settings.snapshots, make_delta(number=3, sequence=1))
    snapshot.publish(replica.settings.snapshots, "two_tower", "v000003+001")
    replica.wait_for("serving_swaps_total", 4)
    fresh = replica.recall(k=9)
    assert fresh.snapshot_version == "v000003+001"
    assert 101 in [item.item_id for item in fresh.items]

    # A damaged snapshot never serves; the old one stays.
    made = make_snapshot(number=4)
    damaged = snapshot.write(replica.settings.snapshots, made) / "tower.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    snapshot.publish(replica.settings.snapshots, "two_tower", "v000004")
    replica.wait_for("serving_failed_loads_total", 1)
    assert replica.recall().snapshot_version == "v000003+001"
    assert "does not match its checksum" in replica.child.log.read_text()


def test_every_reply_is_logged_as_an_exposure(replica: Replica) -> None:
    replica.publish(1)
    replica.wait_for("serving_swaps_total", 1)
    replies = {reply.request_id: reply for reply in (replica.recall(user_id=u) for u in (KNOWN_USER, 12))}
    consumer = bus.consumer(replica.settings.kafka, [bus.EXPOSURES], None)
    logged: dict[str, Exposure] = {}
    while len(logged) < len(replies):
        for records in consumer.poll(100).values():
            for record in records:
                exposure = Exposure.FromString(record.value)
                logged[exposure.request_id] = exposure
                assert record.timestamp == exposure.time_ms == 1000
                assert bus.sent_at_ms(record.headers, 0) > 1000
    consumer.close()
    for request_id, reply in replies.items():
        exposure = logged[request_id]
        assert [item.item_id for item in exposure.items] == [item.item_id for item in reply.items]
        assert (exposure.arm, exposure.snapshot_version) == (reply.arm, reply.snapshot_version)


def test_health_follows_the_first_snapshot_and_reflection_answers(replica: Replica) -> None:
    health = health_pb2_grpc.HealthStub(replica.channel)
    request = health_pb2.HealthCheckRequest(service="driftline.v1.RecallService")
    assert health.Check(request, timeout=10).status == health_pb2.HealthCheckResponse.NOT_SERVING
    changes = health.Watch(request, timeout=DEADLINE_S)
    assert next(changes).status == health_pb2.HealthCheckResponse.NOT_SERVING
    replica.publish(1)
    assert next(changes).status == health_pb2.HealthCheckResponse.SERVING
    changes.cancel()
    assert request.service in ProtoReflectionDescriptorDatabase(replica.channel).get_services()
