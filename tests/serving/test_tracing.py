"""Traces of a replica in this process, on a real broker and a real Feast repository; spans go to memory."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

from contracts.config.settings import KafkaSettings, Settings, SettingsError, dump, parse
from contracts.config.tracing import TracingSettings
from contracts.kafka import bus, consumers
from contracts.runtime.clock import SystemClock
from contracts.runtime.health import Pulse
from contracts.snapshots import snapshot
from contracts.wire.events_pb2 import Exposure
from contracts.wire.recall_pb2 import Context, RecallReply, RecallRequest
from contracts.wire.recall_pb2_grpc import RecallServiceStub
from driftline.processes.supervisor import Supervisor
from serving.parts import PLAIN, Parts
from serving.replica import Replica
from serving.tracing import provider_of, traced
from tests.contracts.runtime.endpoint_cases import wait_for
from tests.serving.replica_cases import KNOWN_USER, prepared
from tests.serving.serving_cases import make_snapshot
from tests.stream.stream_cases import settings_for

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ["wait", "features", "answers", "replies"]


def publish(settings: Settings) -> None:
    """Let a snapshot be live."""
    made = make_snapshot()
    snapshot.write(settings.snapshots, made)
    snapshot.publish(settings.snapshots, "two_tower", made.manifest.version)


def recall(directory: Path, kafka: KafkaSettings, parts: Parts, traceparent: str) -> RecallReply:
    """Ask a replica once, and stop it."""
    settings = prepared(directory, kafka)
    publish(settings)

    async def ask() -> RecallReply:
        server, clock = grpc.aio.server(), SystemClock()
        port = server.add_insecure_port("127.0.0.1:0")
        replica = Replica(settings, "replica", clock, parts)
        with replica.threads():
            async with replica.behind(server, Pulse(clock)):
                while replica.missing:
                    await replica.look()
                    await asyncio.sleep(0)
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    request = RecallRequest(user_id=KNOWN_USER, k=2, context=Context(time_ms=1000))
                    metadata = (("traceparent", traceparent),) if traceparent else ()
                    reply: RecallReply = await RecallServiceStub(channel).Recall(request, timeout=30, metadata=metadata)
        return reply

    return asyncio.run(ask())


def headers_of(kafka: KafkaSettings, request_id: str) -> dict[str, str]:
    """Of the exposure's record."""
    for where in bus.partitions_of(kafka, [bus.EXPOSURES]):
        for record in consumers.read_to_end(kafka, bus.EXPOSURES, where.partition, 0):
            if Exposure.FromString(record.value).request_id == request_id:
                return {name: text.decode() for name, text in record.headers}
    raise AssertionError(request_id)


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, span, and the span above it, as they are written."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else ""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def test_a_trace_goes_from_the_caller_through_the_batch_to_the_exposure(
    tmp_path: Path, embedded: KafkaSettings
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    reply = recall(tmp_path, embedded, traced(provider.get_tracer("t")), f"00-{TRACE}-{CALLER}-01")
    spans = {span.name: span for span in exporter.get_finished_spans()}
    request = spans.pop("driftline.v1.RecallService/Recall")
    trace_id, request_span, parent = ids(request)
    assert (trace_id, parent) == (TRACE, CALLER)
    attributes = dict(request.attributes or {})
    assert attributes["driftline.arm"] == reply.arm
    assert attributes["driftline.snapshot_version"] == "v000001"
    assert attributes["driftline.items"] == 2
    assert spans.keys() == {*STAGES, "exposures send"}
    assert {ids(span)[::2] for span in spans.values()} == {(TRACE, request_span)}
    # One stage begins where another ends, and all are within the request.
    times = [(spans[name].start_time or 0, spans[name].end_time or 0) for name in STAGES]
    assert [begin for begin, _ in times[1:]] == [end for _, end in times[:-1]]
    assert all(begin <= end for begin, end in times)
    # Whoever reads the exposure goes on from the span that sent it.
    sent = ids(spans["exposures send"])[1]
    assert headers_of(embedded, reply.request_id)["traceparent"] == f"00-{TRACE}-{sent}-01"


