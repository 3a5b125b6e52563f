"""Records that are anything but events: the worker stays up, and each is accounted for exactly once.

A mutation may leave an event that can be used. So each record is judged here too, by what it decodes to, and apart from
`contracts.messages.events`: a record with a defect must be a dead letter with that defect as its reason; one without
may only be too late or have no exposure.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from google.protobuf.message import DecodeError

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.messages.events import BadEvent
from contracts.messages.received import exposure_of, feedback_of
from contracts.runtime.clock import HOUR_MS, MINUTE_MS, ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example, Exposure, Feedback
from driftline.processes import broker
from feature_repo.store import UserSequences, apply
from stream.join import Origin
from stream.outputs import Closed, Output, Rejected
from stream.state import MemoryState
from stream.step import on_exposure, on_feedback, on_time, watermark
from tests.stream.log_cases import BEGIN_MS, ITEMS, LIMITS, SPAN_MS, Sent, make_log
from tests.stream.step_cases import exposure, feedback
from tests.stream.stream_cases import SENT_MS, Running, Sender, read_all, settings_for

HUGE = 10 * 1024 * 1024
ABSURD = (0, -1, -(2**63), 2**63 - 1, 2**31, 10**15, 7_258_118_400_000, 24 * HOUR_MS + 1)
TEXTS = ("anna", "film/7", "42", "\u2028", "ü" * 128, "ü" * 129, "a\n", "\x00", "")
TWINS = (("user_id", "user_key"), ("item_id", "item_key"))
OF_OUTCOMES = ("item_id", "play_time_ms", "effective_view")
AFTERWARDS = {"too_late", "no_exposure", "before_exposure"}  # what can be wrong with an event only beside others

Mutation = Callable[[random.Random, bytes, type[Exposure | Feedback]], bytes | None]


class Place(NamedTuple):
    topic: str  # short
    partition: int
    offset: int


# Mutations


def truncated(chance: random.Random, value: bytes, kind: type) -> bytes:
    return value[: chance.randrange(len(value))]


def flipped(chance: random.Random, value: bytes, kind: type) -> bytes:
    changed = bytearray(value)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def of_a_wrong_type(chance: random.Random, value: bytes, kind: type) -> bytes:
    """A field with a payload that is not of its type, before or after the others; some types do not exist at all."""
    number, wire_type = chance.randrange(1, 19), chance.randrange(8)
    payload = {0: b"\x2a", 1: b"12345678", 2: b"\x03abc", 5: b"1234"}.get(wire_type, b"\x01")
    wrong = varint(number << 3 | wire_type) + payload
    return wrong + value if chance.random() < 0.5 else value + wrong


def replaced_by_a_wrong_type(chance: random.Random, value: bytes, kind: type[Exposure | Feedback]) -> bytes:
    """A field that is there as text only."""
    event = kind.FromString(value)
    field = chance.choice(event.DESCRIPTOR.fields)
    event.ClearField(field.name)  # type: ignore[arg-type]
    return event.SerializeToString() + varint(field.number << 3 | 2) + b"\x021\xff"


def without_a_field(chance: random.Random, value: bytes, kind: type[Exposure | Feedback]) -> bytes:
    event = kind.FromString(value)
    event.ClearField(chance.choice(event.DESCRIPTOR.fields).name)  # type: ignore[arg-type]
    return event.SerializeToString()


def absurd(chance: random.Random, value: bytes, kind: type[Exposure | Feedback]) -> bytes:
    event = kind.FromString(value)
    numbers = ["user_id", "time_ms", *(("item_id", "play_time_ms") if kind is Feedback else ())]
    for name in chance.sample(numbers, chance.randint(1, 2)):
        setattr(event, name, chance.choice(ABSURD))
    if isinstance(event, Feedback) and event.shown_item_ids and chance.random() < 0.5:
        event.ClearField("item_id")
        event.ClearField("play_time_ms")
        event.shown_item_ids[0] = chance.choice(ABSURD)
    if isinstance(event, Exposure) and chance.random() < 0.5:
        event.items[0].item_id = chance.choice(ABSURD)
    return event.SerializeToString()


def named_by_text(chance: random.Random, value: bytes, kind: type[Exposure | Feedback]) -> bytes:
    """Users and items by texts that are ids, or are none, in the place of their numbers or beside them."""
    event = kind.FromString(value)
    for named in (event, *getattr(event, "items", ())):
        for number, text in TWINS:
            if hasattr(named, text) and chance.random() < 0.3:
                setattr(named, text, chance.choice(TEXTS))
                if chance.random() < 0.7:
                    named.ClearField(number)  # type: ignore[arg-type]
    return event.SerializeToString()


def of_another_version(chance: random.Random, value: bytes, kind: type[Exposure | Feedback]) -> bytes:
    event = kind.FromString(value)
    event.schema_version = chance.choice((0, 2, 3, 2**32 - 1))
    return event.SerializeToString()


def doubled(chance: random.Random, value: bytes, kind: type) -> bytes:
    """Fields that are there twice."""
    return value + value[chance.randrange(len(value)) :] if chance.random() < 0.5 else value + value


def crowded(chance: random.Random, value: bytes, kind: type[Exposure | Feedback]) -> bytes:
    """Too many of what may be there many times, or text of any length."""
    event = kind.FromString(value)
    if isinstance(event, Exposure):
        for item_id in range(1, 1100):
            event.items.add(item_id=item_id)
    elif event.shown_item_ids and chance.random() < 0.5:
        event.shown_item_ids.extend(range(1, 1100))
    else:
        event.event_id = "é" * chance.choice((1, 10, 100, 1000, 150_000))
    return event.SerializeToString()


def noise(chance: random.Random, value: bytes, kind: type) -> bytes:
    return chance.randbytes(chance.randrange(1, 200))


def nothing(chance: random.Random, value: bytes, kind: type) -> bytes | None:
    return chance.choice((b"", None))


def of_the_other_topic(chance: random.Random, value: bytes, kind: type) -> bytes:
    other = exposure("x", BEGIN_MS) if kind is Feedback else feedback(time_ms=BEGIN_MS)
    return other.SerializeToString()


MUTATIONS: tuple[Mutation, ...] = (
    truncated,
    flipped,
    flipped,
    of_a_wrong_type,
    replaced_by_a_wrong_type,
    without_a_field,
    absurd,
    absurd,
    named_by_text,
    of_another_version,
    doubled,
    crowded,
    noise,
    nothing,
    of_the_other_topic,
)


def fuzzed(seed: int, mutated: int, huge: int = 0) -> list[Sent]:
    """A log with good events, and `mutated` records made of them among them; `huge` of these have 10 MB."""
    chance = random.Random(seed)
    good = [each for each in make_log(seed, max(mutated // 8, 100)) if whole(each)]
    records = list(good)
    for n in range(mutated):
        origin = chance.choice(good)
        value = chance.choice(MUTATIONS)(chance, origin.value or b"", kind_of(origin))
        if n < huge:
            value = (origin.value or b"") + b"\x1a" + varint(HUGE) + chance.randbytes(HUGE)
        records.append(Sent(chance.randrange(BEGIN_MS, BEGIN_MS + SPAN_MS), origin.topic, origin.user_id, value))
    return sorted(records, key=lambda each: each.timestamp_ms)


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def kind_of(record: Sent) -> type[Exposure | Feedback]:
    return Exposure if record.topic == bus.EXPOSURES else Feedback


def whole(record: Sent) -> bool:
    return not defects(record)


def defects(record: Sent) -> set[str]:
    """All that is wrong with a record by itself."""
    if not record.value:
        return {"undecodable"}
    if len(record.value) > LIMITS.max_event_bytes:
        return {"oversized"}
    try:
        event = kind_of(record).FromString(record.value)
    except DecodeError:
        return {"undecodable"}
    found = {"unknown_version"} if event.schema_version != 1 else set()
    found |= misnamed(event)
    demanded = ("time_ms",) if isinstance(event, Exposure) else ("user_id", "time_ms")
    if isinstance(event, Feedback) and not event.shown_item_ids:
        demanded += OF_OUTCOMES
    if not (event.event_id and event.request_id and all(event.HasField(name) for name in demanded)):  # type: ignore[arg-type]
        found.add("missing_field")
    found |= of_exposure(event) if isinstance(event, Exposure) else of_feedback(event)
    if event.user_id <= 0 or not 0 < event.time_ms < 7_258_118_400_000:
        found.add("out_of_range")
    if (event.user_id - record.user_id) % 2:
        found.add("wrong_partition")
    if event.time_ms > record.timestamp_ms + 5 * MINUTE_MS:
        found.add("future_timestamp")
    return found


def misnamed(event: Exposure | Feedback) -> set[str]:
    """What is wrong with the text ids of an event; where one is right, its number is put beside it."""
    found = set()
    everything = [event, *getattr(event, "items", ())]
    for named, (number, field) in product(everything, TWINS):
        text = getattr(named, field, "")
        if text and is_no_id(text):
            found.add("out_of_range")
        elif text:
            right = number_of(text)
            if getattr(named, number) not in (0, right):
                found.add("id_conflict")
            setattr(named, number, right)
    if isinstance(event, Feedback):
        for text in event.shown_item_keys:
            found |= {"out_of_range"} if is_no_id(text) else set()
            event.shown_item_ids.append(number_of(text))
    return found


def is_no_id(text: str) -> bool:
    return not 0 < len(text.encode()) <= 256 or bool(re.search(r"[\x00-\x1f\x7f-\x9f]", text))


def number_of(text: str) -> int:
    return max(int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % 2**63, 1)


def of_exposure(event: Exposure) -> set[str]:
    wrong = not 1 <= len(event.items) <= 1000 or any(item.item_id <= 0 for item in event.items)
    return {"out_of_range"} if wrong else set()


def of_feedback(event: Feedback) -> set[str]:
    if event.shown_item_ids:
        mixed = any(event.HasField(name) for name in (*OF_OUTCOMES, "follow"))  # type: ignore[arg-type]
        wrong = len(event.shown_item_ids) > 1000 or min(event.shown_item_ids) <= 0
        return {name for name, is_so in (("mixed", mixed), ("out_of_range", wrong)) if is_so}
    wrong = event.item_id <= 0 or not 0 <= event.play_time_ms <= 24 * HOUR_MS
    unknown = event.item_id not in ITEMS
    return {name for name, is_so in (("unknown_item", unknown), ("out_of_range", wrong)) if is_so}


def places(records: Iterable[Sent], partitions: int) -> Iterator[tuple[Place, Sent]]:
    """Where records lie, in topics that held nothing before."""
    ends: Counter[tuple[str, int]] = Counter()
    for record in records:
        log = record.topic, bus.partition_of(record.user_id, partitions)
        yield Place(*log, ends[log]), record
        ends[log] += 1


def test_mutations_are_of_every_kind() -> None:
    """Else the tests below would prove less than they say."""
    found = Counter(reason for record in fuzzed(1, 5000) for reason in defects(record) or {"good"})
    assert min(found[reason] for reason in ("undecodable", "unknown_version", "missing_field", "good")) > 300, found
    assert (
        min(
            found[reason]
            for reason in (
                "out_of_range",
                "future_timestamp",
                "unknown_item",
                "oversized",
                "wrong_partition",
                "id_conflict",
                "mixed",
            )
        )
        > 20
    )


# The pure steps


def stepped(records: Sequence[Sent]) -> Iterator[tuple[Place, Output | None]]:
    """What the steps make of records; what is held in the end comes last, with None."""
    states = [MemoryState(), MemoryState()]
    for place, record in places(records, 2):
        state = states[place.partition]
        origin = Origin(*place, None, record.value, record.timestamp_ms, 0)
        received = SimpleNamespace(value=record.value, timestamp=record.timestamp_ms, partition=place.partition)
        try:
            outputs: list[Output]
            if record.topic == bus.EXPOSURES:
                outputs = list(on_exposure(state, exposure_of(received, LIMITS, 2), origin, LIMITS))
            else:
                outputs = list(on_feedback(state, feedback_of(received, LIMITS, 2), origin, LIMITS, ITEMS))
        except BadEvent as error:
            outputs = [Rejected(origin, error)]
        outputs += on_time(state, watermark(state, LIMITS), LIMITS)
        for output in outputs:
            if not isinstance(output, Closed):
                yield Place(output.origin.topic, output.origin.partition, output.origin.offset), output
    for state in states:
        for request in state.requests.values():
            for _, origin in request.held:
                yield Place(origin.topic, origin.partition, origin.offset), None


@pytest.mark.parametrize("seed", [1, 2])
def test_the_steps_account_for_each_of_10000_mutated_records_once(seed: int) -> None:
    records = fuzzed(seed, 10_000)
    found = list(stepped(records))
    became = dict(found)
    assert len(found) == len(became) == len(records)
    for place, record in places(records, 2):
        output, wrong = became[place], defects(record)
        reason = str(output.error.reason) if isinstance(output, Rejected) else None
        assert reason in wrong if wrong else reason in AFTERWARDS | {None}, (place, record, reason)


# The worker


def larger_topics(kafka: KafkaSettings) -> KafkaSettings:
    """Topics of their own that take records of 10 MB."""
    config = kafka.topic_config | {"max.message.bytes": str(16 * 1024 * 1024)}
    settings = kafka.model_copy(update={"topic_prefix": kafka.topic_prefix + "large.", "topic_config": config})
    broker.prepare(settings)
    return settings


def endure(kafka: KafkaSettings, directory: Path, mutated: int, huge: int = 0) -> None:
    """Have a worker take in a fuzzed log, and see that each record is accounted for once and good ones still work."""
    apply(directory / "features")
    settings = settings_for(kafka, directory)
    records = fuzzed(mutated, mutated, huge)
    sender = Sender(kafka, max_request_size=2 * HUGE)
    sender.items(*ITEMS)
    for record in records:
        sender.send(record.topic, record.value, record.user_id, record.timestamp_ms)  # type: ignore[arg-type]
    sender.flush()
    after_ms = BEGIN_MS + SPAN_MS + HOUR_MS
    with Running(settings, clock=ManualClock(SENT_MS)) as running:
        running.take(len(records))
        for topic in (bus.EXPOSURES, bus.FEEDBACK):
            outcomes = ("example", "non_positive", "folded", "impression", "duplicate", "dead_letter")
            counted = [running.value("stream_outcomes_total", topic=topic, outcome=name) or 0 for name in outcomes]
            held = running.value("stream_held_feedback") if topic == bus.FEEDBACK else 0
            assert sum(counted) + (held or 0) == sum(record.topic == topic for record in records)
        letters = [DeadLetter.FromString(value) for value in read_all(kafka, bus.DEAD_LETTERS)]
        assert running.value("stream_redeliveries_total", cause="sink") in {None, 0}
        sender.events(
            exposure("after", after_ms, (1, 2), user=5000), feedback(1, after_ms + 1, "after", user=5000, event="after")
        )
        running.take(2)
    sender.close()

    by_place = {
        Place(letter.topic.removeprefix(kafka.topic_prefix), letter.partition, letter.offset): letter
        for letter in letters
    }
    assert len(by_place) == len(letters)
    for place, record in places(records, kafka.partitions):
        letter, wrong = by_place.pop(place, None), defects(record)
        if letter is None:
            assert not wrong, (place, wrong)
            continue
        assert letter.reason in (wrong or AFTERWARDS), (place, wrong)
        assert letter.detail
        assert letter.value == (record.value or b"")
        assert (letter.key, letter.timestamp_ms) == (bus.key_of(record.user_id), record.timestamp_ms)
    assert not by_place
    (example,) = [e for e in map(Example.FromString, read_all(kafka, bus.EXAMPLES)) if e.event_id == "after"]
    (row,) = UserSequences(settings.feature_repo).read([5000])
    assert row is not None
    assert (example.user_id, list(row.item_ids), row.last_event_ms) == (5000, [1], after_ms + 1)


def test_a_worker_endures_2000_mutated_records(kafka: KafkaSettings, tmp_path: Path) -> None:
    endure(kafka, tmp_path, 2000)


def test_a_worker_endures_records_of_10_mb(kafka: KafkaSettings, tmp_path: Path) -> None:
    endure(larger_topics(kafka), tmp_path, 30, huge=4)


@pytest.mark.proof
def test_a_worker_endures_20000_mutated_records(kafka: KafkaSettings, tmp_path: Path) -> None:
    endure(larger_topics(kafka), tmp_path, 20_000, huge=4)
