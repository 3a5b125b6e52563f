"""The stream on Apache Flink beside the worker, in one run: events a CPU second, and how long a kill holds it up.

    python -m benchmarks.flink --json [--events 100000] [--kills 6] [--rate 200] [--seconds 30] [--parts freshness]

Both read the same log from an Apache Kafka of the run's own. Flink's CPU seconds are those of its TaskManagers and
their Python from the moment at which the job runs, and of the row writer; the worker's are its own process's, with
Feast on SQLite in both. After that the log goes on bit by bit, and something is killed with each bit: the time from the
kill (SIGKILL; of a TaskManager the disk is deleted too) to the next example that is committed is one recovery. The
pauses between checkpoints are a part of it. Event → feature is `benchmarks.flink_freshness`.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from benchmarks import flink_freshness
from benchmarks.stream import events as stream_events
from benchmarks.stream.room import judged, settings_for
from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from driftline.processes import broker, flink, flink_job, kafka
from driftline.processes.flink import Cluster
from feature_repo.store import UserSequences, apply
from stream.flink.rows import RowWriter

PARTITIONS = 2
PARTS = ("throughput", "freshness")
CHECKPOINT_MS = 1000
BIT = 1000  # events that come with each kill


class Cpu:
    """CPU seconds of a cluster's TaskManagers and of their Python, since this was made."""

    def __init__(self, running: Cluster) -> None:
        self._running = running
        self._before = self._now()

    def read(self) -> dict[str, float]:
        """By kind of process."""
        return {kind: round(used - self._before[kind], 2) for kind, used in self._now().items()}

    def _now(self) -> dict[str, float]:
        used = {"java_cpu_s": 0.0, "python_cpu_s": 0.0}
        for number in self._running.taskmanagers():
            used["java_cpu_s"] += _cpu_s(psutil.Process(self._running.pid_of(number)))
            used["python_cpu_s"] += sum(map(_cpu_s, self._running.pythons(number)))
        return used


class Committed:
    """Counts the examples that can be read: those of transactions that were committed."""

    def __init__(self, topics: KafkaSettings) -> None:
        self._client = consumers.consumer(topics, [bus.EXAMPLES], None, wait_ms=20)
        self._count = 0

    def above(self, count: int) -> None:
        """Wait until there are more than `count`."""
        while self._count <= count:
            self._take(CHECKPOINT_MS)

    def quiet(self) -> int:
        """Wait until there have been no more for three checkpoints, and say how many there are."""
        while self._take(3 * CHECKPOINT_MS):
            pass
        return self._count

    def _take(self, wait_ms: int) -> int:
        """Count those that come within `wait_ms`; how many."""
        came = sum(map(len, self._client.poll(wait_ms).values()))
        self._count += came
        return came

    def close(self) -> None:
        """Let go of the broker."""
        self._client.close()


