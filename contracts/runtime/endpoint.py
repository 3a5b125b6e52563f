"""The HTTP server beside every process: /metrics for Prometheus, /healthz and /readyz for whoever runs it.

It opens before the process begins its work, so that a taken port is said at once and a long start can be watched, and
serves until the process has ended, so that a stop can be watched too. What it answers is decided in `health`.
"""

import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, make_wsgi_app

from contracts.config.experiment import SettingsError
from contracts.config.metrics import MetricsSettings, Process
from contracts.runtime.clock import Clock
from contracts.runtime.health import Answer, Pulse, health, readiness
from contracts.runtime.worker import still_running

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from pydantic.main import IncEx

    from contracts.config.settings import Settings

log = structlog.get_logger()

IDLE_S = 10.0  # before a connection on which nothing is asked is closed
PLACES = 3  # innermost calls of the main thread that are told where it is stuck
NOT_HASHED: "dict[str, IncEx | bool]" = {
    "kafka": {"security"},
    "metrics": True,
}  # secrets, and what each process may have of its own


class Endpoint:
    """The server of one process, and the pulse of its main loop, which it tells of."""

    def __init__(
        self, process: Process, metrics: MetricsSettings, clock: Clock, *, release: str = "", settings: str = ""
    ) -> None:
        """Open the port and serve.

        Args:
            process: its kind.
            metrics: where to serve, and after how long the main loop is stuck.
            clock: tells how long its steps take.
            release: version of driftline.
            settings: hash of the settings.

        Raises:
            SettingsError: the port cannot be had.

        """
        self.pulse = Pulse(clock)
        self._process = process
        self._bound_s = metrics.stuck_after_s
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, CPU, open files; on Linux
        self._describe(release, settings)
        self._server = _listening(metrics.host, metrics.port_of(process), process)
        self._server.set_app(self._app())
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it serves."""
        return int(self._server.server_port)

    def show(self, registry: CollectorRegistry) -> None:
        """Show these metrics too."""
        self._registry.register(registry)

    def close(self) -> None:
        """Serve no more. A process need not: it serves until its end."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _describe(self, release: str, settings: str) -> None:
        labels = {"process": self._process, "version": release, "settings": settings}
        Gauge("driftline_process_info", "1: what this process is", [*labels], registry=self._registry).labels(
            **labels
        ).set(1)
        for name, what, read in (
            ("driftline_ready", "1 while /readyz answers 200", lambda: self._readiness().code == HTTPStatus.OK),
            ("driftline_loop_age_seconds", "Since the main loop's last step", lambda: self.pulse.age_s),
            ("driftline_loop_bound_seconds", "A main loop without a step for longer is stuck", lambda: self._bound_s),
        ):
            gauge = Gauge(name, what, ["process"], registry=self._registry).labels(self._process)
            gauge.set_function(read)

    def _health(self) -> Answer:
        return health(self._process, self.pulse.age_s, self._bound_s, _main_thread_at())

    def _readiness(self) -> Answer:
        return readiness(self._process, self.pulse.age_s, self._bound_s, self.pulse.missing, _main_thread_at())

    def _app(self) -> "WSGIApplication":
        metrics: WSGIApplication = make_wsgi_app(self._registry)
        answers: dict[str, Callable[[], Answer]] = {"/healthz": self._health, "/readyz": self._readiness}

        def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            if path == "/metrics":
                return metrics(environ, start_response)
            answer = answers[path]() if path in answers else Answer(404, {"paths": ["/metrics", *answers]})
            content = json.dumps(answer.body).encode() + b"\n"
            status = f"{answer.code} {HTTPStatus(answer.code).phrase}"
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
            start_response(status, [*headers, ("Cache-Control", "no-store")])
            return [content]

        return app


def opened(process: Process, settings: "Settings", clock: Clock, **facts: object) -> Endpoint:
    """The endpoint of a process that starts, and the first line of its log, which says what and where it is.

    `facts`: stand in that line too, such as other ports.

    Raises:
        SettingsError: the port cannot be had.

    """
    release, settings_hash = _release(), hash_of(settings)
    endpoint = Endpoint(process, settings.metrics, clock, release=release, settings=settings_hash)
    log.info(
        "started", process=process, version=release, pid=os.getpid(), settings=settings_hash,
        metrics_host=settings.metrics.host, metrics_port=endpoint.port, **facts,
    )  # fmt: skip
    return endpoint


def hash_of(settings: "Settings") -> str:
    """Twelve hexadecimal digits: equal for two processes whose settings are, but for secrets and metrics ports."""
    content: Any = settings.model_dump(mode="json", exclude=NOT_HASHED)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, which none can hold on to for long."""

    daemon_threads = True
    request_queue_size = 128  # connections that wait to be taken; the base class's 5 are full when a few come at once


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = IDLE_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the base class)
        """Nothing: every scrape would make a line."""


def _listening(host: str, port: int, process: Process) -> _Server:
    try:
        server = (_ServerV6 if ":" in host else _Server)((host, port), _Handler)
    except OSError as error:
        raise SettingsError(
            f"Metrics cannot be served on port {port} of {host}: {error.strerror}; metrics.host, metrics.ports."
            f"{process}, --metrics-host and --metrics-port name another."
        ) from error
    return server


def _main_thread_at() -> str:
    return " < ".join(still_running().get("MainThread", "").split(" < ")[:PLACES])


def _release() -> str:
    try:
        return version("driftline")
    except PackageNotFoundError:
        return ""
