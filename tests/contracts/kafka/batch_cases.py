"""Producers that are not ours, and one whose batches nobody can decode."""

import struct
from collections.abc import Sequence

import confluent_kafka
import pytest
from kafka import KafkaProducer
from kafka.record import default_records
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from contracts.config.settings import KafkaSettings

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
GARBAGE = b"no codec has written this"
FLUSH_S = 30


def send_foreign(
    kafka: KafkaSettings, topic: str, codec: str, values: Sequence[bytes], partition: int = 0, first_key: int = 0
) -> None:
    """Send with librdkafka, which is what clients in C, Go, Rust, .NET and others stand on, as one batch.

    The records' keys are numbers from `first_key` on.
    """
    failed: list[object] = []
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "compression.type": codec,
            "linger.ms": 500,
            "batch.num.messages": len(values),
        }
    )
    for number, value in enumerate(values, first_key):
        producer.produce(
            kafka.topic(topic),
            key=str(number).encode(),
            value=value,
            partition=partition,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    assert producer.flush(FLUSH_S) == 0
    assert not failed


def send_garbage(kafka: KafkaSettings, topic: str, records: int, partition: int = 0) -> None:
    """Send one batch that says zstd and is not. The embedded broker takes it; Apache Kafka looks inside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default_records, "zstd_encode", lambda _: GARBAGE)
        producer = KafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers,
            compression_type="zstd",
            linger_ms=500,
            batch_size=1 << 20,
            enable_idempotence=False,
        )
        sent = [producer.send(kafka.topic(topic), value=b"lost" * 100, partition=partition) for _ in range(records)]
        producer.flush()
        first, *_, last = (each.get().offset for each in sent)
        assert last - first == records - 1
        producer.close()


def batch(values: Sequence[bytes], codec: int = 0, *, first: int = 0, timestamp_ms: int = 1000) -> bytearray:
    """A batch as a broker keeps it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    for offset, value in enumerate(values):
        builder.append(offset, timestamp_ms, b"key", value, [])
    made = bytearray(builder.build())
    made[:8] = struct.pack(">q", first)
    return made


def signed(made: bytearray) -> bytearray:
    """The batch with the checksum that belongs to what it says now."""
    crc = calc_crc32c(memoryview(made)[DefaultRecordBatch.ATTRIBUTES_OFFSET :])
    made[DefaultRecordBatch.CRC_OFFSET : DefaultRecordBatch.ATTRIBUTES_OFFSET] = struct.pack(">I", crc)
    return made


def with_codec(made: bytearray, codec: int) -> bytearray:
    """The batch as if another codec had been used."""
    at = DefaultRecordBatch.ATTRIBUTES_OFFSET
    (attributes,) = struct.unpack_from(">h", made, at)
    made[at : at + 2] = struct.pack(">h", attributes & ~DefaultRecordBatch.CODEC_MASK | codec)
    return signed(made)
