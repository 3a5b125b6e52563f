"""What the commands of all long-running processes share: where metrics are served, and logs from the first line on.

Logs are JSON before the settings are read. What a user can mend is one sentence as it is for every command: plain
where standard error is a terminal, else a line of the log, so that whatever collects it need not know two formats.
"""

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from contracts.config.metrics import Process
from contracts.config.settings import Settings, load

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_runs_a_worker = threading.Event()

MetricsHost: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Address for /metrics, /healthz and /readyz; wins over metrics.host.", show_default=False),
]
MetricsPort: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Port of the same; wins over metrics.ports; 0: any free port, which the log and the ready file tell.",
        show_default=False,
    ),
]


def worker_settings(process: Process, path: Path, host: str | None, port: int | None) -> Settings:
    """The settings of a process that is about to run, whose logs are JSON from here on.

    Raises:
        SettingsError: the settings are wrong.

    """
    from contracts.runtime.worker import configure_logs

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the process has a handler of its own
    configure_logs()
    _runs_a_worker.set()
    settings = load(path)
    return settings.model_copy(update={"metrics": settings.metrics.overridden(process, host, port)})


def complain(sentence: str) -> None:
    """Tell a user what can be mended."""
    if not _runs_a_worker.is_set() or sys.stderr.isatty():
        typer.echo(f"driftline: {sentence}", err=True)
    else:
        _log().critical(sentence)


def begin() -> None:
    """A command begins; it is no worker's until it asks for a worker's settings."""
    _runs_a_worker.clear()


def _log() -> "FilteringBoundLogger":
    import structlog

    log: FilteringBoundLogger = structlog.get_logger()
    return log
