"""Records from Kafka, in one order that is a function of the logs and not of polls.

Examples of all partitions, and exposures where trials of snapshots need them, are merged by event time
(`trainer.input.merge`). The items that the log had received when it received an example come before it; so does,
however late it came, the item that the example is about. A log that has been read to its end and stays silent is not
waited for.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from contracts.config.settings import Settings, SettingsError
from contracts.kafka import bus
from contracts.kafka.consumers import LogReader
from contracts.messages.events import BadEvent, decode_catalogue, decode_example
from contracts.messages.forget import is_forget
from contracts.messages.received import exposure_of
from contracts.runtime.clock import Clock
from contracts.wire.events_pb2 import Example, Exposure
from trainer.data.catalogue import Announced
from trainer.distributed.ranks import ALONE, Ranks
from trainer.input.merge import Entry, Merge

POLL_MS = 200
SILENCE_MS = 1000  # after so long at its end, a partition's next record is not waited for
HOARD = 4  # polls' worth of records that one partition may be ahead of the others

Reject: TypeAlias = Callable[[ConsumerRecord, BadEvent], None]
Record: TypeAlias = Entry[Announced | Exposure | Example]


def topics(settings: Settings) -> list[str]:
    """What a trainer with these settings reads of the stream, in the order in which what is simultaneous is taken."""
    gate = settings.trainer.gate
    return [bus.EXPOSURES, bus.EXAMPLES] if gate.enabled and gate.judge == "canary" else [bus.EXAMPLES]


class Intake:
    """Consumes items, examples and exposures, and puts them in order; what cannot be used is rejected.

    An exposure that cannot be used is left out: the stream has rejected it.
    """

    def __init__(
        self,
        settings: Settings,
        consumer: LogReader,
        reject: Reject,
        clock: Clock,
        stop: threading.Event,
        ranks: Ranks = ALONE,
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._reject = reject
        self._clock = clock
        self._stop = stop
        self._ranks = ranks
        (self._item_log,) = bus.partitions_of(settings.kafka, [bus.ITEMS])
        self._merged_logs = dict(enumerate(bus.partitions_of(settings.kafka, topics(settings))))
        self._number = {tp: number for number, tp in self._merged_logs.items()}
        self._exposures = settings.kafka.topic(bus.EXPOSURES)
        self._items: deque[Record] = deque()
        self._merge = Merge[tuple[int, Example | Exposure]](self._merged_logs)
        self._now_ms = ranks.lead(clock.now_ms)  # at the last poll, so that all ranks take the same time for now
        self._heard_ms = dict.fromkeys(self.logs, self._now_ms)
        self._looked_ms = 0  # when an item was last looked for in vain
        self._started: dict[TopicPartition, int] = {}  # where reading began, other than at the first record

    @property
    def logs(self) -> list[TopicPartition]:
        """Everything that is read."""
        return [self._item_log, *self._merged_logs.values()]

    def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read each log from an offset; from its first record where none is given."""
        self._started = {partition: offsets[partition] for partition in self.logs if partition in offsets}
        for partition, offset in self._started.items():
            self._consumer.seek(partition, offset)

    def records(self, knows: Callable[[int], bool]) -> Iterator[tuple[TopicPartition, Record]]:
        """Poll once and hand over, in order, what is certain to be next; `knows` tells whether an item id has come."""
        self._poll()
        for entry in self._merge.release(self._silent()):
            logged_ms, record = entry.value
            if isinstance(record, Example) and not is_forget(record):
                for item in self._items_before(logged_ms, record.item_id, knows):
                    yield self._item_log, item
                if self._stop.is_set():
                    return  # its items may be missing
            log = self._merged_logs[entry.partition]
            yield log, Entry(log.partition, entry.offset, entry.time_ms, record)

    @property
    def waiting(self) -> bool:
        """Whether what was read has not been handed over."""
        return any(self._merge.waiting(number) for number in self._merged_logs)

    def waiting_from(self) -> dict[TopicPartition, int]:
        """The first offset of each log of examples and exposures that was not handed over."""
        offsets = {}
        for number, partition in self._merged_logs.items():
            first = self._merge.first_offset(number)
            offsets[partition] = self._consumer.position(partition) if first is None else first
        return offsets

    def _items_before(self, logged_ms: int, item_id: int, knows: Callable[[int], bool]) -> Iterator[Record]:
        while not self._stop.is_set():
            while self._items and self._items[0].time_ms <= logged_ms:
                yield self._items.popleft()
            if self._items or self._is_silent(self._item_log):
                break
            self._poll()
        # The stream had read it before it made the example, so it is there; but a fetch may still be on its way.
        begun_ms = self._now_ms
        while not self._stop.is_set() and not knows(item_id) and (self._items or self._may_come(begun_ms)):
            if self._items:
                yield self._items.popleft()
            else:
                self._poll()

    def _may_come(self, begun_ms: int) -> bool:
        """Whether an item may still be on its way; at most every `SILENCE_MS` one is waited for in vain."""
        if not self._consumer.at_end(self._item_log):
            return True
        if begun_ms - self._looked_ms < SILENCE_MS:
            return False
        if self._now_ms - begun_ms < SILENCE_MS:
            return True
        self._looked_ms = self._now_ms
        return False

    def _poll(self) -> None:
        self._hold_back()
        polled = self._consumer.poll(POLL_MS, max_records=self._settings.trainer.poll_records)
        self._check_log(polled)
        self._now_ms = self._ranks.lead(self._clock.now_ms)
        self._ranks.hear()
        for partition, records in polled.items():
            self._heard_ms[partition] = self._now_ms
            for record in records:
                try:
                    self._receive(partition, record)
                except BadEvent as error:
                    self._reject(record, error)

    def _check_log(self, polled: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        """See that the logs go on from where they were read before.

        Raises:
            SettingsError: the log is another one than the one that was read before.

        """
        for partition, offset in self._started.items():
            if self._consumer.is_another_log(partition, offset, polled.get(partition)):
                raise SettingsError(
                    f"The trainer's checkpoint includes {partition.topic} partition {partition.partition} up to offset "
                    f"{offset}, where the broker has no such log: take the broker that it came from, or move "
                    f"{self._settings.state / 'trainer'} away to learn anew."
                )

    def _receive(self, partition: TopicPartition, record: ConsumerRecord) -> None:
        """Put a record where it belongs.

        Raises:
            BadEvent: it cannot be used.

        """
        limit = self._settings.stream.max_event_bytes
        if partition == self._item_log:
            announced = Announced(*decode_catalogue(record.key, record.value, max_bytes=limit))
            self._items.append(Entry(record.partition, record.offset, record.timestamp, announced))
            return
        event: Example | Exposure
        if partition.topic == self._exposures:
            try:
                event = exposure_of(record, self._settings.stream, self._settings.kafka.partitions)
            except BadEvent:
                return
        else:
            event = decode_example(record.value, max_bytes=limit)
        self._merge.push(Entry(self._number[partition], record.offset, event.time_ms, (record.timestamp, event)))

    def _hold_back(self) -> None:
        """Pause partitions that are far ahead of the others, so that little waits in memory."""
        limit = HOARD * self._settings.trainer.poll_records
        waiting = {tp: self._merge.waiting(number) for number, tp in self._merged_logs.items()}
        paused = self._consumer.paused()
        for partition, count in {**waiting, self._item_log: len(self._items)}.items():
            if count >= limit:
                self._consumer.pause(partition)
            elif partition in paused:
                self._consumer.resume(partition)

    def _silent(self) -> list[int]:
        return [number for number, partition in self._merged_logs.items() if self._is_silent(partition)]

    def _is_silent(self, partition: TopicPartition) -> bool:
        return self._now_ms - self._heard_ms[partition] >= SILENCE_MS and self._consumer.at_end(partition)
