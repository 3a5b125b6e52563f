"""Decoding and validation of the messages on Kafka: bytes in, a message or a `BadEvent` out.

Pure: whether a timestamp lies in the future is judged against the time at which the log received the record,
never against a clock, so that the same log gives the same verdict whenever it is read.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, Self, TypeVar

from google.protobuf.message import DecodeError, Message

from contracts.config.calendar import MAX_TIME_MS, SECONDS_BEGIN, SECONDS_END, unit_hint
from contracts.messages.bad_event import BadEvent, Reason
from contracts.messages.forget import is_forget, require_forget
from contracts.messages.hints import encoding_hint, type_hint
from contracts.messages.ids import BadTextId, ItemKeys, OtherId, id_of, id_of_text
from contracts.wire.events_pb2 import DeadLetter, Example, Exposure, Feedback, Item

__all__ = [
    "DECADES_MS",
    "FEEDBACK_FIELDS",
    "IMPRESSION_FIELDS",
    "ITEM",
    "MAX_ITEMS_PER_EXPOSURE",
    "MAX_KEY_BYTES",
    "MAX_PLAY_TIME_MS",
    "NAMED",
    "OUTCOME_FIELDS",
    "SCHEMA_VERSION",
    "USER",
    "BadEvent",
    "Reason",
    "Received",
    "UnreadableBatch",
    "dead_letter",
    "decode_catalogue",
    "decode_example",
    "decode_exposure",
    "decode_feedback",
    "decode_item",
    "fill_numbers",
    "fitting_letter",
    "require_own_number",
]

SCHEMA_VERSION = 1
MAX_PLAY_TIME_MS = 24 * 3600 * 1000
OUTCOME_FIELDS = ("item_id", "play_time_ms", "effective_view")
FEEDBACK_FIELDS = ("user_id", "item_id", "time_ms", "play_time_ms", "effective_view")
IMPRESSION_FIELDS = ("user_id", "time_ms")
DECADES_MS = 10 * SECONDS_END  # 2001: a log that received events since then has none from before 1973
MAX_ITEMS_PER_EXPOSURE = 1000
MAX_KEY_BYTES = 19  # digits of an id, which is below 2⁶³
USER, ITEM = ("user_id", "user_key"), ("item_id", "item_key")  # fields of a number and of its text
NAMED: dict[type[Message], tuple[tuple[str, str], ...]] = {Item: (ITEM,), Exposure: (USER,), Feedback: (USER, ITEM)}

M = TypeVar("M", Item, Exposure, Feedback, Example)


class UnreadableBatch(bytes):
    """The value of a record that stands for a batch that could not be decoded: the batch's own bytes.

    Whoever decodes a message refuses it, for the reason that it brings along (`contracts.kafka.batches`).
    """

    first_offset: int
    detail: str

    def __new__(cls, raw: bytes, first_offset: int = 0, detail: str = "") -> Self:
        """`first_offset`: of the batch; the record's own is the last."""
        batch = super().__new__(cls, raw)
        batch.first_offset, batch.detail = first_offset, detail
        return batch


def decode_item(value: bytes | None, *, max_bytes: int) -> Item:
    """Decode one catalogue entry.

    Raises:
        BadEvent: it cannot be used; the reason says why.

    """
    item = _parse(Item, value, max_bytes)
    fill_numbers(item)
    _require_positive(item, "item_id")
    if item.duration_ms < 0:
        raise BadEvent(Reason.OUT_OF_RANGE, f"duration_ms is {item.duration_ms}, below 0")
    if item.HasField("expires_ms") and item.expires_ms <= 0:
        raise BadEvent(Reason.OUT_OF_RANGE, f"expires_ms is {item.expires_ms}, not above 0")
    if SECONDS_BEGIN <= item.expires_ms < SECONDS_END:  # it would be withdrawn as soon as it is read
        raise BadEvent(Reason.OUT_OF_RANGE, f"expires_ms is in milliseconds, but {unit_hint(item.expires_ms)}")
    if any(category <= 0 for category in item.category_ids):
        raise BadEvent(Reason.OUT_OF_RANGE, f"category_ids has {min(item.category_ids)}, not above 0")
    return item


