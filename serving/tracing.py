"""Traces of requests by OpenTelemetry, from `Recall` to its exposure on Kafka. Imported only where they are on.

    Recall, RecallBatch           server; a child of the caller's `traceparent`
    ├─ wait                       in the queue
    ├─ features, answers, replies of the batch that the request was answered in
    └─ exposures send             producer; by another thread, later; its `traceparent` is a header of the record

What is traced is what answers anyway: each class here adds spans to the one that it derives from, so that a replica
without traces runs none of this.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from contracts.config.tracing import TracingSettings
from contracts.wire.recall_pb2 import RecallBatchReply, RecallBatchRequest, RecallReply, RecallRequest
from serving.answerer import Answerer, Asked, Outcome
from serving.batcher import Batcher
from serving.exposures import AnsweredRequest, ExposureLog
from serving.parts import Parts
from serving.service import Recall

W3C = TraceContextTextMapPropagator()
SERVICE_NAME = "driftline-replica"
STAGES = ("wait", "features", "answers", "replies")


def provider_of(settings: TracingSettings, replica: str) -> TracerProvider:
    """What makes spans and sends them, from a thread of its own; shut it down at the end."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": SERVICE_NAME, "service.instance.id": replica}),
        sampler=ParentBased(TraceIdRatioBased(settings.share)),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.endpoint)))
    return provider


def traced(tracer: Tracer) -> Parts:
    """The parts of a replica that make spans."""
    return Parts(
        partial(TracedAnswerer, tracer),
        TracedBatcher,
        partial(TracedExposureLog, tracer),
        partial(TracedRecall, tracer),
    )


class TracedRecall(Recall):
    """A span of each call."""

    def __init__(self, tracer: Tracer, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracer = tracer

    async def Recall(  # noqa: N802
        self, request: RecallRequest, context: grpc.aio.ServicerContext
    ) -> RecallReply:
        """Answer one request."""
        with self._span("Recall", context) as span:
            reply = await super().Recall(request, context)
            span.set_attributes(
                {
                    "driftline.request_id": reply.request_id,
                    "driftline.experiment": reply.experiment,
                    "driftline.arm": reply.arm,
                    "driftline.model": reply.model,
                    "driftline.snapshot_version": reply.snapshot_version,
                    "driftline.fallback": reply.fallback,
                    "driftline.items": len(reply.items),
                }
            )
            return reply

    async def RecallBatch(  # noqa: N802
        self, request: RecallBatchRequest, context: grpc.aio.ServicerContext
    ) -> RecallBatchReply:
        """Answer several requests."""
        with self._span("RecallBatch", context) as span:
            span.set_attribute("driftline.requests", len(request.requests))
            return await super().RecallBatch(request, context)

    def _span(self, method: str, context: grpc.aio.ServicerContext) -> Any:
        carrier = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        return self._tracer.start_as_current_span(
            f"driftline.v1.RecallService/{method}",
            context=W3C.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": "driftline.v1.RecallService", "rpc.method": method},
        )


@dataclass(frozen=True)
class TracedAsk(Asked):
    """A request with the span that it belongs to, and when it began to wait, by the replica's clock."""

    parent: SpanContext
    since_s: float


class TracedBatcher(Batcher[Asked, Outcome]):
    """Hands the spans of requests on to what answers them, which is another task."""

    async def submit(self, asks: Sequence[Asked], timeout_s: float | None) -> list[Outcome]:
        """The replies, in order."""
        parent, now_s = trace.get_current_span().get_span_context(), self._clock.elapsed_s()
        return await super().submit([TracedAsk(each.request, each.time_ms, parent, now_s) for each in asks], timeout_s)


class TracedAnswerer(Answerer):
    """Spans of what is done with a batch, below each of its requests that is sampled."""

    def __init__(self, tracer: Tracer, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracer = tracer
        self._stages_s: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def __call__(self, batch: Sequence[Asked]) -> list[Outcome]:
        """The outcome of each request."""
        outcomes = super().__call__(batch)
        # OpenTelemetry takes the times of all other spans from this clock, in nanoseconds.
        now_ns, now_s = time.time_ns(), self._clock.elapsed_s()
        for ask in batch:
            if isinstance(ask, TracedAsk) and ask.parent.trace_flags.sampled:
                context = trace.set_span_in_context(NonRecordingSpan(ask.parent))
                edges_s = (ask.since_s, *self._stages_s)
                edges = [now_ns - round(1e9 * (now_s - edge_s)) for edge_s in edges_s]
                for name, (start, end) in zip(STAGES, pairwise(edges), strict=True):
                    span = self._tracer.start_span(name, context, start_time=start)
                    span.set_attribute("driftline.batch", len(batch))
                    span.end(end)
        return outcomes

    def _observe_stages(self, began_s: float, read_s: float, answered_s: float, replied_s: float) -> None:
        super()._observe_stages(began_s, read_s, answered_s, replied_s)
        self._stages_s = (began_s, read_s, answered_s, replied_s)


class TracedExposureLog(ExposureLog):
    """A span of each exposure that is handed to the Kafka client, and its `traceparent` in the record."""

    def __init__(self, tracer: Tracer, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracer = tracer

    def offer(self, answered: AnsweredRequest) -> None:
        """Take an exposure in, with the span of its request."""
        super().offer(replace(answered, span=trace.get_current_span().get_span_context()))

    def _send(self, answered: AnsweredRequest) -> None:
        context = trace.set_span_in_context(NonRecordingSpan(answered.span)) if answered.span is not None else None
        with self._tracer.start_as_current_span(
            "exposures send", context, kind=SpanKind.PRODUCER, record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attributes({"messaging.system": "kafka", "driftline.request_id": answered.reply.request_id})
            try:
                super()._send(answered)
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, str(error)))
                raise

    def _headers(self, answered: AnsweredRequest) -> list[tuple[str, bytes]]:
        carrier: dict[str, str] = {}
        W3C.inject(carrier)
        return [*super()._headers(answered), *((name, text.encode()) for name, text in carrier.items())]
