"""What a world puts on Kafka: logged pages and simulated responses as records, in the order of their receipt. Pure."""

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from contracts.kafka import bus
from contracts.messages.events import SCHEMA_VERSION
from contracts.wire.events_pb2 import ExposedItem, Exposure, Feedback, Item
from contracts.wire.recall_pb2 import RecallReply
from world.base import LogPage, Response, Visit, WorldCatalogue


@dataclass(frozen=True, slots=True)
class Record:
    """One record to send: `topic` is the short name, `received_ms` becomes the record's timestamp."""

    topic: str
    user_id: int
    received_ms: int
    value: bytes


class Announcement(NamedTuple):
    """An item, and when the catalogue's topic has it."""

    time_ms: int
    item: Item


def announcements(catalogue: WorldCatalogue, start_ms: int) -> list[Announcement]:
    """Every item of a catalogue, in the order in which they come: those of the start first."""
    born_ms = np.full(catalogue.item_ids.size, start_ms) if catalogue.born_ms is None else catalogue.born_ms
    columns = (born_ms.tolist(), catalogue.item_ids.tolist(), catalogue.categories, catalogue.durations_ms.tolist())
    announced = [
        Announcement(
            max(at_ms, start_ms),
            Item(schema_version=SCHEMA_VERSION, item_id=item_id, category_ids=categories, duration_ms=duration_ms),
        )
        for at_ms, item_id, categories, duration_ms in zip(*columns, strict=True)
    ]
    return sorted(announced, key=lambda announcement: announcement.time_ms)


def page_records(page: LogPage, *, simulated: bool) -> Iterator[Record]:
    """A logged page: one exposure, and one feedback event a row.

    What the log lacks stays unset and what is wrong stays wrong: judging events is the stream worker's business.
    An exact duplicate of a row has the same event id.
    """
    items = dict.fromkeys(row.item_id for row in page.rows if row.item_id is not None and row.item_id > 0)
    exposure = Exposure(
        schema_version=SCHEMA_VERSION,
        event_id=page.request_id,
        request_id=page.request_id,
        user_id=page.user_id,
        time_ms=page.time_ms,
        items=[ExposedItem(item_id=item_id, source="log") for item_id in items],
        simulated=simulated,
    )
    yield Record(bus.EXPOSURES, page.user_id, page.time_ms, exposure.SerializeToString())
    for row in page.rows:
        feedback = Feedback(
            schema_version=SCHEMA_VERSION,
            event_id=f"{page.request_id}/{row.item_id}/{row.time_ms}",
            request_id=page.request_id,
            user_id=page.user_id or None,
            item_id=row.item_id,
            time_ms=row.time_ms,
            play_time_ms=row.play_time_ms,
            simulated=simulated,
        )
        if row.effective_view is not None:  # what is not known stays absent
            feedback.effective_view = row.effective_view
        if row.follow is not None:
            feedback.follow = row.follow
        yield Record(bus.FEEDBACK, page.user_id, row.received_ms, feedback.SerializeToString())


def in_order_of_receipt(pages: Iterable[LogPage], *, simulated: bool) -> Iterator[Record]:
    """The records of pages that are in time order, merged: a page's rows lie after the beginnings of later pages."""
    waiting: list[tuple[int, int, Record]] = []
    arrival = itertools.count()
    for page in pages:
        while waiting and waiting[0][0] < page.time_ms:
            yield heapq.heappop(waiting)[2]
        for record in page_records(page, simulated=simulated):
            heapq.heappush(waiting, (record.received_ms, next(arrival), record))
    while waiting:
        yield heapq.heappop(waiting)[2]


def response_records(visit: Visit, reply: RecallReply, response: Response) -> Iterator[Record]:
    """What a simulated user did: one feedback event an item, received when it began to play."""
    for i, item in enumerate(reply.items):
        start_ms = int(response.start_ms[i])
        feedback = Feedback(
            schema_version=SCHEMA_VERSION,
            event_id=f"{reply.request_id}/{item.item_id}",
            request_id=reply.request_id,
            user_id=visit.user_id,
            item_id=item.item_id,
            time_ms=start_ms,
            play_time_ms=int(response.play_time_ms[i]),
            effective_view=bool(response.effective_view[i]),
            follow=bool(response.follow[i]),
            simulated=True,
        )
        yield Record(bus.FEEDBACK, visit.user_id, start_ms, feedback.SerializeToString())


class Pending:
    """Feedback that has not happened yet, and visits whose feedback is not stored yet."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._arrival = itertools.count()
        self._future: list[tuple[int, int, int | None, Record]] = []  # heap of (time, arrival, visit, record)
        self._unsent: dict[int, int] = {}  # visit -> records still in the future
        self._complete: list[tuple[int, int]] = []  # (visit, partition), all sent, not yet in a queue
        self._exposed: dict[int, deque[tuple[int, int]]] = {p: deque() for p in range(partitions)}
        self._queues: dict[int, deque[tuple[int, int, int]]] = {p: deque() for p in range(partitions)}

    @property
    def empty(self) -> bool:
        """Whether all feedback has been sent."""
        return not self._future

    def carry(self, records: Iterable[Record]) -> None:
        """Take in what belongs to no visit: the end of a log that goes on into the experiment."""
        for record in records:
            heapq.heappush(self._future, (record.received_ms, next(self._arrival), None, record))

    def add(self, visit: Visit, records: list[Record], counts: Mapping[tuple[str, int], int]) -> None:
        """Take in what the user of a visit will have done; its exposure is among the `counts` sent by now."""
        partition = bus.partition_of(visit.user_id, self._partitions)
        self._exposed[partition].append((visit.index, counts.get((bus.EXPOSURES, partition), 0)))
        for record in records:
            heapq.heappush(self._future, (record.received_ms, next(self._arrival), visit.index, record))
        self._unsent[visit.index] = len(records)
        if not records:
            self._complete.append((visit.index, partition))

    def due(self, until_ms: float) -> Iterator[Record]:
        """The records that happen up to `until_ms`, in order."""
        while self._future and self._future[0][0] <= until_ms:
            _, _, visit, record = heapq.heappop(self._future)
            if visit is not None:
                self._unsent[visit] -= 1
                if not self._unsent[visit]:
                    self._complete.append((visit, bus.partition_of(record.user_id, self._partitions)))
            yield record

    def sent(self, counts: Mapping[tuple[str, int], int]) -> None:
        """What was due is sent: `counts` records of each (topic, partition) by now."""
        for visit, partition in self._complete:
            del self._unsent[visit]
            mark = (visit, counts[bus.EXPOSURES, partition], counts[bus.FEEDBACK, partition])
            self._queues[partition].append(mark)
        self._complete = []

    def logged(self, stored: Mapping[tuple[str, int], int]) -> Iterator[int]:
        """The visits whose exposure is stored."""
        for partition, queue in self._exposed.items():
            while queue and queue[0][1] <= stored.get((bus.EXPOSURES, partition), 0):
                yield queue.popleft()[0]

    def settle(self, stored: Mapping[tuple[str, int], int]) -> Iterator[int]:
        """The visits whose exposure and feedback are stored, given how much of each (topic, partition) is."""
        for partition, queue in self._queues.items():
            exposures = stored.get((bus.EXPOSURES, partition), 0)
            feedback = stored.get((bus.FEEDBACK, partition), 0)
            while queue and queue[0][1] <= exposures and queue[0][2] <= feedback:
                yield queue.popleft()[0]
