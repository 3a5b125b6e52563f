"""The job that driftline and its peers are timed at, apart from any of them: rows, output, reference, stopwatch.

The job: decode exposures and feedback, join them by (request_id, item), drop duplicates by event id, cut each user's
behaviours into sessions by a gap of 30 minutes in event time, and put out one serialised `History` a session. The
decoding is the same generated code for all, and so is the encoding of a session; the rest is each peer's own.

Readings, each the kindest to the peers:

- a session is put out once, when it closes, not at every event;
- there is no feature store, no training example, no dead letter, no cap on a history, and no session index;
- duplicates are dropped where a session is encoded, from the few rows at hand, instead of in a state of their own;
- what is known of a request is never forgotten;
- records are handed over in batches that are read together, which a replay gives and a live topic seldom does: with few
  users a batch holds whole sessions, which Bytewax, working key by key, gains most from. Results with many users and
  with few are two results, so `--users` belongs to each;
- events may be 10 minutes late; driftline accepts an hour.

Python's collector of cycles is off unless asked for: with their millions of small objects and its default thresholds it
takes Bytewax half of its time, and neither peer leaves garbage in cycles that would need it.

The peers differ in when they close a session. Bytewax closes what is open when its input ends, so it puts out every
session. Quix Streams, told to close by key, which is its cheap way, closes a session when the same user's event time
has passed its last event by two gaps and the lateness: the last session of most users stays open, and is not counted.
`reference` says what either must put out.

Each peer runs in two ways. `windows` is its own session window, as its documentation shows it: that is the comparison.
`stateful` is a state of ours in its general stateful operator, which leaves it little more than input, exchange, state
and output: that is the most that it could reach, and it is no longer its sessions that are measured.
"""

import argparse
import gc
import hashlib
import json
import os
import resource
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from kafka.admin import NewTopic

from benchmarks.stream.events import Record
from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from contracts.runtime.clock import MINUTE_MS
from contracts.wire.events_pb2 import Exposure, Feedback, History

GAP_MS = 30 * MINUTE_MS
LATENESS_MS = 10 * MINUTE_MS
CLOSED_AFTER_MS = 2 * GAP_MS + LATENESS_MS  # of its user's event time after its last event: Quix Streams' rule
WAYS = ("windows", "stateful")
MODULES = {"quixstreams": "benchmarks.stream.peer_quix", "bytewax": "benchmarks.stream.peer_bytewax"}

# A behaviour on its way: event id, item, time, play time, effective view, follow. A plain sequence, since Quix Streams
# keeps it as JSON.
Row: TypeAlias = Sequence[str | int | bool]


def row_of(feedback: Feedback) -> tuple[str, int, int, int, bool, bool]:
    """What a session keeps of one feedback event."""
    return (
        feedback.event_id,
        feedback.item_id,
        feedback.time_ms,
        feedback.play_time_ms,
        feedback.effective_view,
        feedback.follow,
    )


def encode_session(rows: Iterable[Row]) -> bytes:
    """One session's behaviours in event-time order, each event id once.

    >>> row = ("f1", 7, 1000, 250, True, False)
    >>> History.FromString(encode_session([row, row])).times_ms
    [1000]
    """
    unique = sorted({row[0]: row for row in rows}.values(), key=_time_then_id)
    _, items, times, plays, effective, follows = zip(*unique, strict=True)
    return History(
        item_ids=items, times_ms=times, play_times_ms=plays, effective_views=effective, follows=follows
    ).SerializeToString()


def _time_then_id(row: Row) -> tuple[str | int | bool, str | int | bool]:
    return row[2], row[0]


# One user's open sessions: the first and last event time of each, and its rows. Lists, so that it can be JSON.
Open: TypeAlias = list[list[Any]]


def insert(sessions: Open, row: Row) -> list[list[Row]]:
    """Put a row into its session, and take out what it closes.

    >>> sessions: Open = []
    >>> [insert(sessions, ("f", 1, minute * MINUTE_MS, 0, True, False)) for minute in (0, 60, 30)], len(sessions)
    ([[], [], []], 1)
    >>> [len(closed) for closed in insert(sessions, ("f", 1, 131 * MINUTE_MS, 0, True, False))], len(sessions)
    ([3], 1)
    """
    at = row[2]
    first, last, rows = at, at, [row]
    keep: Open = []
    closed: list[list[Row]] = []
    for session in sessions:
        if session[0] - GAP_MS <= at <= session[1] + GAP_MS:
            first, last = min(first, session[0]), max(last, session[1])
            session[2] += rows
            rows = session[2]
        elif session[1] + CLOSED_AFTER_MS < at:
            closed.append(session[2])
        else:
            keep.append(session)
    sessions[:] = [*keep, [first, last, rows]]
    return closed


class Sessions(NamedTuple):
    """Sessions that were put out: how many, of how many behaviours, and a digest that no order changes."""

    sessions: int
    behaviours: int
    digest: str


def summed(sessions: Iterable[tuple[bytes, bytes]]) -> Sessions:
    """Sum up (user's key, `History` bytes) pairs.

    >>> a, b = ((key, encode_session([("f1", 7, 1, 2, True, False)])) for key in (b"1", b"2"))
    >>> summed([a, b]) == summed([b, a]), summed([a, b]).sessions, summed([a]) == summed([b])
    (True, 2, False)
    """
    count = behaviours = total = 0
    for key, value in sessions:
        count += 1
        behaviours += len(History.FromString(value).item_ids)
        total += int.from_bytes(hashlib.blake2b(key + b"\0" + value, digest_size=8).digest())
    return Sessions(count, behaviours, f"{total % 2**64:016x}")


