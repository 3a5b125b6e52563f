"""What a request costs a replica in CPU time: T2Diff beside the two-tower control, and where the time goes.

    python -m benchmarks.serving.cost [--rate 200] [--rounds 5] [--profile 10]

Two replicas run, one answers from T2Diff alone and one from the control alone; rounds of load at one rate take turns,
so that what else the machine does falls on both. `cpu_ms` is the CPU time of the replica's process (user and system,
all threads) in a round over the requests of the round; what a replica uses while nobody asks is told beside it and not
taken off. Every answer is computed: no user vectors are kept. With py-spy (`make bench-serving`) and the right to
attach to a process, a flame graph of each replica under that load goes to --out, and the functions that time is spent
in into the JSON, with the share of each part of a replica (`components`). Waiting is left out, but for that of the
event loop, which samples cannot tell from gRPC's own work: both are `Runner.run` among Python's functions.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.figures import ratio
from benchmarks.serving.options import Say, command, common, machine, world
from benchmarks.serving.rig import Replica, cpu_s, rig
from benchmarks.serving.shots import OVERLAY, Generator, Shot, generator
from benchmarks.serving.world import NOW_MS

MODELS = ("t2diff", "two_tower")
SAMPLES_PER_S = 200
SHOWN = 30
# Frames of threads that wait: py-spy cannot always tell. A condition variable's wait has no symbol in glibc.
WAITS = re.compile(
    r"(epoll_p?wait|poll|select|futex\w*|pthread_cond_\w*wait|0x[0-9a-f]+) \(libc"
    r"|\S*select \(selectors\.py|_worker \(concurrent|\S*wait \(threading\.py|Thread\.run \(threading\.py"
)
# Parts of a replica and what of a stack of Python's functions shows them; the first that is found counts.
COMPONENTS = {
    "exposures, Kafka's client": re.compile(r"serving/exposures\.py|[( ]kafka/"),
    "event loop, gRPC": re.compile(r"Runner\.run [^;]*$"),  # innermost
    "features: the store, decoding": re.compile(r"feature_repo/|serving/features\.py"),
    "tower": re.compile(r"onnxruntime/"),
    "index": re.compile(r"contracts/index\.py"),
    "tower's inputs, noise": re.compile(r"contracts/features\.py|_run \(serving/model\.py"),
    "filters, the model's rest": re.compile(r"serving/model\.py"),
    "replies": re.compile(r"reply_to"),
    "arm, sources": re.compile(r"serving/answer\.py|abtest/"),
    "checks, metrics": re.compile(r"serving/(service|handlers)\.py|prometheus_client/"),
    "batches": re.compile(r"serving/(batcher|answerer)\.py"),
}
# What is sampled: by Python's functions, to which the native code that they call is counted, and by native ones too.
KINDS = {"python": ("raw", "--function"), "native": ("raw", "--native"), "svg": ("flamegraph", "--function")}


def working(stacks: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    """The frames, outermost first, and the count of each folded stack that does not wait.

    >>> list(working(["a (x.py);b (libc.so.6) 3", "a (x.py);epoll_wait (libc.so.6) 9"]))
    [(['a (x.py)', 'b (libc.so.6)'], 3)]
    """
    for stack in stacks:
        names, _, count = stack.strip().rpartition(" ")
        frames = names.split(";")
        if not WAITS.match(frames[-1]):
            yield frames, int(count)


def table(stacks: Iterable[str]) -> dict[str, list[tuple[str, float]]]:
    """Shares of the samples that do not wait, the largest first: of the innermost function, and of any on the stack.

    >>> table(["a (x.py);b (libc.so.6) 3", "a (x.py) 1"])["innermost"]
    [('b (libc.so.6)', 0.75), ('a (x.py)', 0.25)]
    """
    shares: dict[str, Counter[str]] = {"innermost": Counter(), "within": Counter()}
    for frames, count in working(stacks):
        shares["innermost"][frames[-1]] += count
        for frame in set(frames):
            shares["within"][frame] += count
    total = sum(shares["innermost"].values()) or 1
    return {
        by: [(name, round(count / total, 4)) for name, count in counts.most_common(SHOWN)]
        for by, counts in shares.items()
    }


def components(stacks: Iterable[str]) -> dict[str, float]:
    """Shares of the samples that do not wait by part of the replica, the largest first.

    >>> components(["Runner.run (asyncio/runners.py:86);reply_to (serving/answerer.py:9) 1", "main (x.py:1) 3"])
    {'other': 0.75, 'replies': 0.25}
    """
    samples = Counter[str]()
    for frames, count in working(stacks):
        stack = ";".join(frames)
        samples[next((name for name, shows in COMPONENTS.items() if shows.search(stack)), "other")] += count
    return {name: round(count / samples.total(), 3) for name, count in samples.most_common()}


def profile(load: Generator, replica: Replica, shot: Shot, seconds: float, to: Path) -> dict[str, Any]:
    """Sample a replica under load; why not, where that is impossible."""
    to.parent.mkdir(parents=True, exist_ok=True)
    profiles: dict[str, Any] = {}
    for name, (form, way) in KINDS.items():
        path = to.with_suffix(".svg" if form == "flamegraph" else f".{name}.folded")
        where = ["--pid", str(replica.process.pid), "--output", str(path), "--format", form]
        how = ["--duration", str(round(seconds)), "--rate", str(SAMPLES_PER_S), way]
        load.begin(Shot(**vars(shot) | {"seconds": seconds + 2}))
        try:
            done = subprocess.run(
                [OVERLAY / "bin" / "py-spy", "record", *how, *where], capture_output=True, check=False
            )
            failed = done.stderr.decode(errors="replace").strip() if done.returncode else ""
        except OSError as error:
            failed = str(error)
        finally:
            load.finish()
        if failed:
            return {"not_profiled": failed.splitlines()[-1]}
        profiles[name] = str(path) if form == "flamegraph" else table(path.read_text().splitlines())
        if name == "python":
            profiles["components"] = components(path.read_text().splitlines())
    return profiles


def run(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Rounds in turns, then a profile of each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        rig(world(options), Path(folder), MODELS, options.redis) as bench,
        generator() as load,
    ):
        replicas = {
            model: bench.start(f"replica-{model}", bench.settings((model, model)))  # type: ignore[arg-type]
            for model in MODELS
        }
        processes = {model: replica.process for model, replica in replicas.items()}
        shots = {
            model: Shot(
                (replica.address,),
                options.rate,
                options.seconds,
                bench.world.users,
                warm_s=0,
                k=options.k,
                time_ms=NOW_MS,
            )
            for model, replica in replicas.items()
        }
        idle_before = cpu_s(processes)
        time.sleep(options.idle)  # what a replica uses in this time is what is measured
        idle = {model: (after - idle_before[model]) / options.idle for model, after in cpu_s(processes).items()}
        rounds: dict[str, list[dict[str, Any]]] = {model: [] for model in MODELS}
        for number in range(options.rounds + 1):
            for model in MODELS:
                before = cpu_s(processes)[model]
                figures = load.fire(Shot(**vars(shots[model]) | {"seed": number}))
                figures["cpu_ms"] = round(1000 * (cpu_s(processes)[model] - before) / max(figures["sent"], 1), 3)
                say(f"round {number}: {model} {figures['cpu_ms']} ms of CPU a request, p99 {figures['p99_ms']} ms")
                if number:  # the first round warms up
                    rounds[model].append(figures)
        where = {}
        if options.profile:
            for model in MODELS:
                say(f"profile of {model}")
                to = options.out / f"serving-{model}"
                where[model] = profile(load, replicas[model], shots[model], options.profile, to)
        for replica in replicas.values():
            bench.stop(replica)
    costs = {model: statistics.median(figures["cpu_ms"] for figures in rounds[model]) for model in MODELS}
    return {
        "t2diff_to_two_tower_cost": ratio(costs["t2diff"], costs["two_tower"]),
        "cpu_ms_per_request": costs,
        "idle_cpu_share": {model: round(share, 4) for model, share in idle.items()},
        "rate": options.rate,
        "rounds": rounds,
        "profile": where,
    } | machine(options)


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
