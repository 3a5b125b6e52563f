"""`driftline import`: a historical log goes through the stream's own steps, before the stream has begun.

Each partition's state is opened as a worker would, its events are stepped through in the order of their time, and what
they put out goes the way of everything else: examples to their topic, so that trainer and archive take them from there,
users' rows to Feast. How far a file has come is committed with the state, so an import that was killed goes on where
it was, and nothing is learned twice. Users' rows are written once, at the end.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from kafka import TopicPartition

from contracts.config.settings import Settings, SettingsError
from contracts.kafka import bus, consumers
from contracts.wire.events_pb2 import Exposure, Feedback
from contracts.wire.stream_state_pb2 import ImportPosition, Outbox
from feature_repo.store import UserSequences
from stream.deliver import Delivery, Stopped, producer_of, row_of
from stream.import_file import HistoryFile
from stream.join import Origin
from stream.metrics import StreamMetrics
from stream.outbox import collect
from stream.outputs import Learned, Output, Rejected
from stream.ownership import LOGS
from stream.partition import PartitionBusy, PartitionStore
from stream.step import on_exposure, on_feedback, on_time, watermark

EVENTS_AT_ONCE = 5_000  # of one commit
ROWS_AT_ONCE = 1_000  # of users
FILE_DIGITS = 64  # of a digest, that tell a file
IMPORT = "import"  # what its letters have for a topic: no record of a topic is behind them
NO_OFFSET = -1  # so a user's row still waits for the first record of the log

T = TypeVar("T")


@dataclass
class Imported:
    """What came of a file."""

    events: int = 0
    examples: int = 0
    users: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by reason; they are dead letters
    before: int = 0  # events that an earlier call had taken in


class Importer:
    """Takes files in while no worker runs."""

    def __init__(self, settings: Settings, features: UserSequences, known_items: set[int], now_ms: int) -> None:
        """`now_ms`: wall time."""
        self._settings = settings
        self._features = features
        self._known_items = known_items
        self._now_ms = now_ms
        self._metrics = StreamMetrics()

    def take(
        self,
        file: HistoryFile,
        digest: str,
        stop: threading.Event,
        report: Callable[[int, int], None] = lambda _done, _whole: None,
    ) -> Imported:
        """Take a file in, or go on with one.

        Args:
            file: without a row that cannot be imported, or these are left out.
            digest: of its content and of how it is read (the first `FILE_DIGITS`), and of which rows were found bad.
            stop: ends it early; the same call goes on from there.
            report: is told how many events were taken in, of how many.

        Raises:
            SettingsError: the stream has begun, another file is not finished, or this one is older than what is there.
            Stopped: asked to stop; what was committed stays.

        """
        partitions = self._settings.kafka.partitions
        whole = sum(file.count(partition, partitions) for partition in range(partitions))
        found = Imported()

        def done() -> None:
            report(found.before + found.events, whole)

        producer = producer_of(self._settings.kafka)
        delivery = Delivery(self._settings.kafka, producer, self._features, stop, self._metrics, lambda _step: None)
        with ExitStack() as opened:
            opened.callback(producer.close)
            stores = [self._open(partition, opened) for partition in range(partitions)]
            for store in stores:  # all of them, before anything is taken in
                self._require_not_begun(store)
            _require_finished([store.position.imported for store in stores], digest)
            for store in stores:
                self._require_order(store, file, digest)
            for store in stores:
                if not _is_of(store.position.imported, digest):
                    store.position.imported.CopyFrom(ImportPosition(digest=digest, begun_ms=self._now_ms))
                self._partition(store, file, delivery, stop, found, done)
        return found

    def _open(self, partition: int, opened: ExitStack) -> PartitionStore:
        settings = self._settings
        directory = settings.state / "stream" / f"{partition:05d}"
        try:
            store = PartitionStore(directory, settings.kafka.topic(bus.FEEDBACK), partition, settings.stream)
        except OSError as error:
            raise SettingsError(f"The stream's state cannot be kept in {directory}: {error.strerror}.") from error
        except PartitionBusy as error:
            raise SettingsError(
                f"The stream runs on {directory}: stop it, import, and start it again. Once it has taken records, "
                "nothing can be imported."
            ) from error
        opened.callback(store.close)
        return store

    def _require_not_begun(self, store: PartitionStore) -> None:
        """See that a partition has nothing of the log."""
        position, where = store.position, f"Partition {store.partition}"
        if position.exposures or position.feedback or (store.is_new and self._was_consumed(store.partition)):
            raise SettingsError(
                f"{where} has been through records of the log already: a historical log is imported before the stream "
                "begins. Begin anew with an empty `state`, and `driftline stream --rebuild` afterwards."
            )

    def _require_order(self, store: PartitionStore, file: HistoryFile, digest: str) -> None:
        """See that a file that is new to a partition begins after what is there."""
        if _is_of(store.position.imported, digest):
            return
        first_ms = file.first_ms(store.partition, self._settings.kafka.partitions)
        if first_ms is not None and first_ms < watermark(store, self._settings.stream):
            raise SettingsError(
                f"Partition {store.partition} has events up to {store.newest_exposure_ms} (Unix ms), and this file "
                f"begins at {first_ms}: "
                "files are imported in the order of their time."
            )

    def _was_consumed(self, partition: int) -> bool:
        kafka = self._settings.kafka
        group = consumers.consumer(kafka, [], kafka.topic_prefix + "stream")
        try:
            return any(group.committed(TopicPartition(kafka.topic(name), partition)) for name in LOGS)
        finally:
            group.close()

    def _partition(
        self,
        store: PartitionStore,
        file: HistoryFile,
        delivery: Delivery,
        stop: threading.Event,
        found: Imported,
        report: Callable[[], None],
    ) -> None:
        delivery.deliver([(store, store.outbox)], again=True)  # what an earlier call may not have been able to
        position = store.position.imported
        found.before += position.events
        if position.done:
            return
        events = file.events(
            store.partition, self._settings.kafka.partitions, f"import {position.digest[:12]}", position.events
        )
        for batch in batched(events, EVENTS_AT_ONCE):
            if stop.is_set():
                raise Stopped
            outbox = self._step(store, batch, found)
            store.commit(outbox)
            delivery.deliver([(store, outbox)], again=False)
            report()
        for user_ids in batched(store.user_ids(), ROWS_AT_ONCE):
            if stop.is_set():
                raise Stopped
            users = ((user_id, store.user(user_id)) for user_id in user_ids)
            self._features.write([row_of(user_id, user) for user_id, user in users if user is not None])
            found.users += len(user_ids)
        position.done = True
        store.commit(Outbox())

    def _step(self, store: PartitionStore, batch: list[Exposure | Feedback], found: Imported) -> Outbox:
        """The pure steps of a batch; its outbox, without users' rows."""
        limits, begun_ms = self._settings.stream, store.position.imported.begun_ms
        outputs: list[Output] = []
        for event in batch:
            origin = Origin(IMPORT, store.partition, NO_OFFSET, None, event.SerializeToString(), begun_ms, begun_ms)
            if isinstance(event, Exposure):
                outputs += on_exposure(store, event, origin, limits)
                # What comes of a page has its own place in the order, so both logs have come as far.
                store.newest_feedback_ms = max(store.newest_feedback_ms, event.time_ms)
            else:
                outputs += on_feedback(store, event, origin, limits, self._known_items)
                store.newest_exposure_ms = max(store.newest_exposure_ms, event.time_ms)
        outputs += on_time(store, watermark(store, limits), limits)
        outbox, _ = collect(outputs, self._settings.kafka, self._metrics)
        del outbox.user_ids[:]
        store.position.imported.events += len(batch)
        found.events += len(batch)
        found.examples += sum(isinstance(output, Learned) and output.example is not None for output in outputs)
        found.refused.update(str(output.error.reason) for output in outputs if isinstance(output, Rejected))
        return outbox


def _require_finished(partitions: Sequence[ImportPosition], digest: str) -> None:
    """See that a file is not begun in the middle of another one. The first partition always has the newest file."""
    newest = partitions[0]
    if not newest.digest or all(_is_of(each, newest.digest) and each.done for each in partitions):
        return
    if not _is_of(newest, digest):
        raise SettingsError("The state is in the middle of another file: give that one again to finish it.")
    if any(_is_of(each, digest) and not each.done and each.digest != digest for each in partitions):
        raise SettingsError(
            "The state is in the middle of this file, of which other rows were bad when it began: the catalogue, the "
            "clock or the settings were others. Begin anew with an empty `state` and new topics."
        )


def _is_of(begun: ImportPosition, digest: str) -> bool:
    """Whether an import was of that file, whichever rows were bad then."""
    return begun.digest[:FILE_DIGITS] == digest[:FILE_DIGITS]


def batched(values: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` values.

    >>> list(batched(iter("abcde"), 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    while batch := list(islice(values, size)):
        yield batch
