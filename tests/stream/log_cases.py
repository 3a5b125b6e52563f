"""A seeded log with everything that makes a stream hard, and what a worker has made of it, to compare runs by.

A log holds late events, several feedback events on one item, feedback before its exposure and without one, pages of
impressions, requests that were served only, duplicates, records that cannot be used, and sessions that end. It is made
for the stream's default limits. Its outcome is a function of the log alone: record timestamps do not decrease, and it
spans so many hours that no session can be closed by a real clock.
"""

import random
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import redis
import yaml
from google.protobuf.message import DecodeError

from contracts.config.settings import KafkaSettings, Settings, StreamSettings
from contracts.kafka import bus, consumers
from contracts.runtime.clock import HOUR_MS, MINUTE_MS
from contracts.wire.events_pb2 import DeadLetter, Exposure, Feedback
from tests.stream.step_cases import exposure, feedback, impression
from tests.stream.stream_cases import Sender, read_all

BEGIN_MS = 1_000_000_000
SPAN_MS = 12 * HOUR_MS
USERS = range(1, 31)
ITEMS = range(1, 41)
LIMITS = StreamSettings()


class Sent(NamedTuple):
    """A record, in the order in which a log receives them."""

    timestamp_ms: int
    topic: str  # short
    user_id: int
    value: bytes | None


@dataclass(frozen=True)
class Log:
    """What was written."""

    records: list[Sent]
    ends: dict[tuple[str, int], int]  # by short topic and partition, of exposures and feedback
    expected_examples: set[str]  # ids of the feedback events that must become examples

    @property
    def size(self) -> int:
        """How many records of exposures and feedback there are."""
        return sum(self.ends.values())


@dataclass(frozen=True)
class Outcome:
    """All that a stream has put out. Two runs over the same log have equal ones, byte for byte."""

    rows: list[tuple[Any, ...]]  # Feast's online store, whole
    examples: dict[int, list[tuple[Any, ...]]]  # key, value and timestamp, in the order of each partition
    # The same of dead letters, ordered by the records that they are about: their topic has one partition, where workers
    # and the two sides of a partition meet as they come. Topics are named without the run's prefix.
    dead_letters: list[tuple[Any, ...]]


def write_log(kafka: KafkaSettings, seed: int, size: int) -> Log:
    """Write the catalogue and a log of at least `size` exposures and feedback events to empty topics."""
    records = make_log(seed, size)
    sender = Sender(kafka)
    sender.items(*ITEMS)
    sender.send(bus.ITEMS, b"\xff", 99, BEGIN_MS)
    for record in records:
        sender.send(record.topic, record.value, record.user_id, record.timestamp_ms)  # type: ignore[arg-type]
    sender.flush()
    sender.close()
    ends = Counter((each.topic, bus.partition_of(each.user_id, kafka.partitions)) for each in records)
    return Log(records, dict(ends), expected_examples(records, kafka.partitions))


def make_log(seed: int, size: int) -> list[Sent]:
    """The records of a log."""
    chance = random.Random(seed)
    made: list[Sent] = []
    number = 0
    while len(made) < size:
        user, at_ms = chance.choice(USERS), BEGIN_MS + chance.randrange(SPAN_MS)
        for _ in range(chance.randint(1, 3)):
            number += 1
            made += _request(chance, f"{seed}-{number}", user, at_ms)
            at_ms += chance.randrange(MINUTE_MS, 5 * MINUTE_MS)
    return sorted(made, key=lambda each: each.timestamp_ms)


def expected_examples(records: Sequence[Sent], partitions: int) -> set[str]:
    """The ids of feedback events that become examples: of each item that a request showed, the first good view.

    It looks at the log as a whole, so it needs no state. It is right for logs in which an exposure comes within the
    allowed lateness of its feedback.
    """
    decoded = [
        (Exposure if each.topic == bus.EXPOSURES else Feedback).FromString(each.value)
        for each in records
        if _usable(each)
    ]
    shown: dict[str, Exposure] = {}
    for event in _in_time(decoded, Exposure, partitions):
        shown.setdefault(event.request_id, event)
    firsts: dict[tuple[str, int], str] = {}
    for event in _in_time(decoded, Feedback, partitions):
        its = shown.get(event.request_id)
        if (
            event.effective_view
            and its is not None
            and its.user_id == event.user_id
            and event.item_id in {item.item_id for item in its.items}
            and 0 <= event.time_ms - its.time_ms <= LIMITS.attribution_window_ms
        ):
            firsts.setdefault((event.request_id, event.item_id), event.event_id)
    return set(firsts.values())


def outcome(settings: Settings) -> Outcome:
    """What the sinks hold now."""
    kafka = settings.kafka
    letters = []
    for value in read_all(kafka, bus.DEAD_LETTERS):
        letter = DeadLetter.FromString(value)
        letter.topic = letter.topic.removeprefix(kafka.topic_prefix)
        letters.append((letter.topic, letter.partition, letter.offset, letter.SerializeToString(deterministic=True)))
    examples = {
        partition: [
            (record.key, record.value, record.timestamp)
            for record in consumers.read_to_end(kafka, bus.EXAMPLES, partition, 0)
        ]
        for partition in range(kafka.partitions)
    }
    return Outcome(_rows(settings.feature_repo), examples, sorted(letters))


