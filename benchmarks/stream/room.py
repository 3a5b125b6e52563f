"""One timed part of the stream benchmark, in a process of its own; `benchmarks.stream` runs them side by side.

    room      the whole worker: Kafka in; state, Feast, examples out
    consume   the bare client's loop over the same topics: poll, and nothing else
    write     Feast's own batched write of the rows that the room writes, in the same batches
    steps     decode, join, sessionise, encode, in memory: no Kafka, no state on disk, no Feast
    soak      the whole worker as in `room`, with its memory sampled on the way

Each prints one JSON object. `--cpu` keeps the process on one core.
"""

import argparse
import gc
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Container, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from feast import FeatureStore
from feast.infra.provider import get_provider

from benchmarks.stream import events as stream_events
from benchmarks.stream.events import Load, Record
from contracts.config.settings import Arm, Experiment, KafkaSettings, Settings, StreamSettings
from contracts.kafka import bus, consumers
from contracts.messages.events import decode_exposure, decode_feedback
from contracts.runtime.cycles import look_seldom
from contracts.wire.events_pb2 import Example
from feature_repo.store import VIEW, UserRow, apply, to_feast
from stream.deliver import row_of
from stream.join import Origin
from stream.metrics import StreamMetrics
from stream.outbox import collect
from stream.outputs import Output
from stream.state import MemoryState
from stream.step import on_exposure, on_feedback, on_time, watermark
from stream.worker import open_worker

LIMITS = StreamSettings()
SAMPLES = 20


class Timer:
    """Wall and CPU seconds, the latter those of all of this process's threads."""

    def __init__(self) -> None:
        self._began = _now()

    def read(self) -> tuple[float, float]:
        wall, cpu = (now - began for now, began in zip(_now(), self._began, strict=True))
        return wall, cpu


def settings_for(kafka: KafkaSettings, directory: Path) -> Settings:
    """The defaults, on this broker and in this directory."""
    arms = {"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="t2diff")}
    experiment = Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="a")
    return Settings(
        kafka=kafka,
        feature_repo=directory / "features",
        snapshots=directory,
        state=directory / "state",
        stream=LIMITS,
        experiment=experiment,
    )


def outputs_of(state: MemoryState, batch: Sequence[Record], first: int, items: Container[int]) -> list[Output]:
    """The worker's steps of one batch, on records that did not come from Kafka."""
    outputs: list[Output] = []
    for offset, record in enumerate(batch, first):
        origin = Origin(record.topic, 0, offset, record.key, record.value, record.timestamp_ms, record.timestamp_ms)
        decode = decode_exposure if record.topic == bus.EXPOSURES else decode_feedback
        event: Any = decode(
            record.value,
            received_ms=record.timestamp_ms,
            future_tolerance_ms=LIMITS.future_tolerance_ms,
            max_bytes=LIMITS.max_event_bytes,
        )
        if record.topic == bus.EXPOSURES:
            outputs += on_exposure(state, event, origin, LIMITS)
        else:
            outputs += on_feedback(state, event, origin, LIMITS, items)
    outputs += on_time(state, watermark(state, LIMITS), LIMITS)
    return outputs


