"""What text ids cost a replica: CPU time of a Recall and memory, beside numbers.

    python -m benchmarks.serving.text_ids [--items 20000] [--rate 100] [--rounds 5]

Two replicas of the two-tower control run on stores, catalogues and snapshots of their own: users and items of one have
small numbers, those of the other texts of 24 characters. The texts' replica is asked by `user_key` alone, returns
`item_key` with each item, and logs both. Rounds of load at one rate take turns, so that what else the machine does
falls on both; every answer is computed. `text_ids_speed_ratio` is the median over the rounds of the numbers' CPU time
of a request over the texts'. Memory is that of the processes after the last round.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.serving.options import Say, command, common, machine, world
from benchmarks.serving.rig import cpu_s, rig, write_catalogue
from benchmarks.serving.shots import Shot, generator
from benchmarks.serving.world import NOW_MS

MODEL = "two_tower"
KINDS = {"numbers": False, "texts": True}


def run(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Rounds in turns."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack, generator() as load:
        processes, shots = {}, {}
        for kind, text_ids in KINDS.items():
            of_kind = replace(world(options), text_ids=text_ids)
            bench = stack.enter_context(rig(of_kind, Path(folder) / kind, [MODEL], options.redis))
            write_catalogue(bench.kafka, of_kind)
            replica = bench.start("replica", bench.settings((MODEL, MODEL)))
            stack.callback(bench.stop, replica)
            processes[kind] = replica.process
            about = {"warm_s": 0, "k": options.k, "time_ms": NOW_MS, "text_ids": text_ids}
            shots[kind] = Shot((replica.address,), options.rate, options.seconds, options.users, **about)
        costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
        failed = 0
        for number in range(options.rounds + 1):
            for kind, shot in shots.items():
                before = cpu_s(processes)[kind]
                figures = load.fire(replace(shot, seed=number))
                cost = 1000 * (cpu_s(processes)[kind] - before) / max(figures["sent"], 1)
                failed += figures["sent"] - figures["ok"]
                say(f"round {number}: {kind} {cost:.3f} ms of CPU a request")
                if number:  # the first round warms up
                    costs[kind].append(round(cost, 3))
        memory = {kind: process.memory_info().rss for kind, process in processes.items()}
    ratios = [round(number / text, 3) for number, text in zip(costs["numbers"], costs["texts"], strict=True)]
    return {
        "text_ids_speed_ratio": statistics.median(ratios),
        "ratios": ratios,
        "cpu_ms_per_request": costs,
        "failed": failed,
        "rss_mb": {kind: round(size / 2**20, 1) for kind, size in memory.items()},
        "more_bytes_per_item": round((memory["texts"] - memory["numbers"]) / options.items),
        "rate": options.rate,
    } | machine(options)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    common(parser)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)


def main(arguments: Sequence[str] | None = None) -> None:
    sys.stdout.write(json.dumps(command(__doc__, options, run, arguments), indent=1) + "\n")


if __name__ == "__main__":
    main()
