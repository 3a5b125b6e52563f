"""The stream's figures, all from one run on one machine: throughput beside peers and ceilings, freshness, memory.

    python -m benchmarks.stream --json [--quick] [--soak]

It starts its own Apache Kafka (and Redis), keeps them on one core and what is timed on the other, and ends them. Each
part runs in a process of its own, `--repeats` times in turn, so that a slow moment of the machine hits all alike; the
median is reported. The peers run in `.venv-bench` (`make bench` makes it); without that they are left out, and said so.

    steps       decode, join, sessionise, encode in memory, beside the same session job in Bytewax (memory)
    room        Kafka → join → sessions → state on disk → Feast + examples, beside its two ceilings: the bare client's
                loop over the same topics, and Feast's own batched write of the same rows
    freshness   event → feature at several rates, and at half of what the room takes at most
    soak        memory over 5 M events from 1 M users (with --soak; about 15 minutes)

With --text-ids it does something else: `steps` and `room` by text ids beside the same by numbers, in turns, and the
ratio of the events that each takes in a second of CPU time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.stream import events as stream_events
from benchmarks.stream.peers import run_peer
from contracts.config.settings import KafkaSettings
from driftline.processes import broker
from driftline.processes import kafka as apache_kafka
from driftline.processes import redis as redis_server

PEER_PYTHON = Path(".venv-bench/bin/python")
SERVER_CORE, TIMED_CORE = 0, 1
RATES = (1_000, 5_000, 10_000)
SOAK = {"events": 5_000_000, "users": 1_000_000}
PLATEAU = 0.25  # of the soak: what comes before fills the caches


def part(name: str, *arguments: object) -> dict[str, Any]:
    """Run one part in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", name, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def median(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The result in the middle, by events a second; and all of those, to show the noise."""
    rates = [result["events_per_s"] for result in results]
    middle = results[rates.index(statistics.median_low(rates))]
    return middle | {"all_events_per_s": rates}


