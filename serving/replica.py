"""One replica: a process with a gRPC server, and around it what feeds it. Starts, serves, drains."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from contracts import bus
from contracts.clock import Clock, SystemClock
from contracts.settings import Settings
from contracts.wire import recall_pb2, recall_pb2_grpc
from contracts.worker import announce, configure_logs, serve_metrics
from feature_repo.store import UserSequences
from serving.answerer import Answerer
from serving.batcher import Batcher, BatchSize
from serving.catalogue import CatalogueReader
from serving.exposures import ExposureLog
from serving.features import Features
from serving.metrics import Metrics
from serving.service import Recall
from serving.swapper import Swapper

log = structlog.get_logger()
SERVICE = recall_pb2.DESCRIPTOR.services_by_name["RecallService"].full_name
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Replica:
    """The parts of a replica, put together."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        serving = settings.serving
        self.settings = serving
        self.metrics = Metrics()
        self.catalogue = CatalogueReader(settings.kafka)
        self.swapper = Swapper(settings, lambda: list(self._answerer.recorded), self.metrics, clock)
        self.features = Features(
            UserSequences(settings.feature_repo), serving.feature_timeout_ms / 1000, serving.last_known_users
        )
        self._answerer = Answerer(
            settings.experiment,
            self.swapper.models,
            self.features,
            self.catalogue.withdrawn.at,
            clock,
            self.metrics,
        )
        size = BatchSize(serving.batch_requests, serving.latency_budget_ms / 1000)
        self.batcher = Batcher(self._answerer, size, serving.queue_requests, clock)
        self.exposures = ExposureLog(
            bus.producer(settings.kafka), settings.kafka, serving.exposure_buffer, clock, self.metrics
        )
        self.service = Recall(serving, self.batcher, self.exposures, self.swapper.status, clock, self.metrics)
        self.health = health.aio.HealthServicer()

    @contextmanager
    def threads(self) -> Iterator[None]:
        """What runs beside the server, from its start until it has drained."""
        self.catalogue.start()
        self.exposures.start()
        try:
            yield
        finally:
            self.swapper.close()
            self.batcher.close()
            self.features.close()
            self.exposures.close()
            self.catalogue.close()

    @asynccontextmanager
    async def server(self) -> AsyncIterator[int]:
        """The gRPC server, on the port that it gives; on the way out it takes nothing new and lets requests end."""
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", self.settings.max_message_bytes)])
        recall_pb2_grpc.add_RecallServiceServicer_to_server(self.service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        port = server.add_insecure_port(f"{self.settings.host}:{self.settings.port}")
        await self.tell_health()
        await server.start()
        answering = asyncio.create_task(self.batcher.run())
        try:
            yield port
        finally:
            self.service.draining = True
            await self.health.enter_graceful_shutdown()
            await server.stop(self.settings.drain_s)
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering

    async def tell_health(self) -> None:
        """Say whether there is anything to answer from, and by model whether what is live serves."""
        ready = bool(self.swapper.models) and self.catalogue.caught_up.is_set()
        await self.health.set(SERVICE, SERVING if ready else NOT_SERVING)
        for model in self.swapper.status():
            fine = model.snapshot_version and not model.error
            await self.health.set(f"{SERVICE}/{model.model}", SERVING if fine else NOT_SERVING)


async def serve(settings: Settings, ready_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    replica = Replica(settings, SystemClock())
    with replica.threads():
        async with replica.server() as port:
            metrics_port = serve_metrics(replica.metrics.registry)
            log.info("replica ready", port=port, metrics_port=metrics_port)
            announce(ready_file, {"port": port, "metrics_port": metrics_port})
            while not stop.is_set():
                await replica.swapper.check()
                await replica.tell_health()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), settings.serving.pointer_poll_ms / 1000)
            log.info("replica draining")
    log.info("replica stopped")


def run(settings: Settings, ready_file: Path | None) -> None:
    """Run a replica until a signal stops it."""
    configure_logs()
    uvloop.run(serve(settings, ready_file))
