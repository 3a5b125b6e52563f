"""No batch of a producer ends a consumer: what can be decoded is, and what cannot be is accounted for."""

import gzip
import pickle
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from contracts.config.settings import KafkaSettings
from contracts.kafka import batches, bus, consumers
from contracts.kafka.batches import Batches, ReadCounts, Reading
from contracts.messages.events import BadEvent, Reason, UnreadableBatch, decode_feedback
from contracts.runtime.clock import ManualClock
from driftline.processes.server import Server
from tests.conftest import own_topics
from tests.contracts.kafka.batch_cases import CODECS, GARBAGE, batch, send_foreign, send_garbage, signed, with_codec

WHERE = TopicPartition("items", 0)
NOW_MS = 5_000


def reading(end: int | None = None) -> Reading:
    return Reading(ReadCounts(), lambda _: end, ManualClock(NOW_MS))


def handed_out(*raw: bytes | bytearray, fetch_offset: int = 0, by: Reading | None = None) -> list[Any]:
    """The records of one fetch."""
    fetched = Batches(WHERE, MemoryRecords(b"".join(raw)), fetch_offset, by or reading())
    records: list[Any] = []
    while (each := fetched.next_batch()) is not None:
        records += each
    return records


def refusals(consumer: consumers.Consumer) -> list[Any]:
    """What the broker has refused, as Prometheus is told."""
    return [
        sample
        for metric in consumer.reads.refused.collect()
        for sample in metric.samples
        if sample.name == "kafka_refused_fetches_total"
    ]


def refusal_of(record: Any) -> str:
    """Why no message can be made of a record."""
    with pytest.raises(BadEvent) as caught:
        decode_feedback(record.value, received_ms=0, future_tolerance_ms=0, max_bytes=1000)
    assert caught.value.reason == Reason.UNREADABLE_BATCH
    return caught.value.detail


@pytest.mark.parametrize("codec", CODECS)
def test_what_a_foreign_producer_compresses_is_read(kafka: KafkaSettings, codec: str) -> None:
    values = [f"{codec} {number} ".encode() * 50 for number in range(300)]
    send_foreign(kafka, bus.FEEDBACK, codec, values)
    read = list(consumers.read_to_end(kafka, bus.FEEDBACK, 0, 0))
    assert [record.value for record in read] == values
    assert [record.offset for record in read] == list(range(300))


def test_a_batch_that_cannot_be_decoded_is_one_record_among_the_others(embedded: KafkaSettings) -> None:
    send_foreign(embedded, bus.ITEMS, "gzip", [b"before"])
    send_garbage(embedded, bus.ITEMS, 10)
    send_foreign(embedded, bus.ITEMS, "lz4", [b"after"])
    counts, registry = ReadCounts(), CollectorRegistry()
    counts.register(registry)
    before, lost, after = consumers.read_to_end(embedded, bus.ITEMS, 0, 0, counts)
    assert (before.value, before.offset, after.value, after.offset) == (b"before", 0, b"after", 11)
    assert lost.offset == 10
    assert GARBAGE in lost.value
    assert refusal_of(lost).startswith("the batch of offsets 1 to 10 cannot be decoded: ZstdError")
    labels = {"topic": embedded.topic(bus.ITEMS), "partition": "0"}
    assert registry.get_sample_value("kafka_unreadable_batches_total", labels) == 1


def test_reading_may_begin_within_a_batch_that_cannot_be_decoded(embedded: KafkaSettings) -> None:
    send_garbage(embedded, bus.ITEMS, 10)
    send_foreign(embedded, bus.ITEMS, "none", [b"after"])
    lost, after = consumers.read_to_end(embedded, bus.ITEMS, 0, 4)
    assert refusal_of(lost).startswith("the batch of offsets 4 to 9 cannot")
    assert (lost.offset, after.offset) == (9, 10)


