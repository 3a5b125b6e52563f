"""One event judged as the workers would judge it, by the very same functions."""

import codecs
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from contracts.config.settings import StreamSettings
from contracts.messages.events import BadEvent, Reason, decode_catalogue, decode_item
from contracts.messages.placement import key_of, partition_of
from contracts.messages.received import exposure_of, feedback_of
from contracts.wire.events_pb2 import Exposure, Feedback, Item

KINDS: dict[str, Callable[[], Message]] = {"items": Item, "exposures": Exposure, "feedback": Feedback}
# That editors put before a text; no message begins so, as these would be wire types 6 and 7.
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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
    if content.lstrip()[:1] != b"{" and not content.startswith(MARKS):
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
        limit, key = stream.max_event_bytes, event.key
        if key is None and event.value is not None:
            key = key_of(decode_item(event.value, max_bytes=limit).item_id)
        item_id, item = decode_catalogue(key, event.value, max_bytes=limit)
        if item is None:
            about = f"it deletes item {item_id}"
        else:
            about = f"it says what is known of item {_named(item_id, item.item_key)}"
        return f"{about}; its key is {key_of(item_id).decode()}, and items has one partition"
    if event.partition is None:
        sent, among = Sent(event.key, event.value, 0, event.received_ms), 1
    else:
        sent, among = Sent(event.key, event.value, event.partition, event.received_ms), partitions
    good: Exposure | Feedback
    said = ""
    if event.topic == "exposures":
        good = exposure_of(sent, stream, among)
        said = "; only what feedback tells of was shown" if good.served_only else ""
    else:
        good = feedback_of(sent, stream, among)
        shown = len(set(good.shown_item_ids))
        said = f"; an impression of {shown} item{'' if shown == 1 else 's'}" if shown else ""
    user_id = good.user_id
    return (
        f"user {_named(user_id, good.user_key)}; its key is {key_of(user_id).decode()}, and it belongs on partition"
        f" {partition_of(user_id, partitions)} of {partitions}{said}"
    )


def _named(number: int, text: str) -> str:
    """A user or an item in words.

    >>> _named(7, ""), _named(6149554607595376846, "anna")
    ('7', "6149554607595376846 ('anna')")
    """
    return f"{number} ({text!r})" if text else str(number)