def batches(rows: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """The records, `size` at a time."""
    while batch := list(islice(rows, size)):
        yield batch


def steps(workload: Load) -> dict[str, Any]:
    """Decode, join, sessionise, encode; the input is made before the clock starts."""
    rows = list(stream_events.records(workload))
    state, items, metrics = MemoryState(), stream_events.item_ids(workload), StreamMetrics()
    kafka = KafkaSettings(bootstrap_servers="none", topic_prefix="")
    gc.freeze()
    examples = 0
    timer = Timer()
    for number, batch in enumerate(batches(iter(rows), LIMITS.poll_records)):
        outputs = outputs_of(state, batch, number * LIMITS.poll_records, items)
        examples += len(collect(outputs, kafka, metrics)[0].examples)
    return _rates(len(rows), *timer.read()) | {"examples": examples, "users": len(state.users)}


def write(workload: Load, directory: Path, redis: str | None, batch_size: int) -> dict[str, Any]:
    """Feast's own write of the rows that the worker writes, and nothing else on the clock."""
    apply(directory / "features", redis)
    store = FeatureStore(repo_path=str(directory / "features"))
    provider, view = get_provider(store.config), store.get_feature_view(VIEW)
    state, items, metrics = MemoryState(), stream_events.item_ids(workload), StreamMetrics()
    kafka = KafkaSettings(bootstrap_servers="none", topic_prefix="")
    wall = cpu = 0.0
    events = written = 0
    for number, batch in enumerate(batches(stream_events.records(workload), batch_size)):
        outbox, _ = collect(outputs_of(state, batch, number * batch_size, items), kafka, metrics)
        rows: list[UserRow] = [row_of(user_id, state.users[user_id]) for user_id in outbox.user_ids]
        gc.collect(0)
        timer = Timer()
        provider.online_write_batch(store.config, view, [to_feast(row) for row in rows], None)
        took = timer.read()
        wall, cpu = wall + took[0], cpu + took[1]
        events, written = events + len(batch), written + len(rows)
    return _rates(events, wall, cpu) | {"rows": written, "rows_per_s": round(written / wall, 1)}


def consume(kafka: KafkaSettings, events: int) -> dict[str, Any]:
    """Poll every record of both topics."""
    consumer = consumers.consumer(kafka, [bus.EXPOSURES, bus.FEEDBACK], None, wait_ms=20)
    seen = sum(map(len, consumer.poll(5000, max_records=8000).values()))
    warm = seen
    timer = Timer()
    while seen < events:
        seen += sum(map(len, consumer.poll(100, max_records=8000).values()))
    taken = timer.read()
    consumer.close()
    return _rates(seen - warm, *taken)


def room(kafka: KafkaSettings, workload: Load, directory: Path, redis: str | None, soak: bool) -> dict[str, Any]:
    """The whole worker, until it has taken everything in."""
    apply(directory / "features", redis)
    worker = open_worker(settings_for(kafka, directory), threading.Event())
    look_seldom()
    process, rss = psutil.Process(), []
    taken = groups = 0
    while not taken:  # joining the group is not timed, nor is the first batch
        taken = worker.step()
    warm, timer = taken, Timer()
    while taken < workload.events:
        count = worker.step()
        taken += count
        groups += count > 0
        if soak and taken * SAMPLES // workload.events >= len(rss) + 1:
            rss.append(round(process.memory_info().rss / 2**20, 1))
            sys.stderr.write(f"{taken:,} events, {rss[-1]} MB\n")
    rates = _rates(taken - warm, *timer.read())
    worker.close()
    return rates | {"batch": round((taken - warm) / max(groups, 1)), "rss_mb": rss}


def judged(kafka: KafkaSettings, workload: Load) -> dict[str, int]:
    """How many examples the topic lacks, and has more than once, against the steps in memory."""
    state, items = MemoryState(), stream_events.item_ids(workload)
    metrics, names = StreamMetrics(), KafkaSettings(bootstrap_servers="none", topic_prefix="")
    expected: set[str] = set()
    for number, batch in enumerate(batches(stream_events.records(workload), LIMITS.poll_records)):
        outbox, _ = collect(outputs_of(state, batch, number * LIMITS.poll_records, items), names, metrics)
        expected.update(example.event_id for example in outbox.examples)
    sent: list[str] = []
    for partition in range(workload.partitions):
        records = consumers.read_to_end(kafka, bus.EXAMPLES, partition, 0)
        sent += [Example.FromString(record.value).event_id for record in records]
    return {"examples": len(sent), "lost": len(expected - set(sent)), "doubled": len(sent) - len(set(sent))}


def _rates(events: int, wall: float, cpu: float) -> dict[str, Any]:
    return {
        "events": events,
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "events_per_s": round(events / wall, 1),
        "events_per_cpu_s": round(events / cpu, 1),
    }


def _now() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", choices=("room", "soak", "consume", "write", "steps"))
    parser.add_argument("--bootstrap")
    parser.add_argument("--prefix", default="bench.")
    parser.add_argument("--redis", help="Feast on this Redis; without it, on SQLite")
    parser.add_argument("--batch", type=int, default=LIMITS.poll_records, help="records of one batch of `write`")
    parser.add_argument("--cpu", type=int, help="the one core to run on")
    parser.add_argument("--gc", action="store_true", help="`steps`: leave Python's collector of cycles on")
    stream_events.add_load_arguments(parser)
    arguments = parser.parse_args()
    workload = stream_events.load_of(arguments)
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    kafka = KafkaSettings(
        bootstrap_servers=arguments.bootstrap or "none",
        topic_prefix=arguments.prefix,
        partitions=workload.partitions,
        session_timeout_ms=6000,
    )
    with tempfile.TemporaryDirectory(prefix="stream-bench-") as scratch:
        directory = Path(scratch)
        if arguments.part == "steps":
            if not arguments.gc:
                gc.disable()
            figures = steps(workload)
        elif arguments.part == "write":
            figures = write(workload, directory, arguments.redis, arguments.batch)
        elif arguments.part == "consume":
            figures = consume(kafka, workload.events)
        else:
            figures = room(kafka, workload, directory, arguments.redis, arguments.part == "soak")
            if arguments.part == "room":
                figures |= judged(kafka, workload)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