def test_what_apache_kafka_has_damaged_on_its_disk_is_passed_over(apache_of_its_own: Server, tmp_path: Path) -> None:
    settings = own_topics(apache_of_its_own)
    client = bus.admin(settings)
    bus.ensure_topics(settings, client)
    client.close()
    for values in ([b"before"], [b"to be damaged", b"as well"], [b"after"]):
        send_foreign(settings, bus.ITEMS, "none", values)
    apache_of_its_own.stop()
    [log] = apache_of_its_own.directory.rglob(f"{settings.topic(bus.ITEMS)}-0/*.log")
    stored = log.read_bytes()
    assert stored.count(b"to be damaged") == 1
    log.write_bytes(stored.replace(b"to be damaged", b"to be DAMAGED"))
    apache_of_its_own.restart()
    before, lost, after = consumers.read_to_end(settings, bus.ITEMS, 0, 0)
    assert (before.value, lost.offset, after.value, after.offset) == (b"before", 2, b"after", 3)
    assert refusal_of(lost) == "the batch of offsets 1 to 2 cannot be decoded: its checksum is wrong"
    assert b"to be DAMAGED" in lost.value


def test_what_apache_kafka_cannot_give_is_asked_for_again_and_said(apache_of_its_own: Server) -> None:
    settings = own_topics(apache_of_its_own)
    client = bus.admin(settings)
    bus.ensure_topics(settings, client)
    client.close()
    for value in (b"before", b"behind the damage", b"after"):
        send_foreign(settings, bus.ITEMS, "none", [value])
    [path] = apache_of_its_own.directory.rglob(f"{settings.topic(bus.ITEMS)}-0/*.log")
    with path.open("r+b") as log:
        first_batch = 12 + int.from_bytes(log.read(12)[8:], "big")
        log.seek(first_batch + 8)
        sound_length = log.read(4)
        log.seek(first_batch + 8)
        log.write((5).to_bytes(4, "big"))

    consumer = consumers.consumer(settings, [bus.ITEMS], None)
    read: list[bytes] = []
    with capture_logs() as logs:
        while sum(sample.value for sample in refusals(consumer)) < 5:
            read += [record.value for records in consumer.poll(100).values() for record in records]
    assert read == [b"before"]
    [said] = [each for each in logs if each["event"].startswith("the broker cannot give the records")]
    assert (said["topic"], said["partition"], said["offset"]) == (settings.topic(bus.ITEMS), 0, 1)

    with path.open("r+b") as log:
        log.seek(first_batch + 8)
        log.write(sound_length)
    while len(read) < 3:
        read += [record.value for records in consumer.poll(100).values() for record in records]
    assert read == [b"before", b"behind the damage", b"after"]
    consumer.close()


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_gives_back_what_was_compressed(codec: str) -> None:
    values = [b"%d" % number * 100 for number in range(1000)]
    assert [record.value for record in handed_out(batch(values, CODECS[codec]))] == values


def legacy(codec: int = 0) -> bytearray:
    """A batch of two records as brokers before Kafka 0.11 kept them, whose wrapper has the last offset."""
    builder = LegacyRecordBatchBuilder(magic=1, compression_type=codec, batch_size=1 << 20)
    for offset in range(2):
        builder.append(offset, timestamp=1000, key=b"key", value=b"%d" % offset * 100)
    return bytearray(builder.build())


def test_batches_of_old_logs_are_read_and_passed_over_too() -> None:
    assert [record.value[:1] for record in handed_out(legacy(), legacy(CODECS["gzip"]))] == [b"0", b"1"] * 2
    damaged, by = legacy(CODECS["gzip"]), reading(end=10)
    damaged[-1] ^= 1
    for _ in range(batches.CHECKSUM_ATTEMPTS - 1):
        assert handed_out(damaged, by=by) == []
    [lost] = handed_out(damaged, by=by)
    assert "its checksum is wrong" in refusal_of(lost)


def test_snappy_without_javas_framing_is_read_too() -> None:
    import snappy

    framed = batch([b"x" * 1000], CODECS["snappy"])
    plain = batch([b"x" * 1000])
    head = batches.DefaultRecordBatch.HEADER_STRUCT.size
    raw = framed[:head] + bytearray(snappy.compress(bytes(plain[head:])))
    raw[8:12] = (len(raw) - 12).to_bytes(4, "big")
    assert [record.value for record in handed_out(signed(raw))] == [b"x" * 1000]


def test_an_unknown_codec_says_which_are_known() -> None:
    [lost] = handed_out(with_codec(batch([b"x", b"y"]), 6))
    assert "codec 6 is none of gzip, snappy, lz4, zstd" in refusal_of(lost)
    assert (lost.offset, lost.timestamp, lost.key) == (1, 1000, None)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != "none"])
