"""The gRPC face of a replica: checks requests, answers them, logs the exposure, counts everything."""

import uuid
from collections import deque

import grpc
import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError
from prometheus_client import CollectorRegistry, Counter, Gauge

from contracts import bus
from contracts.clock import Clock
from contracts.events import SCHEMA_VERSION
from contracts.features import Positives
from contracts.settings import Settings
from contracts.snapshot import Manifest
from contracts.wire.events_pb2 import ExposedItem, Exposure
from contracts.wire.recall_pb2 import RecalledItem, RecallReply, RecallRequest
from contracts.wire.recall_pb2_grpc import RecallServiceServicer
from contracts.worker import seconds_histogram
from feature_repo.store import UserSequences
from serving.answer import Answer, NoAnswer, answer, positives_of
from serving.model import LoadedModel

log = structlog.get_logger()
RECORDED_REQUESTS = 16  # kept to warm the next snapshot up with


class Metrics:
    """A replica's Prometheus metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.recalls = Counter(
            "serving_recalls", "Recalls by arm and status code", ["arm", "code"], registry=self.registry
        )
        self.fallbacks = Counter(
            "serving_fallbacks", "Answers not from the arm's own model", ["why"], registry=self.registry
        )
        self.latency = seconds_histogram(
            "serving_recall_seconds", "Time spent in the server per Recall", self.registry, ("arm",)
        )
        self.swaps = Counter("serving_swaps", "Snapshots swapped in", ["model"], registry=self.registry)
        self.failed_loads = Counter(
            "serving_failed_loads", "Snapshots that could not be loaded", ["model"], registry=self.registry
        )
        self.version = Gauge(
            "serving_snapshot_version", "Number of the snapshot that serves", ["model"], registry=self.registry
        )
        self.sequence = Gauge(
            "serving_snapshot_delta",
            "Number of the newest delta on the snapshot that serves; 0: none",
            ["model"],
            registry=self.registry,
        )
        self.published = Gauge(
            "serving_snapshot_published_timestamp_seconds",
            "When the trainer last let anything go live (Unix time): a trainer that is dead cannot say so itself",
            ["model"],
            registry=self.registry,
        )
        self.swap_seconds = seconds_histogram(
            "serving_swap_seconds", "From finding a new snapshot to serving it", self.registry, ("kind",)
        )
        self.event_to_answer = seconds_histogram(
            "serving_event_to_answer_seconds",
            "From sending feedback to the first answer from a snapshot that learned from it",
            self.registry,
            ("model",),
        )
        self.exposures_lost = Counter(
            "serving_exposures_lost", "Exposures that Kafka did not take", registry=self.registry
        )


class Recall(RecallServiceServicer):
    """Answers `Recall` from the models in `models`, which the swapper replaces one reference at a time."""

    def __init__(
        self,
        settings: Settings,
        models: dict[str, LoadedModel],
        features: UserSequences,
        producer: KafkaProducer,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._models = models
        self._features = features
        self._producer = producer
        self._clock = clock
        self._metrics = metrics
        self._answered_from: dict[str, str] = {}
        self.recorded: deque[tuple[int, Positives, int]] = deque(maxlen=RECORDED_REQUESTS)

    async def Recall(  # noqa: N802  (the name in the proto)
        self, request: RecallRequest, context: grpc.aio.ServicerContext
    ) -> RecallReply:
        """Answer one request; status codes as in recall.proto."""
        began = self._clock.elapsed_s()
        complaint = complaint_about(request, self._settings.serving.max_k)
        if complaint:
            self._metrics.recalls.labels("", "INVALID_ARGUMENT").inc()
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, complaint)
        time_ms = request.context.time_ms if request.context.HasField("time_ms") else self._clock.now_ms()
        (row,) = self._features.read([request.user_id])
        try:
            found = answer(self._settings.experiment, dict(self._models), request.user_id, row, time_ms, request.k)
        except NoAnswer as error:
            self._metrics.recalls.labels("", "UNAVAILABLE").inc()
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"Cannot recall: {error}.")
        if row is not None:
            self.recorded.append((request.user_id, positives_of(row), time_ms))
        reply = _reply(request, found)
        self._log_exposure(request, reply, time_ms)
        self._observe(found, began)
        return reply

    def _log_exposure(self, request: RecallRequest, reply: RecallReply, time_ms: int) -> None:
        exposure = Exposure(
            schema_version=SCHEMA_VERSION,
            event_id=reply.request_id,
            request_id=reply.request_id,
            user_id=request.user_id,
            time_ms=time_ms,
            experiment=reply.experiment,
            arm=reply.arm,
            model=reply.model,
            snapshot_version=reply.snapshot_version,
            items=[ExposedItem(item_id=i.item_id, source=i.source, score=i.score) for i in reply.items],
            simulated=request.context.simulated,
        )
        kafka = self._settings.kafka
        try:
            self._producer.send(
                kafka.topic(bus.EXPOSURES),
                key=bus.key_of(request.user_id),
                value=exposure.SerializeToString(),
                partition=bus.partition_of(request.user_id, kafka.partitions),
                timestamp_ms=time_ms,
                headers=[(bus.SENT_AT, str(self._clock.now_ms()).encode())],
            ).add_errback(self._lost)
        except KafkaError as error:
            self._lost(error)

    def _lost(self, error: BaseException) -> None:
        self._metrics.exposures_lost.inc()
        log.error("exposure lost", error=str(error))

    def _observe(self, found: Answer, began_s: float) -> None:
        self._metrics.recalls.labels(found.arm, "OK").inc()
        self._metrics.latency.labels(found.arm).observe(self._clock.elapsed_s() - began_s)
        if found.fallback:
            self._metrics.fallbacks.labels(found.fallback).inc()
        manifest = found.model.manifest
        if self._answered_from.get(manifest.model) != manifest.version and not found.fallback:
            self._answered_from[manifest.model] = manifest.version
            self._observe_freshness(manifest)

    def _observe_freshness(self, manifest: Manifest) -> None:
        now = self._clock.now_ms()
        for sent_at in manifest.sent_at_ms:
            self._metrics.event_to_answer.labels(manifest.model).observe(max(now - sent_at, 0) / 1000)


def complaint_about(request: RecallRequest, max_k: int) -> str:
    """What is wrong with a request, in one sentence; empty where nothing is.

    >>> complaint_about(RecallRequest(user_id=1, k=0), 500)
    'k is 0; 1 to 500 are allowed.'
    """
    if not 1 <= request.k <= max_k:
        return f"k is {request.k}; 1 to {max_k} are allowed."
    if request.user_id <= 0:
        return f"user_id is {request.user_id}; it must be above 0."
    if request.context.HasField("time_ms") and request.context.time_ms <= 0:
        return f"context.time_ms is {request.context.time_ms}; it must be above 0."
    return ""


def _reply(request: RecallRequest, found: Answer) -> RecallReply:
    candidates = found.candidates
    vector = candidates.user_vector
    return RecallReply(
        request_id=request.request_id or uuid.uuid4().hex,
        experiment=found.experiment,
        arm=found.arm,
        model=found.model.manifest.model,
        snapshot_version=found.model.manifest.version,
        items=[
            RecalledItem(item_id=item_id, score=score, source=found.source)
            for item_id, score in zip(candidates.item_ids.tolist(), candidates.scores.tolist(), strict=True)
        ],
        fallback=found.fallback,
        user_vector=vector.tolist() if request.context.explain and vector is not None else (),
    )
