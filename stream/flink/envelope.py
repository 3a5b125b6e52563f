"""Whole Kafka records as the bytes that pass between Flink's connector and the steps. Pure.

`Records.java` has the other side of it.

In: log (0 exposures, 1 feedback), partition, offset, timestamp (ms), then the header that says when it was sent, key
and value. Out: topic (`Sink`), partition, timestamp, key and value. Big endian; a part is its length and its bytes, -1
where there is none.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from contracts.kafka import bus

LOGS = (bus.EXPOSURES, bus.FEEDBACK)
_IN = struct.Struct(">biqq")
_OUT = struct.Struct(">biq")
_LENGTH = struct.Struct(">i")


class Sink(IntEnum):
    """Which topic a record goes to."""

    EXAMPLES = 0
    DEAD_LETTERS = 1
    ROWS = 2


class Record(NamedTuple):
    """A record of a log, with the names that kafka-python gives its parts."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    headers: tuple[tuple[str, bytes], ...]
    key: bytes | None
    value: bytes | None


def unpacked(raw: bytes, topics: tuple[str, str]) -> Record:
    r"""The record in an envelope; `topics` are the logs' full names.

    >>> raw = b"\x01" + bytes.fromhex("00000002" "0000000000000007" "0000000000000009") + b"\xff" * 4
    >>> unpacked(raw + b"\0\0\0\x01k" + b"\xff" * 4, ("e", "f"))
    Record(topic='f', partition=2, offset=7, timestamp=9, headers=(), key=b'k', value=None)
    """
    log, partition, offset, timestamp = _IN.unpack_from(raw)
    sent_at, at = _part(raw, _IN.size)
    key, at = _part(raw, at)
    value, _ = _part(raw, at)
    headers = () if sent_at is None else ((bus.SENT_AT, sent_at),)
    return Record(topics[log], partition, offset, timestamp, headers, key, value)


def packed(sink: Sink, partition: int, timestamp_ms: int, key: bytes | None, value: bytes | None) -> bytes:
    """A record to be sent, as an envelope."""
    parts = b"".join(_LENGTH.pack(-1) if part is None else _LENGTH.pack(len(part)) + part for part in (key, value))
    return _OUT.pack(sink, partition, timestamp_ms) + parts


def _part(raw: bytes, at: int) -> tuple[bytes | None, int]:
    (length,) = _LENGTH.unpack_from(raw, at)
    at += _LENGTH.size
    return (None, at) if length < 0 else (raw[at : at + length], at + length)
