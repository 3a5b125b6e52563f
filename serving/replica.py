"""One replica: a process with a gRPC server, and around it what feeds it. Starts, serves, drains."""

import asyncio
import contextlib
import ctypes
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from contracts.config.settings import Experiment, Settings, SettingsError
from contracts.kafka import bus
from contracts.runtime.clock import Clock, SystemClock
from contracts.runtime.cycles import keep_imports
from contracts.runtime.endpoint import opened
from contracts.runtime.health import BEGINS, Pulse
from contracts.runtime.worker import announce, configure_logs, end_within
from contracts.wire import recall_pb2
from feature_repo.online import reader
from serving import security
from serving.batcher import BatchSize
from serving.catalogue import CatalogueReader
from serving.experiment import RunningExperiment, problem_of
from serving.features import Features
from serving.handlers import handlers
from serving.metrics import ServingMetrics
from serving.parts import PLAIN, Parts, parts_of
from serving.reload import reload
from serving.swapper import Swapper, models_of

log = structlog.get_logger()
DESCRIPTOR = recall_pb2.DESCRIPTOR.services_by_name["RecallService"]
SERVICE = DESCRIPTOR.full_name
M_MMAP_THRESHOLD = -3  # as in malloc.h
ARRAY_BYTES = 10 << 20  # above the 8 MB of scores that a search needs for a moment
QUIET_S = 0.1  # without a new request: nobody asks any more
BEAT_S = 0.5  # how often the loop that answers says that it turns
OVERALL = ""  # the health of the server as a whole, which gRPC asks for by this name
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Replica:
    """The parts of a replica, put together."""

    def __init__(self, settings: Settings, name: str, clock: Clock, parts: Parts = PLAIN) -> None:
        serving = settings.serving
        self._clock = clock
        self.settings = serving
        self.metrics = ServingMetrics()
        self.running = RunningExperiment(settings.experiment, self.metrics)
        self.catalogue = CatalogueReader(settings.kafka, settings.stream.max_event_bytes, serving.max_k, self.running)
        self.missing: tuple[str, ...] = (BEGINS,)  # for there to be anything to answer from
        self.catalogue.reads.register(self.metrics.registry)
        self.metrics.withdrawn.set_function(lambda: len(self.catalogue.withdrawn))
        self.swapper = Swapper(settings, lambda: list(self._answerer.recorded), self.metrics, clock)
        read_by = reader(settings.feature_repo, serving.feature_timeout_ms / 1000)
        self.features = Features(read_by, serving.last_known_users, clock)
        self._answerer = parts.answerer(
            self.running,
            self.swapper.models,
            self.swapper.canaries,
            self.features,
            self.catalogue.withdrawn.at,
            lambda: None if self.missing else self.catalogue.newest.ids,
            self.catalogue.keys,
            clock,
            self.metrics,
        )
        size = BatchSize(serving.batch_requests, serving.latency_budget_ms / 1000)
        self.batcher = parts.batcher(self._answerer, size, serving.queue_requests, serving.batch_wait_ms / 1000, clock)
        self.exposures = parts.exposures(
            bus.producer(settings.kafka), settings.kafka, name, serving.exposure_buffer, clock, self.metrics
        )
        self.service = parts.recall(
            serving, self.batcher, self.exposures, self.swapper.status, self.running, clock, self.metrics
        )
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
            self.features.close()
            self.exposures.close()
            self.catalogue.close()

    @asynccontextmanager
    async def behind(self, server: grpc.aio.Server, pulse: Pulse) -> AsyncIterator[None]:
        """The server serves; on the way out it takes nothing new and lets requests end. `pulse`: of its loop."""
        server.add_generic_rpc_handlers((handlers(DESCRIPTOR, self.service),))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        await self.tell_health()
        await server.start()
        answering = asyncio.create_task(self.batcher.run())
        beating = asyncio.create_task(self._beat(pulse, answering))
        try:
            yield
        finally:
            self.service.draining = True
            await self.health.enter_graceful_shutdown()
            await self._quiet()
            await server.stop(self.settings.drain_s)
            for task in (beating, answering):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _beat(self, pulse: Pulse, answering: "asyncio.Task[None]") -> None:
        """Say that the loop turns, for as long as it answers: beside `look`, which waits for snapshots to be loaded."""
        while not answering.done():
            pulse.beat(("it is draining",) if self.service.draining else self.missing)
            await asyncio.sleep(BEAT_S)

    async def _quiet(self) -> None:
        """Answer on until nobody asks any more: clients that watch health go elsewhere, and gRPC would cancel calls
        that are on their way when its server stops.
        """
        deadline_s = self._clock.elapsed_s() + self.settings.drain_s
        begun = -1
        while begun != self.service.begun and self._clock.elapsed_s() < deadline_s:
            begun = self.service.begun
            await asyncio.sleep(QUIET_S)

    async def look(self) -> None:
        """Bring in what is live, and say what there is to answer from."""
        await self.swapper.check()
        self.missing = missing_of(
            caught_up=self.catalogue.caught_up.is_set(),
            loaded=bool(self.swapper.models),
            live=self.swapper.any_live,
            newest=bool(self.catalogue.newest.ids),
            before=not self.missing,
        )
        await self.tell_health()

    async def redefine(self, experiment: Experiment) -> None:
        """Go by another definition of the experiment, once all models that it names are loaded, as far as they can be.

        Raises:
            SettingsError: the experiment's collector has another one.

        """
        course = self.running.redefined(experiment)
        if course.other:
            raise SettingsError(problem_of(course))
        wanted = models_of(experiment)
        self.swapper.keep([*{*self.swapper.names, *wanted}])
        await self.swapper.check()
        self.running.follow(experiment)
        self.swapper.keep(wanted)

    async def tell_health(self) -> None:
        """Say whether there is anything to answer from, and by model whether what is live serves."""
        for name in (OVERALL, SERVICE):
            await self.health.set(name, NOT_SERVING if self.missing else SERVING)
        for model in self.swapper.names:
            fine = self.swapper.serves_live(model)
            await self.health.set(f"{SERVICE}/{model}", SERVING if fine else NOT_SERVING)


