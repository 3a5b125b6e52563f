"""Batches as a fetch brings them: each is decoded whole, or handed out as one record that says why it cannot be.

kafka-python ends at a batch that it cannot decode: `poll` raises once, never returns after that, and a restart meets
the same batch. Here such a batch becomes one record: its offset is the batch's last, so that whoever goes on after it
goes on after the batch, and its value is an `UnreadableBatch`, the batch's own bytes. All that decodes messages refuses
it (`contracts.messages.events`), so it takes the way of every other record that cannot be used: nothing is lost.

A checksum that is wrong may have been right on the broker, so such a batch is fetched again before it is given up.
"""

import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import lz4.frame
import prometheus_client
import structlog
import zstandard
from kafka import TopicPartition
from kafka.codec import snappy_decode
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, KafkaError, UnknownError
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from prometheus_client import CollectorRegistry

from contracts.messages.events import UnreadableBatch
from contracts.runtime.clock import Clock, SystemClock

log = structlog.get_logger()

LARGEST_BATCH_BYTES = 128 << 20  # decompressed: a thousandth of it, compressed, may be all of somebody's memory
LARGEST_BATCH_RECORDS = 1_000_000  # the same of seven bytes each, which are hundreds as objects
CHECKSUM_ATTEMPTS = 3  # fetches of a batch whose checksum is wrong before it counts as unreadable
REFUSED_PAUSE_S = 0.1  # before a fetch that the broker has refused is repeated
REFUSED_LOG_S = 60.0  # how often that is said of a partition
XERIAL = b"\x82SNAPPY\x00"  # how Java's clients begin what they compress with snappy
XERIAL_HEADER_BYTES = 16


