"""`driftline trainer backfill`: learn from the offline store, then leave a checkpoint from which the stream goes on.

It does what the trainer does, on another consumer (`trainer.input.archive_consumer`), without publishing on the way; at
the end it publishes once. It packs histories (`trainer.packed_engine`) where settings allow it. The checkpoint holds
for each partition the offset at which the stream takes over, so that an example is learned from once, whether it came
from the store or from the log.
"""

import threading
from collections.abc import Callable

import structlog
import torch
from kafka import KafkaProducer

from contracts.config.settings import Settings, SettingsError
from contracts.kafka import bus
from contracts.kafka.consumers import Consumer
from contracts.runtime.clock import Clock
from trainer.checkpoint import Checkpoints
from trainer.engine import Engine
from trainer.input.archive_consumer import ArchivedExamples
from trainer.meters import Meters
from trainer.packed_engine import InterruptedGroupError, PackedEngine, unpackable
from trainer.worker import TrainerWorker

log = structlog.get_logger()
NEVER_MS = 2**62


def backfill(
    settings: Settings,
    items: Consumer,
    producer: KafkaProducer,
    clock: Clock,
    stop: threading.Event,
    *,
    start_ms: int | None,
    end_ms: int | None,
    one_by_one: bool = False,
    largest_letter_bytes: int = bus.LARGEST_LETTER_BYTES,
    report: Callable[[int, int], None] = lambda _done, _whole: None,
) -> int:
    """Learn from what is archived; returns how many examples were learned from.

    A trainer that has a checkpoint goes on from it, which is how one catches up that was away for longer than the
    broker keeps its log.

    Args:
        settings: of the trainer.
        items: a consumer that is subscribed to items alone, for which nothing was committed.
        producer: for dead letters.
        clock: the wall clock.
        stop: ends it early; what was learned is kept, and the same call goes on from there.
        start_ms: event time from which on to learn; None: from the first archived example on.
        end_ms: event time at which the stream takes over; None: where the archive ends.
        one_by_one: learn each example with its own features, in the order of the log, as the stream's trainer does.
        largest_letter_bytes: what the dead-letter topic takes.
        report: is told how many offsets were read, of how many.

    Raises:
        SettingsError: nothing is archived, or `start_ms` is given although there is a checkpoint.

    """
    quiet = {
        "publish_every_ms": NEVER_MS,
        "publish_every_examples": None,
        "gate": settings.trainer.gate.model_copy(update={"judge": "recall"}),  # nobody is answered on the way
    }
    settings = settings.model_copy(update={"trainer": settings.trainer.model_copy(update=quiet)})
    torch.set_num_threads(settings.trainer.threads)
    torch.manual_seed(settings.seed)
    hindrance = "it was asked for" if one_by_one else unpackable(settings.trainer)
    if hindrance:
        log.info("histories are not packed", because=hindrance)
    archive = ArchivedExamples(settings, items, start_ms, end_ms, with_features=bool(hindrance))
    checkpoints, meters = Checkpoints(settings), Meters()
    try:
        packed = None if hindrance else PackedEngine(settings, meters, archive.histories, stop)
        engine = packed or Engine(settings, meters)
        worker = TrainerWorker(
            settings, archive, producer, engine, checkpoints, meters, clock, stop,
            largest_letter_bytes=largest_letter_bytes,
        )  # fmt: skip
        if worker.resume():
            if start_ms is not None:
                raise SettingsError(
                    f"The trainer has a checkpoint in {checkpoints.home} and goes on from it; move it away "
                    "to learn anew from another time on."
                )
        else:
            engine.begin({f"{tp.topic}:{tp.partition}": shelf.start for tp, shelf in archive.shelves.items()})
            worker.begin()
        before, whole = engine.tested, archive.left
        try:
            while not stop.is_set() and (archive.left or worker.waiting):
                worker.step()
                report(whole - archive.left, whole)
            if packed and not stop.is_set():
                packed.learn_rest()
        except InterruptedGroupError:  # what was kept is from before the group, which is read again
            return engine.tested - before
        worker.publish_now()
        worker.finish()
        return engine.tested - before
    finally:
        checkpoints.close()
