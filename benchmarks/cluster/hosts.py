"""A host: a directory that no other host reads, and one driftline process on it."""

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contracts.config.settings import Settings, dump
from contracts.runtime.clock import SystemClock
from driftline.processes.supervisor import Child, Supervisor
from feature_repo.store import apply

READY_S = 120.0
SERVICE = "driftline.v1.RecallService"
CLOCK = SystemClock()


class Victim(Protocol):
    """What can be killed and be there again."""

    @property
    def name(self) -> str:
        """As it is called in findings."""

    def kill(self) -> None:
        """End its processes with SIGKILL and delete its disk, if it has one."""

    def start(self) -> None:
        """Start it on whatever its disk has."""

    def wait_ready(self) -> None:
        """Wait until it does its work."""


class Machine(Protocol):
    """What has a disk and processes of its own."""

    @property
    def name(self) -> str:
        """As it is called in findings."""

    directory: Path

    def processes(self) -> list[psutil.Process]:
        """All of them."""


class Host:
    """Settings, Feast repository, state, cache and logs of one process, all below one directory."""

    def __init__(
        self,
        directory: Path,
        command: Sequence[str],
        settings: Callable[[Path], Settings],
        redis: str | None = None,
    ) -> None:
        """`settings`: of this host's directory. `redis`: of those that read or write features."""
        self.directory = directory
        self.settings = settings(directory)
        self._command = command
        self._redis = redis
        self._supervisor: Supervisor | None = None
        self.child: Child | None = None

    @property
    def name(self) -> str:
        """Its directory's name."""
        return self.directory.name

    def start(self) -> None:
        """Start its process on whatever its disk has."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._redis:
            apply(self.settings.feature_repo, self._redis)
        file = self.directory / "settings.yaml"
        dump(self.settings, file)
        self._supervisor = Supervisor(self.directory / "logs", CLOCK)
        self.child = self._supervisor.start_worker(self.name, self._command, file)

    def wait_ready(self) -> None:
        """Wait until it says that it is ready; a replica, until its health says that it serves."""
        assert self._supervisor is not None
        assert self.child is not None
        self._supervisor.wait_ready([self.child])
        if self._command[0] == "serve":
            _wait_serving(f"127.0.0.1:{self.settings.serving.port}")

    def processes(self) -> list[psutil.Process]:
        """Its process and what that has started."""
        if self.child is None or self.child.process.poll() is not None:
            return []
        own = psutil.Process(self.child.process.pid)
        return [own, *own.children(recursive=True)]

    def kill(self) -> None:
        """End its processes with SIGKILL and delete its disk."""
        assert self._supervisor is not None
        assert self.child is not None
        for process in reversed(self.processes()):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self.child.process.wait()
        self._supervisor.children.clear()
        shutil.rmtree(self.directory)

    def stop(self) -> None:
        """End it by SIGTERM, if it runs."""
        if self._supervisor is not None:
            self._supervisor.stop_all()
            self._supervisor.children.clear()

    def log(self) -> str:
        """What its process has printed."""
        return "" if self.child is None else self.child.log.read_text(errors="replace")


def foreign_files(hosts: Sequence[Machine], below: Path) -> list[str]:
    """Files that a host's processes have open, or mapped, on another host's disk: `below`, and not on its own."""
    found = []
    for host in hosts:
        for process in host.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                mapped: list[Any] = process.memory_maps(grouped=True)
                paths = [each.path for each in (*process.open_files(), *mapped)]
                others = [path for path in paths if path.startswith(f"{below}{os.sep}")]
                found += [f"{host.name}: {path}" for path in others if not path.startswith(f"{host.directory}{os.sep}")]
    return found


def _wait_serving(address: str) -> None:
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        for reply in health_pb2_grpc.HealthStub(channel).Watch(request, timeout=READY_S, wait_for_ready=True):
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return
