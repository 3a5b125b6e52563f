"""One event judged as the workers would judge it, by the very same functions."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from contracts.config.settings import StreamSettings
from contracts.messages.events import BadEvent, Reason, decode_catalogue
from contracts.messages.placement import key_of, partition_of
from contracts.messages.received import exposure_of, feedback_of
from contracts.wire.events_pb2 import Exposure, Feedback, Item

KINDS: dict[str, Callable[[], Message]] = {"items": Item, "exposures": Exposure, "feedback": Feedback}


class Sent(NamedTuple):
    """A record as it would be received."""

    key: bytes | None
    value: bytes | None
    partition: int
    timestamp: int


@dataclass(frozen=True)
class Event:
    """What is known of a record before it is sent; None: not said, so that it is as it should be."""

    topic: str  # its short name: items, exposures or feedback
    value: bytes | None  # None: a null value
    key: bytes | None
    partition: int | None
    received_ms: int


def binary(topic: str, content: bytes) -> bytes:
    """A message in binary form: as it is, or made of its JSON form.

    Raises:
        BadEvent: it is JSON, and not of this message.

    """
    if content.lstrip()[:1] != b"{":
        return content
    message = KINDS[topic]()
    try:
        fields: Any = json.loads(content)
        ParseDict(fields, message)
    except (ValueError, RecursionError, ParseError) as error:
        raise BadEvent(Reason.UNDECODABLE, f"not the JSON form of {message.DESCRIPTOR.full_name}: {error}") from error
    encoded: bytes = message.SerializeToString()
    return encoded


def judge(event: Event, stream: StreamSettings, partitions: int) -> str:
    """Where a good event belongs, in one sentence.

    Raises:
        BadEvent: it cannot be used.

    """
    if event.topic == "items":
        item_id, item = decode_catalogue(event.key, event.value, max_bytes=stream.max_event_bytes)
        what = "deletes" if item is None else "says what is known of"
        return f"it {what} item {item_id}; its key is {key_of(item_id).decode()}, and items has one partition"
    if event.partition is None:
        sent, among = Sent(event.key, event.value, 0, event.received_ms), 1
    else:
        sent, among = Sent(event.key, event.value, event.partition, event.received_ms), partitions
    said = ""
    if event.topic == "exposures":
        exposure = exposure_of(sent, stream, among)
        user_id = exposure.user_id
        said = "; only what feedback tells of was shown" if exposure.served_only else ""
    else:
        feedback = feedback_of(sent, stream, among)
        user_id = feedback.user_id
        shown = len(set(feedback.shown_item_ids))
        said = f"; an impression of {shown} item{'' if shown == 1 else 's'}" if shown else ""
    return (
        f"user {user_id}; its key is {key_of(user_id).decode()}, and it belongs on partition"
        f" {partition_of(user_id, partitions)} of {partitions}{said}"
    )