def missing_of(*, caught_up: bool, loaded: bool, live: bool, newest: bool, before: bool) -> tuple[str, ...]:
    """What a replica lacks to be asked: it knows what is withdrawn, and has a snapshot, or else the newest items.

    A replica that starts and cannot load what is live is not ready: another one may have loaded it. One that was ready
    before the first snapshot stays ready, whatever becomes of that snapshot.

    >>> missing_of(caught_up=True, loaded=False, live=False, newest=True, before=False)
    ()
    >>> missing_of(caught_up=True, loaded=False, live=True, newest=True, before=False)
    ('what is live has not been loaded',)

    Args:
        caught_up: the catalogue's topic has been read up to where it ended at the start.
        loaded: a snapshot of any model is loaded.
        live: the pointer of any model names one.
        newest: there are items in the catalogue.
        before: the replica was ready when this was last asked.

    """
    missing = () if caught_up else ("the catalogue has not been read to its end",)
    if loaded or (newest and (before or not live)):
        return missing
    why = "what is live has not been loaded" if live else "there is neither a snapshot nor an item"
    return (*missing, why)


async def serve(settings: Settings, ready_file: Path | None, read: Callable[[], Settings]) -> None:
    """Serve until SIGTERM or SIGINT, then drain. SIGHUP: `read` the settings again."""
    _give_snapshots_back()
    stop, reread = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reread.set)
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, _stop, stop, settings.stop_within_s)
    # The port comes first: a replica that cannot have it should say so before it does anything else.
    guards = security.interceptors(settings.serving)
    server = grpc.aio.server(interceptors=guards, options=security.options(settings.serving))
    port = security.bind(server, settings.serving)
    clock = SystemClock()
    endpoint = opened("replica", settings, clock, port=port)
    bus.check_topics(settings.kafka)
    name = f"{socket.gethostname()}:{port}"
    with parts_of(settings.tracing, name) as parts:
        replica = Replica(settings, name, clock, parts)
        endpoint.show(replica.metrics.registry)
        with replica.threads():
            async with replica.behind(server, endpoint.pulse):
                log.info("replica ready", port=port, metrics_port=endpoint.port)
                announce(ready_file, {"port": port, "metrics_port": endpoint.port})
                while not stop.is_set():
                    await replica.look()
                    for guard in guards:
                        guard.tokens.look()
                    if reread.is_set():
                        reread.clear()
                        settings = await reload(settings, read, replica.redefine)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), settings.serving.pointer_poll_ms / 1000)
                log.info("replica draining")
    log.info("replica stopped")


def run(settings: Settings, ready_file: Path | None, read: Callable[[], Settings]) -> None:
    """Run a replica until a signal stops it. `read`: reads the settings again, when it is told to."""
    configure_logs()
    keep_imports()
    # Replicas scale by processes: threads of Faiss and BLAS would only take turns with those that answer.
    with threadpool_limits(1):
        uvloop.run(serve(settings, ready_file, read))


def _stop(stop: asyncio.Event, within_s: float) -> None:
    if not stop.is_set():
        end_within(within_s)
    stop.set()


def _give_snapshots_back() -> None:
    """Let a released snapshot's arrays go back to the machine at once.

    After a first release glibc takes arrays of up to 32 MB from its heap, which keeps them: a replica that swaps would
    hold half as much again, and grow and shrink by chance. Setting the threshold ends that.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc and hasattr(libc, "mallopt"):  # not where musl is the C library, which gives memory back anyway
        libc.mallopt(M_MMAP_THRESHOLD, ARRAY_BYTES)
