"""A thousand swaps under load: does a request fail, is a reply of two versions, and what does a swap cost in latency?

    python -m benchmarks.serving.swaps [--swaps 1000] [--rate 200] [--every 2] [--canary 0.5]

Two replicas serve T2Diff at a constant rate while full snapshots and deltas (5 % of the items) go live in turns. The
run is cut into rounds, each with a stretch without swaps before and after its swaps; between rounds, without load, the
kept replies are checked (`serving_versions.Checker`). A swap's window is from the move of the pointer until both
replicas say that they serve the version; `p99_swap_ratio` is p99 of the requests that were under way in a window over
p99 of those in the stretches without swaps. `first_after_swap_ratio` is the median latency of the first request that
each replica answered from a new version, over the median without swaps.

With --canary, nothing goes live that was not on trial for that share of the users, and of the trials every other one
ends badly; a swap is then a version that goes on trial, and with a delta also the end of its trial.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.serving.figures import overlapping, percentiles, ratio
from benchmarks.serving.options import Say, command, common, machine, world
from benchmarks.serving.rig import Replica, rig
from benchmarks.serving.shots import OK, Generator, Requests, Shot, generator, requests_of
from benchmarks.serving.versions import MODEL, Checker, Line, Swap
from benchmarks.serving.world import NOW_MS
from contracts.features import Floats
from driftline.inspect.metrics import read_metrics


class Round(NamedTuple):
    """What a round showed; latencies in seconds."""

    swaps: list[Swap]
    steady: Floats  # of requests while nothing swapped
    during: Floats  # of requests that overlap a swap's window
    first: Floats  # of each replica's first request from a new version
    sent: int
    failed: int


def seen(table: Requests, swaps: Sequence[Swap]) -> Round:
    """Sort a round's requests."""
    ok, took = table.code == OK, table.done_s - table.due_s
    counted = ok & (table.counts > 0)
    windows = [(swap.moved_s, swap.done_s) for swap in swaps]
    around = [(windows[0][0], windows[-1][1])] if windows else []
    between = overlapping(table.due_s, table.done_s, around)
    during = overlapping(table.due_s, table.done_s, windows)
    return Round(
        list(swaps),
        took[counted & ~between],
        took[counted & during],
        np.array(first_after(table, swaps, took)),
        len(ok),
        int((~ok).sum()),
    )


def first_after(table: Requests, swaps: Sequence[Swap], took: Floats) -> list[float]:
    """The latency of the first request, by when it was due, that each replica answered from each new version."""
    seconds = []
    for swap, later in zip(swaps, [*(each.moved_s for each in swaps[1:]), np.inf], strict=True):
        new = (table.version == swap.version) & (table.due_s < later) & (table.done_s > swap.moved_s)
        for server in np.unique(table.server):
            mine = np.flatnonzero(new & (table.server == server))
            if mine.size:
                seconds.append(float(took[mine[0]]))
    return seconds


def swaps_within(line: Line, replicas: Sequence[Replica], options: argparse.Namespace, left: int) -> list[Swap]:
    """Swap at a pace, after a stretch without, for as long as a round lasts."""
    pause = threading.Event()
    began_s, swaps = time.perf_counter() + options.steady, []
    pause.wait(options.steady)
    while len(swaps) < min(left, options.swaps_per_round):
        pause.wait(max(began_s + len(swaps) * options.every - time.perf_counter(), 0))
        if time.perf_counter() > began_s + options.swaps_per_round * options.every:
            break  # swaps take longer than the pace: the round ends all the same
        swaps.append(line.swap(replicas))
    return swaps


