"""One partition as Flink runs it, without Flink: its state in maps, restarts at any moment, silence."""

import random
import struct
from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from contracts.config.settings import KafkaSettings, Settings
from contracts.kafka import bus
from contracts.messages.events import BadEvent
from contracts.messages.received import exposure_of, feedback_of
from contracts.runtime.clock import HOUR_MS, ManualClock
from contracts.wire.events_pb2 import Example
from contracts.wire.stream_state_pb2 import UserState
from stream.catalogue import origin_of
from stream.flink.envelope import Sink, unpacked
from stream.flink.partition import Partition
from stream.flink.state import Tables
from stream.intake import SILENT_AFTER_S
from stream.kept import user_bytes
from stream.metrics import StreamMetrics
from stream.outbox import collect
from stream.outputs import Output, Rejected
from stream.state import MemoryState
from stream.step import on_exposure, on_feedback, on_time, watermark
from tests.stream.log_cases import ITEMS, Sent, make_log
from tests.stream.step_cases import exposure, feedback
from tests.stream.stream_cases import settings_for

KAFKA = KafkaSettings(bootstrap_servers="none:1", topic_prefix="", partitions=2)
TOPICS = (bus.EXPOSURES, bus.FEEDBACK)


class Map(dict[bytes, bytes]):
    """PyFlink's MapState, as far as it is used."""

    def put(self, key: bytes, value: bytes) -> None:
        self[key] = value

    def remove(self, key: bytes) -> None:
        self.pop(key, None)


class Broker:
    """Two logs of partition 0, and how far the function has been given them."""

    def __init__(self, records: Iterable[Sent]) -> None:
        self.logs: tuple[list[bytes], list[bytes]] = ([], [])
        for record in records:
            log = TOPICS.index(record.topic)
            self.logs[log].append(enveloped(log, len(self.logs[log]), record))
        self.given = [0, 0]

    def at_end(self, topic: str, partition: int, offset: int) -> bool:
        assert partition == 0
        return offset >= len(self.logs[TOPICS.index(topic)])


def enveloped(log: int, offset: int, record: Sent) -> bytes:
    """What `Records.java` makes of a record."""
    parts = b""
    for part in (None, bus.key_of(record.user_id), record.value):
        parts += struct.pack(">i", -1) if part is None else struct.pack(">i", len(part)) + part
    return struct.pack(">biqq", log, 0, offset, record.timestamp_ms) + parts


def opened(settings: Settings, tables: Tables, broker: Broker, clock: ManualClock) -> Partition:
    catalogue = SimpleNamespace(items=set(ITEMS), read=lambda: None, bad_since=lambda offset: ([], offset))
    return Partition(settings, 0, tables, catalogue, broker, clock, StreamMetrics(), 1 << 20)


def of_partition_0(seed: int, size: int) -> list[Sent]:
    return [each for each in make_log(seed, size) if bus.partition_of(each.user_id, KAFKA.partitions) == 0]


def sent(envelopes: Iterable[bytes], sink: Sink) -> list[tuple[bytes, bytes | None]]:
    """Keys and values of what goes to a topic."""
    found = []
    for raw in envelopes:
        if raw[0] == sink:
            (length,) = struct.unpack_from(">i", raw, 13)
            key, at = raw[17 : 17 + length], 17 + length
            (size,) = struct.unpack_from(">i", raw, at)
            found.append((key, None if size < 0 else raw[at + 4 :]))
    return found


@pytest.fixture
def settings(tmp_path: object) -> Settings:
    return settings_for(KAFKA, tmp_path, poll_records=50)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_polls_and_restarts_at_any_moment_change_nothing(settings: Settings, seed: int) -> None:
    """What comes of the logs is what the steps make of them in `merged`'s order."""
    records = of_partition_0(seed, 1500)
    chance, clock, broker = random.Random(seed), ManualClock(), Broker(records)
    tables = Tables(*(Map() for _ in Tables._fields))
    partition = opened(settings, tables, broker, clock)
    out: list[bytes] = []
    while True:
        log = chance.randrange(2)
        for raw in broker.logs[log][broker.given[log] : broker.given[log] + chance.randrange(60)]:
            partition.take(raw)
            broker.given[log] += 1
        out += partition.step() if chance.random() < 0.5 else partition.tick()
        if chance.random() < 0.1:
            partition = opened(settings, tables, broker, clock)  # what it holds in memory is gone
        if broker.given == [len(each) for each in broker.logs]:
            break
    out += partition.tick()
    out += partition.tick()  # timers that the last batch has set
    examples, letters, rows = plainly(settings, broker)
    assert [value for _, value in sent(out, Sink.EXAMPLES)] == examples
    assert sorted(str(value) for _, value in sent(out, Sink.DEAD_LETTERS)) == sorted(map(str, letters))
    assert {key: value for key, value in sent(out, Sink.ROWS)} == rows  # noqa: C416  (the newest of each)
    assert not tables.waiting.keys()


