"""The stream benchmark's load by text ids is its load by numbers, but for the names."""

import pytest

from benchmarks.stream.events import Load, Record, catalogue, item_ids, records
from contracts.messages.events import decode_catalogue, decode_exposure, decode_feedback
from contracts.messages.ids import id_of_text
from contracts.messages.placement import key_of
from contracts.wire.events_pb2 import Exposure, Feedback

USERS, ITEMS = 50, 30
NUMBERS = {id_of_text(f"{n:024x}"): n for n in range(1, max(USERS, ITEMS) + 1)}


def event_of(record: Record) -> Exposure | Feedback:
    decode = decode_exposure if record.topic == "exposures" else decode_feedback
    return decode(record.value, received_ms=record.timestamp_ms, future_tolerance_ms=0, max_bytes=10_000)


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_load_by_text_is_the_load_by_number(partitions: int) -> None:
    numbers, texts = (
        Load(events=300, users=USERS, items=ITEMS, partitions=partitions, text_ids=text) for text in (0, 1)
    )
    for by_number, by_text in zip(records(numbers), records(texts), strict=True):
        one, other = event_of(by_number), event_of(by_text)
        assert other.user_key
        assert by_text.key == key_of(other.user_id)
        assert by_text.partition == other.user_id % partitions
        assert (by_text.topic, by_text.timestamp_ms) == (by_number.topic, by_number.timestamp_ms)
        for named in (other, *(other.items if isinstance(other, Exposure) else ())):
            for field in ("user_id", "item_id"):
                if getattr(named, field, 0):
                    setattr(named, field, NUMBERS[getattr(named, field)])
            for field in ("user_key", "item_key"):
                if hasattr(named, field):
                    named.ClearField(field)
        assert other == one
    for record in catalogue(texts):
        item_id, item = decode_catalogue(record.key, record.value, max_bytes=1000)
        assert item is not None
        assert item_id in item_ids(texts)
        assert NUMBERS[item_id] in item_ids(numbers)