def _rows(repo: Path) -> list[tuple[Any, ...]]:
    online = yaml.safe_load((repo / "feature_store.yaml").read_text())["online_store"]
    if online["type"] == "sqlite":
        connection = sqlite3.connect(repo / online["path"])
        try:
            found = connection.execute("SELECT entity_key, feature_name, value, event_ts FROM driftline_user_sequence")
            return sorted(found)
        finally:
            connection.close()
    address, *options = online["connection_string"].split(",")
    host, port = address.split(":")
    database = int(dict(option.split("=") for option in options).get("db", 0))
    with redis.Redis(host=host, port=int(port), db=database) as client:
        return sorted((key, *sorted(client.hgetall(key).items())) for key in client.scan_iter())


def _request(chance: random.Random, name: str, user: int, at_ms: int) -> Iterator[Sent]:
    """One request and what came of it."""
    items = tuple(chance.sample(ITEMS, 5))
    kind = chance.random()
    of_pages = random.Random(name)  # by itself, so that a log has the same requests with pages and without
    message = exposure(name, at_ms, items, user, served_only=of_pages.random() < 0.3)
    shown = Sent(at_ms, bus.EXPOSURES, user, message.SerializeToString())
    if 0.05 <= kind < 0.15:
        shown = shown._replace(timestamp_ms=at_ms + chance.randrange(5 * MINUTE_MS, 15 * MINUTE_MS))  # after feedback
    if kind >= 0.05:  # else it never comes
        yield shown
    if chance.random() < 0.1:
        yield shown._replace(timestamp_ms=shown.timestamp_ms + chance.randrange(MINUTE_MS))
    for page in range(of_pages.choice((0, 0, 1, 2))):
        yield from _page(of_pages, name, user, items, at_ms, page)
    for item in items[: chance.randint(1, 3)]:
        for again in range(chance.choice((1, 1, 1, 2, 3))):
            time_ms = at_ms + chance.randrange(1000, 4 * MINUTE_MS)
            event = feedback(
                item,
                time_ms,
                name,
                view=chance.random() < 0.6,
                event=f"{name}/{item}/{again}",
                user=user,
                play_ms=chance.randrange(60_000),
                follow=chance.random() < 0.2,
            )
            delay_ms = chance.randrange(50)
            if kind >= 0.15:
                delay_ms += chance.choice((0,) * 8 + (20 * MINUTE_MS, 50 * MINUTE_MS, 100 * MINUTE_MS))
            sent = Sent(time_ms + delay_ms, bus.FEEDBACK, user, event.SerializeToString())
            yield sent
            if chance.random() < 0.1:
                yield sent._replace(timestamp_ms=sent.timestamp_ms + chance.randrange(10 * MINUTE_MS))
            if chance.random() < 0.1:
                yield sent._replace(value=_spoilt(chance, event))


def _page(
    chance: random.Random, name: str, user: int, items: tuple[int, ...], at_ms: int, number: int
) -> Iterator[Sent]:
    """A page of a request, now and then with an item that it does not have, late or twice."""
    time_ms = at_ms + chance.randrange(2 * MINUTE_MS)
    seen = tuple(chance.sample(items, chance.randint(1, 3)))
    if chance.random() < 0.2:
        seen += (chance.choice(ITEMS),)
    event = impression(seen, time_ms, name, event=f"{name}/page/{number}", user=user)
    delay_ms = chance.choice((0,) * 8 + (20 * MINUTE_MS, 100 * MINUTE_MS))
    sent = Sent(time_ms + delay_ms, bus.FEEDBACK, user, event.SerializeToString())
    yield sent
    if chance.random() < 0.1:
        yield sent._replace(timestamp_ms=sent.timestamp_ms + chance.randrange(10 * MINUTE_MS))


def _spoilt(chance: random.Random, event: Feedback) -> bytes | None:
    """A record that has no effect, for one reason or another."""
    broken = Feedback.FromString(event.SerializeToString())
    broken.event_id += "/bad"
    match chance.randrange(9):
        case 0:
            return None
        case 1:
            return chance.randbytes(40)
        case 2:
            broken.schema_version = 2
        case 3:
            broken.play_time_ms = -1
        case 4:
            broken.time_ms += HOUR_MS  # ahead of the record's own timestamp, and so of what may come
        case 5:
            broken.item_id = 99
        case 6:
            broken.item_id = event.item_id % len(ITEMS) + 1  # hardly ever one that the request showed
        case 7:
            broken.user_id += 2  # of the same partition, but another user's request
        case 8:
            broken.shown_item_ids.append(event.item_id)
    return broken.SerializeToString()


def _usable(record: Sent) -> bool:
    """Whether a record can be used as far as it alone tells."""
    if not record.value:
        return False
    if record.topic == bus.EXPOSURES:
        return True
    event = Feedback()
    try:
        event.ParseFromString(record.value)
    except DecodeError:
        return False
    return (
        event.schema_version == 1
        and event.HasField("follow") is not bool(event.shown_item_ids)
        and event.play_time_ms >= 0
        and event.time_ms <= record.timestamp_ms + LIMITS.future_tolerance_ms
    )


def _in_time(events: Sequence[Any], kind: type, partitions: int) -> Iterator[Any]:
    """The events of one topic that are not too far behind what their partition had before."""
    newest: Counter[int] = Counter()
    for event in events:
        if isinstance(event, kind):
            partition = bus.partition_of(event.user_id, partitions)
            if event.time_ms >= newest[partition] - LIMITS.allowed_lateness_ms:
                newest[partition] = max(newest[partition], event.time_ms)
                yield event
