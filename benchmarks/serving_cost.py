"""What a request costs a replica in CPU time: T2Diff beside the two-tower control, and where the time goes.

    python -m benchmarks.serving_cost [--rate 200] [--rounds 5] [--profile 10]

Two replicas run, one answers from T2Diff alone and one from the control alone; rounds of load at one rate take turns,
so that what else the machine does falls on both. `cpu_ms` is the CPU time of the replica's process (user and system,
all threads) in a round over the requests of the round; what a replica uses while nobody asks is told beside it and not
taken off. Every answer is computed: no user vectors are kept. With py-spy (`make bench-serving`) and the right to
attach to a process, a flame graph of each replica under that load goes to --out, and the functions that time is spent
in, native ones too, into the JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving_figures import ratio
from benchmarks.serving_load import OVERLAY, Generator, Shot, generator
from benchmarks.serving_options import Say, command, common, machine, world
from benchmarks.serving_rig import NOW_MS, Replica, cpu_s, rig

MODELS = ("t2diff", "two_tower")
SAMPLES_PER_S = 200
SHOWN = 25


def self_times(stacks: Iterable[str]) -> list[tuple[str, float]]:
    """The share of the samples that each function was on top of, the largest first.

    Args:
        stacks: lines of folded stacks, "outermost;…;innermost COUNT".

    >>> self_times(["a;b 3", "a 1"])
    [('b', 0.75), ('a', 0.25)]

    """
    tops: Counter[str] = Counter()
    for stack in stacks:
        names, _, count = stack.strip().rpartition(" ")
        tops[names.rpartition(";")[2]] += int(count)
    total = sum(tops.values()) or 1
    return [(name, round(count / total, 4)) for name, count in tops.most_common(SHOWN)]


def shares(stacks: Iterable[str]) -> list[tuple[str, float]]:
    """The share of the samples in which each function was anywhere on the stack, the largest first.

    >>> shares(["a;b;b 3", "a 1"])
    [('a', 1.0), ('b', 0.75)]
    """
    found: Counter[str] = Counter()
    total = 0
    for stack in stacks:
        names, _, count = stack.strip().rpartition(" ")
        total += int(count)
        for name in set(names.split(";")):
            found[name] += int(count)
    return [(name, round(count / (total or 1), 4)) for name, count in found.most_common(SHOWN)]


def profile(load: Generator, replica: Replica, shot: Shot, seconds: float, to: Path) -> dict[str, Any]:
    """Sample a replica under load; why not, where that is impossible."""
    to.parent.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {}
    for kind, suffix in (("raw", ".folded"), ("flamegraph", ".svg")):
        path = to.with_suffix(suffix)
        where = ["--pid", str(replica.process.pid), "--output", str(path), "--format", kind]
        how = ["--duration", str(round(seconds)), "--rate", str(SAMPLES_PER_S), "--native"]
        load.begin(Shot(**vars(shot) | {"seconds": seconds + 2}))
        try:
            done = subprocess.run([OVERLAY / "bin" / "py-spy", "record", *how, *where], capture_output=True, check=False)
            failed = done.stderr.decode(errors="replace").strip() if done.returncode else ""
        except OSError as error:
            failed = str(error)
        finally:
            load.finish()
        if failed:
            return {"not_profiled": failed.splitlines()[-1]}
        told[kind] = str(path)
    stacks = Path(told["raw"]).read_text().splitlines()
    return told | {"self": self_times(stacks), "within": shares(stacks)}


def run(asked: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Rounds in turns, then a profile of each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        rig(world(asked), Path(folder), MODELS, asked.redis) as made,
        generator() as load,
    ):
        replicas = {
            model: made.start(f"replica-{model}", made.settings((model, model)))  # type: ignore[arg-type]
            for model in MODELS
        }
        processes = {model: replica.process for model, replica in replicas.items()}
        shots = {
            model: Shot(
                (replica.address,), asked.rate, asked.seconds, made.world.users, warm_s=0, k=asked.k, time_ms=NOW_MS
            )
            for model, replica in replicas.items()
        }
        idle_before = cpu_s(processes)
        time.sleep(asked.idle)
        idle = {model: (after - idle_before[model]) / asked.idle for model, after in cpu_s(processes).items()}
        rounds: dict[str, list[dict[str, Any]]] = {model: [] for model in MODELS}
        for number in range(asked.rounds + 1):
            for model in MODELS:
                before = cpu_s(processes)[model]
                told = load.fire(Shot(**vars(shots[model]) | {"seed": number}))
                told["cpu_ms"] = round(1000 * (cpu_s(processes)[model] - before) / max(told["sent"], 1), 3)
                say(f"round {number}: {model} {told['cpu_ms']} ms of CPU a request, p99 {told['p99_ms']} ms")
                if number:  # the first round warms up
                    rounds[model].append(told)
        where = {}
        if asked.profile:
            for model in MODELS:
                say(f"profile of {model}")
                to = asked.out / f"serving-{model}"
                where[model] = profile(load, replicas[model], shots[model], asked.profile, to)
        for replica in replicas.values():
            made.stop(replica)
    costs = {model: statistics.median(told["cpu_ms"] for told in rounds[model]) for model in MODELS}
    return {
        "t2diff_to_two_tower_cost": ratio(costs["t2diff"], costs["two_tower"]),
        "cpu_ms_per_request": costs,
        "idle_cpu_share": {model: round(share, 4) for model, share in idle.items()},
        "rate": asked.rate,
        "rounds": rounds,
        "profile": where,
    } | machine(asked)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    common(parser)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=5.0, help="seconds of doing nothing that are measured")
    parser.add_argument("--profile", type=float, default=10.0, help="seconds of sampling; 0: none")


def main(arguments: Sequence[str] | None = None) -> None:
    sys.stdout.write(json.dumps(command(__doc__, options, run, arguments), indent=1) + "\n")


if __name__ == "__main__":
    main()
