"""The trainer worker: Kafka in, snapshots out, around the engine, which decides everything.

Order within one step:
  (1) consume up to `poll_records` records: items go to the catalogue, examples to the merge;
  (2) hand what the merge releases to the engine; write, then publish, the snapshots that fall due on the way;
  (3) send dead letters, and wait until the broker has them;
  (4) commit the offsets up to which the engine has taken the examples, which is how others see progress.
The committed offsets are no state: weights live in memory, so a restarted trainer reads its topics from the first
record on. What a snapshot has learned from stands in its manifest.
"""

import threading
from pathlib import Path

import faiss
import structlog
import torch
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata

from contracts import bus
from contracts.clock import Clock, SystemClock
from contracts.events import BadEvent, decode_catalogue, decode_example
from contracts.settings import Settings
from contracts.snapshot import Snapshot, publish, write
from contracts.wire.events_pb2 import Example
from contracts.worker import announce, configure_logs, serve_metrics, stop_on_signal
from trainer.engine import Engine
from trainer.merge import Entry, Merge
from trainer.meters import Meters

log = structlog.get_logger()
POLL_MS = 200
SILENCE_MS = 1000  # after so long at its end, a partition's next example is not waited for
HOARD = 4  # polls' worth of examples that one partition may be ahead of the others


class TrainerWorker:
    """Consumes items and examples and feeds the engine."""

    def __init__(
        self,
        settings: Settings,
        consumer: KafkaConsumer,
        producer: KafkaProducer,
        engine: Engine,
        meters: Meters,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._producer = producer
        self._engine = engine
        self._meters = meters
        self._clock = clock
        self._stop = stop
        (self._items,) = bus.partitions_of(settings.kafka, [bus.ITEMS])
        self._examples: dict[int, TopicPartition] = {
            tp.partition: tp for tp in bus.partitions_of(settings.kafka, [bus.EXAMPLES])
        }
        self._merge = Merge[Example](self._examples)
        self._committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self._heard_ms = dict.fromkeys(self._examples, clock.now_ms())

    def read_catalogue(self) -> None:
        """Read what the `items` topic holds now, so that the first examples find their items."""
        self._consumer.pause(*self._examples.values())
        while not self._stop.is_set():
            self._take_in()
            if self._at_end(self._items):
                break
        self._consumer.resume(*self._examples.values())

    def step(self) -> None:
        """One step, in the order given at the top."""
        self._hold_back()
        self._take_in()
        for entry in self._merge.release(self._silent()):
            source = f"{self._settings.kafka.topic(bus.EXAMPLES)}:{entry.partition}"
            for snapshot in self._engine.take(entry.value, source, entry.offset):
                self._publish(snapshot)
            if self._stop.is_set():
                break
        self._producer.flush()
        self._commit()

    def _take_in(self) -> None:
        polled = self._consumer.poll(POLL_MS, max_records=self._settings.trainer.poll_records)
        now_ms = self._clock.now_ms()
        for partition, records in sorted(polled.items(), key=lambda item: item[0] != self._items):
            for record in records:
                try:
                    self._receive(record)
                except BadEvent as error:
                    self._reject(record, error)
            if partition != self._items:
                self._heard_ms[partition.partition] = now_ms

    def _receive(self, record: ConsumerRecord) -> None:
        """Put a record where it belongs.

        Raises:
            BadEvent: it cannot be used.

        """
        limit = self._settings.stream.max_event_bytes
        if record.topic == self._items.topic:
            item_id, item = decode_catalogue(record.key, record.value, max_bytes=limit)
            if item is None:
                self._engine.remove_item(item_id)
            else:
                self._engine.add_item(item, record.timestamp)
        else:
            example = decode_example(record.value, max_bytes=limit)
            self._merge.push(Entry(record.partition, record.offset, example.time_ms, example))

    def _reject(self, record: ConsumerRecord, error: BadEvent) -> None:
        bus.send_dead_letter(self._producer, self._settings.kafka, error, record)
        self._meters.dead_letters.labels(str(error.reason)).inc()

    def _hold_back(self) -> None:
        """Pause partitions that are far ahead of the others, so that the merge stays small."""
        limit = HOARD * self._settings.trainer.poll_records
        for number, partition in self._examples.items():
            if self._merge.waiting(number) >= limit:
                self._consumer.pause(partition)
            elif partition in self._consumer.paused():
                self._consumer.resume(partition)

    def _silent(self) -> list[int]:
        now_ms = self._clock.now_ms()
        return [
            number
            for number, partition in self._examples.items()
            if now_ms - self._heard_ms[number] >= SILENCE_MS and self._at_end(partition)
        ]

    def _at_end(self, partition: TopicPartition) -> bool:
        end = self._consumer.highwater(partition)  # `end_offsets` is wrong on the embedded broker
        return end is not None and self._consumer.position(partition) >= end

    def _publish(self, snapshot: Snapshot) -> None:
        manifest = snapshot.manifest
        write(self._settings.snapshots, snapshot)
        publish(self._settings.snapshots, manifest.model, manifest.version)
        now_ms = self._clock.now_ms()
        self._meters.published.labels(manifest.model).inc()
        self._meters.version.labels(manifest.model).set(int(manifest.version[1:]))
        for sent_at_ms in manifest.sent_at_ms:
            self._meters.freshness.labels(manifest.model).observe(max(now_ms - sent_at_ms, 0) / 1000)
        log.info(
            "snapshot published",
            model=manifest.model,
            version=manifest.version,
            examples=manifest.examples,
            recall_at_100=manifest.metrics.get("recall@100/recent"),
        )

    def _commit(self) -> None:
        taken: dict[TopicPartition, OffsetAndMetadata] = {}
        for number, partition in self._examples.items():
            first = self._merge.first_offset(number)
            offset = self._consumer.position(partition) if first is None else first
            taken[partition] = OffsetAndMetadata(offset, "", -1)
        if taken != self._committed:
            self._consumer.commit(taken)
            self._committed = taken


def run(settings: Settings, ready_file: Path | None) -> None:
    """Run the worker until a signal stops it."""
    configure_logs()
    stop = stop_on_signal()
    torch.set_num_threads(settings.trainer.threads)
    faiss.omp_set_num_threads(settings.trainer.threads)
    meters = Meters()
    engine = Engine(settings, meters)
    consumer = bus.consumer(settings.kafka, [bus.ITEMS, bus.EXAMPLES], settings.kafka.topic_prefix + "trainer")
    # Dead letters hold whole records, so they may be larger than the client's default limit of 1 MiB.
    producer = bus.producer(settings.kafka, max_request_size=32 * 1024 * 1024)
    worker = TrainerWorker(settings, consumer, producer, engine, meters, SystemClock(), stop)
    worker.read_catalogue()
    port = serve_metrics(meters.registry)
    log.info("trainer ready", metrics_port=port)
    announce(ready_file, {"metrics_port": port})
    while not stop.is_set():
        worker.step()
    consumer.close()
    producer.close()
    log.info("trainer stopped")