def reference(records: Iterable[Record], *, closed_only: bool = False) -> Sessions:
    """What the job must put out, by sorting: nothing is windowed, nothing is late.

    `closed_only`: only the sessions that their user's own later events have closed, by Quix Streams' rule.
    """
    shown: dict[str, frozenset[int]] = {}
    behaviours: defaultdict[bytes, list[Row]] = defaultdict(list)
    for record in records:
        if record.topic == bus.EXPOSURES:
            exposure = Exposure.FromString(record.value)
            shown[exposure.request_id] = frozenset(item.item_id for item in exposure.items)
        else:
            feedback = Feedback.FromString(record.value)
            if feedback.item_id in shown.get(feedback.request_id, ()):
                behaviours[record.key].append(row_of(feedback))
    return summed(
        (key, encode_session(session))
        for key, rows in behaviours.items()
        for session in _cut(rows)
        if not closed_only or max(_time(row) for row in rows) > _time(session[-1]) + CLOSED_AFTER_MS
    )


def _time(row: Row) -> int:
    return int(row[2])


def _cut(rows: list[Row]) -> list[list[Row]]:
    sessions: list[list[Row]] = []
    for row in sorted(rows, key=_time):
        if sessions and _time(row) - _time(sessions[-1][-1]) <= GAP_MS:
            sessions[-1].append(row)
        else:
            sessions.append([row])
    return sessions


@dataclass
class Stopwatch:
    """Wall and CPU time from the end of the warm-up on. The CPU time is that of all of this process's threads."""

    warmup: int  # events that are not timed
    began: tuple[float, float] | None = field(default=None, init=False)
    seen: int = field(default=0, init=False)
    seen_at_start: int = field(default=0, init=False)
    ended: tuple[float, float] = field(default=(0.0, 0.0), init=False)

    def count(self, events: int) -> None:
        """So many more events have come."""
        self.seen += events
        if self.began is None and self.seen > self.warmup:
            self.seen_at_start = self.seen
            self.began = _now()

    def stop(self) -> None:
        """It ends here, unless a later call says so again."""
        self.ended = _now()


def _now() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Result:
    """What a peer reached. `events`, `wall_s` and `cpu_s` are without the warm-up, `sessions` are all."""

    peer: str
    version: str
    way: str  # one of WAYS
    source: str  # kafka or memory
    events: int
    wall_s: float
    cpu_s: float
    events_per_s: float
    events_per_cpu_s: float
    sessions: int
    behaviours: int
    digest: str
    max_rss_mb: float


def result_of(peer: str, version: str, way: str, source: str, watch: Stopwatch, sessions: Sessions) -> Result:
    """Put a run together.

    Raises:
        ValueError: no event came after the warm-up.

    """
    if watch.began is None:
        raise ValueError(f"{watch.seen} events came, not more than the warm-up's {watch.warmup}")
    events = watch.seen - watch.seen_at_start
    wall_s, cpu_s = (end - begin for end, begin in zip(watch.ended, watch.began, strict=True))
    return Result(
        peer,
        version,
        way,
        source,
        events,
        round(wall_s, 3),
        round(cpu_s, 3),
        round(events / wall_s, 1),
        round(events / cpu_s, 1),
        *sessions,
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )


def report(result: Result, *, as_json: bool) -> str:
    """One line for a person, or one JSON object."""
    if as_json:
        return json.dumps(asdict(result))
    return (
        f"{result.peer} {result.version}, {result.way}, from {result.source}: {result.sessions:,} sessions, "
        f"{result.events_per_s:,.0f} events/s by wall, {result.events_per_cpu_s:,.0f} by CPU"
    )


def add_peer_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every peer takes."""
    parser.add_argument("--bootstrap", help="the broker; its topics hold the events")
    parser.add_argument("--prefix", default="bench.", help="what the topics' names begin with")
    parser.add_argument(
        "--way", choices=WAYS, default="windows", help="whose sessions: the peer's, or ours in its state"
    )
    parser.add_argument("--warmup", type=int, default=20_000, help="events before the clock starts")
    parser.add_argument("--cpu", type=int, help="the one core to run on")
    parser.add_argument("--gc", action="store_true", help="leave Python's collector of cycles on")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def set_up(arguments: argparse.Namespace) -> None:
    """Keep this process, and the threads that it starts from now on, on one core, and the collector of cycles off."""
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    if not arguments.gc:
        gc.disable()


def output_topic(settings: KafkaSettings, peer: str) -> str:
    """A new topic, of one partition, for what a peer puts out; returns its short name."""
    name = f"sessions-{peer}-{os.getpid()}-{time.time_ns()}"
    client = bus.admin(settings)
    try:
        client.create_topics([NewTopic(settings.topic(name), 1, 1, topic_configs={"retention.ms": "-1"})])
    finally:
        client.close()
    return name


def put_out(settings: KafkaSettings, topic: str) -> Sessions:
    """Read back what a peer put out, and delete the topic."""
    sessions = summed((record.key, record.value) for record in consumers.read_to_end(settings, topic, 0, 0))
    client = bus.admin(settings)
    try:
        client.delete_topics([settings.topic(topic)])
    finally:
        client.close()
    return sessions


def run_peer(python: Path, peer: str, arguments: Sequence[str], *, timeout_s: float = 1800) -> Result:
    """Run one peer with the interpreter that has it.

    Raises:
        subprocess.CalledProcessError: it failed; what it wrote to standard error went to ours.
        subprocess.TimeoutExpired: it took too long.

    """
    command = [str(python), "-m", MODULES[peer], *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=timeout_s, text=True)
    return Result(**json.loads(done.stdout.splitlines()[-1]))
