"""Seeded exposures and feedback for the stream benchmarks: as many as asked for, in log order, never all in memory.

Sessions begin at an even rate. A session is a few requests, minutes apart; a request shows five items, and each gets
one feedback event within minutes. Records reach the log a few seconds after they happened, each with a delay of its
own, so event times are out of order by seconds; some records reach it twice. Feedback never reaches the log before its
exposure. Not here: more than one feedback event for an item, late and broken records, which are rare and which a
worker handles off its fast path.

    python -m benchmarks.stream.events --bootstrap 127.0.0.1:9092 --prefix bench. --events 1000000

writes them to a broker, with the catalogue.
"""

import argparse
import gc
import math
import sys
import time
from collections.abc import Container, Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.messages.events import SCHEMA_VERSION
from contracts.messages.ids import id_of_text
from contracts.runtime.clock import HOUR_MS
from contracts.wire.events_pb2 import ExposedItem, Exposure, Feedback, Item

SHOWN = 5  # items of a request
DUPLICATED = 0.01
EFFECTIVE = 0.3
FOLLOWED = 0.02
RETURN_MS = 4 * HOUR_MS  # mean time from one session of a user to the next
MAX_DELAY_MS = 5000  # from an event to its arrival in the log
SESSIONS_AT_ONCE = 8192

Columns: TypeAlias = dict[str, NDArray[Any]]


