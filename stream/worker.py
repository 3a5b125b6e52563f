"""The stream worker: Kafka in, Feast and Kafka out, around the pure steps of `stream.step`.

Order within one batch, so that what was committed is also stored:
  (1) consume up to `poll_records` records and step through them: items, then exposures, then feedback;
  (2) write the changed users' rows to Feast;
  (3) send examples and dead letters, and wait until the broker has them;
  (4) commit the consumed offsets, which tells everyone who watches the lag that (2) and (3) are done.
State lives in memory: a restarted worker reads its topics from the first record on, and sends their examples again.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import structlog
from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from prometheus_client import CollectorRegistry, Counter, Gauge

from contracts import bus
from contracts.clock import Clock, SystemClock
from contracts.events import BadEvent, decode_exposure, decode_feedback, decode_item
from contracts.settings import Settings
from contracts.worker import announce, configure_logs, seconds_histogram, serve_metrics, stop_on_signal
from feature_repo.store import UserRow, UserSequences
from stream.sessions import UserHistory
from stream.step import (
    Duplicate,
    Learned,
    Origin,
    Output,
    PartitionState,
    Rejected,
    Remembered,
    held_count,
    on_exposure,
    on_feedback,
)

log = structlog.get_logger()
POLL_MS = 100
FETCH_WAIT_MS = 20  # features must be fresh


class Metrics:
    """The worker's Prometheus metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events_in = Counter(
            "stream_events_in", "Exposure and feedback records consumed", ["topic"], registry=self.registry
        )
        self.outcomes = Counter(
            "stream_outcomes",
            "What became of each record: example, non_positive, duplicate, dead_letter",
            ["topic", "outcome"],
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "stream_dead_letters", "Records sent to the dead-letter topic", ["reason"], registry=self.registry
        )
        self.sessions = Gauge("stream_sessions", "Sessions cut so far", registry=self.registry)
        self.users = Gauge("stream_users", "Users with a history", registry=self.registry)
        self.held = Gauge("stream_held_feedback", "Feedback that waits for its exposure", registry=self.registry)
        self.lag = Gauge("stream_lag", "Records not consumed yet", registry=self.registry)
        self.event_to_feature = seconds_histogram(
            "stream_event_to_feature_seconds", "From sending feedback to its user row in Feast", self.registry
        )


