"""A real replica process: broker, Feast and gRPC are the real ones; only the towers are small."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.snapshots import delta, snapshot
from contracts.wire.events_pb2 import Item
from contracts.wire.recall_pb2 import Context, RecallBatchRequest, RecallRequest, StatusRequest
from driftline.inspect.metrics import read_metrics
from driftline.processes import redis as redis_server_of
from tests.conftest import need_servers
from tests.contracts.kafka.batch_cases import send_foreign, send_garbage
from tests.serving.replica_cases import DEADLINE_S, KNOWN_USER, Replica, running
from tests.serving.replicas import until
from tests.serving.serving_cases import make_delta, make_snapshot


@pytest.fixture
def replica(tmp_path: Path, kafka: KafkaSettings) -> Iterator[Replica]:
    with running(tmp_path, kafka) as replica:
        yield replica


def test_a_replica_from_no_snapshot_to_a_damaged_one(replica: Replica) -> None:
    # Before the first snapshot there is nothing to answer from; bad requests are told so even then.
    assert replica.status_of()[0] == grpc.StatusCode.UNAVAILABLE
    for request, complaint in (
        ({"k": 0}, "k is 0; 1 to 50 are allowed."),
        ({"k": 51}, "k is 51; 1 to 50 are allowed."),
        ({"user_id": 0}, "user_id is 0; it must be above 0, or user_key given."),
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
    (status,) = replica.stub.Status(StatusRequest(), timeout=10).models
    assert (status.snapshot_version, status.live_version, status.items) == ("v000003+001", "v000004", 7)
    assert "does not match its checksum" in status.error


def test_every_reply_is_logged_as_an_exposure(replica: Replica) -> None:
    replica.publish(1)
    replica.wait_for("serving_swaps_total", 1)
    replies = {reply.request_id: reply for reply in (replica.recall(user_id=u) for u in (KNOWN_USER, 12))}
    logged = {exposure.request_id: exposure for exposure in replica.exposures(len(replies))}
    for request_id, reply in replies.items():
        exposure = logged[request_id]
        assert [item.item_id for item in exposure.items] == [item.item_id for item in reply.items]
        assert (exposure.arm, exposure.snapshot_version) == (reply.arm, reply.snapshot_version)
        assert exposure.time_ms == 1000
        assert exposure.snapshot_versions == {reply.items[0].source: "v000001"}
        assert exposure.replica.endswith(f":{replica.child.facts['port']}")
        assert exposure.answer_ms > 0
        assert exposure.model_time_ms == reply.model_time_ms


@pytest.mark.parametrize("default", [False, True])
def test_an_exposure_says_whether_its_items_are_only_served(
    tmp_path: Path, embedded: KafkaSettings, *, default: bool
) -> None:
    with running(tmp_path, embedded, served_only=default) as replica:
        replica.publish(1)
        replica.wait_for("serving_swaps_total", 1)
        batch = RecallBatchRequest(requests=[RecallRequest(user_id=12, k=1, context=Context(served_only=True))])
        (prefetched,) = replica.stub.RecallBatch(batch, timeout=10).outcomes
        said = {prefetched.reply.request_id: True, replica.recall().request_id: default}
        said |= {replica.recall(served_only=only).request_id: only for only in (False, True)}
        assert {each.request_id: each.served_only for each in replica.exposures(len(said))} == said


def test_health_follows_the_first_snapshot_and_reflection_answers(replica: Replica) -> None:
    health = health_pb2_grpc.HealthStub(replica.channel)
    request = health_pb2.HealthCheckRequest(service="driftline.v1.RecallService")
    assert health.Check(request, timeout=10).status == health_pb2.HealthCheckResponse.NOT_SERVING
    changes = health.Watch(request, timeout=DEADLINE_S)
    assert next(changes).status == health_pb2.HealthCheckResponse.NOT_SERVING
    replica.publish(1)
    assert next(changes).status == health_pb2.HealthCheckResponse.SERVING
    changes.cancel()
    of_model = health_pb2.HealthCheckRequest(service=f"{request.service}/two_tower")
    assert health.Check(of_model, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
    assert request.service in ProtoReflectionDescriptorDatabase(replica.channel).get_services()


def send_items(kafka: KafkaSettings, *items: Item) -> None:
    producer = bus.producer(kafka)
    for item in items:
        producer.send(kafka.topic(bus.ITEMS), key=bus.key_of(item.item_id), value=item.SerializeToString(), partition=0)
    producer.close()


def health_of(replica: Replica, *, model: str = "") -> int:
    service = "driftline.v1.RecallService" + (f"/{model}" if model else "")
    request = health_pb2.HealthCheckRequest(service=service)
    status: int = health_pb2_grpc.HealthStub(replica.channel).Check(request, timeout=10).status
    return status


def test_before_the_first_snapshot_the_newest_items_of_the_catalogue_are_served(replica: Replica) -> None:
    watch = health_pb2_grpc.HealthStub(replica.channel).Watch(
        health_pb2.HealthCheckRequest(service="driftline.v1.RecallService"), timeout=DEADLINE_S
    )
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    blocked = Item(schema_version=1, item_id=9, blocked=True)
    kafka = replica.settings.kafka
    send_items(kafka, *(Item(schema_version=1, item_id=each) for each in (1, 7, 8, 9)), blocked)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    assert health_of(replica, model="two_tower") == health_pb2.HealthCheckResponse.NOT_SERVING

    # The user has seen item 1 and item 6; what was blocked is not returned.
    replica.wait_for("serving_withdrawn_items", 1)
    reply = replica.recall(k=5)
    assert [(item.item_id, item.source) for item in reply.items] == [(8, "newest"), (7, "newest")]
    assert reply.fallback == "no snapshot of two_tower, nothing learned, newest items"
    assert (reply.model, reply.snapshot_version, reply.model_time_ms) == ("", "", 0)
    assert [(each.source, each.snapshot_version) for each in reply.sources] == [("newest", "")]
    (exposure,) = replica.exposures(1)
    assert (exposure.request_id, exposure.arm) == (reply.request_id, reply.arm)
    assert [(item.item_id, item.source) for item in exposure.items] == [(8, "newest"), (7, "newest")]
    assert (exposure.model, exposure.snapshot_version, exposure.snapshot_versions) == ("", "", {})
    assert not exposure.HasField("model_time_ms")
    send_items(kafka, Item(schema_version=1, item_id=9))
    until(lambda: replica.recall(k=5).items[0].item_id == 9)  # no longer blocked, and the newest

    # A first snapshot that is damaged takes nothing away; one that is not takes over.
    made = make_snapshot(number=1)
    damaged = snapshot.write(replica.settings.snapshots, made) / "tower.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    snapshot.publish(replica.settings.snapshots, "two_tower", "v000001")
    replica.wait_for("serving_failed_loads_total", 1)
    assert health_of(replica) == health_pb2.HealthCheckResponse.SERVING
    assert replica.recall(k=5).items[0].source == "newest"
    replica.publish(2)
    replica.wait_for("serving_swaps_total", 1)
    learned = replica.recall(k=5)
    assert (learned.snapshot_version, learned.items[0].source, learned.fallback) == ("v000002", "two_tower", "")


def test_a_replica_that_starts_and_cannot_load_what_is_live_leaves_it_to_the_others(
    tmp_path: Path, embedded: KafkaSettings
) -> None:
    made = make_snapshot(number=1)
    damaged = snapshot.write(tmp_path / "snapshots", made) / "tower.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    snapshot.publish(tmp_path / "snapshots", "two_tower", "v000001")
    send_items(embedded, Item(schema_version=1, item_id=7), Item(schema_version=1, item_id=8, blocked=True))
    with running(tmp_path, embedded) as replica:
        replica.wait_for("serving_failed_loads_total", 1)
        replica.wait_for("serving_withdrawn_items", 1)
        assert replica.status_of()[0] == grpc.StatusCode.UNAVAILABLE
        assert health_of(replica) == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_batch_has_an_outcome_for_each_of_its_requests(replica: Replica) -> None:
    replica.publish(1)
    replica.wait_for("serving_swaps_total", 1)
    requests = [RecallRequest(user_id=user, k=k) for user, k in ((KNOWN_USER, 2), (KNOWN_USER, 0), (999, 1))]
    first, refused, unknown = replica.stub.RecallBatch(RecallBatchRequest(requests=requests), timeout=10).outcomes
    assert [item.item_id for item in first.reply.items] == [2, 3]
    assert (refused.code, refused.message) == (3, "k is 0; 1 to 50 are allowed.")
    assert not refused.HasField("reply")
    assert unknown.reply.fallback == "unknown user"
    assert len(replica.exposures(2)) == 2
    for wrong in (0, 101):
        with pytest.raises(grpc.RpcError) as caught:
            replica.stub.RecallBatch(RecallBatchRequest(requests=requests[:1] * wrong), timeout=10)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_item_that_the_catalogue_withdraws_is_gone_at_once(replica: Replica) -> None:
    replica.publish(1)
    replica.wait_for("serving_swaps_total", 1)
    assert [item.item_id for item in replica.recall().items] == [2, 3, 4]
    send_items(replica.settings.kafka, Item(schema_version=1, item_id=2, blocked=True))
    producer = bus.producer(replica.settings.kafka)
    producer.send(replica.settings.kafka.topic(bus.ITEMS), key=b"3", value=None)
    producer.close()
    replica.wait_for("serving_withdrawn_items", 2)
    assert [item.item_id for item in replica.recall().items] == [4, 5]


def test_a_batch_that_nobody_can_decode_neither_blinds_the_catalogue_nor_holds_up_the_end(
    tmp_path: Path, embedded: KafkaSettings
) -> None:
    send_garbage(embedded, bus.ITEMS, 5)
    withdrawn = [Item(schema_version=1, item_id=each, blocked=True).SerializeToString() for each in (2, 3)]
    send_foreign(embedded, bus.ITEMS, "zstd", withdrawn, first_key=2)
    with running(tmp_path, embedded) as replica:
        replica.publish(1)
        replica.wait_for("serving_swaps_total", 1)
        replica.wait_for("serving_withdrawn_items", 2)
        assert [item.item_id for item in replica.recall().items] == [4, 5]
        replica.wait_for("kafka_unreadable_batches_total", 1, topic=embedded.topic(bus.ITEMS))
        replica.supervisor.stop(replica.child)
        assert replica.child.process.returncode == 0


def test_a_stop_in_good_order_loses_neither_a_request_nor_an_exposure(tmp_path: Path, embedded: KafkaSettings) -> None:
    with running(tmp_path, embedded, queue_requests=400, pending_calls=1000) as replica:
        replica.publish(1)
        replica.wait_for("serving_swaps_total", 1)
        requests = [RecallRequest(user_id=1 + n, k=3, request_id=f"r{n}") for n in range(400)]
        calls = [replica.stub.Recall.future(request, timeout=20) for request in requests]
        calls[0].result()  # the others are under way
        replica.supervisor.stop(replica.child)
        assert {call.code() for call in calls} == {grpc.StatusCode.OK}
        assert {each.request_id for each in replica.exposures(400)} == {request.request_id for request in requests}


def test_too_many_at_once_are_turned_away_and_the_others_answered(tmp_path: Path, embedded: KafkaSettings) -> None:
    with running(tmp_path, embedded, queue_requests=1, pending_calls=1000) as replica:
        replica.publish(1)
        replica.wait_for("serving_swaps_total", 1)
        calls = [replica.stub.Recall.future(RecallRequest(user_id=1, k=3), timeout=20) for _ in range(400)]
        codes = Counter(call.code() for call in calls)
        assert codes.keys() == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert (
            read_metrics([int(replica.child.facts["metrics_port"])]).total(
                "serving_recalls_total", code="RESOURCE_EXHAUSTED"
            )
            == codes[grpc.StatusCode.RESOURCE_EXHAUSTED]
        )


def test_without_its_store_a_replica_answers_from_what_it_knew(tmp_path: Path, embedded: KafkaSettings) -> None:
    need_servers()
    with (
        redis_server_of.start(redis_server_of.default_home(), tmp_path / "redis") as store,
        running(tmp_path, embedded, redis=store.address, feature_timeout_ms=1000) as replica,
    ):
        replica.publish(1)
        replica.wait_for("serving_swaps_total", 1)
        known = replica.recall()
        assert known.fallback == ""
        store.kill()
        late, unknown = replica.recall(), replica.recall(user_id=999)
        assert late.fallback == "features late, last known"
        assert [item.item_id for item in late.items] == [item.item_id for item in known.items]
        assert (unknown.fallback, unknown.items[0].source) == ("features late, none known", "popular")


def test_an_arm_of_several_sources_says_where_each_item_is_from(tmp_path: Path, embedded: KafkaSettings) -> None:
    arm = {"model": "two_tower", "sources": [{"source": "two_tower"}, {"source": "t2diff"}, {"source": "popular"}]}
    with running(tmp_path, embedded, arm=arm) as replica:
        for number, model in enumerate(("two_tower", "t2diff"), start=1):
            replica.publish(number, model=model)
        replica.wait_for("serving_swaps_total", 2)
        reply = replica.recall(k=3)
        assert [(item.item_id, item.source) for item in reply.items] == [
            (2, "two_tower"),
            (3, "t2diff"),
            (5, "popular"),
        ]
        assert [(each.source, each.snapshot_version) for each in reply.sources] == [
            ("two_tower", "v000001"),
            ("t2diff", "v000002"),
            ("popular", "v000001"),
        ]
        (exposure,) = replica.exposures(1)
        assert exposure.snapshot_versions == {each.source: each.snapshot_version for each in reply.sources}


def test_places_at_random_are_in_the_exposure_log_with_their_propensities(
    tmp_path: Path, embedded: KafkaSettings
) -> None:
    arm = {"model": "two_tower", "sources": [{"source": "two_tower"}, {"source": "explore", "share": 0.9}]}
    with running(tmp_path, embedded, arm=arm) as replica:
        replica.publish(1)
        replica.wait_for("serving_swaps_total", 1)
        replies = [replica.recall(k=3) for _ in range(10)]  # at as many moments
        exposures = {each.request_id: each for each in replica.exposures(10)}
        at_random = 0
        for reply in replies:
            logged = exposures[reply.request_id].items
            assert [(each.item_id, each.source) for each in logged] == [(i.item_id, i.source) for i in reply.items]
            for item, shown in zip(reply.items, logged, strict=True):
                at_random += item.HasField("propensity")
                assert item.HasField("propensity") == shown.HasField("propensity") == (item.source == "explore")
                assert item.propensity == shown.propensity
        assert 0 < at_random < 30


def test_what_a_replica_imports_is_no_work_for_the_garbage_collector() -> None:
    asked = "import gc; from serving import replica; replica.keep_imports(); print(len(gc.get_objects()))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", asked], capture_output=True, check=True, text=True)
    assert int(done.stdout) < 1000  # without it nearly a hundred thousand, looked through while nobody is answered