class ReadCounts:
    """What could not be read, for Prometheus."""

    def __init__(self) -> None:
        self.unreadable = prometheus_client.Counter(
            "kafka_unreadable_batches",
            "Batches that could not be decoded; they are passed over and dead-lettered as they are",
            ["topic", "partition"],
            registry=None,
        )
        self.refused = prometheus_client.Counter(
            "kafka_refused_fetches",
            "Fetches that a broker answered with an error or with nothing usable; they are repeated",
            ["topic", "partition"],
            registry=None,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Show them with a worker's other metrics."""
        registry.register(self.unreadable)
        registry.register(self.refused)


class Reading:
    """How one consumer deals with what it cannot read."""

    def __init__(
        self,
        counts: ReadCounts,
        end: Callable[[TopicPartition], int | None],
        clock: Clock,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`end`: where the log of a partition ended when it was last fetched; `pause`: for so many seconds."""
        self._counts = counts
        self._end = end
        self._clock = clock
        self._pause = pause
        self._attempts: Counter[tuple[TopicPartition, int]] = Counter()  # by the batch's first offset
        self._said_s: dict[TopicPartition, float] = {}

    def fetch_again(self, where: TopicPartition, offset: int) -> bool:
        """Whether a batch with a wrong checksum is worth another fetch."""
        self._attempts[where, offset] += 1
        if self._attempts[where, offset] < CHECKSUM_ATTEMPTS:
            return True
        del self._attempts[where, offset]
        return False

    def stand_in(
        self, where: TopicPartition, batch: Any, raw: bytes, fetch_offset: int, following: int | None, why: str
    ) -> "StandIn":
        """What is handed out instead of an unreadable batch; those from before Kafka 0.11 do not say where they end.

        Where the checksum is wrong the header may be, too. So its last offset counts only if it lies before the batch
        that follows and before the log's end; else the batch ends where the next one begins, if that is known.
        """
        first = max(batch.base_offset, fetch_offset)
        last = getattr(batch, "last_offset", first)
        bound = self._end(where) if following is None else following
        if last < first or (bound is not None and last >= bound):
            first, last = fetch_offset, fetch_offset if following is None else following - 1
        log.error(
            "a batch of records cannot be decoded: it is passed over here, and its bytes become one dead letter",
            topic=where.topic,
            partition=where.partition,
            first_offset=first,
            last_offset=last,
            why=why,
        )
        self._counts.unreadable.labels(where.topic, where.partition).inc()
        detail = f"the batch of offsets {first} to {last} cannot be decoded: {why}"
        now_ms = self._clock.now_ms()
        timestamp_ms = getattr(batch, "max_timestamp", now_ms)
        if not 0 < timestamp_ms <= now_ms:  # a topic could not keep its letter, or not take it
            timestamp_ms = now_ms
        return StandIn(UnreadableBatch(raw, first, detail), first, last, timestamp_ms)

    def refused(self, where: TopicPartition, offset: int, error: Exception) -> None:
        """A broker gives nothing usable from an offset on: say so now and then, and let it be asked again."""
        self._counts.refused.labels(where.topic, where.partition).inc()
        now_s = self._clock.elapsed_s()
        if now_s - self._said_s.get(where, -REFUSED_LOG_S) >= REFUSED_LOG_S:
            self._said_s[where] = now_s
            log.error(
                "the broker cannot give the records from this offset on; it is asked again until it can",
                topic=where.topic,
                partition=where.partition,
                offset=offset,
                error=str(error) or repr(error),
            )
        self._pause(REFUSED_PAUSE_S)


class StandIn:
    """A batch of one record, as far as kafka-python's fetcher asks."""

    magic = 2
    leader_epoch = -1  # unknown: the batch's own may be part of what is wrong with it
    is_control_batch = False

    def __init__(self, value: UnreadableBatch, first: int, last: int, timestamp_ms: int) -> None:
        self.base_offset = first
        self.next_offset = last + 1
        self._record = DefaultRecord(len(value), last, timestamp_ms, 0, None, value, [])

    def validate_crc(self) -> bool:
        """It has none."""
        return True

    def has_producer_id(self) -> bool:
        """No: it is shown whatever became of its transaction, if it was of one."""
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter((self._record,))


class Decoded:
    """A batch whose records have been decoded; all else is the batch's own."""

    def __init__(self, batch: Any, records: Sequence[Any]) -> None:
        self._batch = batch
        self._records = records

    def validate_crc(self) -> bool:
        """It was looked at before the records were."""
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self._records)

    def __next__(self) -> Any:
        """The record that marks a transaction's end: whoever reads what is committed asks a control batch for it."""
        return next(self._batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)


class Batches:
    """The batches of one fetch of one partition, in place of kafka-python's `MemoryRecords`."""

    def __init__(self, where: TopicPartition, records: Any, fetch_offset: int, reading: Reading) -> None:
        self._where = where
        self._records = records
        self._fetch_offset = fetch_offset
        self._reading = reading

    def next_batch(self) -> Decoded | StandIn | None:
        """The next one; None at the end of the fetch, which may come early where it is to be repeated."""
        if not self._records.has_next():
            return None
        raw = bytes(self._records._next_slice)  # noqa: SLF001
        try:
            batch = self._records.next_batch()
        except (CorruptRecordError, struct.error) as error:
            self._reading.refused(self._where, self._fetch_offset, error)
            return None
        why = None
        try:
            if not batch.validate_crc():
                if self._reading.fetch_again(self._where, batch.base_offset):
                    return None
                why = "its checksum is wrong"
            else:
                decoded = Decoded(batch, records_of(batch))
        # The codecs' libraries, and what reads their output, raise whatever they raise.
        except Exception as error:  # noqa: BLE001
            why = f"{type(error).__name__}: {error}"
        if why is None:
            self._fetch_offset = max(self._fetch_offset, getattr(batch, "next_offset", batch.base_offset + 1))
            return decoded
        instead = self._reading.stand_in(self._where, batch, raw, self._fetch_offset, self._following(), why)
        self._fetch_offset = instead.next_offset
        return instead

    def _following(self) -> int | None:
        """Where the batch begins that is next in the fetch."""
        if not self._records.has_next():
            return None
        base_offset: int = struct.unpack_from(">q", self._records._next_slice)[0]  # noqa: SLF001
        return base_offset if base_offset > self._fetch_offset else None


class PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    """kafka-python's, but that no batch ends it."""

    def __init__(
        self, reading: Reading, fetch_offset: int, where: TopicPartition, records: Any, **options: Any
    ) -> None:
        super().__init__(fetch_offset, where, Batches(where, records, fetch_offset, reading), **options)


class Codec(NamedTuple):
    """A way of compression, and how much of it one call may give back."""

    name: str
    decompress: Callable[[bytes, int], bytes]


def read_past(consumer: Any, counts: ReadCounts, clock: Clock | None = None) -> None:
    """Let a consumer of kafka-python go on after what cannot be decoded, and count it."""
    reading = Reading(counts, consumer.highwater, clock or SystemClock())
    fetcher = consumer._fetcher  # noqa: SLF001
    parse = fetcher._parse_fetched_data  # noqa: SLF001

    def partition_records(start: int, where: TopicPartition, records: Any, **options: Any) -> PartitionRecords:
        return PartitionRecords(reading, start, where, records, **options)

    committed = consumer.config["isolation_level"] == "read_committed"

    def parse_fetched_data(fetch: Any) -> Any:
        stable = fetch.partition_data.last_stable_offset
        if committed and stable >= 0:
            # Records after it are not given before their transaction ends, so for a reader the log ends there.
            fetch.partition_data.high_watermark = min(fetch.partition_data.high_watermark, stable)
        try:
            return parse(fetch)
        except (CorruptRecordError, UnknownError) as error:
            reading.refused(fetch.topic_partition, fetch.fetched_offset, error)
        except KafkaError as error:
            if type(error) is not KafkaError:  # a fetch with no whole batch in it has no error of its own
                raise
            reading.refused(fetch.topic_partition, fetch.fetched_offset, error)
        return None

    fetcher.PartitionRecords = partition_records
    fetcher._parse_fetched_data = parse_fetched_data  # noqa: SLF001


def records_of(batch: Any) -> list[Any]:
    """All records of a batch, decompressed first where it must be; none of one that marks a transaction's end.

    Raises:
        Exception: it cannot be decoded, or is larger than memory should be asked for.

    """
    if isinstance(batch, DefaultRecordBatch):
        if batch.is_control_batch:
            return []
        if batch.records_count > LARGEST_BATCH_RECORDS:
            raise ValueError(f"it has {batch.records_count} records, more than {LARGEST_BATCH_RECORDS}")
        if batch.compression_type:
            _decompress(batch)
    return list(batch)


def _decompress(batch: Any) -> None:
    """Do in place what the client would do, but for the bound."""
    codec = CODECS.get(batch.compression_type)
    if codec is None:
        raise ValueError(
            f"codec {batch.compression_type} is none of {', '.join(each.name for each in CODECS.values())}"
        )
    data = codec.decompress(bytes(memoryview(batch._buffer)[batch._pos :]), LARGEST_BATCH_BYTES)  # noqa: SLF001
    if len(data) > LARGEST_BATCH_BYTES:
        raise ValueError(f"it is more than {LARGEST_BATCH_BYTES} bytes when decompressed ({codec.name})")
    batch._buffer, batch._pos, batch._decompressed = bytearray(data), 0, True  # noqa: SLF001


def _gunzip(data: bytes, limit: int) -> bytes:
    """All members of the stream, as gzip has it."""
    whole, rest = b"", data
    while len(whole) <= limit and (rest or not whole):
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        whole += decompressor.decompress(rest, limit + 1 - len(whole))
        if len(whole) <= limit and not decompressor.eof:
            raise ValueError("the gzip stream ends early")
        rest = decompressor.unused_data
    return whole


def _lz4(data: bytes, limit: int) -> bytes:
    decompressor = lz4.frame.LZ4FrameDecompressor()
    whole: bytes = decompressor.decompress(data, max_length=limit + 1)
    if len(whole) <= limit and not decompressor.eof:
        raise ValueError("the lz4 frame ends early")
    return whole


def _zstd(data: bytes, limit: int) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read(limit + 1)


def _snappy(data: bytes, limit: int) -> bytes:
    """Blocks say how much they hold before they are decompressed."""
    sizes = _xerial_sizes(data) if data.startswith(XERIAL) else [_varint(data)]
    if sum(sizes) > limit:
        raise ValueError(f"it is more than {limit} bytes when decompressed (snappy)")
    whole: bytes = snappy_decode(data)
    return whole


def _xerial_sizes(data: bytes) -> list[int]:
    sizes, at = [], XERIAL_HEADER_BYTES
    while at < len(data):
        (block,) = struct.unpack_from(">i", data, at)
        if block <= 0:
            raise ValueError("a snappy block has no length")
        sizes.append(_varint(data[at + 4 : at + 14]))
        at += 4 + block
    return sizes


def _varint(data: bytes) -> int:
    value = shift = 0
    for byte in data[:10]:
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value
        shift += 7
    raise ValueError("a snappy block does not say how long it is")


CODECS = {
    1: Codec("gzip", _gunzip),
    2: Codec("snappy", _snappy),
    3: Codec("lz4", _lz4),
    4: Codec("zstd", _zstd),
}
