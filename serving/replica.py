"""One replica: a gRPC server, and a swapper that brings new snapshots in beside the old ones.

A swap: (1) find that LIVE moved, (2) read and verify the snapshot, or the deltas that are missing, (3) load it and warm
it up, all in a thread beside the one that answers, (4) assign one reference. What fails in (2) or (3) never serves; the
old one stays.
"""

import asyncio
import contextlib
import signal
from pathlib import Path

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from contracts import bus, delta, snapshot
from contracts.clock import Clock, SystemClock
from contracts.settings import Settings
from contracts.snapshot import Version
from contracts.wire import recall_pb2, recall_pb2_grpc
from contracts.worker import announce, configure_logs, serve_metrics
from feature_repo.store import UserSequences
from serving import security
from serving.model import LoadedModel
from serving.service import Metrics, Recall
from serving.swap import Load, to_load

log = structlog.get_logger()
SERVICE = recall_pb2.DESCRIPTOR.services_by_name["RecallService"].full_name


class Swapper:
    """Keeps `models` at what the LIVE pointers name."""

    def __init__(self, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        self.models: dict[str, LoadedModel] = {}
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._names: list[str] = sorted({arm.model for arm in settings.experiment.arms.values()})
        self._failed: set[Load] = set()

    async def check(self, service: Recall) -> None:
        """Bring in whatever is live and not loaded."""
        live = {name: self._pointer(name) for name in self._names}
        for name in self._names:
            with contextlib.suppress(OSError):  # there is none yet, or the disk is away
                moved_s = (self._settings.snapshots / name / snapshot.LIVE).stat().st_mtime
                self._metrics.published.labels(name).set(moved_s)
        self._failed = {load for load in self._failed if live[load.model] == load.version}
        while True:
            loaded: dict[str, str] = {name: model.manifest.version for name, model in self.models.items()}
            found = to_load(live, loaded, self._failed)
            if not found:
                return
            await self._bring_in(found[0], service)

    def _pointer(self, name: str) -> str | None:
        try:
            return snapshot.live(self._settings.snapshots, name)
        except OSError as error:  # a disk that is away for a while; what is loaded serves on
            self._metrics.failed_loads.labels(name).inc()
            log.warning("pointer not readable", model=name, error=str(error))
            return None

    async def _bring_in(self, load: Load, service: Recall) -> None:
        began = self._clock.elapsed_s()
        kind = "delta" if load.deltas else "full"
        try:
            model = await asyncio.to_thread(self._load, load, service)
        # A damaged ONNX or Faiss file raises whatever those libraries raise; the old snapshot must serve on.
        except Exception:
            self._failed.add(load)
            self._metrics.failed_loads.labels(load.model).inc()
            log.exception("snapshot not loaded", model=load.model, version=load.version, kind=kind)
            return
        self.models[load.model] = model
        version = Version.parse(load.version) or Version(0)
        self._metrics.swaps.labels(load.model).inc()
        self._metrics.version.labels(load.model).set(version.number)
        self._metrics.sequence.labels(load.model).set(version.sequence)
        self._metrics.swap_seconds.labels(kind).observe(self._clock.elapsed_s() - began)
        log.info("snapshot swapped in", model=load.model, version=load.version, kind=kind)

    def _load(self, load: Load, service: Recall) -> LoadedModel:
        root = self._settings.snapshots
        if load.deltas:
            missing = [delta.read_delta(root, load.model, name) for name in load.deltas]
            model = self.models[load.model].updated(missing)
        else:
            model = LoadedModel(delta.read(root, load.model, load.version))
        model.warm_up(list(service.recorded))
        return model


async def serve(settings: Settings, ready_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    server = grpc.aio.server(
        interceptors=security.interceptors(settings.serving), options=security.options(settings.serving)
    )
    port = security.bind(server, settings.serving)
    clock = SystemClock()
    metrics = Metrics()
    swapper = Swapper(settings, metrics, clock)
    producer = bus.producer(settings.kafka, max_block_ms=1000)
    service = Recall(settings, swapper.models, UserSequences(settings.feature_repo), producer, clock, metrics)
    recall_pb2_grpc.add_RecallServiceServicer_to_server(service, server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    await server.start()
    await status.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)  # until there is something to answer from
    metrics_port = serve_metrics(metrics.registry)
    log.info("replica ready", port=port, metrics_port=metrics_port)
    announce(ready_file, {"port": port, "metrics_port": metrics_port})
    while not stop.is_set():
        await swapper.check(service)
        if swapper.models:
            await status.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), settings.serving.pointer_poll_ms / 1000)
    await status.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    await server.stop(settings.serving.drain_s)
    await asyncio.to_thread(producer.close)
    log.info("replica stopped")


def run(settings: Settings, ready_file: Path | None) -> None:
    """Run a replica until a signal stops it."""
    configure_logs()
    uvloop.run(serve(settings, ready_file))