class StreamWorker:
    """Consumes every partition, keeps one state a partition, writes what the steps put out."""

    def __init__(
        self,
        settings: Settings,
        consumer: KafkaConsumer,
        producer: KafkaProducer,
        features: UserSequences,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._producer = producer
        self._features = features
        self._clock = clock
        self._states: dict[int, PartitionState] = {}
        self._items: set[int] = set()
        self.metrics = Metrics()

    def read_catalogue(self, stop: threading.Event) -> None:
        """Read what the `items` topic holds now, before the first event, so that known items are known."""
        others = bus.partitions_of(self._settings.kafka, [bus.EXPOSURES, bus.FEEDBACK])
        (items,) = bus.partitions_of(self._settings.kafka, [bus.ITEMS])
        self._consumer.pause(*others)
        while not stop.is_set():
            self._batch(self._poll())
            end = self._consumer.highwater(items)
            if end is not None and self._consumer.position(items) >= end:
                break
        self._consumer.resume(*others)

    def step(self) -> int:
        """One batch, in the order given at the top; returns how many records it held."""
        records = self._poll()
        self._batch(records)
        return len(records)

    def _poll(self) -> list[ConsumerRecord]:
        polled = self._consumer.poll(POLL_MS, max_records=self._settings.stream.poll_records)
        rank = {bus.ITEMS: 0, bus.EXPOSURES: 1, bus.FEEDBACK: 2}
        prefix = len(self._settings.kafka.topic_prefix)
        partitions = sorted(polled, key=lambda tp: (rank[tp.topic[prefix:]], tp.partition))
        return [record for partition in partitions for record in polled[partition]]

    def _batch(self, records: list[ConsumerRecord]) -> None:
        if not records:
            return
        changed: dict[int, UserHistory] = {}
        stored: list[Origin] = []
        for record in records:
            for output in self._outputs(record):
                if isinstance(output, Learned):
                    changed[output.user_id] = self._states[record.partition].users[output.user_id]
                    stored.append(output.origin)
                self._send(output)
        self._features.write([_row(user, history) for user, history in changed.items()])
        self._producer.flush()
        self._consumer.commit()
        now = self._clock.now_ms()
        for origin in stored:
            self.metrics.event_to_feature.observe(max(now - origin.sent_at_ms, 0) / 1000)
        self._observe_state()

    def _outputs(self, record: ConsumerRecord) -> Iterator[Output]:
        """The pure steps of one record."""
        name = record.topic[len(self._settings.kafka.topic_prefix) :]
        limits = self._settings.stream
        origin = Origin(
            record.topic,
            record.partition,
            record.offset,
            record.key,
            record.value,
            record.timestamp,
            bus.sent_at_ms(record.headers or (), record.timestamp),
        )
        if name != bus.ITEMS:
            self.metrics.events_in.labels(name).inc()
        state = self._states.setdefault(record.partition, PartitionState.empty(limits))
        try:
            if name == bus.ITEMS:
                self._items.add(decode_item(record.value, max_bytes=limits.max_event_bytes).item_id)
            elif name == bus.EXPOSURES:
                exposure = decode_exposure(
                    record.value,
                    received_ms=record.timestamp,
                    future_tolerance_ms=limits.future_tolerance_ms,
                    max_bytes=limits.max_event_bytes,
                )
                yield from on_exposure(state, exposure, origin, limits)
            else:
                feedback = decode_feedback(
                    record.value,
                    received_ms=record.timestamp,
                    future_tolerance_ms=limits.future_tolerance_ms,
                    max_bytes=limits.max_event_bytes,
                    known_items=self._items,
                )
                yield from on_feedback(state, feedback, origin, limits)
        except BadEvent as error:
            yield Rejected(error, origin)

    def _send(self, output: Output) -> None:
        """Count an output and send what it puts on Kafka."""
        kafka = self._settings.kafka
        origin = output.origin
        name = origin.topic[len(kafka.topic_prefix) :]
        match output:
            case Learned(user_id, example, _, begun):
                self.metrics.sessions.inc(begun)
                self.metrics.outcomes.labels(name, "example" if example else "non_positive").inc()
                if example:
                    self._producer.send(
                        kafka.topic(bus.EXAMPLES),
                        key=bus.key_of(user_id),
                        value=example.SerializeToString(),
                        partition=origin.partition,
                        timestamp_ms=origin.timestamp,
                    )
            case Remembered():
                self.metrics.outcomes.labels(name, "non_positive").inc()
            case Duplicate():
                self.metrics.outcomes.labels(name, "duplicate").inc()
            case Rejected(error):
                self.metrics.outcomes.labels(name, "dead_letter").inc()
                self.metrics.dead_letters.labels(str(error.reason)).inc()
                bus.send_dead_letter(self._producer, kafka, error, origin)

    def _observe_state(self) -> None:
        self.metrics.users.set(sum(len(state.users) for state in self._states.values()))
        self.metrics.held.set(sum(held_count(state) for state in self._states.values()))
        self.metrics.lag.set(
            sum(
                max((self._consumer.highwater(tp) or 0) - self._consumer.position(tp), 0)
                for tp in self._consumer.assignment()
            )
        )


def _row(user_id: int, history: UserHistory) -> UserRow:
    past = history.behaviours
    return UserRow(
        user_id,
        [b.item_id for b in past],
        [b.time_ms for b in past],
        [b.play_time_ms for b in past],
        [int(b.effective_view) for b in past],
        [int(b.follow) for b in past],
        history.sessions,
        past[-1].time_ms,
        history.next_offset,
    )


def run(settings: Settings, ready_file: Path | None) -> None:
    """Run the worker until a signal stops it."""
    configure_logs()
    stop = stop_on_signal()
    topics = [bus.ITEMS, bus.EXPOSURES, bus.FEEDBACK]
    consumer = bus.consumer(settings.kafka, topics, settings.kafka.topic_prefix + "stream", wait_ms=FETCH_WAIT_MS)
    # Dead letters hold whole records, so they may be larger than the client's default limit of 1 MiB.
    producer = bus.producer(settings.kafka, max_request_size=32 * 1024 * 1024)
    worker = StreamWorker(settings, consumer, producer, UserSequences(settings.feature_repo), SystemClock())
    worker.read_catalogue(stop)
    port = serve_metrics(worker.metrics.registry)
    log.info("stream worker ready", metrics_port=port)
    announce(ready_file, {"metrics_port": port})
    while not stop.is_set():
        worker.step()
    consumer.close()
    producer.close()
    log.info("stream worker stopped")
