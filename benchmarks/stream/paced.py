"""Event → feature freshness at a given rate: a sender that keeps its pace, and the worker in a process of its own.

The sender stamps each record with the wall time (the header `sent-at-ms`); the worker's own histogram
`stream_event_to_feature_seconds` says how long it took until the user's row was in Feast. The sender never waits for
the worker, so a worker that is too slow falls behind, and its figures say so.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.stream import events as stream_events
from benchmarks.stream.room import settings_for
from contracts.config.settings import KafkaSettings, dump
from contracts.kafka import bus
from contracts.runtime.clock import Clock, SystemClock
from driftline.inspect.metrics import read_metrics
from driftline.processes.supervisor import Supervisor
from feature_repo.store import apply

TICK_S = 0.01
METRIC = "stream_event_to_feature_seconds"


def freshness(kafka: KafkaSettings, workload: stream_events.Load, rate: int, redis: str | None) -> dict[str, Any]:
    """Send the load at `rate` records a second, and read the worker's quantiles when it has taken everything in."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="stream-bench-") as scratch:
        directory = Path(scratch)
        apply(directory / "features", redis)
        settings_file = directory / "settings.yaml"
        dump(settings_for(kafka, directory), settings_file)
        with Supervisor(directory / "logs", clock) as supervisor:
            worker = supervisor.start_worker("stream", ["stream"], settings_file)
            supervisor.wait_ready([worker])
            port = worker.facts["metrics_port"]
            assert isinstance(port, int)
            while read_metrics([port]).total("stream_partitions") < kafka.partitions:
                time.sleep(TICK_S)
            took_s = send_paced(kafka, workload, rate, clock)
            sent_all = clock.elapsed_s()
            while (metrics := read_metrics([port])).total("stream_events_in_total") < workload.events:
                supervisor.check()
                time.sleep(TICK_S)
            return {
                "rate": rate,
                "sent_per_s": round(workload.events / took_s, 1),
                "p50_s": metrics.quantile(METRIC, 0.5),
                "p99_s": metrics.quantile(METRIC, 0.99),
                "behind_at_end_s": round(clock.elapsed_s() - sent_all, 2),
            }


def send_paced(
    kafka: KafkaSettings,
    workload: stream_events.Load,
    rate: int,
    clock: Clock,
    note: Callable[[stream_events.Record, int], None] = lambda _, __: None,
) -> float:
    """Send the load at `rate` records a second; how long it took, s. `note`: told of each record and its time (ms)."""
    producer = bus.producer(kafka, batch_size=64 << 10)
    rows = list(stream_events.records(workload))  # made before the clock starts
    began, sent = clock.elapsed_s(), 0
    while sent < len(rows):
        due = min(int((clock.elapsed_s() - began) * rate) + 1, len(rows))
        now_ms = clock.now_ms()
        header = [(bus.SENT_AT, str(now_ms).encode())]
        for row in rows[sent:due]:
            note(row, now_ms)
            producer.send(
                kafka.topic(row.topic),
                row.value,
                row.key,
                partition=row.partition,
                timestamp_ms=row.timestamp_ms,
                headers=header,
            )
        sent = due
        time.sleep(TICK_S)
    producer.close()
    return clock.elapsed_s() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", default="fresh.")
    parser.add_argument("--rate", type=int, required=True, help="records a second")
    parser.add_argument("--redis", help="Feast on this Redis; without it, on SQLite")
    stream_events.add_load_arguments(parser)
    arguments = parser.parse_args()
    workload = stream_events.load_of(arguments)
    kafka = KafkaSettings(
        bootstrap_servers=arguments.bootstrap, topic_prefix=arguments.prefix, partitions=workload.partitions
    )
    figures = freshness(kafka, workload, arguments.rate, arguments.redis)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
