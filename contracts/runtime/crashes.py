"""What ends a process, or would be printed past its log, as lines of the log.

What is written by C and C++ code (gRPC's core, a segmentation fault) goes past Python, and so past this.
"""

import logging
import sys
import threading
from types import TracebackType

import structlog

log = structlog.get_logger()


def log_crashes() -> None:
    """From here on an exception that nobody catches is one line with its traceback, in whichever thread, and so is a
    warning. What asyncio says of a task that failed goes through `logging`, as warnings do.
    """
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed
    sys.unraisablehook = _unraisable
    logging.captureWarnings(True)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):  # before the process had a handler for the signal
        log.warning("interrupted")
    else:
        log.critical("crashed", error=repr(error), exc_info=(kind, error, trace))
    sys.stderr.flush()


def _thread_crashed(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    log.critical(
        "a thread crashed",
        thread=args.thread.name if args.thread else "",
        error=repr(args.exc_value),
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    error = args.exc_value
    log.error(
        "an exception had nobody to go to",
        error=repr(error),
        where=repr(args.object),
        exc_info=None if error is None else (args.exc_type, error, args.exc_traceback),
    )