def measure(directory: Path, events: int, kills: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures of a run."""
    load = stream_events.Load(events=events, users=max(events // 20, 1), partitions=PARTITIONS)
    longer = stream_events.Load(events=events + kills * BIT, users=load.users, partitions=PARTITIONS)
    with kafka.start(kafka.default_home(), directory / "kafka") as server:
        worker = _worker(server.address, load, say)
        topics = _topics(server.address, "flink.")
        settings = settings_for(topics, directory / "flink")
        apply(settings.feature_repo)
        rows = stream_events.records(longer)
        stream_events.write(topics, stream_events.catalogue(load))
        with Cluster(flink.default_home(), directory / "cluster") as running:
            running.start(taskmanagers=PARTITIONS)
            say("the job")
            flink_job.submit(running, settings, parallelism=PARTITIONS, checkpoint_ms=CHECKPOINT_MS)
            writer = RowWriter(topics, UserSequences(settings.feature_repo))
            seen = Committed(topics)
            engine = _throughput(running, writer, topics, seen, load, rows, worker["examples"])
            recoveries = [
                (kind, _recovery(running, topics, seen, kind, list(islice(rows, BIT))))
                for kind in (("taskmanager", "python")[number % 2] for number in range(kills))
                if not say(f"kill of a {kind}")
            ]
            seen.quiet()
            seen.close()
            writer.close()
        lost = judged(topics, longer) if kills else {}
    times = sorted(seconds for _, seconds in recoveries)
    return {
        "worker": worker,
        "flink": engine,
        "ratio": round(engine["events_per_cpu_s"] / worker["events_per_cpu_s"], 3),
        "kills": kills,
        "recoveries": recoveries,
        "recovery_p50_s": round(statistics.median(times), 2) if times else None,
        "recovery_p99_s": round(times[min(int(0.99 * len(times)), len(times) - 1)], 2) if times else None,
        **{name: lost[name] for name in ("lost", "doubled") if name in lost},
    }


def _freshness(directory: Path, rate: int, seconds: int, say: Callable[[str], None]) -> dict[str, Any]:
    with kafka.start(kafka.default_home(), directory / "kafka") as server:
        made = partial(_topics, server.address)
        return flink_freshness.measure(directory, made, rate, seconds, PARTITIONS, say)


def _worker(address: str, load: stream_events.Load, say: Callable[[str], None]) -> dict[str, Any]:
    topics = _topics(address, "worker.")
    stream_events.write(topics, stream_events.catalogue(load))
    stream_events.write(topics, stream_events.records(load))
    say("the worker")
    names = {"events": load.events, "users": load.users, "partitions": load.partitions}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.stream.room", "room", "--bootstrap", address]
    command += ["--prefix", "worker.", *(f"--{name}={value}" for name, value in names.items())]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _topics(address: str, prefix: str) -> KafkaSettings:
    topics = KafkaSettings(
        bootstrap_servers=address, topic_prefix=prefix, partitions=PARTITIONS, topic_config={"retention.ms": "-1"}
    )
    broker.prepare(topics)
    return topics


def _throughput(
    running: Cluster,
    writer: RowWriter,
    topics: KafkaSettings,
    seen: Committed,
    load: stream_events.Load,
    rows: Iterator[stream_events.Record],
    examples: int,
) -> dict[str, Any]:
    cpu, own = Cpu(running), psutil.Process()
    stream_events.write(topics, islice(rows, load.events))
    began_s, own_s, written = time.perf_counter(), _cpu_s(own), 0
    places = bus.partitions_of(topics, [bus.ROWS])
    seen.above(examples - 1)
    wall_s, used = time.perf_counter() - began_s, cpu.read()
    own_s = _cpu_s(own)
    while (count := writer.step()) or not writer.at_end(places):
        written += count
    used["rows_cpu_s"] = round(_cpu_s(own) - own_s, 2)
    total_s = sum(used.values())
    return {
        "events": load.events,
        "wall_s": round(wall_s, 1),
        **used,
        "rows": written,
        "events_per_cpu_s": round(load.events / total_s, 1),
    }


def _recovery(running: Cluster, topics: KafkaSettings, seen: Committed, kind: str, bit: list[Any]) -> float:
    """Kill, let it be there again, and wait for the first example of what came meanwhile; seconds."""
    before = seen.quiet()
    began_s = time.perf_counter()
    if kind == "taskmanager":
        running.kill_taskmanager(0)
        running.start_taskmanager(0)
    else:
        for process in running.pythons(0):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
    stream_events.write(topics, bit)
    seen.above(before)
    return round(time.perf_counter() - began_s, 2)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--rate", type=int, default=200, help="events a second of the freshness runs")
    parser.add_argument("--seconds", type=int, default=30, help="of each freshness run")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", action="store_true", help="on one line")
    arguments = parser.parse_args()

    def say(what: str) -> None:
        sys.stderr.write(f"{what}\n")

    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="flink-bench-") as scratch:
        figures: dict[str, Any] = {}
        if "throughput" in arguments.parts:
            figures |= measure(Path(scratch) / "throughput", arguments.events, arguments.kills, say)
        if "freshness" in arguments.parts:
            figures["freshness"] = _freshness(Path(scratch) / "freshness", arguments.rate, arguments.seconds, say)
    figures["machine_load"] = [round(before, 1), round(os.getloadavg()[0], 1)]
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")


if __name__ == "__main__":
    main()
