"""The archive: training examples into the offline store of Feast, the rows of each exactly once.

An example becomes two rows of its user:
  before it  the features that the example carries, valid from 1 ms before its time;
  after it   the same and the positive behaviour itself, valid from 1 µs after its time.
So `get_historical_features` at (user, time of an example - 1 ms) gives what the example carries, late examples
included, whatever came in between: the row of that very moment is its own. A query at the example's time itself gives
the same, unless the user has another example just 1 ms earlier. Of two examples of a user with one time, the one that
the log received later wins; they differ only by feedback that was taken in between the two.

A query at any other time gives the row as of the latest example before: behaviours after it that were not positive,
follows that came later, and late behaviours are missing until the next example of the user brings them. Before a
user's first example there is no behaviour: the row is there, its sequences are empty and its `last_event_ms` is null.
`session_start` is as the example's session tells it: the open session is the one that the example belongs to.
`feedback_offset` is null, because an example does not carry it.

Order within one step:
  (1) consume up to `poll_records` examples; what cannot be used is sent to the dead-letter topic;
  (2) a partition's examples become a file when they reach the next multiple of FILE_EXAMPLES offsets, when the oldest
      has waited for MAX_AGE_MS, or when too many wait in all; before that the broker must have the dead letters;
  (3) commit the offsets up to which files exist, which tells everyone who watches the lag.
Before a file of rows, one of its examples without features (`feature_repo.offline.EXAMPLES`) is written: the entity
dataframe to ask Feast with, which is what a trainer's backfill does.
The directory of files is the state (`feature_repo.offline`): a restarted archive goes on where each partition's files
end, so where it was killed changes how rows are spread over files, but not the rows.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import structlog
from kafka import KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry, Counter, Gauge

from contracts.config.settings import Settings, SettingsError
from contracts.kafka import bus, consumers
from contracts.kafka.consumers import Consumer
from contracts.messages.events import BadEvent, Reason, decode_example
from contracts.messages.forget import is_forget
from contracts.runtime.clock import HOUR_MS, MINUTE_MS, Clock, SystemClock
from contracts.runtime.endpoint import opened
from contracts.runtime.worker import announce, configure_logs, stop_on_signal
from contracts.wire.events_pb2 import Example
from feature_repo.forget import expire_offline, forget_offline
from feature_repo.offline import EXAMPLES, SCHEMA, SEQUENCES, OfflineFiles, Piece, examples_directory, prepare

log = structlog.get_logger()
POLL_MS = 500
CLOSE_TIMEOUT_S = 5.0
FILE_EXAMPLES = 2_000
MAX_AGE_MS = MINUTE_MS
MAX_WAITING = 10_000  # examples in memory, those of all partitions together: 150 MB of full histories
ROW_GROUP_EXAMPLES = 500  # what is expanded at a time: 20 kB an example
MAX_TIME_MS = 253_402_300_799_999  # the end of the year 9999


@dataclass(eq=False)
class PendingFile:
    """Consecutive offsets of one partition that are in no file yet: `start` <= offset < `end`."""

    partition: int
    start: int
    end: int
    since_ms: int = 0  # when the first of them was consumed
    examples: list[tuple[Example, int]] = field(default_factory=list)  # with the time at which the log received it
    offsets: list[int] = field(default_factory=list)  # of the examples

    @property
    def piece(self) -> Piece:
        """The file that they would make."""
        return Piece(self.partition, self.start, self.end)


def complete(waiting: PendingFile, file_examples: int = FILE_EXAMPLES) -> bool:
    """Whether a file's worth is there: where files end is a matter of offsets, not of polls.

    >>> complete(PendingFile(0, 0, 1999)), complete(PendingFile(0, 0, 2000)), complete(PendingFile(0, 1990, 2000))
    (False, True, True)
    """
    return waiting.end // file_examples > waiting.start // file_examples


def due(waiting: Iterable[PendingFile], now_ms: int, max_waiting: int = MAX_WAITING) -> list[PendingFile]:
    """Those that shall become files before they are complete: the old, then the largest while there are too many.

    >>> young, old = PendingFile(0, 0, 5, since_ms=60_000), PendingFile(1, 0, 3, since_ms=0)
    >>> [w.partition for w in due([young, old], 60_000)], [w.partition for w in due([young, old], 59_999, 4)]
    ([1], [0])
    """
    begun = [each for each in waiting if each.end > each.start]
    chosen = [each for each in begun if now_ms - each.since_ms >= MAX_AGE_MS]
    rest = sorted((each for each in begun if each not in chosen), key=lambda each: each.end - each.start)
    total = sum(each.end - each.start for each in rest)
    while total > max_waiting:
        chosen.append(rest.pop())
        total -= chosen[-1].end - chosen[-1].start
    return chosen


def rows(received: Sequence[tuple[Example, int]], limit: int) -> pa.Table:
    """The rows of examples, two each, in the offline store's schema.

    `received`: examples, and the time (ms) at which the log received each. `limit`: behaviours that a row may hold;
    the oldest go first.
    """
    flat = {name: array("q") for name in SEQUENCES}
    lengths = [0]
    session_starts: list[int] = []
    last_event_ms: list[int | None] = []
    valid_us: list[int] = []
    created_us: list[int] = []
    for example, received_ms in received:
        behaviour = {
            "item_ids": example.item_id,
            "times_ms": example.time_ms,
            "play_times_ms": example.play_time_ms,
            "effective_views": 1,
            "follows": int(example.follow),
            "sessions": example.session,
        }
        size = len(example.history.item_ids)
        dropped = max(size - (limit - 1), 0)
        for name, values in flat.items():
            past = array("q", getattr(example.history, name))
            values.extend(past)
            values.extend(past[dropped:])
            values.append(behaviour[name])
        lengths += (size, size - dropped + 1)
        sessions = example.history.sessions
        start = bisect_left(sessions, example.session)  # the number of behaviours, where its session is a new one
        session_starts += (start, max(start - dropped, 0))
        last_event_ms += (example.history.times_ms[-1] if size else None, example.time_ms)
        valid_us += (example.time_ms * 1000 - 1000, example.time_ms * 1000 + 1)
        created_us += (received_ms * 1000, received_ms * 1000)
    offsets = pa.array(np.cumsum(lengths), pa.int32())
    return pa.table(
        [
            pa.array([example.user_id for example, _ in received for _ in range(2)], pa.int64()),
            *(pa.ListArray.from_arrays(offsets, np.frombuffer(values, np.int64)) for values in flat.values()),
            pa.array(session_starts, pa.int64()),
            pa.array(last_event_ms, pa.int64()),
            pa.nulls(len(valid_us), pa.int64()),
            pa.array(valid_us, pa.int64()),
            pa.array(valid_us, SCHEMA.field("event_timestamp").type),
            pa.array(created_us, SCHEMA.field("created").type),
        ],
        schema=SCHEMA,
    )


def entities(received: Sequence[tuple[Example, int]], offsets: Sequence[int]) -> pa.Table:
    """The examples at these offsets without their features, in the schema `EXAMPLES`."""
    columns: dict[str, list[object]] = {
        name: [getattr(example, name) for example, _ in received]
        for name in EXAMPLES.names
        if name not in ("offset", "logged_ms")
    }
    columns["offset"] = [*offsets]
    columns["logged_ms"] = [received_ms for _, received_ms in received]
    return pa.table(columns, schema=EXAMPLES)


def _row_groups(examples: Sequence[tuple[Example, int]], limit: int) -> Iterator[pa.Table]:
    for i in range(0, len(examples), ROW_GROUP_EXAMPLES):
        yield rows(examples[i : i + ROW_GROUP_EXAMPLES], limit)


class ArchiveMetrics:
    """The archive's Prometheus metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rows = Counter("archive_rows", "Rows written to the offline store", registry=self.registry)
        self.files = Counter("archive_files", "Files written to the offline store", registry=self.registry)
        self.dead_letters = Counter(
            "archive_dead_letters", "Records sent to the dead-letter topic", ["reason"], registry=self.registry
        )
        for reason in Reason:  # from 0 on: an alert on the increase would miss a series that begins at 1
            self.dead_letters.labels(str(reason))
        self.forgotten = Counter(
            "archive_forgotten_users", "Requests to forget a user that were followed", registry=self.registry
        )
        self.expired_files = Counter(
            "archive_expired_files", "Files that were older than the archive is kept", registry=self.registry
        )
        self.lag = Gauge("archive_lag", "Examples that are in no file yet", registry=self.registry)