def decode_catalogue(key: bytes | None, value: bytes | None, *, max_bytes: int) -> tuple[int, Item | None]:
    """What a record of the `items` topic says: an item's id and the item, or None where it is deleted.

    A deletion is a null value under the item's key, as Kafka's compacted topics have it. An item under another key
    would displace that key's item, and outlive its own deletion.

    >>> decode_catalogue(b"7", None, max_bytes=100)
    (7, None)

    Raises:
        BadEvent: it cannot be used; the reason says why.

    """
    if value is not None:
        item = decode_item(value, max_bytes=max_bytes)
        if key != str(item.item_id).encode():
            shown = "none" if key is None else repr(key[: MAX_KEY_BYTES + 1].decode(errors="replace"))
            detail = (
                f"the record's key is {shown}, and its item's is '{item.item_id}': the id's decimal digits, as ASCII"
            )
            raise BadEvent(Reason.WRONG_KEY, detail)
        return item.item_id, item
    item_id = int(key) if key is not None and key.isdigit() and len(key) <= MAX_KEY_BYTES else 0
    if not 0 < item_id < 2**63:
        raise BadEvent(Reason.UNDECODABLE, "a deletion whose key is no item id: that is its decimal digits, as ASCII")
    return item_id, None


def fill_numbers(event: Item | Exposure | Feedback) -> None:
    """Fill in the numbers of what an event names by text ids, but for the items of an exposure.

    From here on all goes by numbers. Whatever is read from Kafka has passed here.

    Raises:
        BadEvent: a text is no id, or not that of the number beside it.

    """
    for number, text in NAMED[type(event)]:
        named = getattr(event, text)
        if named:
            try:
                setattr(event, number, id_of(getattr(event, number), named))
            except BadTextId as error:
                raise _bad_id(error, text) from None
    if isinstance(event, Feedback):
        try:
            event.shown_item_ids.extend(map(id_of_text, event.shown_item_keys))
        except BadTextId as error:
            raise _bad_id(error, "shown_item_keys") from None


def require_own_number(keys: ItemKeys, item_id: int, item: Item | None) -> None:
    """See that no other text has an item's number, and take its text in; None: it is deleted.

    Raises:
        BadEvent: another text has it, which is the item's then.

    """
    if item is not None and not keys.add(item_id, item.item_key):
        detail = f"item_key {item.item_key!r} has the number {item_id}, as {keys.get(item_id)!r} has, which came first"
        raise BadEvent(Reason.ID_COLLISION, detail)


def decode_exposure(value: bytes | None, *, received_ms: int, future_tolerance_ms: int, max_bytes: int) -> Exposure:
    """Decode one exposure that the log received at `received_ms`.

    Raises:
        BadEvent: it cannot be used; the reason says why.

    """
    exposure = _parse(Exposure, value, max_bytes)
    fill_numbers(exposure)
    _require(exposure, ("time_ms",))
    _require_text(exposure, "event_id")
    _require_text(exposure, "request_id")
    _require_positive(exposure, "user_id")
    _require_past(exposure.time_ms, received_ms, future_tolerance_ms)
    if not 1 <= len(exposure.items) <= MAX_ITEMS_PER_EXPOSURE:
        raise BadEvent(Reason.OUT_OF_RANGE, f"{len(exposure.items)} items; 1 to {MAX_ITEMS_PER_EXPOSURE} are allowed")
    try:
        for shown in exposure.items:
            text = shown.item_key
            if text:
                shown.item_id = id_of(shown.item_id, text)
            elif shown.item_id <= 0:
                _require_positive(shown, "item_id", "items.")
            if shown.HasField("propensity"):
                _require_chance(shown.propensity, "items.propensity")
    except BadTextId as error:
        raise _bad_id(error, "items.item_key") from None
    return exposure


