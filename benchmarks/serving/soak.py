"""Does a replica's memory stay where it is? Load and swaps for an hour, and the resident set on the way.

    python -m benchmarks.serving.soak [--minutes 60] [--rate 150] [--every 5] [--replicas 1]

Full snapshots and deltas go live in turns all the time. `rss_growth` is the median resident set in the last tenth of
the run over that in the tenth after the warm-up, less 1; `flat` says whether it is within 3 %.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.figures import ratio
from benchmarks.serving.options import Say, command, common, machine, world
from benchmarks.serving.rig import rig
from benchmarks.serving.shots import OK, Shot, generator, requests_of
from benchmarks.serving.versions import MODEL, Checker, Line
from benchmarks.serving.world import NOW_MS

FLAT = 0.03
MEGABYTE = 1e6
WARM_UP = 0.1  # share of the run


def growth(samples: Sequence[tuple[float, float]], lasts: float) -> float | None:
    """The median of the last tenth over that of the tenth after the warm-up, less 1; None where one is empty.

    Args:
        samples: (seconds from the start, value), in order.
        lasts: seconds of the whole run.

    >>> growth([(1.5, 100.0), (5.0, 500.0), (9.5, 102.0)], 10.0)
    0.02

    """
    early = [value for at, value in samples if WARM_UP <= at / lasts < WARM_UP + 0.1]
    late = [value for at, value in samples if at / lasts >= 0.9]
    grown = ratio(statistics.median(late), statistics.median(early)) if early and late else None
    return None if grown is None else round(grown - 1, 4)


def run(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Load, swap and sample until the time is over."""
    lasts, pause = 60 * options.minutes, threading.Event()
    samples: list[tuple[float, float]] = []  # of all replicas together
    swaps = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        rig(world(options), Path(folder), [], options.redis) as bench,
        generator() as load,
    ):
        line = Line(bench, options.touched)
        with bench.replicas((MODEL, MODEL), options.replicas, cached_vectors=options.cached_vectors) as replicas:
            shot = Shot(
                tuple(replica.address for replica in replicas),
                options.rate,
                lasts,
                bench.world.users,
                warm_s=0,
                k=options.k,
                time_ms=NOW_MS,
                explained=options.explained,
                out=str(Path(folder) / "shot"),
            )
            processes = [replica.process for replica in replicas]
            load.begin(shot)
            began_s = time.perf_counter()
            while (at := time.perf_counter() - began_s) < lasts:
                line.swap(replicas)
                swaps += 1
                pause.wait(options.every / 2)  # after a swap, before the next one: the old snapshot is gone
                samples.append((at, sum(process.memory_info().rss for process in processes) / MEGABYTE))
                if swaps % options.told_every == 0:
                    say(f"{at / 60:.1f} min, {swaps} swaps, {samples[-1][1]:.0f} MB")
                pause.wait(max(began_s + at + options.every - time.perf_counter(), 0))
            figures = load.finish()
        table = requests_of(shot)
        checked, mixed = Checker(bench).count(shot, table)
    grown = growth(samples, lasts)
    return {
        "minutes": options.minutes,
        "swaps": swaps,
        "failed": int((table.code != OK).sum()),
        "checked": checked,
        "mixed": mixed,
        "rss_growth": grown,
        "flat": grown is not None and abs(grown) <= FLAT,
        "rss_mb": [round(value, 1) for _, value in samples[:: max(len(samples) // 60, 1)]],
        "load": figures,
        "every_s": options.every,
        "replicas": options.replicas,
    } | machine(options)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    common(parser)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second")
    parser.add_argument("--every", type=float, default=5.0, help="seconds from one swap to the next")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--touched", type=float, default=0.05, help="share of the items that a delta moves")
    parser.add_argument("--explained", type=float, default=0.02, help="share of the replies that are checked")
    parser.add_argument("--cached-vectors", type=int, default=10_000, help="user vectors that a replica keeps")
    parser.add_argument("--told-every", type=int, default=12, help="swaps between two lines of progress")


def main(arguments: Sequence[str] | None = None) -> None:
    sys.stdout.write(json.dumps(command(__doc__, options, run, arguments), indent=1) + "\n")


if __name__ == "__main__":
    main()
