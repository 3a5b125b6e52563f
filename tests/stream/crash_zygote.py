"""Runs workers that get killed, each in a process of its own, without importing Feast anew each time.

It reads one JSON object a line from standard input, forks a child that runs a worker, and answers with how the child
ended. It starts no thread and opens no client itself, so its children begin as a fresh process would.

    {"settings": FILE, "ends": {"exposures": [n, …], "feedback": [n, …]}, "kill_at": 17, "instance": "w"}

`kill_at`: at which of its steps the worker kills itself; null: it runs until it has taken everything in.
`kill_after_s`: instead, after how long on the wall clock.
"""

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from contracts import bus
from contracts.settings import Settings, load
from contracts.worker import configure_logs
from stream.worker import StreamWorker, open_worker


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
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
        sys.stdout.write(json.dumps({"exit": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


def run(order: dict[str, object]) -> None:
    configure_logs()
    settings = load(Path(str(order["settings"])))
    if order.get("kill_after_s") is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        threading.Timer(float(str(order["kill_after_s"])), os.kill, (os.getpid(), signal.SIGKILL)).start()
    kill_at = order.get("kill_at")
    steps = 0

    def at(_step: str) -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    instance = order.get("instance")
    worker = open_worker(settings, threading.Event(), instance=str(instance) if instance else None, at=at)
    ends = {name: [int(n) for n in offsets] for name, offsets in dict(order["ends"]).items()}  # type: ignore[call-overload]
    while not complete(worker, settings, ends):
        worker.step()
    worker.close()


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