class Record(NamedTuple):
    """One record for a topic (short name)."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    timestamp_ms: int


@dataclass(frozen=True)
class Load:
    """What to generate. Equal loads give equal records."""

    events: int
    users: int = 10_000
    items: int = 10_000
    partitions: int = 1
    seed: int = 0
    skew: float = 0.0  # exponent of the popularity of users by rank, 0 to below 1; 0: they take turns
    requests: float = 2.0  # mean number a session, at least 1
    text_ids: int = 0  # 1: users and items are named by texts of 24 characters, and by no number
    start_ms: int = 1_700_000_000_000

    def __post_init__(self) -> None:
        if self.items < SHOWN + 1:
            raise ValueError(f"items is {self.items}; a request shows {SHOWN} different ones of at least {SHOWN + 1}")
        if not 0 <= self.skew < 1:
            raise ValueError(f"skew is {self.skew}, outside 0 to below 1")
        if self.requests < 1:
            raise ValueError(f"requests is {self.requests}, below 1")


def catalogue(load: Load) -> Iterator[Record]:
    """The items that `records` shows: 1 to `load.items`, or as many texts."""
    for item in range(1, load.items + 1):
        name = _name(load, item, "item")
        value = Item(schema_version=SCHEMA_VERSION, **name, category_ids=[1 + item % 50], duration_ms=30_000)
        yield Record(bus.ITEMS, 0, bus.key_of(_number(load, item)), value.SerializeToString(), load.start_ms)


def item_ids(load: Load) -> Container[int]:
    """The numbers of those items."""
    every = range(1, load.items + 1)
    return {_number(load, item) for item in every} if load.text_ids else every


def records(load: Load) -> Iterator[Record]:
    """Exactly `load.events` exposures and feedback events, in the order in which the log receives them.

    >>> first, second = (list(records(Load(events=100, users=5))) for _ in range(2))
    >>> first == second, len(first), first == sorted(first, key=lambda record: record.timestamp_ms)
    (True, 100, True)
    """
    return islice(_endless(load), load.events)


def in_memory(load: Load) -> tuple[list[Record], list[Record]]:
    """The records as two lists, exposures and feedback, each in log order."""
    exposures: list[Record] = []
    feedback: list[Record] = []
    for record in records(load):
        (exposures if record.topic == bus.EXPOSURES else feedback).append(record)
    return exposures, feedback


def write(settings: KafkaSettings, rows: Iterable[Record]) -> int:
    """Send records to the broker; returns how many, once it has them all.

    Raises:
        KafkaError: the broker did not take one of them.

    """
    # Larger batches than the rooms send: nobody waits for a single record here.
    producer = bus.producer(settings, batch_size=512 << 10, max_request_size=4 << 20)
    names = {name: settings.topic(name) for name in bus.TOPICS}
    count, last = 0, None
    collecting = gc.isenabled()
    gc.disable()  # the client makes a few objects a record, none of them in a cycle: collecting costs a quarter
    try:
        for topic, partition, key, value, timestamp_ms in rows:
            last = producer.send(names[topic], value, key, partition=partition, timestamp_ms=timestamp_ms)
            count += 1
        producer.flush()
        if last is not None:
            last.get(timeout=60)
    finally:
        producer.close()
        if collecting:
            gc.enable()
    return count


def _endless(load: Load) -> Iterator[Record]:
    rng = np.random.default_rng(load.seed)
    sessions = _sessions(load, rng)
    pending = next(sessions)
    for following in sessions:
        # Nothing of the following block arrives before its first session begins.
        begin = int(following["time"].min())
        due = pending["arrival"] < begin
        yield from _encoded(load, _taken(pending, due))
        rest = _taken(pending, ~due)
        pending = {name: np.concatenate((rest[name], following[name])) for name in rest}


def _taken(columns: Columns, which: NDArray[np.bool_]) -> Columns:
    return {name: column[which] for name, column in columns.items()}


def _sessions(load: Load, rng: np.random.Generator) -> Iterator[Columns]:
    """Blocks of sessions, one row an event, unordered within a block."""
    interval_ms = RETURN_MS / load.users
    stride = _coprime(load.users)
    requests_before = 0
    first = 0
    while True:
        number = np.arange(first, first + SESSIONS_AT_ONCE)
        first += SESSIONS_AT_ONCE
        began_ms = load.start_ms + (number + rng.random(len(number))) * interval_ms
        if load.skew:
            users = 1 + (load.users * rng.random(len(number)) ** (1 / (1 - load.skew))).astype(np.int64)
        else:
            users = 1 + number * stride % load.users  # everyone once before anyone twice
        per_session = 1 + rng.poisson(load.requests - 1, len(number))
        session = np.repeat(np.arange(len(number)), per_session)
        pauses = rng.uniform(20_000, 180_000, len(session))
        passed: NDArray[np.float64] = np.cumsum(pauses)
        ends = np.cumsum(per_session)
        passed -= passed[(ends - per_session)[session]]  # the first request begins its session
        asked_ms = (began_ms[session] + passed).astype(np.int64)
        yield _events(load, rng, users[session], asked_ms, requests_before)
        requests_before += len(session)


def _events(
    load: Load, rng: np.random.Generator, users: NDArray[np.int64], asked_ms: NDArray[np.int64], before: int
) -> Columns:
    """Every request's exposure and feedback, some of it twice."""
    count = len(users)
    base = rng.integers(0, load.items, count)
    step = rng.integers(1, (load.items - 1) // SHOWN + 1, count)  # SHOWN steps never come round to the first item
    slot = np.tile(np.arange(-1, SHOWN), count)  # -1: the exposure itself
    watches = rng.uniform(2000, 40_000, (count, SHOWN + 1))
    watches[:, 0] = 0
    watched = np.cumsum(watches, axis=1).astype(np.int64).ravel()
    rows: Columns = {
        "request": np.repeat(np.arange(before, before + count), SHOWN + 1),
        "slot": slot,
        "user": np.repeat(users, SHOWN + 1),
        "base": np.repeat(base, SHOWN + 1),
        "step": np.repeat(step, SHOWN + 1),
        "time": np.repeat(asked_ms, SHOWN + 1) + watched,
        "play": np.minimum(rng.exponential(12_000, len(slot)), 120_000).astype(np.int64),
        "effective": (rng.random(len(slot)) < EFFECTIVE).astype(np.int64),
        "follow": (rng.random(len(slot)) < FOLLOWED).astype(np.int64),
    }
    delay = np.minimum(rng.exponential(1000, (count, SHOWN + 1)), MAX_DELAY_MS).astype(np.int64)
    arrival = rows["time"].reshape(count, SHOWN + 1) + delay
    arrival[:, 1:] = np.maximum(arrival[:, 1:], arrival[:, :1] + 1)
    rows["arrival"] = arrival.ravel()
    again: Columns = _taken(rows, rng.random(len(slot)) < DUPLICATED)
    again["arrival"] = again["arrival"] + rng.integers(1, MAX_DELAY_MS, len(again["arrival"]))
    return {name: np.concatenate((rows[name], again[name])) for name in rows}


def _encoded(load: Load, columns: Columns) -> Iterator[Record]:
    order = np.argsort(columns["arrival"], kind="stable")
    names = ("request", "slot", "user", "base", "step", "time", "play", "effective", "follow", "arrival")
    rows = zip(*(columns[name][order].tolist() for name in names), strict=True)
    for request, slot, user, base, step, time_ms, play_ms, effective, follow, arrival_ms in rows:
        if slot < 0:
            topic = bus.EXPOSURES
            message: Exposure | Feedback = Exposure(
                schema_version=SCHEMA_VERSION,
                event_id=f"e{request:015x}",
                request_id=f"r{request:015x}",
                **_name(load, user, "user"),
                time_ms=time_ms,
                experiment="bench",
                arm="control",
                model="two_tower",
                items=[
                    ExposedItem(**_name(load, _item(load, base, step, shown), "item"), source="recall")
                    for shown in range(SHOWN)
                ],
                simulated=True,
            )
        else:
            topic = bus.FEEDBACK
            message = Feedback(
                schema_version=SCHEMA_VERSION,
                event_id=f"f{request:014x}{slot}",
                request_id=f"r{request:015x}",
                **_name(load, user, "user"),
                **_name(load, _item(load, base, step, slot), "item"),
                time_ms=time_ms,
                play_time_ms=play_ms,
                effective_view=bool(effective),
                follow=bool(follow),
                simulated=True,
            )
        number = _number(load, user)
        partition = bus.partition_of(number, load.partitions)
        yield Record(topic, partition, bus.key_of(number), message.SerializeToString(), arrival_ms)


def _name(load: Load, which: int, kind: str) -> dict[str, Any]:
    """The field that names a user or an item."""
    return {f"{kind}_key": _text(which)} if load.text_ids else {f"{kind}_id": which}


def _number(load: Load, which: int) -> int:
    return id_of_text(_text(which)) if load.text_ids else which


def _text(which: int) -> str:
    return f"{which:024x}"


def _item(load: Load, base: int, step: int, slot: int) -> int:
    return 1 + (base + slot * step) % load.items


def _coprime(users: int) -> int:
    """A stride that visits every user before any of them again, in no obvious order."""
    stride = max(1, int(users * 0.618))
    while math.gcd(stride, users) != 1:
        stride += 1
    return stride


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", default="bench.")
    add_load_arguments(parser)
    arguments = parser.parse_args()
    load = load_of(arguments)
    settings = KafkaSettings(
        bootstrap_servers=arguments.bootstrap,
        topic_prefix=arguments.prefix,
        partitions=load.partitions,
        topic_config={"retention.ms": "-1"},  # the records' timestamps are of long ago
    )
    client = bus.admin(settings)
    bus.ensure_topics(settings, client)
    client.close()
    began = time.perf_counter()
    count = write(settings, chain(catalogue(load), records(load)))
    took = time.perf_counter() - began
    sys.stdout.write(f"{count} records in {took:.1f} s, {count / took:.0f} a second\n")


def add_load_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name a load."""
    for field in fields(Load):
        kind = float if field.name in ("skew", "requests") else int
        default = None if field.default is MISSING else field.default
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=default, required=default is None)


def load_of(arguments: argparse.Namespace) -> Load:
    """The load that a command line names."""
    return Load(**{field.name: getattr(arguments, field.name) for field in fields(Load)})


if __name__ == "__main__":
    _main()
