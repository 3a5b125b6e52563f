"""A record as the event that it is: what every worker decides by, and `driftline check-event` as they do. Pure.

`contracts.messages.events` judges a message by itself, this a record by where it lies, too.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from contracts.config.settings import StreamSettings
from contracts.messages.events import decode_exposure, decode_feedback
from contracts.messages.placement import require_partition
from contracts.wire.events_pb2 import Exposure, Feedback

E = TypeVar("E", Exposure, Feedback)


class Placed(Protocol):
    """A record of `exposures` or `feedback`, as far as it is judged."""

    @property
    def partition(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def timestamp(self) -> int: ...


def exposure_of(record: Placed, stream: StreamSettings, partitions: int) -> Exposure:
    """The exposure in a record of a topic with so many partitions.

    Raises:
        BadEvent: it cannot be used; the reason says why.

    """
    return _received(decode_exposure, record, stream, partitions)


def feedback_of(record: Placed, stream: StreamSettings, partitions: int) -> Feedback:
    """The same of feedback."""
    return _received(decode_feedback, record, stream, partitions)


def _received(decode: Callable[..., E], record: Placed, stream: StreamSettings, partitions: int) -> E:
    event = decode(
        record.value,
        received_ms=record.timestamp,
        future_tolerance_ms=stream.future_tolerance_ms,
        max_bytes=stream.max_event_bytes,
    )
    require_partition(event.user_id, record.partition, partitions, event.user_key)
    return event