class Archive:
    """Consumes every partition of `examples` and writes files.

    `consumer` is of a group and assigned nothing; `files` is claimed.
    """

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        producer: KafkaProducer,
        files: OfflineFiles,
        clock: Clock,
        file_examples: int = FILE_EXAMPLES,
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._producer = producer
        self._files = files
        self._entities = OfflineFiles(examples_directory(settings.feature_repo), schema=EXAMPLES)
        self._entities.keep_only(files.names())
        self._clock = clock
        self._file_examples = file_examples
        self._largest_letter_bytes = bus.largest_letter_bytes(settings.kafka)
        self._expire_ms = 0  # when files are next looked at for their age
        self._written: dict[TopicPartition, OffsetAndMetadata] = {}
        self.metrics = ArchiveMetrics()
        consumer.reads.register(self.metrics.registry)
        ends = files.ends()
        partitions = bus.partitions_of(settings.kafka, [bus.EXAMPLES])
        consumer.assign(partitions)
        self._waiting: dict[TopicPartition, PendingFile] = {}
        for partition in partitions:
            start = ends.get(partition.partition, 0)
            consumer.seek(partition, start)
            self._waiting[partition] = PendingFile(partition.partition, start, start)

    def step(self) -> int:
        """One step, in the order given at the top; returns how many records it consumed.

        Raises:
            SettingsError: the files are of another log.

        """
        polled = self._consumer.poll(POLL_MS, max_records=self._settings.stream.poll_records)
        self._check_log(polled)
        for partition, records in polled.items():
            for record in records:
                self._take_in(self._waiting[partition], record)
                if complete(self._waiting[partition], self._file_examples):
                    self._write(partition)
        for waiting in due(self._waiting.values(), self._clock.now_ms()):
            self._write(TopicPartition(self._settings.kafka.topic(bus.EXAMPLES), waiting.partition))
        self._commit()
        self._expire()
        self._observe()
        return sum(map(len, polled.values()))

    def _expire(self) -> None:
        """Empty what is older than the archive is kept; looked at once an hour.

        A file keeps its name without its rows, as names say how far the archive has come.
        """
        keep_ms, now_ms = self._settings.retention.archive_ms, self._clock.now_ms()
        if keep_ms is None or now_ms < self._expire_ms:
            return
        self._expire_ms = now_ms + HOUR_MS
        self.metrics.expired_files.inc(expire_offline(self._settings.feature_repo, now_ms - keep_ms))

    def finish(self) -> None:
        """Write what still waits."""
        for partition, waiting in self._waiting.items():
            if waiting.end > waiting.start:
                self._write(partition)
        self._commit()
        self._observe()

    def _check_log(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        for partition, waiting in self._waiting.items():
            if self._consumer.is_another_log(partition, waiting.end, polled.get(partition)):
                raise SettingsError(
                    f"The offline store in {self._settings.feature_repo} holds {partition.topic} partition "
                    f"{partition.partition} up to offset {waiting.end}, where the broker has no such log: move the "
                    f"files away (data/user_sequence) or take the broker that they came from."
                )

    def _take_in(self, waiting: PendingFile, record: ConsumerRecord) -> None:
        if record.offset > waiting.end + 1:  # one alone is the mark of a transaction's end
            log.warning("offsets are not in the log", partition=record.partition, gap=(waiting.end, record.offset))
        if waiting.end == waiting.start:
            waiting.since_ms = self._clock.now_ms()
        waiting.end = record.offset + 1
        try:
            example = self._example(record)
            if is_forget(example):
                self._forget(example.user_id)
                return
            waiting.examples.append((example, record.timestamp))
            waiting.offsets.append(record.offset)
        except BadEvent as error:
            bus.send_dead_letter(self._producer, self._settings.kafka, error, record, self._largest_letter_bytes)
            self.metrics.dead_letters.labels(str(error.reason)).inc()

    def _forget(self, user_id: int) -> None:
        """Drop a user's examples that wait, and write the files that have any without them.

        A user's examples are all of one partition, so those before the request have all been read. Until a file holds
        the request's offset a restarted archive reads it again, and then finds nothing any more.
        """
        for waiting in self._waiting.values():
            kept = [
                (example, offset)
                for example, offset in zip(waiting.examples, waiting.offsets, strict=True)
                if example[0].user_id != user_id
            ]
            waiting.examples = [example for example, _ in kept]
            waiting.offsets = [offset for _, offset in kept]
        files = forget_offline(self._settings.feature_repo, [user_id])
        self.metrics.forgotten.inc()
        log.info("a user was forgotten", files=files)

    def _example(self, record: ConsumerRecord) -> Example:
        example = decode_example(record.value, max_bytes=self._settings.stream.max_event_bytes)
        if not 0 < example.time_ms <= MAX_TIME_MS:
            raise BadEvent(Reason.OUT_OF_RANGE, f"time_ms is {example.time_ms}, outside 1 to {MAX_TIME_MS}")
        return example

    def _write(self, partition: TopicPartition) -> None:
        """Make a file of what waits; from then on it is never read again, so its dead letters go first."""
        waiting = self._waiting[partition]
        self._producer.flush()
        self._entities.write(waiting.piece.name, [entities(waiting.examples, waiting.offsets)])
        self._files.write(waiting.piece.name, _row_groups(waiting.examples, self._settings.stream.history_limit))
        self.metrics.files.inc()
        self.metrics.rows.inc(2 * len(waiting.examples))
        self._written[partition] = OffsetAndMetadata(waiting.end, "", -1)
        self._waiting[partition] = PendingFile(partition.partition, waiting.end, waiting.end)

    def _commit(self) -> None:
        if not self._written:
            return
        try:
            self._consumer.commit(self._written)
            self._written = {}
        except KafkaError as error:
            # It is progress for whoever watches, no more: the archive itself goes by its files.
            log.warning("progress was not reported", error=repr(error))

    def _observe(self) -> None:
        self.metrics.lag.set(sum(self._consumer.lag(tp, waiting.start) for tp, waiting in self._waiting.items()))


def run(settings: Settings, ready_file: Path | None) -> None:
    """Run the archive until a signal stops it."""
    configure_logs()
    clock = SystemClock()
    endpoint = opened("archive", settings, clock)
    stop = stop_on_signal(settings.stop_within_s)
    bus.check_topics(settings.kafka)
    files = OfflineFiles(prepare(settings.feature_repo))
    with files.claim():
        consumer = consumers.consumer(settings.kafka, [], settings.kafka.topic_prefix + "archive")
        producer = bus.producer(settings.kafka, max_request_size=bus.LARGEST_RECORD_BYTES)
        archive = Archive(settings, consumer, producer, files, clock)
        endpoint.show(archive.metrics.registry)
        log.info("archive ready", metrics_port=endpoint.port)
        announce(ready_file, {"metrics_port": endpoint.port})
        while not stop.is_set():
            archive.step()
            endpoint.pulse.beat(consumer.missing())
        archive.finish()
        consumer.close()
        producer.close(timeout=CLOSE_TIMEOUT_S)
    log.info("archive stopped")