def decode_feedback(
    value: bytes | None,
    *,
    received_ms: int,
    future_tolerance_ms: int,
    max_bytes: int,
) -> Feedback:
    """Decode one feedback event that the log received at `received_ms`: an outcome, an impression, a request to forget.

    Raises:
        BadEvent: it cannot be used; the reason says why.

    """
    feedback = _parse(Feedback, value, max_bytes)
    fill_numbers(feedback)
    is_impression, forgets = bool(feedback.shown_item_ids), is_forget(feedback)
    _require(feedback, IMPRESSION_FIELDS if is_impression or forgets else FEEDBACK_FIELDS)
    _require_text(feedback, "event_id")
    if not forgets:
        _require_text(feedback, "request_id")
    _require_positive(feedback, "user_id")
    if forgets:
        require_forget(feedback)
    elif is_impression:
        _require_impression(feedback)
    else:
        _require_positive(feedback, "item_id")
        _require_play_time(feedback.play_time_ms)
    _require_past(feedback.time_ms, received_ms, future_tolerance_ms)
    return feedback


def decode_example(value: bytes | None, *, max_bytes: int) -> Example:
    """Decode one training example, or a request to forget a user.

    Raises:
        BadEvent: it cannot be used; the reason says why.

    """
    example = _parse(Example, value, max_bytes)
    _require_positive(example, "user_id")
    if is_forget(example):
        return example
    _require_positive(example, "item_id")
    _require_play_time(example.play_time_ms)
    history = example.history
    lengths = {
        len(column)
        for column in (
            history.item_ids,
            history.times_ms,
            history.play_times_ms,
            history.effective_views,
            history.follows,
            history.sessions,
        )
    }
    if len(lengths) != 1:
        raise BadEvent(Reason.OUT_OF_RANGE, f"history columns differ in length: {sorted(lengths)}")
    page = example.page
    if len(page.item_ids) != len(page.effective_views):
        counts = f"{len(page.item_ids)} items and {len(page.effective_views)} outcomes"
        raise BadEvent(Reason.OUT_OF_RANGE, f"the page has {counts}")
    if page.propensities and len(page.propensities) != len(page.item_ids):
        counts = f"{len(page.item_ids)} items and {len(page.propensities)} propensities"
        raise BadEvent(Reason.OUT_OF_RANGE, f"the page has {counts}")
    for propensity in page.propensities:
        if propensity:
            _require_chance(propensity, "page.propensities")
    return example


