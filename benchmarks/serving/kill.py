"""A replica is killed under load: does the client notice, and how soon is the replica back?

    python -m benchmarks.serving.kill [--kills 5] [--rate 100] [--client client]

Two replicas on fixed ports serve T2Diff. In turns one of them gets SIGKILL, and after a moment it is started again
under the same settings. All requests go through a client that knows both: `serving.client`, or (`--client balanced`) a
plain gRPC channel with `round_robin` and a retry policy. `restart_to_ready_s` is from the new process's start until
its health says that it serves.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.figures import percentiles
from benchmarks.serving.options import Say, command, common, machine, world
from benchmarks.serving.rig import rig
from benchmarks.serving.shots import OK, Shot, generator, requests_of
from benchmarks.serving.world import NOW_MS
from driftline.processes.broker import free_port

MODEL = "t2diff"


def run(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Kill and start again, as often as asked."""
    restarts: list[float] = []
    loads: list[dict[str, Any]] = []
    sent = failed = 0
    worst: list[float | None] = []
    pause = threading.Event()
    with (
        tempfile.TemporaryDirectory() as folder,
        rig(world(options), Path(folder), [MODEL], options.redis) as bench,
        generator() as load,
    ):
        settings = [bench.settings((MODEL, MODEL), port=free_port()) for _ in range(2)]
        replicas = [bench.start(f"replica-{number}", each) for number, each in enumerate(settings)]
        seconds = 2 * options.around + options.down + options.longest
        for number in range(options.kills):
            shot = Shot(
                tuple(replica.address for replica in replicas),
                options.rate,
                seconds,
                bench.world.users,
                k=options.k,
                seed=number,
                time_ms=NOW_MS,
                deadline_s=options.deadline,
                kind=options.client,
                out=str(Path(folder) / "shot"),
            )
            load.begin(shot)
            pause.wait(options.around)
            victim = number % len(replicas)
            replicas[victim].process.kill()
            pause.wait(options.down)
            bench.stop(replicas[victim])
            replicas[victim] = bench.start(f"replica-{victim}", settings[victim])
            restarts.append(replicas[victim].ready_s)
            loads.append(load.finish())
            table = requests_of(shot)
            sent, failed = sent + len(table.code), failed + int((table.code != OK).sum())
            worst.append(percentiles(table.done_s - table.due_s)["max_ms"])
            say(f"kill {number + 1}: back in {restarts[-1]:.1f} s, {failed} of {sent} failed, slowest {worst[-1]} ms")
        for replica in replicas:
            bench.stop(replica)
    return {
        "kills": options.kills,
        "sent": sent,
        "failed_after_kill": failed,
        "restart_to_ready_s": round(statistics.median(restarts), 2),
        "slowest_restart_s": round(max(restarts), 2),
        "slowest_request_ms": worst,
        "client": options.client,
        "loads": loads,
    } | machine(options)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    common(parser)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second, on both replicas together")
    parser.add_argument("--around", type=float, default=5.0, help="seconds of load before a kill, and at its end")
    parser.add_argument("--down", type=float, default=2.0, help="seconds from a kill to the start of another process")
    parser.add_argument("--longest", type=float, default=25.0, help="seconds that the load waits for a restart")
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds that a request may take")
    parser.add_argument("--client", choices=["client", "balanced"], default="client")


def main(arguments: Sequence[str] | None = None) -> None:
    sys.stdout.write(json.dumps(command(__doc__, options, run, arguments), indent=1) + "\n")


if __name__ == "__main__":
    main()
