"""Event → feature on Apache Flink beside the worker, at one rate; a part of `benchmarks.flink`.

A sender keeps its pace, whatever the stream does. On Flink, a behaviour's time is that from the sending of its first
outcome to the end of the row writer's write that brought it into Feast; the worker's is its own histogram
(`benchmarks.stream.paced`), which counts each outcome that it has learned of. Both begin cold, Flink after its first
checkpoint.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stream import events as stream_events
from benchmarks.stream.paced import freshness, send_paced
from benchmarks.stream.room import settings_for
from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.runtime.clock import Clock, SystemClock
from contracts.wire.events_pb2 import Feedback
from driftline.processes import flink, flink_job
from driftline.processes.flink import Cluster
from driftline.processes.process import wait_until
from feature_repo.row import UserRow
from feature_repo.store import UserSequences, apply
from stream.flink.rows import RowWriter

CHECKPOINTS_MS = (2000, 500)  # the default, and a short one, so that the share of the interval shows
START_S = 120.0
USERS = 1000

Behaviour = tuple[int, int, int]  # user, item, event time (ms)


class Watched(UserSequences):
    """Feast's store that notes when a behaviour is in it for the first time."""

    def __init__(self, repo: Path, sent_ms: dict[Behaviour, int], clock: Clock) -> None:
        """`sent_ms`: when each was sent; one that has been seen is taken out."""
        super().__init__(repo)
        self._sent_ms = sent_ms
        self._clock = clock
        self.took_s: list[float] = []

    def write(self, rows: Sequence[UserRow]) -> int:
        """Write, and note what is there now."""
        left_out = super().write(rows)
        now_ms = self._clock.now_ms()
        for row in rows:
            for behaviour in zip(repeat(row.user_id), row.item_ids, row.times_ms, strict=False):
                sent_ms = self._sent_ms.pop(behaviour, None)
                if sent_ms is not None:
                    self.took_s.append((now_ms - sent_ms) / 1000)
        return left_out


def measure(
    directory: Path,
    topics: Callable[[str], KafkaSettings],
    rate: int,
    seconds: int,
    partitions: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Quantiles of the worker, and of Flink by its interval between checkpoints. `topics`: made anew, by prefix."""
    load = stream_events.Load(events=rate * seconds, users=USERS, partitions=partitions)
    say(f"freshness of the worker at {rate} events/s")
    own = topics("worker-fresh.")
    stream_events.write(own, stream_events.catalogue(load))
    found: dict[str, Any] = {"worker": freshness(own, load, rate, None)}
    for interval_ms in CHECKPOINTS_MS:
        say(f"freshness of Flink at {rate} events/s, a checkpoint every {interval_ms} ms")
        name = f"flink-{interval_ms}-fresh"
        found[f"flink_{interval_ms}_ms"] = _on_flink(directory / name, topics(f"{name}."), load, rate, interval_ms)
    return found


def _on_flink(
    directory: Path, topics: KafkaSettings, load: stream_events.Load, rate: int, interval_ms: int
) -> dict[str, Any]:
    clock, sent_ms = SystemClock(), dict[Behaviour, int]()
    settings = settings_for(topics, directory)
    apply(settings.feature_repo)
    stream_events.write(topics, stream_events.catalogue(load))

    def note(row: stream_events.Record, now_ms: int) -> None:
        if row.topic == bus.FEEDBACK:
            event = Feedback.FromString(row.value)
            sent_ms.setdefault((event.user_id, event.item_id, event.time_ms), now_ms)

    took: list[float] = []
    sender = threading.Thread(target=lambda: took.append(send_paced(topics, load, rate, clock, note)), name="sender")
    with Cluster(flink.default_home(), directory / "cluster") as running:
        running.start(taskmanagers=load.partitions)
        flink_job.submit(running, settings, parallelism=load.partitions, checkpoint_ms=interval_ms)
        wait_until(
            lambda: flink_job.overview(running)["checkpoints"] > 0,
            lambda: None,
            lambda: TimeoutError("There was no checkpoint."),
            timeout_s=START_S,
            clock=clock,
        )
        features = Watched(settings.feature_repo, sent_ms, clock)
        writer = RowWriter(topics, features)
        sender.start()
        while sender.is_alive():
            writer.step()
        last_s = clock.elapsed_s()  # what is committed comes within a few checkpoints
        while clock.elapsed_s() - last_s < max(5 * interval_ms / 1000, 5.0):
            if writer.step():
                last_s = clock.elapsed_s()
        writer.close()
    return {
        "rate": rate,
        "sent_per_s": round(load.events / took[0], 1),
        "behaviours": len(features.took_s),
        "unseen": len(sent_ms),
        "p50_s": round(float(np.quantile(features.took_s, 0.5)), 3),
        "p99_s": round(float(np.quantile(features.took_s, 0.99)), 3),
    }
