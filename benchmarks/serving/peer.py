"""Requests a second beside BentoML, in one run: the same tower, index, features, users, k and number of processes.

    python -m benchmarks.serving.peer [--items 100000] [--replicas 1 2] [--models t2diff]

BentoML and not LitServe, Ray Serve or KServe: it is the most used of those that batch by themselves as load demands,
has a release of this year, and runs on driftline's own Feast, ONNX Runtime and Faiss (`make bench-serving` lays what it
needs beside over driftline's environment). Ray Serve brings a cluster, KServe wants Kubernetes, and LitServe batches
by a fixed timeout.

The peer's service (`benchmarks/serving/peer_bento.py`) is what its documentation leads to: one batchable API over HTTP
with JSON, `get_online_features(…).to_dict()` for all users of a batch, then tower and index, the very ones that ours
has; one thread each for ONNX Runtime and Faiss, as ours. It neither assigns arms nor logs exposures nor swaps; ours
does. Its adaptive batching has its defaults but for batches of at most 32, as ours has.

`ratio_to_peer` is the largest rate at which p99 stays within 25 ms and nothing fails, ours over the peer's, each with
the better number of processes. Where the peer never stays within 25 ms, `peer_limit_ms` is null, and its largest rate
at which nothing fails and nothing is left behind counts instead. `equal_rate` has both at one rate, in turns. Requests
leave by the same open loop; what generating them costs is told.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.serving.figures import P99_LIMIT_MS, ratio
from benchmarks.serving.options import Say, command, common, machine, world
from benchmarks.serving.qps import FIRST, search
from benchmarks.serving.rig import Rig, rig
from benchmarks.serving.shots import OVERLAY, Generator, Shot, generator
from benchmarks.serving.world import NOW_MS
from contracts.runtime.clock import SystemClock
from driftline.processes.broker import free_port

READY_S = 120.0
EQUAL = 0.7  # of the smaller of both largest rates


@contextmanager
def bento(bench: Rig, model: str, workers: int, k: int) -> Iterator[str]:
    """The peer for as long as the context lasts; its address."""
    address = f"127.0.0.1:{free_port()}"
    variables = {
        "PYTHONPATH": f"{Path.cwd()}:{OVERLAY.resolve()}",
        "BENTOML_HOME": bench.directory / "bento",
        "BENTOML_DO_NOT_TRACK": "True",
        "PEER_WORKERS": workers,
        "PEER_SNAPSHOTS": bench.snapshots,
        "PEER_FEATURES": bench.features,
        "PEER_MODEL": model,
        "PEER_K": k,
        "PEER_NOW_MS": NOW_MS,
    }
    host, port = address.split(":")
    child = bench.supervisor.start(
        "bento",
        [
            *("env", *(f"{name}={value}" for name, value in variables.items())),
            *(sys.executable, "-W", "ignore", "-m", "bentoml", "serve", "benchmarks.serving.peer_bento:Recall"),
            *("--host", host, "--port", port),
        ],
    )
    try:
        wait_ready(bench, address)
        yield address
    finally:
        bench.supervisor.stop(child)


def wait_ready(bench: Rig, address: str) -> None:
    """Wait until the peer says that it is ready.

    Raises:
        TimeoutError: it did not in time.
        ChildFailed: a process has ended.

    """
    clock, pause = SystemClock(), threading.Event()
    deadline = clock.elapsed_s() + READY_S
    while clock.elapsed_s() < deadline:
        bench.supervisor.check()
        try:
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            pause.wait(0.2)
    raise TimeoutError(f"{address} was not ready after {READY_S:.0f} s")


def shot_at(addresses: Sequence[str], kind: Any, options: argparse.Namespace) -> Shot:
    """A load of either side's kind."""
    return Shot(tuple(addresses), FIRST, options.seconds, options.users, k=options.k, time_ms=NOW_MS, kind=kind)


def of_peer(load: Generator, shot: Shot, options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """The peer's largest rate, within the limit if it ever is."""
    figures = search(load, shot, options.first, options.precision, P99_LIMIT_MS, say)
    if figures["qps"]:
        return {"limit_ms": P99_LIMIT_MS} | figures
    say("the peer does not stay within the limit: what it keeps up with counts")
    return {"limit_ms": None} | search(load, shot, options.first, options.precision, None, say)


def both(bench: Rig, load: Generator, model: Any, count: int, options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Both sides with so many processes: largest rates one after the other, then one rate in turns."""
    with (
        bench.replicas((model, model), count) as replicas,
        bento(bench, model, count, options.k) as address,
    ):
        shots = {
            "ours": shot_at([replica.address for replica in replicas], "recall", options),
            "peer": shot_at([address], "http", options),
        }
        for name, shot in shots.items():
            warm = load.fire(Shot(**vars(shot) | {"rate": 50.0, "seconds": options.warm_up, "seed": 99}))
            say(f"{name}, {count} processes: warm, p50 {warm['p50_ms']} ms")
        say("ours")
        ours = search(load, shots["ours"], options.first, options.precision, P99_LIMIT_MS, say)
        say("the peer")
        peer = of_peer(load, shots["peer"], options, say)
        rate = EQUAL * min(ours["qps"], peer["qps"])
        equal: dict[str, list[dict[str, Any]]] = {name: [] for name in shots}
        for turn in range(options.turns if rate else 0):
            for name, shot in shots.items():
                equal[name].append(load.fire(Shot(**vars(shot) | {"rate": rate, "seed": 50 + turn})))
    p99 = {name: statistics.median(each["p99_ms"] for each in loads) for name, loads in equal.items() if loads}
    say(f"{count} processes: ours {ours['qps']}/s, peer {peer['qps']}/s; p99 at {rate:.0f}/s: {p99}")
    return {
        "processes": count,
        "ours": ours,
        "peer": peer,
        "ratio": ratio(ours["qps"], peer["qps"]),
        "equal_rate": {"rate": round(rate, 1), "p99_ms": p99, "turns": equal},
    }


def run(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Every model; the first one gives the figures that are asked for by name."""
    if not OVERLAY.exists():
        raise SystemExit(f"There is no {OVERLAY}: `make bench-serving` makes it.")
    by_model: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        rig(world(options), Path(folder), options.models, options.redis) as bench,
        generator() as load,
    ):
        for model in options.models:
            by_processes = [both(bench, load, model, count, options, say) for count in options.replicas]
            ours, peer = (
                max((each[side] for each in by_processes), key=lambda side: side["qps"]) for side in ("ours", "peer")
            )
            by_model[model] = {
                "ratio": ratio(ours["qps"], peer["qps"]),
                "ours_qps": ours["qps"],
                "peer_qps": peer["qps"],
                "peer_limit_ms": peer["limit_ms"],
                "by_processes": by_processes,
            }
    first = by_model[options.models[0]]
    return {"ratio_to_peer": first["ratio"], "peer_limit_ms": first["peer_limit_ms"], "models": by_model} | machine(
        options
    )


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    common(parser)
    parser.add_argument("--models", nargs="+", default=["t2diff"])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=12.0, help="of each try")
    parser.add_argument("--warm-up", type=float, default=8.0, help="seconds of load before the first try")
    parser.add_argument("--first", type=float, default=FIRST, help="requests a second of the first try")
    parser.add_argument("--precision", type=float, default=0.05, help="of the rates that are found")
    parser.add_argument("--turns", type=int, default=3, help="at one rate")


def main(arguments: Sequence[str] | None = None) -> None:
    sys.stdout.write(json.dumps(command(__doc__, options, run, arguments), indent=1) + "\n")


if __name__ == "__main__":
    main()
