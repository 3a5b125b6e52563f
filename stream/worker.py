"""The stream worker: a member of a consumer group that owns some partitions, each with a state of its own.

Here Kafka and Feast meet the pure steps. `deliver` says in what order a batch takes effect, `partition` where a
partition's state lies, `ownership` who has it, and `intake` in what order records are taken.
"""

import threading
from collections import Counter
from collections.abc import Callable, Container
from pathlib import Path

import structlog
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from contracts.config.settings import Settings, SettingsError
from contracts.kafka import bus, consumers
from contracts.kafka.batches import ReadCounts
from contracts.kafka.consumers import Consumer
from contracts.messages.attribution import is_impression
from contracts.messages.events import BadEvent
from contracts.messages.positives import ONLY_POSITIVES, PositivesWatch
from contracts.messages.received import exposure_of, feedback_of
from contracts.runtime.clock import Clock, SystemClock
from contracts.runtime.cycles import look_seldom
from contracts.runtime.endpoint import opened
from contracts.runtime.worker import announce, configure_logs, stop_on_signal
from contracts.wire.events_pb2 import Exposure, Feedback
from contracts.wire.stream_state_pb2 import Outbox
from feature_repo.store import UserSequences
from stream.catalogue import KnownItems, origin_of
from stream.deliver import At, Delivery, Stopped, producer_of
from stream.held import HeldFeedback
from stream.intake import SILENT_AFTER_S, Record, merged
from stream.join import Origin
from stream.metrics import StreamMetrics
from stream.outbox import collect
from stream.outputs import Closed, Expired, Impressed, Learned, Output, Rejected
from stream.ownership import LOGS, Assignment, Owned, Ownership, set_expiry
from stream.partition import PartitionStore
from stream.step import on_exposure, on_feedback, on_time, watermark

log = structlog.get_logger()
GROUP = "stream"
POLL_MS = 100
FETCH_WAIT_MS = 20  # features must be fresh
WAITING_BYTES = 16 << 20  # of one log, fetched ahead
REPORT_TIMEOUT_MS = 5000
CLOSE_TIMEOUT_S = 5.0
ERASE_EVERY_S = 10.0  # a state is rewritten at most so often, however many users ask to be forgotten


