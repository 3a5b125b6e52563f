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
        told = load.fire(Shot(**vars(shot) | {"rate": rate, "seed": len(shots)}))
        shots.append(told)
        say(f"{rate:.0f}/s: p99 {told['p99_ms']} ms, {told['sent'] - told['ok']} failed, {told['achieved_rate']}/s")
        return good(told, limit_ms)

    while True:
        rate = next_rate(tried, first, precision)
        again = rate is None
        rate = rate or largest(tried)
        if not rate:
            return {"qps": 0.0, "at": None, "tries": shots}
        tried.append(Try(rate, served(rate) or served(rate)))
        if again and tried[-1].good:
            return {"qps": rate, "at": shots[-1], "tries": shots}


def of_replicas(made: Rig, load: Generator, model: Any, count: int, asked: argparse.Namespace, say: Say) -> Any:
    """The same of so many replicas, and how the CPU was shared at the rate that was found."""
    with made.replicas((model, model), count, cached_vectors=asked.cached_vectors) as replicas:
        addresses = tuple(replica.address for replica in replicas)
        shot = Shot(addresses, FIRST, asked.seconds, made.world.users, k=asked.k, time_ms=NOW_MS)
        load.fire(Shot(**vars(shot) | {"rate": 100.0, "seconds": asked.warm_up, "seed": 99}))
        found = search(load, shot, asked.first, asked.precision, P99_LIMIT_MS, say)
        if found["at"]:
            processes = {replica.child.name: replica.process for replica in replicas}
            before = cpu_s(processes)
            told = load.fire(Shot(**vars(shot) | {"rate": 0.8 * found["qps"], "seed": 98, "warm_s": 0.0}))
            spent = {name: round(after - before[name], 2) for name, after in cpu_s(processes).items()}
            found["at_80_percent"] = told | {"replica_cpu_s": spent}
        return {"replicas": count} | found


def run(asked: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Every model with every number of replicas; the best of each model."""
    told: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        rig(world(asked), Path(folder), asked.models, asked.redis) as made,
        generator() as load,
    ):
        for model in asked.models:
            found = []
            for count in asked.replicas:
                say(f"{model}, {count} replicas")
                found.append(of_replicas(made, load, model, count, asked, say))
            best = max(found, key=lambda each: each["qps"])
            told |= {f"{model}_qps_p99_25ms": best["qps"], f"{model}_replicas": best["replicas"], model: found}
    return told | machine(asked)


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