class Received(Protocol):
    """A record as it was received from Kafka, with its place there."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def timestamp(self) -> int: ...


def dead_letter(error: BadEvent, record: Received) -> DeadLetter:
    """The record as it goes to the dead-letter topic: nothing of it is lost."""
    return DeadLetter(
        schema_version=SCHEMA_VERSION,
        reason=str(error.reason),
        detail=error.detail,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key or b"",
        value=record.value or b"",
        timestamp_ms=record.timestamp,
    )


def fitting_letter(error: BadEvent, record: Received, largest_bytes: int) -> tuple[bytes | None, DeadLetter]:
    """Key and value of a dead letter that is no larger than its topic takes.

    What does not fit, first the record's value and then its key, stays in the record's own topic, and the detail says
    so. Keys have no bound of their own, and a compressed batch may hold far larger ones than a topic takes.

    Args:
        error: why the record cannot be used.
        record: as received.
        largest_bytes: of key and value together.

    """
    letter = dead_letter(error, record)
    if letter.ByteSize() + len(letter.key) <= largest_bytes:
        return record.key, letter
    letter.detail = f"too large for the dead-letter topic, so left in its own; {letter.detail}"
    letter.value = b""
    if letter.ByteSize() + len(letter.key) <= largest_bytes:
        return record.key, letter
    letter.key = b""
    return None, letter


def _parse(kind: Callable[[], M], value: bytes | None, max_bytes: int) -> M:
    if isinstance(value, UnreadableBatch):
        raise BadEvent(Reason.UNREADABLE_BATCH, value.detail)
    if value is None:
        raise BadEvent(Reason.UNDECODABLE, "the record's value is null, which has a meaning in items alone: a deletion")
    if not value:
        raise BadEvent(Reason.UNDECODABLE, "the record is empty")
    if len(value) > max_bytes:
        raise BadEvent(Reason.OVERSIZED, f"{len(value)} bytes; {max_bytes} are allowed")
    message = kind()
    try:
        message.ParseFromString(value)
    except DecodeError as error:
        # Newer versions of protobuf add why; a letter must not depend on which one has read the record.
        why = str(error).partition("': ")[0].removesuffix("'") + "'"
        detail = f"not a {type(message).__name__}: {why}{encoding_hint(value)}"
        raise BadEvent(Reason.UNDECODABLE, detail) from error
    if message.schema_version != SCHEMA_VERSION:
        version = message.schema_version or f"0 or left out{type_hint(message, 'schema_version')}"
        raise BadEvent(Reason.UNKNOWN_VERSION, f"schema_version is {version}; this build reads {SCHEMA_VERSION}")
    return message


def _bad_id(error: BadTextId, field: str) -> BadEvent:
    return BadEvent(Reason.ID_CONFLICT if isinstance(error, OtherId) else Reason.OUT_OF_RANGE, f"{field} {error}")


def _require(message: Message, fields: Iterable[str]) -> None:
    if not all(map(message.HasField, fields)):
        missing = next(field for field in fields if not message.HasField(field))
        detail = type_hint(message, missing) or _required(missing)
        raise BadEvent(Reason.MISSING_FIELD, f"{missing} is missing{detail}")


def _required(field: str) -> str:
    text = "; it is required, also where it is 0 or false"
    return f"{text}; an impression has shown_item_ids in its place" if field == "item_id" else text


def _require_text(message: Message, field: str) -> None:
    if not getattr(message, field):
        raise BadEvent(Reason.MISSING_FIELD, f"{field} is missing{type_hint(message, field)}")


def _require_positive(message: Message, field: str, within: str = "") -> None:
    """`within`: what holds the message, in words and with a dot."""
    value = getattr(message, field)
    if value <= 0:
        hint = type_hint(message, field) if value == 0 else ""
        raise BadEvent(Reason.OUT_OF_RANGE, f"{within}{field} is {value}, not above 0{hint}")


def _require_impression(feedback: Feedback) -> None:
    """An item that is named twice is as if it were named once: a page may show it at two places."""
    told = [field for field in (*OUTCOME_FIELDS, "follow") if feedback.HasField(field)]
    if told:
        by = "shown_item_keys" if feedback.shown_item_keys else "shown_item_ids"
        has = "item_key" if told[0] == "item_id" and feedback.item_key else told[0]
        detail = f"{by} makes it an impression, which has no {has}: send outcomes as events of their own"
        raise BadEvent(Reason.MIXED, detail)
    if len(feedback.shown_item_ids) > MAX_ITEMS_PER_EXPOSURE:
        shown = len(feedback.shown_item_ids)
        raise BadEvent(Reason.OUT_OF_RANGE, f"{shown} shown_item_ids; 1 to {MAX_ITEMS_PER_EXPOSURE} are allowed")
    least = min(feedback.shown_item_ids)
    if least <= 0:
        raise BadEvent(Reason.OUT_OF_RANGE, f"one of shown_item_ids is {least}, not above 0")


def _require_play_time(play_time_ms: int) -> None:
    if not 0 <= play_time_ms <= MAX_PLAY_TIME_MS:
        raise BadEvent(Reason.OUT_OF_RANGE, f"play_time_ms is {play_time_ms}, outside 0 to {MAX_PLAY_TIME_MS}")


def _require_chance(value: float, field: str) -> None:
    if not 0 < value <= 1:
        raise BadEvent(Reason.OUT_OF_RANGE, f"{field} is {value:g}, not above 0 and at most 1")


def _require_past(time_ms: int, received_ms: int, tolerance_ms: int) -> None:
    if time_ms <= 0:
        raise BadEvent(Reason.OUT_OF_RANGE, f"time_ms is {time_ms}, not above 0")
    if time_ms >= MAX_TIME_MS:
        # A record's own timestamp may be nonsense too, so it cannot be the only judge of what lies in the future.
        raise BadEvent(Reason.OUT_OF_RANGE, f"time_ms is in milliseconds, but {unit_hint(time_ms)}")
    if received_ms >= DECADES_MS and unit_hint(time_ms):
        raise BadEvent(Reason.OUT_OF_RANGE, f"time_ms is in milliseconds, but {unit_hint(time_ms)}")
    if time_ms > received_ms + tolerance_ms:
        raise BadEvent(
            Reason.FUTURE_TIMESTAMP, f"time_ms {time_ms} is {time_ms - received_ms} ms after it was received"
        )