class StreamWorker:
    """Takes its partitions' records in, and puts rows, examples and dead letters out."""

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        assignment: Assignment,
        producer: KafkaProducer,
        catalogue: KnownItems,
        features: UserSequences,
        clock: Clock,
        stop: threading.Event,
        *,
        rebuild: bool = False,
        at: At = lambda _step: None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`rebuild`: begin without a state although the group has been here before. `at`, `alive`: see `deliver`."""
        self.metrics = StreamMetrics()
        consumer.reads.register(self.metrics.registry)
        self._settings = settings
        self._consumer = consumer
        self._producer = producer
        self._catalogue = catalogue
        self._clock = clock
        self._stop = stop
        self._at = at
        self._ownership = Ownership(settings, consumer, assignment, self.metrics, rebuild=rebuild)
        self._delivery = Delivery(settings.kafka, producer, features, stop, self.metrics, at, alive)
        self._alive = alive
        self._held = HeldFeedback()
        self._positives = PositivesWatch()
        self._views = self._effective_views = 0  # of exposures that were served only, since the start
        self._erased_s: dict[int, float] = {}  # when each partition's state was rewritten
        self._took = False  # whether the last step took any records
        self._lags: set[int] = set()  # partitions whose lag has been shown
        self._largest_letter_bytes = bus.largest_letter_bytes(settings.kafka)
        self._names = {settings.kafka.topic(name): name for name in LOGS}

    def step(self) -> int:
        """One batch of every partition that has one, in the order that `deliver` gives; how many records that was.

        Raises:
            Stopped: asked to stop while a sink failed.
            SettingsError: a state and the broker's logs do not belong together.

        """
        self._fetch()
        opened = self._ownership.follow(self._clock.elapsed_s())
        if opened:
            self._delivery.deliver([(store, store.outbox) for store in opened], again=True)
            self._report(opened)  # what the last owner may not have been able to
            for store in opened:
                set_expiry(store, self._settings.retention.users_ms)
        batches: list[tuple[PartitionStore, Outbox]] = []
        learned: list[Origin] = []
        records = 0
        for owned in self._ownership.owned.values():
            batch = self._next(owned)
            outputs = [*self._outputs(owned.store, batch), *self._timers(owned)]
            self._tally(outputs)
            # A timer that only sets another puts nothing out, but the other cannot fire before it is committed.
            if batch or outputs or owned.store.timers_changed:
                outbox, origins = collect(outputs, self._settings.kafka, self.metrics, self._largest_letter_bytes)
                owned.store.position.erase |= bool(outbox.forgotten_ids)
                self._at("commit")
                owned.store.commit(outbox)
                self._at("committed")
                batches.append((owned.store, outbox))
                learned += origins
                records += len(batch)
        if batches:
            self._delivery.deliver(batches, again=False)
            self._report([store for store, _ in batches])
            now_ms = self._clock.now_ms()
            self.metrics.event_to_feature.observe([max(now_ms - origin.sent_at_ms, 0) / 1000 for origin in learned])
        self._erase()
        self._took = records > 0
        self._observe()
        return records

    def missing(self) -> list[str]:
        """What it lacks for its work; nothing where it does it."""
        return self._ownership.missing(self._delivery.failing)

    def _erase(self) -> None:
        """(7) Where users were forgotten: rewrite the state once all that its outbox named has been delivered."""
        now_s = self._clock.elapsed_s()
        for partition, owned in self._ownership.owned.items():
            store = owned.store
            if not store.position.erase or now_s - self._erased_s.get(partition, -ERASE_EVERY_S) < ERASE_EVERY_S:
                continue
            store.commit(Outbox())
            self._at("erase")
            store.erase()
            store.position.erase = False
            store.commit(Outbox())
            self._at("erased")
            self._erased_s[partition] = now_s
            self.metrics.erased.inc()

    def close(self) -> None:
        """Leave the group, let others have the partitions, and close the clients."""
        self._ownership.close()
        self._producer.close(timeout=CLOSE_TIMEOUT_S)

    def _fetch(self) -> None:
        """(1) Fetch what there is, but no more than may wait in memory."""
        # Where nothing could be taken the last time, asking without waiting would only starve the client's own thread.
        wait_ms = 0 if self._took else POLL_MS
        try:
            polled = self._consumer.poll(wait_ms, max_records=4 * self._settings.stream.poll_records)
        except OffsetOutOfRangeError as error:
            self._ownership.skip_deleted(error.args[0])
            return
        if self._ownership.changed:
            return  # what was fetched may not be this worker's any more; what is, it reads again from its state
        now_s = self._clock.elapsed_s()
        for where, records in polled.items():
            owned = self._ownership.owned.get(where.partition)
            if owned is not None:
                owned.waiting(self._names[where.topic]).add(records, now_s)
        self._ownership.check_not_ahead()
        self._pause_full()

    def _pause_full(self) -> None:
        """Backpressure: while the sinks are slow, the broker keeps the records."""
        limit = self._settings.stream.poll_records
        full = {
            where for owned, name, where in self._ownership.logs() if owned.waiting(name).full(limit, WAITING_BYTES)
        }
        every = {where for _, _, where in self._ownership.logs()}
        paused = self._consumer.paused() & every
        if full - paused:
            self._consumer.pause(*(full - paused))
        if paused - full:
            self._consumer.resume(*(paused - full))

    def _next(self, owned: Owned) -> list[Record]:
        if not owned.ready:
            return []
        return merged(
            owned.exposures,
            owned.feedback,
            exposures_end=self._at_end(owned, bus.EXPOSURES),
            feedback_end=self._at_end(owned, bus.FEEDBACK),
            limit=self._settings.stream.poll_records,
        )

    def _at_end(self, owned: Owned, name: str) -> bool:
        """Whether the broker has no more of a log than was fetched, as far as the last fetch told."""
        where = TopicPartition(self._settings.kafka.topic(name), owned.store.partition)
        return self._consumer.at_end(where, owned.waiting(name).end)

    def _outputs(self, store: PartitionStore, batch: list[Record]) -> list[Output]:
        """The pure steps of a batch."""
        limits, items = self._settings.stream, self._catalogue.items
        decoded = [(origin_of(record), self._decoded(record)) for record in batch]
        if any(_is_of_unknown_item(event, items) for _, event in decoded):
            self._read_catalogue()
        outputs: list[Output] = []
        for topic, count in Counter(record.topic for record in batch).items():
            self.metrics.events_in.labels(self._names[topic]).inc(count)
        for origin, event in decoded:
            if self._names[origin.topic] == bus.EXPOSURES:
                store.position.exposures = origin.offset + 1
            else:
                store.position.feedback = origin.offset + 1
                store.position.held += 1
            match event:
                case Exposure():
                    outputs += on_exposure(store, event, origin, limits)
                case Feedback():
                    outputs += on_feedback(store, event, origin, limits, items)
                case BadEvent():
                    outputs.append(Rejected(origin, event))
        if store.partition == 0:
            bad, store.position.items = self._catalogue.bad_since(store.position.items)
            outputs += bad
        store.position.held -= self._settled(outputs)
        return outputs

    def _read_catalogue(self) -> None:
        """So that an item that was sent before feedback on it is known in time, however long the broker is away."""
        while True:
            try:
                self._catalogue.read()
            except SettingsError:
                self._alive()
                if self._stop.is_set():
                    raise Stopped from None
            else:
                return

    def _decoded(self, record: Record) -> Exposure | Feedback | BadEvent:
        decode = exposure_of if self._names[record.topic] == bus.EXPOSURES else feedback_of
        try:
            return decode(record, self._settings.stream, self._settings.kafka.partitions)
        except BadEvent as error:
            return error

    def _timers(self, owned: Owned) -> list[Output]:
        """What falls due: by the watermark, which goes on by the clock while a log is silent."""
        now_s = self._clock.elapsed_s()
        exposures_ms, feedback_ms = (self._silent_ms(owned, name, now_s) for name in LOGS)
        if exposures_ms and feedback_ms and now_s - owned.timers_s < SILENT_AFTER_S:
            return []
        owned.timers_s = now_s
        limits = self._settings.stream
        until_ms = watermark(owned.store, limits, exposures_ms=exposures_ms, feedback_ms=feedback_ms)
        keep_ms, read = self._settings.retention.users_ms, owned.store.position.exposures
        outputs = list(on_time(owned.store, until_ms, limits, keep_ms, read))
        owned.store.position.held -= self._settled(outputs)
        return outputs

    def _silent_ms(self, owned: Owned, name: str, now_s: float) -> int:
        """For how long a log that was read to its end has been silent; 0 where that is not worth a look."""
        waiting = owned.waiting(name)
        silent_s = now_s - waiting.heard_s
        long = silent_s >= SILENT_AFTER_S and not waiting.records and self._at_end(owned, name)
        return int(1000 * silent_s) if long else 0

    def _settled(self, outputs: list[Output]) -> int:
        """How many feedback records these outputs are the last word on."""
        topic = self._settings.kafka.topic(bus.FEEDBACK)
        return sum(not isinstance(output, Closed | Expired) and output.origin.topic == topic for output in outputs)

    def _report(self, stores: list[PartitionStore]) -> None:
        """(6) Commit the group's offsets: progress for whoever watches; this worker goes by its state."""
        offsets = {
            TopicPartition(self._settings.kafka.topic(name), store.partition): OffsetAndMetadata(offset, "", -1)
            for store in stores
            for name, offset in ((bus.EXPOSURES, store.position.exposures), (bus.FEEDBACK, store.position.feedback))
        }
        try:
            self._consumer.commit(offsets, timeout_ms=REPORT_TIMEOUT_MS)
        except KafkaError as error:
            # The group may have given the partitions to another worker meanwhile: it reports from the same state.
            log.warning("progress was not reported", error=str(error))
        self._at("reported")

    def _tally(self, outputs: list[Output]) -> None:
        self._views += sum(output.views for output in outputs if isinstance(output, Learned | Impressed))
        self._effective_views += sum(output.effective_views for output in outputs if isinstance(output, Learned))

    def _observe(self) -> None:
        owned = self._ownership.owned
        held = {partition: each.store.position.held for partition, each in owned.items()}
        self.metrics.held.set(sum(held.values()))
        now_s = self._clock.elapsed_s()
        overdue = self._held.look(held, now_s)
        self.metrics.held_seconds.set(self._held.seconds(now_s))
        if overdue:
            log.warning(
                "feedback waits for exposures that have not come, and nothing is learned of it: an exposure with its"
                " request_id belongs in `exposures`, in the same partition",
                records_by_partition=overdue,
                longest_s=round(self._held.seconds(now_s)),
            )
        if self._positives.look(self._views, self._effective_views, now_s):
            log.warning(ONLY_POSITIVES, shown=self._views, effective_views=self._effective_views)
        waiting = [log_of for each in owned.values() for log_of in (each.exposures, each.feedback)]
        self.metrics.waiting_bytes.set(sum(log_of.size_bytes for log_of in waiting))
        lags = dict.fromkeys(self._lags | owned.keys(), 0)  # 0 for what another worker has now
        for each, name, where in self._ownership.logs():
            waits = each.waiting(name)
            lags[where.partition] += self._consumer.lag(where, waits.end) + len(waits.records)
        for partition, lag in lags.items():
            self.metrics.lag.labels(str(partition)).set(lag)
        self._lags = set(lags)


