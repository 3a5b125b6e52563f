"""What every worker process does around its work: logs, a ready file, a stop signal. `endpoint` serves its metrics.

A worker is a process that runs until SIGTERM or SIGINT, then finishes what it holds and exits with 0. One that has not
finished in the time that its settings give it says what it is still at, and exits with 1: what it holds then is what a
kill would have left, and the next start goes on from that.
"""

import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Histogram

from contracts.runtime.crashes import log_crashes
from contracts.runtime.durable import write_private

# Edges of every latency and freshness histogram, in seconds: 1 ms to 10 min, each 1.25 times the one before, so that
# a quantile read off the buckets is right to about 12 %.
SECONDS_BUCKETS = tuple(0.001 * 1.25**i for i in range(61))

INNERMOST_CALLS = 12  # of a thread, that are named where it does not stop


def stop_on_signal(within_s: float) -> threading.Event:
    """An event that SIGTERM and SIGINT set; `within_s` after that the process ends (`end_within`).

    Call it in the main thread.
    """
    stop = threading.Event()

    def handle(_signum: int, _frame: object) -> None:
        if not stop.is_set():
            end_within(within_s)
        stop.set()

    def ignore(_signum: int, _frame: object) -> None:
        structlog.get_logger().warning("SIGHUP is ignored: settings are read at the start alone")

    signal.signal(signal.SIGHUP, ignore)
    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop


def end_within(seconds: float) -> None:
    """End this process in so long, whatever its threads are at, and say what that is; nothing where it has ended."""
    timer = threading.Timer(seconds, _end_now, [seconds])
    timer.daemon = True
    timer.start()


def still_running() -> dict[str, str]:
    """What each other thread is at: its innermost calls, the last one first."""
    frames = sys._current_frames()  # noqa: SLF001
    here = threading.get_ident()
    return {
        thread.name: " < ".join(
            f"{Path(frame.f_code.co_filename).name}:{line} {frame.f_code.co_name}"
            for frame, line in islice(traceback.walk_stack(frames[thread.ident]), INNERMOST_CALLS)
        )
        for thread in threading.enumerate()
        if thread.ident != here and thread.ident in frames
    }


def _end_now(seconds: float) -> None:
    structlog.get_logger().error(
        "not stopped in time, so the process ends here", seconds=seconds, threads=still_running()
    )
    sys.stderr.flush()
    os._exit(1)


def configure_logs(*, quiet: bool = False) -> None:
    """One JSON object a line on standard error, from libraries, warnings and crashes too; quiet: errors alone."""
    common: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*common, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR if quiet else logging.NOTSET),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # While a broker is away the client's network layer logs ten lines a second; `kafka.cluster` says it often enough.
    logging.getLogger("kafka.net").setLevel(logging.CRITICAL)
    log_crashes()


def seconds_histogram(name: str, what: str, registry: CollectorRegistry, labels: tuple[str, ...] = ()) -> Histogram:
    """A histogram of durations in seconds with driftline's bucket edges."""
    return Histogram(name, what, labels, registry=registry, buckets=SECONDS_BUCKETS)


def announce(ready_file: Path | None, facts: Mapping[str, object]) -> None:
    """Tell whoever started this process that it is ready, and on which ports."""
    if ready_file is not None:
        write_private(ready_file, json.dumps({"pid": os.getpid(), **facts}).encode())