def test_what_the_caller_does_not_sample_makes_no_span_and_is_passed_on_so(
    tmp_path: Path, embedded: KafkaSettings
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=ParentBased(ALWAYS_ON))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    reply = recall(tmp_path, embedded, traced(provider.get_tracer("t")), f"00-{TRACE}-{CALLER}-00")
    assert exporter.get_finished_spans() == ()
    assert headers_of(embedded, reply.request_id)["traceparent"].startswith(f"00-{TRACE}-")
    assert headers_of(embedded, reply.request_id)["traceparent"].endswith("-00")


def test_without_traces_an_exposure_has_no_header_of_one(tmp_path: Path, embedded: KafkaSettings) -> None:
    reply = recall(tmp_path, embedded, PLAIN, f"00-{TRACE}-{CALLER}-01")
    assert headers_of(embedded, reply.request_id).keys() == {bus.SENT_AT}


def test_without_traces_nothing_that_makes_or_sends_spans_is_imported() -> None:
    """redis-py imports the SDK's metrics wherever it finds them, so that alone would say nothing."""
    tracing = {"opentelemetry.sdk.trace", "opentelemetry.exporter", "serving.tracing"}
    program = f"import sys, serving.replica; sys.exit(bool({tracing} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(("share", "sampled"), [(1.0, True), (0.0, False)])
def test_of_requests_without_a_trace_a_share_is_sampled(share: float, *, sampled: bool) -> None:
    provider = provider_of(TracingSettings(endpoint="http://127.0.0.1:1", share=share), "replica")
    assert provider.get_tracer("t").start_span("s").is_recording() is sampled


class Receiver(TraceServiceServicer):
    """What a collector of traces is sent."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.services: set[str] = set()

    def Export(  # noqa: N802
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        for each in request.resource_spans:
            self.services |= {a.value.string_value for a in each.resource.attributes if a.key == "service.name"}
            self.names |= {span.name for scope in each.scope_spans for span in scope.spans}
        return ExportTraceServiceResponse()


def test_a_replica_that_ends_has_sent_its_spans(tmp_path: Path, embedded: KafkaSettings) -> None:
    receiver, collector = Receiver(), grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(receiver, collector)
    endpoint = f"http://127.0.0.1:{collector.add_insecure_port('127.0.0.1:0')}"
    collector.start()
    tracing = TracingSettings(endpoint=endpoint, share=1)
    settings = prepared(tmp_path, embedded).model_copy(update={"tracing": tracing})
    dump(settings, tmp_path / "settings.yaml")
    publish(settings)
    with Supervisor(tmp_path / "logs", SystemClock()) as supervisor:
        child = supervisor.start_worker("replica", ["serve"], tmp_path / "settings.yaml")
        supervisor.wait_ready([child])
        wait_for(int(child.facts["metrics_port"]), 200, [])
        with grpc.insecure_channel(f"127.0.0.1:{child.facts['port']}") as channel:
            RecallServiceStub(channel).Recall(RecallRequest(user_id=KNOWN_USER, k=2), timeout=30)
    collector.stop(0).wait()
    assert receiver.names == {"driftline.v1.RecallService/Recall", *STAGES, "exposures send"}
    assert receiver.services == {"driftline-replica"}


@pytest.mark.parametrize(("tracing", "said"), [({"endpoint": "127.0.0.1:4317"}, "endpoint"), ({}, "endpoint")])
def test_bad_settings_are_refused(tmp_path: Path, tracing: dict[str, str], said: str) -> None:
    settings = settings_for(KafkaSettings(bootstrap_servers="h:1"), tmp_path).model_dump(mode="json")
    with pytest.raises(SettingsError, match=said):
        parse(settings | {"tracing": tracing})
