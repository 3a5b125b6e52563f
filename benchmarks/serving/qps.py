"""The largest rate at which p99 stays within 25 ms and nothing fails, of each model.

    python -m benchmarks.serving.qps [--items 100000] [--replicas 1 2] [--models t2diff two_tower]

Replicas, broker, feature store and load generator share the machine. Each model is asked of replicas in whose
experiment both arms name it; the better number of replicas counts. Every answer is computed: replicas keep no user
vectors, unless --cached-vectors says so. A rate that is not served is tried a second time before it counts as too
high, and the rate that is found once more before it counts.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.figures import P99_LIMIT_MS, Try, good, largest, next_rate
from benchmarks.serving.options import Say, command, common, machine, world
from benchmarks.serving.rig import Rig, cpu_s, rig
from benchmarks.serving.shots import Generator, Shot, generator
from benchmarks.serving.world import NOW_MS

FIRST = 200.0  # requests a second


def search(
    load: Generator, shot: Shot, first: float, precision: float, limit_ms: float | None, say: Say
) -> dict[str, Any]:
    """The largest good rate, what was measured there, and every try."""
    tried: list[Try] = []
    shots: list[dict[str, Any]] = []

    def served(rate: float) -> bool:
        figures = load.fire(Shot(**vars(shot) | {"rate": rate, "seed": len(shots)}))
        shots.append(figures)
        say(
            f"{rate:.0f}/s: p99 {figures['p99_ms']} ms, {figures['sent'] - figures['ok']} failed, "
            f"{figures['achieved_rate']}/s"
        )
        return good(figures, limit_ms)

    while True:
        rate = next_rate(tried, first, precision)
        again = rate is None
        rate = rate or largest(tried)
        if not rate:
            return {"qps": 0.0, "at": None, "tries": shots}
        tried.append(Try(rate, served(rate) or served(rate)))
        if again and tried[-1].good:
            return {"qps": rate, "at": shots[-1], "tries": shots}


def of_replicas(bench: Rig, load: Generator, model: Any, count: int, options: argparse.Namespace, say: Say) -> Any:
    """The same of so many replicas, and how the CPU was shared at the rate that was found."""
    with bench.replicas((model, model), count, cached_vectors=options.cached_vectors) as replicas:
        addresses = tuple(replica.address for replica in replicas)
        shot = Shot(addresses, FIRST, options.seconds, bench.world.users, k=options.k, time_ms=NOW_MS)
        load.fire(Shot(**vars(shot) | {"rate": 100.0, "seconds": options.warm_up, "seed": 99}))
        highest = search(load, shot, options.first, options.precision, P99_LIMIT_MS, say)
        if highest["at"]:
            processes = {replica.child.name: replica.process for replica in replicas}
            before = cpu_s(processes)
            figures = load.fire(Shot(**vars(shot) | {"rate": 0.8 * highest["qps"], "seed": 98, "warm_s": 0.0}))
            spent = {name: round(after - before[name], 2) for name, after in cpu_s(processes).items()}
            highest["at_80_percent"] = figures | {"replica_cpu_s": spent}
        return {"replicas": count} | highest


def run(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Every model with every number of replicas; the best of each model."""
    figures: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        rig(world(options), Path(folder), options.models, options.redis) as bench,
        generator() as load,
    ):
        for model in options.models:
            by_replicas = []
            for count in options.replicas:
                say(f"{model}, {count} replicas")
                by_replicas.append(of_replicas(bench, load, model, count, options, say))
            best = max(by_replicas, key=lambda each: each["qps"])
            figures |= {f"{model}_qps_p99_25ms": best["qps"], f"{model}_replicas": best["replicas"], model: by_replicas}
    return figures | machine(options)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    common(parser)
    parser.add_argument("--models", nargs="+", default=["t2diff", "two_tower"])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=12.0, help="of each try")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds of load before the first try")
    parser.add_argument("--first", type=float, default=FIRST, help="requests a second of the first try")
    parser.add_argument("--precision", type=float, default=0.05, help="of the rate that is found")
    parser.add_argument("--cached-vectors", type=int, default=0, help="user vectors that a replica keeps")


def main(arguments: Sequence[str] | None = None) -> None:
    sys.stdout.write(json.dumps(command(__doc__, options, run, arguments), indent=1) + "\n")


if __name__ == "__main__":
    main()