def _is_of_unknown_item(event: Exposure | Feedback | BadEvent, items: Container[int]) -> bool:
    return isinstance(event, Feedback) and not is_impression(event) and event.item_id not in items


def open_worker(
    settings: Settings,
    stop: threading.Event,
    *,
    instance: str | None = None,
    rebuild: bool = False,
    clock: Clock | None = None,
    at: At = lambda _step: None,
    alive: Callable[[], None] = lambda: None,
) -> StreamWorker:
    """A worker on the broker and the store that the settings name; the caller closes it."""
    kafka = settings.kafka
    bus.check_topics(kafka)
    assignment = Assignment()
    reads = ReadCounts()
    consumer = consumers.member(
        kafka, LOGS, kafka.topic_prefix + GROUP, assignment, instance=instance, wait_ms=FETCH_WAIT_MS, reads=reads
    )
    assignment.consumer = consumer
    catalogue = KnownItems(kafka, settings.stream.max_event_bytes, reads)
    catalogue.read()
    features = UserSequences(settings.feature_repo)
    return StreamWorker(
        settings,
        consumer,
        assignment,
        producer_of(kafka),
        catalogue,
        features,
        clock or SystemClock(),
        stop,
        rebuild=rebuild,
        at=at,
        alive=alive,
    )


def run(settings: Settings, ready_file: Path | None, *, instance: str | None = None, rebuild: bool = False) -> None:
    """Run a worker until a signal stops it."""
    configure_logs()
    clock = SystemClock()
    endpoint = opened("stream", settings, clock)
    stop = stop_on_signal(settings.stop_within_s)

    def alive() -> None:
        endpoint.pulse.beat(worker.missing())

    worker = open_worker(settings, stop, instance=instance, rebuild=rebuild, clock=clock, alive=alive)
    look_seldom()
    endpoint.show(worker.metrics.registry)
    log.info("stream worker ready", metrics_port=endpoint.port)
    announce(ready_file, {"metrics_port": endpoint.port})
    try:
        while not stop.is_set():
            worker.step()
            alive()
    except Stopped:
        log.warning("stopped while a sink failed; what it lacks is delivered at the next start")
    worker.close()
    log.info("stream worker stopped")
