"""What passes validation and what does not, and that what does not is kept whole."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.messages.events import (
    MAX_PLAY_TIME_MS,
    BadEvent,
    Reason,
    dead_letter,
    decode_catalogue,
    decode_example,
    decode_exposure,
    decode_feedback,
    decode_item,
    fitting_letter,
)
from contracts.messages.ids import id_of_text
from contracts.wire.events_pb2 import DeadLetter, Example, ExposedItem, Exposure, Feedback, History, Item, Page
from driftline.deadletters.letters import LEFT_OUT
from stream.join import Origin

NOW_MS = 1_000_000
LIMITS = {"received_ms": NOW_MS, "future_tolerance_ms": 1000, "max_bytes": 10_000}


def feedback(**changes: object) -> Feedback:
    """A sound feedback event, but for the changes; a field set to None is absent."""
    fields = {
        "schema_version": 1,
        "event_id": "e",
        "request_id": "r",
        "user_id": 1,
        "item_id": 2,
        "time_ms": NOW_MS,
        "play_time_ms": 0,
        "effective_view": False,
        "follow": False,
    }
    return Feedback(**{name: value for name, value in (fields | changes).items() if value is not None})


def reason_of(message: Feedback, **options: object) -> Reason | None:
    """Why a feedback event is rejected; None where it is not."""
    try:
        decode_feedback(message.SerializeToString(), **(LIMITS | options))
    except BadEvent as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"user_id": None}, Reason.MISSING_FIELD),
        ({"item_id": None}, Reason.MISSING_FIELD),
        ({"time_ms": None}, Reason.MISSING_FIELD),
        ({"play_time_ms": None}, Reason.MISSING_FIELD),
        ({"effective_view": None}, Reason.MISSING_FIELD),
        ({"follow": None}, None),
        ({"event_id": None}, Reason.MISSING_FIELD),
        ({"request_id": None}, Reason.MISSING_FIELD),
        ({"play_time_ms": -1}, Reason.OUT_OF_RANGE),
        ({"play_time_ms": MAX_PLAY_TIME_MS + 1}, Reason.OUT_OF_RANGE),
        ({"user_id": 0}, Reason.OUT_OF_RANGE),
        ({"time_ms": -5}, Reason.OUT_OF_RANGE),
        ({"time_ms": NOW_MS + 1000}, None),
        ({"time_ms": NOW_MS + 1001}, Reason.FUTURE_TIMESTAMP),
        ({"schema_version": 2}, Reason.UNKNOWN_VERSION),
        ({"schema_version": None}, Reason.UNKNOWN_VERSION),
    ],
)
def test_each_defect_of_feedback_has_its_reason(changes: dict[str, object], reason: Reason | None) -> None:
    assert reason_of(feedback(**changes)) == reason


def impression(**changes: object) -> Feedback:
    outcome = {"item_id": None, "play_time_ms": None, "effective_view": None, "follow": None}
    return feedback(**(outcome | {"shown_item_ids": [2, 3]} | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"shown_item_ids": [2, 3, 2]}, None),
        ({"shown_item_ids": range(1, 1001)}, None),
        ({"shown_item_ids": range(1, 1002)}, Reason.OUT_OF_RANGE),
        ({"shown_item_ids": [2, 0]}, Reason.OUT_OF_RANGE),
        ({"shown_item_ids": [], "shown_item_keys": ["a film"]}, None),
        ({"shown_item_keys": ["a film", "a film"]}, None),
        ({"shown_item_keys": [str(n) for n in range(1001)]}, Reason.OUT_OF_RANGE),
        ({"shown_item_keys": [""]}, Reason.OUT_OF_RANGE),
        ({"item_key": "a film"}, Reason.MIXED),
        ({"shown_item_ids": [-(2**63), 2]}, Reason.OUT_OF_RANGE),
        ({"shown_item_ids": []}, Reason.MISSING_FIELD),
        ({"item_id": 2}, Reason.MIXED),
        ({"item_id": 0}, Reason.MIXED),
        ({"play_time_ms": 0}, Reason.MIXED),
        ({"effective_view": False}, Reason.MIXED),
        ({"follow": False}, Reason.MIXED),
        ({"simulated": True}, None),
        ({"user_id": None}, Reason.MISSING_FIELD),
        ({"user_id": -1}, Reason.OUT_OF_RANGE),
        ({"time_ms": None}, Reason.MISSING_FIELD),
        ({"time_ms": 0}, Reason.OUT_OF_RANGE),
        ({"time_ms": NOW_MS + 1001}, Reason.FUTURE_TIMESTAMP),
        ({"event_id": None}, Reason.MISSING_FIELD),
        ({"request_id": None}, Reason.MISSING_FIELD),
        ({"schema_version": 2}, Reason.UNKNOWN_VERSION),
    ],
)
def test_each_defect_of_an_impression_has_its_reason(changes: dict[str, object], reason: Reason | None) -> None:
    assert reason_of(impression(**changes)) == reason


def test_the_letter_says_how_impressions_and_outcomes_are_told_apart() -> None:
    mixed = detail_of(impression(play_time_ms=0).SerializeToString())
    assert (
        mixed
        == "shown_item_ids makes it an impression, which has no play_time_ms: send outcomes as events of their own"
    )
    by_text = impression(shown_item_ids=[], shown_item_keys=["a film"], item_key="a film")
    assert detail_of(by_text.SerializeToString()).startswith(
        "shown_item_keys makes it an impression, which has no item_key: "
    )
    empty = detail_of(impression(shown_item_ids=[]).SerializeToString())
    assert empty.endswith(
        "item_id is missing; it is required, also where it is 0 or false; an impression has shown_item_ids in its place"
    )


@pytest.mark.parametrize("value", [b"[" * 100_000, b'{"a":' * 40_000])
def test_json_nested_deeper_than_can_be_parsed_is_a_bad_event_like_other_json(value: bytes) -> None:
    limits = LIMITS | {"max_bytes": 1_000_000}
    for decode in (decode_feedback, decode_exposure):
        with pytest.raises(BadEvent) as raised:
            decode(value, **limits)
        assert raised.value.reason == Reason.UNDECODABLE
    for decode in (decode_item, decode_example):
        with pytest.raises(BadEvent) as raised:
            decode(value, max_bytes=1_000_000)
        assert raised.value.reason == Reason.UNDECODABLE


def test_a_time_that_no_calendar_needs_is_out_of_range_whatever_the_log_says() -> None:
    assert reason_of(feedback(time_ms=2**60), received_ms=2**61) == Reason.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("time_ms", "unit"),
    [(1_772_323_200, "seconds"), (1_772_323_200 * 10**6, "microseconds"), (1_772_323_200 * 10**9, "nanoseconds")],
)
def test_a_time_in_another_unit_than_milliseconds_is_out_of_range_and_the_letter_says_so(
    time_ms: int, unit: str
) -> None:
    limits = LIMITS | {"received_ms": 1_772_323_260_000}
    shown = Exposure(schema_version=1, event_id="e", request_id="r", user_id=1, time_ms=time_ms)
    for decode, message in ((decode_feedback, feedback(time_ms=time_ms)), (decode_exposure, shown)):
        with pytest.raises(BadEvent, match=f"{time_ms} is .*; are these {unit}") as raised:
            decode(message.SerializeToString(), **limits)
        assert raised.value.reason == Reason.OUT_OF_RANGE
    decode_feedback(feedback(time_ms=1_772_323_200_000).SerializeToString(), **limits)
    decode_feedback(feedback(time_ms=820_454_400_000).SerializeToString(), **limits)  # a log of 1996, replayed


def test_an_item_that_expires_in_seconds_would_be_gone_at_once_and_the_letter_says_so() -> None:
    for expires_ms in (10**9, 1_772_323_200):
        item = Item(schema_version=1, item_id=4, expires_ms=expires_ms)
        with pytest.raises(BadEvent, match=f"expires_ms is in milliseconds, but {expires_ms} is .* are these seconds"):
            decode_item(item.SerializeToString(), max_bytes=1000)
    item = Item(schema_version=1, item_id=4, expires_ms=1_772_323_200_000)
    assert decode_item(item.SerializeToString(), max_bytes=1000) == item


def detail_of(value: bytes | None) -> str:
    with pytest.raises(BadEvent) as raised:
        decode_feedback(value, **LIMITS)
    return raised.value.detail


def test_the_letter_says_what_is_right_where_a_producer_has_sent_something_else() -> None:
    as_double = feedback(time_ms=None).SerializeToString() + bytes([6 << 3 | 1]) + struct.pack("<d", 1.7e12)
    assert detail_of(as_double) == "time_ms is missing; it was sent as a double or a fixed64, and is an int64"
    as_number = feedback(event_id=None).SerializeToString() + bytes([2 << 3 | 0, 7])
    assert detail_of(as_number) == "event_id is missing; it was sent as a whole number, and is a string"
    absent = detail_of(feedback(effective_view=None).SerializeToString())
    assert absent == "effective_view is missing; it is required, also where it is 0 or false"
    assert detail_of(feedback(schema_version=None).SerializeToString()).startswith("schema_version is 0 or left out")
    assert detail_of(None).startswith("the record's value is null, which has a meaning in items alone")
    assert detail_of(b'{"schemaVersion": 1}').endswith(
        "this is JSON, and a record holds the binary form of the message"
    )
    framed = b"\0\0\0\0\1\0" + feedback().SerializeToString()
    assert "a serializer of a schema registry" in detail_of(framed)


def test_a_record_over_the_limit_is_oversized() -> None:
    assert reason_of(feedback(request_id="r" * 20_000)) == Reason.OVERSIZED


@given(st.binary(max_size=200))
def test_any_bytes_are_either_read_or_rejected(value: bytes) -> None:
    for decode in (decode_feedback, decode_exposure):
        with contextlib.suppress(BadEvent):
            decode(value, **LIMITS)


def test_an_exposure_needs_items_within_bounds() -> None:
    exposure = Exposure(schema_version=1, event_id="e", request_id="r", user_id=1, time_ms=NOW_MS)
    with pytest.raises(BadEvent, match="0 items"):
        decode_exposure(exposure.SerializeToString(), **LIMITS)
    exposure.items.append(ExposedItem(item_id=3, source="log"))
    assert decode_exposure(exposure.SerializeToString(), **LIMITS) == exposure


def test_an_item_needs_a_positive_id_positive_categories_and_a_positive_end() -> None:
    sound = Item(schema_version=1, item_id=4, category_ids=[1], duration_ms=0, expires_ms=1)
    assert decode_item(sound.SerializeToString(), max_bytes=1000) == sound
    for broken in (
        Item(schema_version=1),
        Item(schema_version=1, item_id=4, category_ids=[0]),
        Item(schema_version=1, item_id=4, expires_ms=0),
    ):
        with pytest.raises(BadEvent):
            decode_item(broken.SerializeToString(), max_bytes=1000)


def test_an_example_with_uneven_history_is_rejected() -> None:
    example = Example(schema_version=1, user_id=1, item_id=2, history=History(item_ids=[1], times_ms=[1, 2]))
    with pytest.raises(BadEvent, match="differ in length"):
        decode_example(example.SerializeToString(), max_bytes=1000)


def test_an_example_whose_page_has_more_items_than_outcomes_is_rejected() -> None:
    page = Page(item_ids=[1, 2], effective_views=[True])
    example = Example(schema_version=1, user_id=1, item_id=2, page=page)
    with pytest.raises(BadEvent, match="2 items and 1 outcomes"):
        decode_example(example.SerializeToString(), max_bytes=1000)


@pytest.mark.parametrize("play_time_ms", [-1, MAX_PLAY_TIME_MS + 1])
def test_an_example_whose_play_time_cannot_be_is_rejected(play_time_ms: int) -> None:
    example = Example(schema_version=1, user_id=1, item_id=2, play_time_ms=play_time_ms)
    with pytest.raises(BadEvent, match=f"play_time_ms is {play_time_ms}, outside 0 to") as raised:
        decode_example(example.SerializeToString(), max_bytes=1000)
    assert raised.value.reason is Reason.OUT_OF_RANGE


def test_a_dead_letter_keeps_the_record_whole() -> None:
    record = Origin("t", 1, 2, b"k", b"\xff\x00", 3, sent_at_ms=0)
    letter = dead_letter(BadEvent(Reason.UNDECODABLE, "why"), record)
    assert DeadLetter.FromString(letter.SerializeToString()) == letter
    assert (letter.reason, letter.value, letter.key, letter.offset) == ("undecodable", b"\xff\x00", b"k", 2)


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        (b"k", b"v" * 100, (b"k", b"v" * 100)),
        (None, b"v" * 100, (None, b"v" * 100)),
        (b"k", b"v" * 1000, (b"k", b"")),
        (b"k" * 1000, b"v", (None, b"")),
        (b"k" * 1000, None, (None, b"")),
    ],
)
def test_a_dead_letter_is_no_larger_than_its_topic_takes(
    key: bytes | None, value: bytes | None, kept: tuple[bytes | None, bytes]
) -> None:
    record = Origin("t", 1, 2, key, value, 3, sent_at_ms=0)
    letter_key, letter = fitting_letter(BadEvent(Reason.OVERSIZED, "why"), record, 300)
    assert (letter_key, letter.value) == kept
    assert letter.key == (letter_key or b"")
    assert letter.ByteSize() + len(letter.key) <= 300
    assert letter.detail.startswith(LEFT_OUT) == (kept != (key, value))
    assert letter.detail.endswith("why")
    assert (letter.topic, letter.partition, letter.offset) == ("t", 1, 2)


@pytest.mark.parametrize(
    "key", [None, b"", b"four", b"-4", b"0", b"4.0", "٤".encode(), b"9223372036854775808", b"9" * 5000]
)
def test_a_deletion_of_no_item_is_no_deletion(key: bytes | None) -> None:
    with pytest.raises(BadEvent) as raised:
        decode_catalogue(key, None, max_bytes=100)
    assert raised.value.reason is Reason.UNDECODABLE


def test_a_record_of_the_catalogue_is_an_item_or_the_end_of_one() -> None:
    item = Item(schema_version=1, item_id=5)
    assert decode_catalogue(b"5", item.SerializeToString(), max_bytes=100) == (5, item)
    assert decode_catalogue(b"9223372036854775807", None, max_bytes=100) == (2**63 - 1, None)
    with pytest.raises(BadEvent):  # an empty value is not a null one
        decode_catalogue(b"5", b"", max_bytes=100)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (None, "none"),
        (b"", "''"),
        (b"6", "'6'"),
        (b"05", "'05'"),
        (b"five", "'five'"),
        (b"\0\0\0\0\0\0\0\x05", repr("\0\0\0\0\0\0\0\x05")),
        (b"\xff", "'\ufffd'"),
        (b"5" * 5000, f"'{'5' * 20}'"),
    ],
)
def test_an_item_under_another_key_than_its_own_is_refused(key: bytes | None, shown: str) -> None:
    value = Item(schema_version=1, item_id=5).SerializeToString()
    with pytest.raises(BadEvent) as raised:
        decode_catalogue(key, value, max_bytes=100)
    assert raised.value.reason is Reason.WRONG_KEY
    assert raised.value.detail.startswith(f"the record's key is {shown}, and its item's is '5'")


def test_an_event_by_text_ids_is_the_one_by_their_numbers() -> None:
    user, item = id_of_text("anna"), id_of_text("film/7")
    for numbers in ({"user_id": None, "item_id": None}, {"user_id": user, "item_id": item}, {"user_id": 0}):
        named = feedback(**({"item_id": None} | numbers), user_key="anna", item_key="film/7")
        read = decode_feedback(named.SerializeToString(), **LIMITS)
        assert (read.user_id, read.item_id) == (user, item)
    mixed = decode_feedback(feedback(user_id=None, user_key="anna").SerializeToString(), **LIMITS)
    assert (mixed.user_id, mixed.item_id) == (user, 2)

    shown = [ExposedItem(item_key="film/7"), ExposedItem(item_id=3), ExposedItem(item_id=item, item_key="film/7")]
    page = Exposure(schema_version=1, event_id="e", request_id="r", user_key="anna", time_ms=NOW_MS, items=shown)
    exposure = decode_exposure(page.SerializeToString(), **LIMITS)
    assert (exposure.user_id, [each.item_id for each in exposure.items]) == (user, [item, 3, item])

    entry = decode_item(Item(schema_version=1, item_key="film/7").SerializeToString(), max_bytes=100)
    assert entry == Item(schema_version=1, item_id=item, item_key="film/7")


@pytest.mark.parametrize(
    ("named", "reason", "detail"),
    [
        ({"user_key": "a" * 257}, Reason.OUT_OF_RANGE, "user_key has 257 bytes; 256 are allowed"),
        ({"user_key": "a\n"}, Reason.OUT_OF_RANGE, "user_key has a control character"),
        ({"item_key": "\x00"}, Reason.OUT_OF_RANGE, "item_key has a control character"),
        (
            {"user_key": "anna", "user_id": 7},
            Reason.ID_CONFLICT,
            "user_key is 'anna', whose number is 6149554607595376846",
        ),
        (
            {"user_key": "42", "user_id": 42},
            Reason.ID_CONFLICT,
            "user_key is '42', whose number is 8306709966045482637",
        ),
        ({"item_key": "x", "item_id": -1}, Reason.ID_CONFLICT, "item_key is 'x', whose number is"),
        ({"user_key": "", "user_id": None}, Reason.MISSING_FIELD, "user_id is missing"),
    ],
)
def test_each_defect_of_a_text_id_has_its_reason(named: dict[str, object], reason: Reason, detail: str) -> None:
    absent = {name: None for name in ("user_id", "item_id") if name.replace("_id", "_key") in named}
    with pytest.raises(BadEvent) as raised:
        decode_feedback(feedback(**(absent | named)).SerializeToString(), **LIMITS)
    assert raised.value.reason is reason
    assert raised.value.detail.startswith(detail)


def test_a_defect_of_a_text_id_is_seen_on_pages_and_in_the_catalogue() -> None:
    for user, item, reason in (
        ({"user_key": "a\0"}, {"item_id": 1}, Reason.OUT_OF_RANGE),
        ({"user_key": "a", "user_id": 5}, {"item_id": 1}, Reason.ID_CONFLICT),
        ({"user_id": 1}, {"item_key": "b" * 300}, Reason.OUT_OF_RANGE),
        ({"user_id": 1}, {"item_key": "b", "item_id": 5}, Reason.ID_CONFLICT),
        ({"user_id": 1}, {}, Reason.OUT_OF_RANGE),
    ):
        page = Exposure(schema_version=1, event_id="e", request_id="r", time_ms=NOW_MS, items=[item], **user)
        with pytest.raises(BadEvent) as raised:
            decode_exposure(page.SerializeToString(), **LIMITS)
        assert raised.value.reason is reason
        if item != {"item_id": 1}:
            with pytest.raises(BadEvent) as raised:
                decode_item(Item(schema_version=1, **item).SerializeToString(), max_bytes=1000)
            assert raised.value.reason is reason


def test_a_text_where_the_number_belongs_is_told_where_it_belongs() -> None:
    in_the_numbers_place = feedback(user_id=None).SerializeToString() + bytes([4 << 3 | 2, 4]) + b"anna"
    assert detail_of(in_the_numbers_place) == (
        "user_id is missing; it was sent as text or bytes, and is an int64: a text id belongs in user_key"
    )
    item = Item(schema_version=1).SerializeToString() + bytes([2 << 3 | 2, 1]) + b"7"
    with pytest.raises(BadEvent, match=r"item_id is 0, not above 0; it was sent as text .* belongs in item_key"):
        decode_item(item, max_bytes=100)
    not_text = feedback(user_id=None).SerializeToString() + bytes([12 << 3 | 2, 1, 0xFF])
    assert detail_of(not_text).startswith("not a Feedback")


def test_an_impression_by_text_goes_by_numbers() -> None:
    decoded = decode_feedback(
        impression(shown_item_keys=["a film"]).SerializeToString(),
        received_ms=NOW_MS,
        future_tolerance_ms=1000,
        max_bytes=1000,
    )
    assert list(decoded.shown_item_ids) == [2, 3, id_of_text("a film")]
