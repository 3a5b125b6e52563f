"""Runs workers that get killed or join others, each in a process of its own, without importing Feast anew each time.

It reads one JSON object a line from standard input, forks a process that runs a worker, and says how that ended:
{"worker": "w", "exit": 0}. It starts no thread and opens no client itself, so a worker begins as a fresh process would.

    {"worker": "w", "settings": FILE, "ends": {"exposures": [n, …], "feedback": [n, …]}, "kill_at": 17, "instance": "i"}

`worker`: what it is called in all that is said of it. `instance`: its name in the consumer group; null: none.
`kill_at`: at which of its steps the worker kills itself; null: it runs until it has taken everything in.
`kill_after_s`: instead, after how long on the wall clock.
`tell_at`: at which of its steps it says so, and goes on: {"worker": "w", "pid": 4711, "step": 9}.
`stays`: whether it runs until SIGTERM. Then it says which partitions it owns, how many records of each it has taken in,
what its metric says of them, how many the group wants it to own, and whether its last two steps found nothing, whenever
one of these changes:
{"worker": "w", "pid": 4711, "owned": {"0": 25, "3": 17}, "partitions": 2, "wanted": 4, "quiet": false}.
"""

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from contracts.config.settings import Settings, load
from contracts.kafka import bus
from contracts.runtime.worker import configure_logs, stop_on_signal
from stream.worker import StreamWorker, open_worker


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody needs to wait for a keeper
    for line in sys.stdin:
        if os.fork() == 0:
            keep(json.loads(line))
            os._exit(0)


def keep(order: dict[str, object]) -> None:
    """Run a worker in a process of its own and say how that ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(order)
            status = 0
        finally:
            if status:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    tell(order, exit=os.waitstatus_to_exitcode(status))


def run(order: dict[str, object]) -> None:
    configure_logs()
    settings = load(Path(str(order["settings"])))
    if order.get("kill_after_s") is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        threading.Timer(float(str(order["kill_after_s"])), os.kill, (os.getpid(), signal.SIGKILL)).start()
    kill_at = order.get("kill_at")
    tell_at = set(order.get("tell_at") or ())  # type: ignore[call-overload]
    steps = 0

    def at(_step: str) -> None:
        nonlocal steps
        steps += 1
        if steps in tell_at:
            tell(order, pid=os.getpid(), step=steps)
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    instance = order.get("instance")
    stop = stop_on_signal(60.0) if order.get("stays") else threading.Event()
    worker = open_worker(settings, stop, instance=str(instance) if instance else None, at=at)
    if order.get("stays"):
        stay(worker, stop, order)
    else:
        take_all(worker, settings, order)
    worker.close()


def take_all(worker: StreamWorker, settings: Settings, order: dict[str, object]) -> None:
    """Run until everything has been taken in."""
    ends = {name: [int(n) for n in offsets] for name, offsets in dict(order["ends"]).items()}  # type: ignore[call-overload]
    while not complete(worker, settings, ends):
        worker.step()


def stay(worker: StreamWorker, stop: threading.Event, order: dict[str, object]) -> None:
    """Run until told to stop, and say what changes."""
    told, quiet = None, 0
    while not stop.is_set():
        quiet = 0 if worker.step() else quiet + 1
        owned = worker._ownership.owned.items()
        news = {
            "owned": {p: known.store.position.exposures + known.store.position.feedback for p, known in owned},
            "partitions": worker.metrics.registry.get_sample_value("stream_partitions"),
            "wanted": len(worker._ownership._assignment.wanted),
            "quiet": quiet >= 2,
        }
        if news != told:
            tell(order, pid=os.getpid(), **news)
            told = news


def tell(order: dict[str, object], **news: object) -> None:
    """One line, in one write: whoever reads it never sees a part."""
    os.write(sys.stdout.fileno(), (json.dumps({"worker": order["worker"], **news}) + "\n").encode())


def complete(worker: StreamWorker, settings: Settings, ends: dict[str, list[int]]) -> bool:
    """Whether every partition has been taken in to its end, and its timers have been looked at since."""
    owned = worker._ownership.owned
    if len(owned) < settings.kafka.partitions:
        return False
    done = all(
        known.store.position.exposures == ends[bus.EXPOSURES][partition]
        and known.store.position.feedback == ends[bus.FEEDBACK][partition]
        for partition, known in owned.items()
    )
    return done and worker.step() == 0 and worker.step() == 0


if __name__ == "__main__":
    main()
