"""The lab's log through the stream's own order, batches and durable state gives the examples that the lab made."""

from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from contracts.config.settings import StreamSettings
from contracts.kafka import bus
from contracts.messages.events import BadEvent, decode_exposure, decode_feedback
from contracts.wire.events_pb2 import Example, Exposure
from contracts.wire.stream_state_pb2 import Outbox
from evaluation.lab.plan import STREAM, WorldPlan
from stream.intake import Waiting, merged
from stream.join import Origin
from stream.outputs import Learned
from stream.partition import PartitionStore
from stream.step import on_exposure, on_feedback, on_time, watermark
from tests.evaluation.lab.lab_cases import week
from world.records import Announcement, Record

PARTITIONS = 2
BATCH = 300
WORLD = WorldPlan(days=2, warmup_days=2, users=60, items=150, births=0.05)


def streamed(
    log: list[Record], known: set[int], number: int, directory: Path, settings: StreamSettings
) -> list[Example]:
    """What a stream worker makes of one partition of a log, in batches, with its state on the disk."""
    store = PartitionStore(directory, bus.FEEDBACK, number, settings)
    waiting = {topic: Waiting(0, 0.0, deque()) for topic in (bus.EXPOSURES, bus.FEEDBACK)}
    for record in log:
        if record.user_id % PARTITIONS == number:
            waiting[record.topic].records.append(
                SimpleNamespace(topic=record.topic, timestamp=record.received_ms, key=b"", value=record.value)
            )
    made: list[Example] = []
    while batch := merged(
        waiting[bus.EXPOSURES], waiting[bus.FEEDBACK], exposures_end=True, feedback_end=True, limit=BATCH
    ):
        for record in batch:
            made += _step(store, record, known, settings)
        list(on_time(store, watermark(store, settings), settings))
        store.commit(Outbox())
    store.close()
    return made


def _step(store: PartitionStore, record: Any, known: set[int], settings: StreamSettings) -> list[Example]:
    decode = decode_exposure if record.topic == bus.EXPOSURES else decode_feedback
    origin = Origin(record.topic, store.partition, 0, None, record.value, record.timestamp, record.timestamp)
    try:
        event = decode(
            record.value,
            received_ms=record.timestamp,
            future_tolerance_ms=settings.future_tolerance_ms,
            max_bytes=settings.max_event_bytes,
        )
    except BadEvent:
        return []
    if record.topic == bus.EXPOSURES:
        outputs = on_exposure(store, event, origin, settings)
    else:
        outputs = on_feedback(store, event, origin, settings, known)
    return [each.example for each in outputs if isinstance(each, Learned) and each.example is not None]


def test_the_lab_makes_the_examples_that_the_stream_makes_of_its_log(tmp_path: Path) -> None:
    log: list[Record] = []
    known: set[int] = set()
    learned: list[Example] = []

    def look(event: Record | Exposure | Example | Announcement) -> None:
        if isinstance(event, Record):
            log.append(event)
        elif isinstance(event, Example):
            learned.append(event)
        elif isinstance(event, Announcement):
            known.add(event.item.item_id)

    outcome = week("popularity", WORLD, tap=look)
    made = [
        example
        for number in range(PARTITIONS)
        for example in streamed(log, known, number, tmp_path / str(number), STREAM)
    ]
    assert len(made) > 500

    def serialized(examples: list[Example]) -> list[bytes]:
        return sorted(each.SerializeToString(deterministic=True) for each in examples)

    assert serialized(made) == serialized(learned)
    in_experiment = [each for each in learned if each.arm]
    assert len(in_experiment) == outcome.effective.sum()
    times = [each.time_ms for each in in_experiment]
    assert times == sorted(times)


def test_duplicate_rows_of_the_log_are_one_example() -> None:
    warm: list[Example] = []
    week("popularity", WORLD, tap=lambda event: warm.append(event) if isinstance(event, Example) else None)
    assert len({each.event_id for each in warm}) == len(warm)