class Bench:
    """The servers of a run and the parts that stand on them."""

    def __init__(self, bootstrap: str, redis: str | None, say: Callable[[str], None]) -> None:
        self._bootstrap = bootstrap
        self._redis = redis
        self._say = say
        self._prefixes = 0

    def load(self, *, events: int, users: int, rows: bool = True, **load: int) -> tuple[list[object], str]:
        """Topics with a load in them, or without `rows` empty ones; the arguments that name it."""
        self._prefixes += 1
        prefix = f"bench{self._prefixes}."
        workload = stream_events.Load(events=events, users=users, **load)
        kafka = KafkaSettings(
            bootstrap_servers=self._bootstrap,
            topic_prefix=prefix,
            partitions=workload.partitions,
            topic_config={"retention.ms": "-1"},
        )
        broker.prepare(kafka)
        self._say(f"writing {events:,} events of {users:,} users")
        stream_events.write(kafka, stream_events.catalogue(workload))
        if rows:
            stream_events.write(kafka, stream_events.records(workload))
        names = ["--events", events, "--users", users]
        for name, value in load.items():
            names += [f"--{name.replace('_', '-')}", value]
        return names, prefix

    def room(self, name: str, events: int, users: int, **load: int) -> dict[str, Any]:
        """One of the parts that read Kafka, over topics of its own."""
        names, prefix = self.load(events=events, users=users, **load)
        self._say(name)
        where = ["--bootstrap", self._bootstrap, "--prefix", prefix, "--cpu", TIMED_CORE]
        return part("benchmarks.stream.room", name, *names, *where, *self._feast())

    def steps(self, events: int, users: int, **load: int) -> dict[str, Any]:
        """The steps in memory."""
        self._say("steps")
        names = ["--events", events, "--users", users]
        for name, value in load.items():
            names += [f"--{name.replace('_', '-')}", value]
        return part("benchmarks.stream.room", "steps", *names, "--cpu", TIMED_CORE)

    def write(self, events: int, users: int, batch: int) -> dict[str, Any]:
        """Feast's own write of the same rows."""
        self._say("write")
        arguments = ["--events", events, "--users", users, "--batch", batch, "--cpu", TIMED_CORE]
        return part("benchmarks.stream.room", "write", *arguments, *self._feast())

    def peers(self, events: int, users: int) -> dict[str, dict[str, Any]]:
        """The same session job in the peers: Bytewax from memory; Quix Streams from Kafka, it has no other input."""
        self._say("bytewax")
        timed = ["--warmup", str(events // 10), "--cpu", str(TIMED_CORE)]
        names = ["--events", str(events), "--users", str(users), *timed]
        figures = {"bytewax": vars(run_peer(PEER_PYTHON, "bytewax", ["--memory", *names]))}
        _, prefix = self.load(events=events, users=users)
        self._say("quixstreams")
        where = ["--bootstrap", self._bootstrap, "--prefix", prefix, "--events", str(events), *timed]
        return figures | {"quixstreams": vars(run_peer(PEER_PYTHON, "quixstreams", where))}

    def freshness(self, rate: int, seconds: int, users: int) -> dict[str, Any]:
        """Quantiles at one rate."""
        names, prefix = self.load(events=rate * seconds, users=users, rows=False, partitions=2)
        self._say(f"freshness at {rate:,} events/s")
        where = ["--bootstrap", self._bootstrap, "--prefix", prefix, "--rate", rate]
        return part("benchmarks.stream.paced", *names, *where, *self._feast())

    def _feast(self) -> list[object]:
        return ["--redis", self._redis] if self._redis else []


def run(bench: Bench, *, events: int, users: int, repeats: int, seconds: int, soak: bool) -> dict[str, Any]:
    """Everything, and the figures that are asked for by name."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for _ in range(repeats):
        runs.setdefault("steps", []).append(bench.steps(events, users))
        if PEER_PYTHON.exists():
            for peer, result in bench.peers(events, users).items():
                runs.setdefault(peer, []).append(result)
        runs.setdefault("consume", []).append(bench.room("consume", events, users))
        room = bench.room("room", events, users)
        runs.setdefault("room", []).append(room)
        runs.setdefault("write", []).append(bench.write(events, users, room["batch"]))
    figures = {name: median(results) for name, results in runs.items()}
    rate = figures["room"]["events_per_s"]
    ceiling = min(figures["consume"]["events_per_s"], figures["write"]["events_per_s"])
    peers = {name: figures[name]["events_per_s"] for name in ("bytewax", "quixstreams") if name in figures}
    paced = [bench.freshness(each, seconds, users) for each in (*RATES, int(rate / 2))]
    soaked = bench.room("soak", **SOAK) if soak else None
    return {
        "events_per_s": rate,
        "steps_events_per_s": figures["steps"]["events_per_s"],
        "ratio_to_best_peer": round(figures["steps"]["events_per_s"] / max(peers.values()), 3) if peers else None,
        "ratio_to_store_ceiling": round(rate / ceiling, 3),
        "lost": sum(result["lost"] for result in runs["room"]),
        "doubled": sum(result["doubled"] for result in runs["room"]),
        "freshness_p99_s_at_half_load": paced[-1]["p99_s"],
        "rss_growth": growth(soaked["rss_mb"]) if soaked else None,
        "freshness": paced,
        "parts": figures,
        "soak": soaked,
    }


def text_ids(bench: Bench, *, events: int, users: int, items: int, repeats: int) -> dict[str, Any]:
    """What text ids cost: the events that are taken in a second of CPU time by texts, as a share of those by numbers.

    Each repeat is a pair, and the shares' median is reported with all of them.
    """
    shares: dict[str, list[float]] = {"steps": [], "room": []}
    lost = doubled = 0
    for _ in range(repeats):
        for name, shares_of in shares.items():
            rates = []
            for text in (0, 1):
                load = {"items": items, "text_ids": text}
                done = (
                    bench.steps(events, users, **load) if name == "steps" else bench.room("room", events, users, **load)
                )
                rates.append(done["events_per_cpu_s"])
                lost, doubled = lost + done.get("lost", 0), doubled + done.get("doubled", 0)
            shares_of.append(round(rates[1] / rates[0], 3))
    medians = {f"text_ids_{name}_ratio": statistics.median(each) for name, each in shares.items()}
    return medians | {"events": events, "users": users, "items": items, "all": shares, "lost": lost, "doubled": doubled}


def growth(rss_mb: Sequence[float]) -> float:
    """How much larger memory is at the end than once the caches were full.

    >>> growth([50, 80, 100, 101, 99, 100, 101, 102])
    0.02
    """
    plateau = rss_mb[int(len(rss_mb) * PLATEAU)]
    return round(rss_mb[-1] / plateau - 1, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20, help="of each freshness run")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, once: does it run?")
    parser.add_argument("--soak", action="store_true", help="also 5 M events from 1 M users")
    parser.add_argument("--redis", action="store_true", help="Feast on Redis instead of SQLite")
    parser.add_argument("--text-ids", action="store_true", help="what text ids cost, and nothing else")
    parser.add_argument("--items", type=int, default=10_000, help="of --text-ids")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    arguments = parser.parse_args()
    repeats, scale = (1, 10) if arguments.quick else (arguments.repeats, 1)

    def say(what: str) -> None:
        sys.stderr.write(f"… {what}\n")

    with (
        tempfile.TemporaryDirectory(prefix="stream-bench-") as scratch,
        apache_kafka.start(apache_kafka.default_home(), Path(scratch) / "kafka") as kafka,
        redis_server.start(redis_server.default_home(), Path(scratch) / "redis") as redis,
    ):
        for server in (kafka, redis):
            for thread in psutil.Process(server.pid).threads():
                os.sched_setaffinity(thread.id, {SERVER_CORE})
        bench = Bench(kafka.address, redis.address if arguments.redis else None, say)
        events, users = arguments.events // scale, arguments.users // scale
        if arguments.text_ids:
            figures = text_ids(bench, events=events, users=users, items=arguments.items, repeats=repeats)
        else:
            seconds = max(arguments.seconds // scale, 3)
            figures = run(bench, events=events, users=users, repeats=repeats, seconds=seconds, soak=arguments.soak)
    if arguments.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        for name, value in figures.items():
            sys.stdout.write(f"{name:30} {json.dumps(value)}\n")


if __name__ == "__main__":
    main()