def test_a_batch_that_would_fill_the_memory_is_passed_over(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = batch([bytes(10_000)], CODECS[codec])
    monkeypatch.setattr(batches, "LARGEST_BATCH_BYTES", 10_000)
    [lost] = handed_out(bomb)
    assert f"it is more than 10000 bytes when decompressed ({codec})" in refusal_of(lost)
    monkeypatch.setattr(batches, "LARGEST_BATCH_BYTES", 10_100)
    [read] = handed_out(bomb)
    assert read.value == bytes(10_000)


def test_a_batch_of_too_many_records_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LARGEST_BATCH_RECORDS", 2)
    many, few = batch([b"x"] * 3, CODECS["zstd"]), batch([b"y"] * 2, CODECS["zstd"], first=3)
    lost, *read = handed_out(many, few)
    assert "it has 3 records, more than 2" in refusal_of(lost)
    assert [record.value for record in read] == [b"y"] * 2


def test_a_gzip_stream_of_several_members_is_read_whole() -> None:
    plain = batch([b"x", b"y"])
    header, records = plain[:61], bytes(plain[61:])
    raw = header + gzip.compress(records[:5]) + gzip.compress(records[5:])
    raw[8:12] = (len(raw) - 12).to_bytes(4, "big")
    raw[21:23] = CODECS["gzip"].to_bytes(2, "big")
    assert [record.value for record in handed_out(signed(raw))] == [b"x", b"y"]


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != "none"])
def test_a_batch_that_was_cut_off_in_its_codec_is_passed_over(codec: str) -> None:
    raw = batch([b"%d" % number for number in range(1000)], CODECS[codec])[:-20]
    raw[8:12] = (len(raw) - 12).to_bytes(4, "big")
    [lost] = handed_out(signed(raw))
    assert lost.offset == 999
    assert bytes(lost.value) == raw


def test_a_wrong_checksum_is_fetched_again_before_the_batch_is_given_up() -> None:
    damaged, by = batch([b"x", b"y"]), reading(end=10)
    damaged[-1] ^= 1
    sound = batch([b"z"], first=2)
    assert [handed_out(damaged, sound, by=by) for _ in range(batches.CHECKSUM_ATTEMPTS - 1)] == [[], []]
    lost, after = handed_out(damaged, sound, by=by)
    assert refusal_of(lost) == "the batch of offsets 0 to 1 cannot be decoded: its checksum is wrong"
    assert after.value == b"z"


@pytest.mark.parametrize(("last_delta", "end"), [(1_000_000, 10), (-7, 10)])
def test_a_header_that_is_wrong_skips_nothing_that_is_sound(last_delta: int, end: int) -> None:
    damaged, by = batch([b"x", b"y"], first=4), reading(end)
    damaged[23:27] = last_delta.to_bytes(4, "big", signed=True)
    for _ in range(batches.CHECKSUM_ATTEMPTS - 1):
        handed_out(damaged, fetch_offset=4, by=by)
    [lost] = handed_out(damaged, fetch_offset=4, by=by)
    assert lost.offset == 4
    for _ in range(batches.CHECKSUM_ATTEMPTS - 1):
        handed_out(damaged, batch([b"z"], first=6), fetch_offset=4, by=by)
    lost, after = handed_out(damaged, batch([b"z"], first=6), fetch_offset=4, by=by)
    assert (lost.offset, after.offset) == (5, 6)


def test_what_another_producer_still_writes_is_no_part_of_the_batch_before_it() -> None:
    """The embedded broker may show a batch before an earlier one; `GaplessConsumer` asks for that again."""
    lost, after = handed_out(with_codec(batch([b"x", b"y"]), 7), batch([b"z"], first=5))
    assert (lost.offset, after.offset) == (1, 5)


def test_a_time_that_is_no_time_does_not_travel_with_the_batch() -> None:
    damaged = batch([b"x"], timestamp_ms=2**60)
    [lost] = handed_out(with_codec(damaged, 7))
    assert lost.timestamp == NOW_MS


def test_what_a_batch_says_of_itself_travels_between_processes() -> None:
    sent = UnreadableBatch(b"raw", 4, "why")
    received = pickle.loads(pickle.dumps(sent))  # noqa: S301
    assert (bytes(received), received.first_offset, received.detail) == (b"raw", 4, "why")