def plainly(settings: Settings, broker: Broker) -> tuple[list[bytes], list[bytes], dict[bytes, bytes]]:
    """The steps over the whole log in order, with a state in memory."""
    limits, state, outputs = settings.stream, MemoryState(), list[Output]()
    records = [unpacked(raw, TOPICS) for log in broker.logs for raw in log]
    for record in sorted(records, key=lambda each: (each.timestamp, TOPICS.index(each.topic), each.offset)):
        try:
            if record.topic == bus.EXPOSURES:
                outputs += on_exposure(state, exposure_of(record, limits, 2), origin_of(record), limits)
            else:
                event = feedback_of(record, limits, 2)
                outputs += on_feedback(state, event, origin_of(record), limits, set(ITEMS))
        except BadEvent as error:
            outputs.append(Rejected(origin_of(record), error))
    for _ in range(2):
        outputs += on_time(state, watermark(state, limits), limits)
    outbox, _ = collect(outputs, settings.kafka, StreamMetrics())
    rows = {bus.key_of(user_id): user_bytes(user) for user_id, user in state.users.items()}
    return [each.value for each in outbox.examples], [each.value for each in outbox.dead_letters], rows


def test_a_log_without_anything_holds_the_other_up_only_while_the_broker_may_have_something(
    settings: Settings,
) -> None:
    shown = exposure("r", 1000, (1, 2), 2)
    told = feedback(1, 2000, "r", view=True, event="f", user=2)
    records = [
        Sent(1000, bus.EXPOSURES, 2, shown.SerializeToString()),
        Sent(2000, bus.FEEDBACK, 2, told.SerializeToString()),
    ]
    broker, clock = Broker(records), ManualClock()
    partition = opened(settings, Tables(*(Map() for _ in Tables._fields)), broker, clock)
    partition.take(broker.logs[1][0])
    assert list(partition.tick()) == [], "the broker has an exposure that has not come yet"
    partition.take(broker.logs[0][0])
    (example,) = sent(partition.tick(), Sink.EXAMPLES)
    assert Example.FromString(example[1] or b"").event_id == "f"


def test_while_both_logs_are_silent_event_time_goes_on_by_the_clock(settings: Settings) -> None:
    """So the last session of the day is closed, and feedback whose exposure never came is given up."""
    stray = feedback(1, 2000, "lost", view=True, event="stray", user=2)
    records = [
        Sent(1000, bus.EXPOSURES, 2, exposure("r", 1000, (1, 2), 2).SerializeToString()),
        Sent(2000, bus.FEEDBACK, 2, feedback(1, 2000, "r", view=True, event="f", user=2).SerializeToString()),
        Sent(2000, bus.FEEDBACK, 2, stray.SerializeToString()),
    ]
    broker, clock = Broker(records), ManualClock()
    partition = opened(settings, Tables(*(Map() for _ in Tables._fields)), broker, clock)
    for raw in broker.logs[0] + broker.logs[1]:
        partition.take(raw)
    (row,) = sent(partition.tick(), Sink.ROWS)
    assert UserState.FromString(row[1] or b"").open
    clock.advance(int(1000 * SILENT_AFTER_S))
    assert list(partition.tick()) == []
    clock.advance(settings.stream.session_gap_ms + settings.stream.allowed_lateness_ms + HOUR_MS)
    out = list(partition.tick())
    (row,) = sent(out, Sink.ROWS)
    assert not UserState.FromString(row[1] or b"").open
    assert len(sent(out, Sink.DEAD_LETTERS)) == 1
