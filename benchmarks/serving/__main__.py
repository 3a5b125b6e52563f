"""Serving's figures as one JSON object.

    python -m benchmarks.serving --json [--only qps cost …] [--quick] [--items 100000] [--redis] [--soak 60] [--out DIR]

    qps      the largest rate with p99 <= 25 ms and no failures (`benchmarks.serving.qps`)
    cost     CPU time of a request, T2Diff over the control, and where it goes (`benchmarks.serving.cost`)
    naive    T2Diff as served beside the plain 50 steps: time (`benchmarks.serving.naive`)
    recall   the same: quality (`benchmarks.serving.recall`)
    peer     requests per second beside BentoML (`benchmarks.serving.peer`); needs `make bench-serving`
    swaps    failures, mixed replies and latency over a thousand swaps under load (`benchmarks.serving.swaps`)
    kill     what a client notices of a replica that is killed (`benchmarks.serving.kill`)
    soak     memory over an hour of load and swaps (`benchmarks.serving.soak`)
    text_ids CPU time of a request by text ids, beside numbers (`benchmarks.serving.text_ids`)

Each part is a command of its own as well, with more to say about it. Broker, feature store, replicas and load share
the machine. Where `qps` is among the parts, the others ask at a share of what it finds, else at their own defaults.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.options import folder
from driftline.processes import redis as redis_server

PARTS = ("qps", "cost", "naive", "recall", "peer", "swaps", "kill", "soak", "text_ids")
OF_NO_RIG = ("recall",)
QUICK = {
    "qps": ["--seconds", "3", "--warm-up", "2", "--precision", "0.5", "--replicas", "1"],
    "cost": ["--rounds", "1", "--seconds", "3", "--idle", "1", "--profile", "3"],
    "naive": ["--rounds", "1", "--requests", "10"],
    "recall": ["--train-seconds", "10", "--tests", "300", "--log-users", "500", "--log-items", "800"],
    "peer": ["--seconds", "3", "--warm-up", "3", "--precision", "0.5", "--replicas", "1", "--turns", "1"],
    "swaps": ["--swaps", "30", "--swaps-per-round", "10", "--steady", "5", "--every", "1.5"],
    "kill": ["--kills", "1", "--around", "3"],
    "soak": ["--minutes", "0.5", "--every", "2"],
    "text_ids": ["--rounds", "1", "--seconds", "3"],
}
SHARES = {"cost": 0.3, "swaps": 0.35, "kill": 0.25, "soak": 0.3, "text_ids": 0.3}  # of the largest rate
SLOWEST = 20.0  # requests a second; fewer say little
FIGURES = {
    "qps": ("t2diff_qps_p99_25ms", "two_tower_qps_p99_25ms", "t2diff_replicas", "two_tower_replicas"),
    "cost": ("t2diff_to_two_tower_cost",),
    "naive": ("speedup_over_naive_50_steps", "speedup_of_the_step", "speedup_of_the_request",
              "paper_speedup_over_naive_50_steps"),
    "recall": ("recall_few_vs_50",),
    "peer": ("ratio_to_peer", "peer_limit_ms"),
    "swaps": ("swaps", "failed", "mixed", "p99_swap_ratio", "first_after_swap_ratio"),
    "kill": ("failed_after_kill", "restart_to_ready_s"),
    "soak": ("rss_growth",),
    "text_ids": ("text_ids_speed_ratio",),
}  # fmt: skip


def part(name: str, *arguments: object) -> dict[str, Any]:
    """Run one part in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.serving.{name}", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def arguments_of(name: str, options: argparse.Namespace, redis: str | None, largest: float | None) -> list[object]:
    """What a part is told.

    Args:
        name: of the part.
        options: the command line.
        redis: address of the online store; None: SQLite.
        largest: rate of T2Diff, where it is known.

    """
    arguments: list[object] = []
    if name in OF_NO_RIG:
        arguments += ["--data", options.data] if options.data else []
    else:
        arguments += ["--items", options.items, "--users", options.users, "--k", options.k, "--out", options.out]
        arguments += ["--redis", redis] if redis else []
    if name in SHARES and largest:
        arguments += ["--rate", round(max(SHARES[name] * largest, SLOWEST), 1)]
    if name == "soak":
        arguments += ["--minutes", options.soak]
    if name == "swaps":
        arguments += ["--swaps", options.swaps]
    return arguments + (QUICK[name] if options.quick else [])  # the last one of an option counts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--soak", type=float, default=60.0, help="minutes")
    parser.add_argument("--redis", action="store_true", help="Feast on Redis (`make servers`), not SQLite")
    parser.add_argument("--data", type=folder, help="the MovieLens-1M folder, for `recall`; else a simulated log")
    parser.add_argument("--quick", action="store_true", help="the least of everything: does it run?")
    parser.add_argument("--out", type=Path, default=Path("out/serving"), help="where files go, such as flame graphs")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args(arguments)
    parts: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        redis_server.start(redis_server.default_home(), Path(scratch) / "redis")
        if options.redis
        else nullcontext() as redis,
    ):
        for name in options.only:
            sys.stderr.write(f"{name}\n")
            largest = parts.get("qps", {}).get("t2diff_qps_p99_25ms")
            parts[name] = part(name, *arguments_of(name, options, redis.address if redis else None, largest))
    figures = {key: parts.get(name, {}).get(key) for name, keys in FIGURES.items() for key in keys}
    figures |= {"items": options.items, "k": options.k, "parts": parts}
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        for name, value in figures.items():
            sys.stdout.write(f"{name:34} {json.dumps(value)}\n")


if __name__ == "__main__":
    main()
