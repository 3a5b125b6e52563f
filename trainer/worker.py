"""The trainer worker: Kafka in, snapshots and checkpoints out, around the engine, which decides everything.

Order within one step:
  (1) hand the records that are certain to be next to the engine (`trainer.input.intake`);
  (2) write the snapshots that fall due on the way, and publish those that passed the gate;
  (3) where enough was learned since the last checkpoint, write one: all state and its offsets, in one atomic rename;
      After a user was forgotten it takes the place of the older ones, too;
  (4) commit the offsets up to which the engine has taken the examples, which is how others see progress.
Before (3) and (4) the broker must have the dead letters.
A restarted trainer goes on from its newest checkpoint and reads again what came after it. So it writes some snapshots a
second time, which leaves the equal ones on the disk as they are, and sends some dead letters twice.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import structlog
import torch
from apscheduler.schedulers.background import BackgroundScheduler
from kafka import KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from contracts.config.settings import Settings, SettingsError
from contracts.kafka import bus, consumers
from contracts.kafka.consumers import LogReader
from contracts.messages.events import BadEvent
from contracts.messages.forget import is_forget
from contracts.runtime.clock import Clock, SystemClock
from contracts.runtime.endpoint import opened
from contracts.runtime.worker import announce, configure_logs, stop_on_signal
from contracts.wire.events_pb2 import Exposure
from trainer.checkpoint import Checkpoints
from trainer.data.catalogue import Announced
from trainer.distributed.ranks import ALONE, Ranks, assemble
from trainer.distributed.ranks_consumer import RanksConsumer
from trainer.engine import Engine, Move
from trainer.input.intake import Intake, topics
from trainer.meters import Meters
from trainer.publisher import Publisher

log = structlog.get_logger()
BROKER_MS = 5_000  # how long a step waits for a broker that is away; the next one tries again


class TrainerWorker:
    """Feeds the engine with items and examples, and keeps what it makes."""

    def __init__(
        self,
        settings: Settings,
        consumer: LogReader,
        producer: KafkaProducer,
        engine: Engine,
        checkpoints: Checkpoints,
        meters: Meters,
        clock: Clock,
        stop: threading.Event,
        ranks: Ranks = ALONE,
        largest_letter_bytes: int = bus.LARGEST_LETTER_BYTES,
    ) -> None:
        """`largest_letter_bytes`: what the dead-letter topic takes."""
        self._settings = settings
        self._consumer = consumer
        self._producer = producer
        self._engine = engine
        self._checkpoints = checkpoints
        self._meters = meters
        self._clock = clock
        self._stop = stop
        self._ranks = ranks
        self._largest_letter_bytes = largest_letter_bytes
        self._publisher = Publisher(settings, engine, meters, clock, checkpoints.require_mine_as_leader, ranks)
        self._intake = Intake(settings, consumer, self._reject, clock, stop, ranks)
        self._letters: list[tuple[ConsumerRecord, BadEvent, Any]] = []  # that the broker may not have yet
        self._committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self._kept = 0  # examples in the newest checkpoint
        self._forgot = False  # whether a user was forgotten since the last checkpoint
        self.snapshots_due, self.deltas_due = threading.Event(), threading.Event()  # set by the clock
        self._snapshots_due, self._deltas_due = ranks.heard(self.snapshots_due), ranks.heard(self.deltas_due)

    def resume(self) -> bool:
        """Go on from the newest checkpoint; False where there is none.

        Raises:
            SettingsError: it was made with other settings, or is none of this build's.

        """
        state = self._checkpoints.newest()
        if state is None:
            return False
        try:
            gone = self._engine.restore(state)
        except Exception as error:  # each part restores itself, and raises what it meets
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            raise SettingsError(
                f"The newest checkpoint in {self._checkpoints.home} is none that this build can go on from ({what}); "
                "move it away to go on from the one before."
            ) from error
        self._kept = self._engine.tested
        names = {f"{tp.topic}:{tp.partition}": tp for tp in self._intake.logs}
        offsets = {names[name]: offset for name, offset in self._engine.offsets.items() if name in names}
        self._see_lost(offsets)
        self._intake.start(offsets)
        self._publisher.let_go(gone)
        log.info("resumed", examples=self._kept, offsets=self._engine.offsets)
        return True

    @property
    def waiting(self) -> bool:
        """Whether examples that were read wait for their turn."""
        return self._intake.waiting

    def step(self) -> None:
        """One step, in the order given at the top."""
        for partition, entry in self._intake.records(self._engine.knows):
            source = f"{partition.topic}:{partition.partition}"
            if isinstance(entry.value, Announced):
                self._engine.take_item(entry.value, entry.time_ms, source, entry.offset)
            elif isinstance(entry.value, Exposure):
                self._engine.take_exposure(entry.value, source, entry.offset)
            elif is_forget(entry.value):
                self._engine.forget(entry.value.user_id, source, entry.offset)
                self._forgot = True
                self._meters.forgotten.inc()
            else:
                self._publish(self._engine.take(entry.value, source, entry.offset))
                self._keep_up()
            if self._stop.is_set():
                break
        if self._snapshots_due.is_set():
            self._snapshots_due.clear()
            self.publish_now()
        if self._deltas_due.is_set():
            self._deltas_due.clear()
            self._publish(self._engine.deltas())
        if self._settled():
            if self._forgot:
                self._write()
            self._commit()

    def _keep_up(self) -> None:
        """Write the checkpoint that is due."""
        due = self._engine.tested - self._kept >= self._settings.trainer.checkpoint_every_examples
        if due and self._settled():
            self.keep()

    def finish(self) -> None:
        """Keep what was learned and published, once the broker has the dead letters of what it was learned from."""
        if self._settled():
            self._write()

    def _publish(self, moves: Sequence[Move]) -> None:
        """Publish, unless another trainer has taken over."""
        if moves:
            self._checkpoints.require_mine()
            self._publisher.publish(moves)

    def publish_now(self) -> None:
        """Publish what is new."""
        self._publish(self._engine.snapshots())

    def begin(self) -> None:
        """Write the first checkpoint, before anything is learned: a restart gives snapshots the same versions."""
        self._checkpoints.write(self._engine.state())

    def keep(self) -> None:
        """Write a checkpoint, where anything was learned since the last one."""
        if self._forgot or self._engine.tested > self._kept:
            self._write()

    def _write(self) -> None:
        # Where a user was forgotten, none is left from before, and again there are two of which one may be damaged.
        for alone in (True, False) if self._forgot else (False,):
            with self._meters.checkpoint_seconds.time():
                self._checkpoints.write(self._engine.state(), alone=alone)
        self._forgot = False
        self._kept = self._engine.tested

    def _see_lost(self, offsets: dict[TopicPartition, int]) -> None:
        """Say so where the log no longer holds what comes after the checkpoint: it is lost to learning."""
        for partition, first in self._consumer.beginning_offsets([*offsets]).items():
            if first > offsets[partition]:
                self._meters.lost.inc(first - offsets[partition])
                log.error(
                    "the log no longer holds what comes after the checkpoint",
                    topic=partition.topic, partition=partition.partition,
                    checkpoint=offsets[partition], first=first,
                )  # fmt: skip

    def _reject(self, record: ConsumerRecord, error: BadEvent) -> None:
        if not self._ranks.leads:
            return
        self._letters.append((record, error, self._dead_letter(record, error)))
        self._meters.dead_letters.labels(str(error.reason)).inc()

    def _settled(self) -> bool:
        """Whether the broker has all dead letters; those that did not reach it are sent again."""
        return self._ranks.lead(self._delivered)

    def _delivered(self) -> bool:
        if not self._letters:
            return True
        try:
            self._producer.flush(timeout=BROKER_MS / 1000)
        except KafkaTimeoutError:
            log.warning("the broker does not take the dead letters", letters=len(self._letters))
            return False
        failed = [(record, error) for record, error, sent in self._letters if sent.failed()]
        self._letters = [(record, error, self._dead_letter(record, error)) for record, error in failed]
        return not failed

    def _dead_letter(self, record: ConsumerRecord, error: BadEvent) -> Any:
        return bus.send_dead_letter(self._producer, self._settings.kafka, error, record, self._largest_letter_bytes)

    def _commit(self) -> None:
        try:
            waiting = self._intake.waiting_from()
            self._meters.lag.set(sum(self._consumer.lag(partition, offset) for partition, offset in waiting.items()))
            taken = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in waiting.items()}
            if taken == self._committed:
                return
            self._consumer.commit(taken, timeout_ms=BROKER_MS)
            self._committed = taken
        except KafkaError as error:
            # It is progress for whoever watches, no more: the trainer itself goes by its checkpoint.
            log.warning("progress was not reported", error=str(error))


def run(settings: Settings, ready_file: Path | None) -> None:
    """Run the worker until a signal stops it; under torchrun, each of its processes."""
    ranks = assemble(settings.kafka.partitions)
    configure_logs(quiet=not ranks.leads)
    clock = SystemClock()
    endpoint = opened("trainer", settings, clock, processes=ranks.size) if ranks.leads else None
    stop = ranks.heard(stop_on_signal(settings.stop_within_s))
    torch.set_num_threads(settings.trainer.threads)
    torch.manual_seed(settings.seed)
    faiss.omp_set_num_threads(settings.trainer.threads)
    checkpoints = Checkpoints(settings, ranks=ranks)
    meters = Meters()
    engine = Engine(settings, meters, ranks)
    bus.check_topics(settings.kafka)
    logs = [bus.ITEMS, *topics(settings)]
    every = consumers.consumer(settings.kafka, logs, settings.kafka.topic_prefix + "trainer")
    every.reads.register(meters.registry)
    consumer = RanksConsumer(every, bus.partitions_of(settings.kafka, logs), ranks) if ranks.size > 1 else every
    producer = bus.producer(settings.kafka, max_request_size=bus.LARGEST_RECORD_BYTES)
    largest = bus.largest_letter_bytes(settings.kafka)
    worker = TrainerWorker(settings, consumer, producer, engine, checkpoints, meters, clock, stop, ranks, largest)
    if not worker.resume():
        worker.begin()
    scheduler = BackgroundScheduler()
    if ranks.leads:
        for due, every_s in (
            (worker.snapshots_due, settings.trainer.publish_every_s),
            (worker.deltas_due, settings.trainer.deltas_every_s),
        ):
            if every_s is not None:
                scheduler.add_job(due.set, "interval", seconds=every_s)
        scheduler.start()
    if endpoint is not None:
        endpoint.show(meters.registry)
        log.info("trainer ready", metrics_port=endpoint.port, processes=ranks.size)
        announce(ready_file, {"metrics_port": endpoint.port})
    while not stop.is_set():
        worker.step()
        if endpoint is not None:
            endpoint.pulse.beat(every.missing())
    if ranks.leads:
        scheduler.shutdown()
    worker.finish()
    consumer.close()
    producer.close(timeout=BROKER_MS / 1000)
    checkpoints.close()
    ranks.close()
    log.info("trainer stopped")
