"""Replicas to ask: real processes that share a store and a snapshot, and servers that do what no real one would."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from contracts.config.settings import Settings, dump
from contracts.runtime.clock import SystemClock
from contracts.snapshots import snapshot
from contracts.wire.recall_pb2 import (
    RecallBatchReply,
    RecallBatchRequest,
    RecallReply,
    RecallRequest,
    StatusReply,
    StatusRequest,
)
from contracts.wire.recall_pb2_grpc import RecallServiceServicer, add_RecallServiceServicer_to_server
from driftline.inspect.metrics import read_metrics
from driftline.processes import broker
from driftline.processes.supervisor import Child, Supervisor
from serving.calls import SERVICE
from tests.serving.replica_cases import prepared
from tests.serving.serving_cases import make_snapshot

LONG_S = 30.0  # what has not come by then does not come, on a busy machine too

Answer = Callable[[RecallRequest, grpc.ServicerContext], RecallReply]


class Cluster:
    """A broker, a Feast store, a live snapshot, and replicas on them."""

    def __init__(self, supervisor: Supervisor, directory: Path) -> None:
        self._supervisor = supervisor
        self.directory = directory
        kafka = broker.start_embedded(supervisor, SystemClock())
        broker.prepare(kafka)
        self.settings = prepared(directory, kafka)
        made = make_snapshot()
        snapshot.write(self.settings.snapshots, made)
        snapshot.publish(self.settings.snapshots, "two_tower", made.manifest.version)

    def start(self, *names: str, settings: Settings | None = None, **serving: object) -> list[Child]:
        """Start replicas side by side; `settings`: others than the cluster's; `serving`: of theirs that differ."""
        settings = settings or self.settings
        own = settings.serving.model_copy(update=serving)
        path = self.directory / f"{names[0]}.yaml"
        dump(settings.model_copy(update={"serving": own}), path)
        children = [self._supervisor.start_worker(name, ["serve"], path) for name in names]
        self._supervisor.wait_ready(children)
        return children

    def end(self, *children: Child) -> None:
        """Stop replicas, and wait until they have ended."""
        for child in children:
            child.process.terminate()
        for child in children:
            self.forget(child)

    def forget(self, child: Child) -> None:
        """Wait until a replica that was told to end, or was killed, has ended."""
        child.process.wait(LONG_S)
        self._supervisor.children.remove(child)


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """A cluster without replicas; on the way out everything is stopped."""
    with Supervisor(directory / "logs", SystemClock()) as supervisor:
        yield Cluster(supervisor, directory)


def until(holds: Callable[[], bool], within_s: float = LONG_S) -> None:
    """Ask again and again: what is waited for comes about by the asking, or by another thread."""
    clock = SystemClock()
    deadline = clock.elapsed_s() + within_s
    while not holds():
        assert clock.elapsed_s() < deadline


def driftline(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "driftline", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def address_of(child: Child) -> str:
    return f"127.0.0.1:{child.facts['port']}"


def answered_by(child: Child) -> float:
    """How many Recalls a replica has answered."""
    return read_metrics([int(child.facts["metrics_port"])]).total("serving_recalls_total", code="OK")


@dataclass
class Stand(RecallServiceServicer):
    """A server in this process that answers as a test says. It knows what it was asked, in order."""

    name: str
    answer: Answer | None = None
    port: int = 0
    asked: list[RecallRequest] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    status: StatusReply = field(default_factory=StatusReply)

    def __enter__(self) -> Self:
        self.server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        add_RecallServiceServicer_to_server(self, self.server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.be(ready=True)
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(0).wait()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def be(self, *, ready: bool) -> None:
        """Say from now on that it is ready, or is not."""
        states = health_pb2.HealthCheckResponse
        self._health.set(SERVICE, states.SERVING if ready else states.NOT_SERVING)

    def Recall(self, request: RecallRequest, context: grpc.ServicerContext) -> RecallReply:  # noqa: N802
        self.asked.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.answer is not None:
            return self.answer(request, context)
        return RecallReply(request_id=request.request_id, model=self.name)

    def RecallBatch(self, request: RecallBatchRequest, context: grpc.ServicerContext) -> RecallBatchReply:  # noqa: N802
        """Users below 1 are no users."""
        reply = RecallBatchReply()
        for each in request.requests:
            if each.user_id > 0:
                reply.outcomes.add(reply=RecallReply(request_id=each.request_id, model=self.name))
            else:
                reply.outcomes.add(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="no user")
        return reply

    def Status(self, request: StatusRequest, context: grpc.ServicerContext) -> StatusReply:  # noqa: N802
        self.metadata.append(dict(context.invocation_metadata()))
        return self.status


class Pair(NamedTuple):
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority in a directory, by the `openssl` command."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.own = Pair(directory / "ca.pem", directory / "ca.key")
        self._openssl(*("req", "-x509", *self._new(self.own), "-days", "2", "-subj", f"/CN={directory.name}"))

    def sign(self, name: str, names: str = "IP:127.0.0.1,DNS:localhost") -> Pair:
        """A certificate for hosts, as openssl writes alternative names."""
        made = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        signer = ("-CA", str(self.own.certificate), "-CAkey", str(self.own.key))
        subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={names}")
        self._openssl("req", "-x509", *self._new(made), "-days", "2", *signer, *subject)
        return made

    def _new(self, pair: Pair) -> tuple[str, ...]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        return (*curve, "-noenc", "-keyout", str(pair.key), "-out", str(pair.certificate))

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], capture_output=True, check=True)