def rounds(load: Generator, line: Line, replicas: Sequence[Replica], checker: Checker, shot: Shot,
           options: argparse.Namespace, say: Say) -> tuple[list[Round], int, int]:  # fmt: skip
    """All rounds, and how many replies were checked and mixed."""
    done_rounds: list[Round] = []
    checked = mixed = 0
    while (done := sum(len(each.swaps) for each in done_rounds)) < options.swaps:
        planned = Shot(**vars(shot) | {"seed": len(done_rounds)})
        load.begin(planned)
        swaps = swaps_within(line, replicas, options, options.swaps - done)
        load.finish()
        table = requests_of(planned)
        done_rounds.append(seen(table, swaps))
        of_round = checker.count(planned, table)
        checked, mixed = checked + of_round[0], mixed + of_round[1]
        steady, during = (percentiles(each)["p99_ms"] for each in (done_rounds[-1].steady, done_rounds[-1].during))
        failed = sum(each.failed for each in done_rounds)
        say(
            f"{done + len(swaps)} swaps, {failed} failed, {mixed} of {checked} mixed, p99 {during} ms (steady {steady})"
        )
        if not swaps:
            raise SystemExit("no swap fits into a round; --every is too short")
    return done_rounds, checked, mixed


def run(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Swap under load and tell what it did to whom."""
    with (
        tempfile.TemporaryDirectory() as folder,
        rig(world(options), Path(folder), [], options.redis) as bench,
        generator() as load,
    ):
        line = Line(bench, options.touched, options.canary)
        with bench.replicas((MODEL, MODEL), 2) as replicas:
            shot = Shot(
                tuple(replica.address for replica in replicas),
                options.rate,
                2 * options.steady + options.swaps_per_round * options.every,
                bench.world.users,
                warm_s=0,
                k=options.k,
                time_ms=NOW_MS,
                explained=options.explained,
                out=str(Path(folder) / "shot"),
            )
            load.fire(Shot(**vars(shot) | {"seconds": options.warm_up, "explained": 0.0}))
            all_rounds, checked, mixed = rounds(load, line, replicas, Checker(bench), shot, options, say)
            counted = read_metrics([replica.metrics_port for replica in replicas])
    swaps = sum(len(each.swaps) for each in all_rounds)
    steady, during, first = (np.concatenate([getattr(each, name) for each in all_rounds]) for name in
                             ("steady", "during", "first"))  # fmt: skip
    lasted = np.array([swap.done_s - swap.moved_s for each in all_rounds for swap in each.swaps])
    at = {name: percentiles(each) for name, each in (("steady", steady), ("during", during), ("first", first))}
    return {
        "swaps": swaps,
        "failed": sum(each.failed for each in all_rounds),
        "mixed": mixed,
        "p99_swap_ratio": ratio(at["during"]["p99_ms"], at["steady"]["p99_ms"]),
        "first_after_swap_ratio": ratio(at["first"]["p50_ms"], at["steady"]["p50_ms"]),
        "sent": sum(each.sent for each in all_rounds),
        "checked": checked,
        "latency": {
            name: each | {"requests": len(seconds)}
            for (name, each), seconds in zip(at.items(), (steady, during, first), strict=True)
        },
        "swap": percentiles(lasted),
        # Each replica's first snapshot is a swap as well; what is only on trial is none.
        "swaps_that_replicas_counted": counted.total("serving_swaps_total") - len(replicas),
        "failed_loads": counted.total("serving_failed_loads_total"),
        "rate": options.rate,
        "every_s": options.every,
        "replicas": len(replicas),
        "touched": options.touched,
        "canary": options.canary,
    } | machine(options)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    common(parser)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second, on both replicas together")
    parser.add_argument("--every", type=float, default=2.0, help="seconds from one swap to the next")
    parser.add_argument("--swaps-per-round", type=int, default=25)
    parser.add_argument("--steady", type=float, default=10.0, help="seconds before and after the swaps of a round")
    parser.add_argument("--touched", type=float, default=0.05, help="share of the items that a delta moves")
    parser.add_argument("--canary", type=float, default=0.0, help="share of users who try each version first")
    parser.add_argument("--explained", type=float, default=0.2, help="share of the replies that are checked")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds of load before the first round")


def main(arguments: Sequence[str] | None = None) -> None:
    sys.stdout.write(json.dumps(command(__doc__, options, run, arguments), indent=1) + "\n")


if __name__ == "__main__":
    main()
