"""Driving the live system as its users would: the log replayed to Kafka, then visits that ask `Recall` over gRPC.

Simulated time runs as fast as the system keeps up. A user asks again only when the stream worker has stored what that
user did before, so a request is answered as it would be in life; other users do not wait for it.
"""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import grpc
import numpy as np
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from contracts.config.settings import KafkaSettings, Settings
from contracts.config.store import Root
from contracts.features import Floats, Ints, rows_of
from contracts.kafka import bus
from contracts.runtime.clock import MINUTE_MS, Clock
from contracts.snapshots import delta
from contracts.wire.recall_pb2 import Context, RecalledItem, RecallReply, RecallRequest, SourceReport
from contracts.wire.recall_pb2_grpc import RecallServiceStub
from world.agenda import Agenda
from world.base import Visit, World, WorldCatalogue
from world.records import Announcement, Pending, Record, announcements, in_order_of_receipt, response_records

WINDOW_MS = 60 * MINUTE_MS  # no visit is asked so much before an earlier one; bounds how late events can be
VISITS_PER_ROUND = 256
IN_FLIGHT = 8
SNAPSHOTS_KEPT = 8  # replicas swap within seconds of each other, so only the newest few still answer
RECALL_TIMEOUT_S = 20.0
FLUSH_TIMEOUT_S = 30.0
RECORDS_PER_BATCH = 2000


@dataclass
class DriverReport:
    """What the driver itself saw."""

    recalls: int = 0
    recalls_failed: int = 0
    mixed_version_replies: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)
    latency_s: dict[str, list[float]] = field(default_factory=dict)  # by arm
    # model -> version -> event times of its first and its last answer
    spans: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    simulated_ms: int = 0  # how far simulated time has come
    phase: str = "starting"
    errors: Counter[str] = field(default_factory=Counter)


class VersionCheck:
    """Whether a reply's items and scores are those of the snapshot that the reply names."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._named = lru_cache(SNAPSHOTS_KEPT)(self._load)

    def mixed(self, reply: RecallReply) -> bool:
        """True where a score is not (user vector) · (item vector) of the snapshot that the item's source names.

        Every full snapshot moves all item vectors, so an item from another version's index does not pass.
        """
        sources = {source.source: source for source in reply.sources}
        if any(item.source not in sources for item in reply.items):
            return True
        return any(
            self._other(source, [item for item in reply.items if item.source == name])
            for name, source in sources.items()
        )

    def _other(self, source: SourceReport, items: Sequence[RecalledItem]) -> bool:
        item_ids, vectors, counts = self._named(source.model, source.snapshot_version)
        rows = rows_of(np.array([item.item_id for item in items], np.int64), item_ids)
        if (rows < 0).any():
            return True
        scores = np.array([item.score for item in items], np.float32)
        user = np.array(source.user_vector, np.float32)
        expected = vectors[rows] @ user if user.size else counts[rows]
        return not np.allclose(scores, expected, rtol=1e-4, atol=1e-4)

    def _load(self, model: str, version: str) -> tuple[Ints, Floats, Floats]:
        named = delta.read(self._root, model, version)
        return named.item_ids, named.item_vectors, named.item_counts


class Pace(Protocol):
    """How fast simulated time may run. Either method raises where the run must end."""

    async def pause(self) -> None:
        """Wait a moment for something that is under way."""

    async def catch_up(self) -> None:
        """Wait until no stage is too far behind."""


def send_catalogue(settings: KafkaSettings, catalogue: WorldCatalogue, time_ms: int) -> None:
    """Publish every item that the catalogue has at its world's start, `time_ms`."""
    producer = bus.producer(settings)
    try:
        _send_items(producer, settings, (each for each in announcements(catalogue, time_ms) if each.time_ms <= time_ms))
        producer.flush()
    finally:
        producer.close()


def _send_items(producer: KafkaProducer, settings: KafkaSettings, items: Iterable[Announcement]) -> None:
    for announced in items:
        producer.send(
            settings.topic(bus.ITEMS),
            key=bus.key_of(announced.item.item_id),
            value=announced.item.SerializeToString(),
            timestamp_ms=announced.time_ms,
        )


class Driver:
    """Sends a world's events and requests to the running system."""

    def __init__(
        self,
        settings: Settings,
        world: World,
        producer: KafkaProducer,
        admin: KafkaAdminClient,
        replicas: Sequence[str],
        clock: Clock,
        pace: Pace,
        tally: DriverReport,
    ) -> None:
        self.tally = tally
        self._settings = settings
        self._world = world
        self._producer = producer
        self._admin = admin
        self._replicas = replicas
        self._clock = clock
        self._pace = pace
        self._sent: Counter[tuple[str, int]] = Counter()  # records by (topic, partition), the replicas' included
        self._carried: list[Record] = []  # of the log, but later than the experiment's start
        self._check = VersionCheck(settings.snapshot_root)
        later = (each for each in announcements(world.catalogue, world.start_ms) if each.time_ms > world.start_ms)
        self._unborn = deque(later)  # the others are `send_catalogue`'s

    def _announce(self, until_ms: int) -> None:
        """Publish the items that are born up to a moment, before anything that happens with them is sent.

        Whoever meets one before having read of it looks for it: the stream reads its topic, the trainer waits.
        """
        due = []
        while self._unborn and self._unborn[0].time_ms <= until_ms:
            due.append(self._unborn.popleft())
        if due:
            _send_items(self._producer, self._settings.kafka, due)
            self._producer.flush(FLUSH_TIMEOUT_S)

    async def warm_up(self) -> None:
        """Replay the log as it happened."""
        self.tally.phase = "warm-up"
        start_ms = self._world.experiment_start_ms
        in_order = in_order_of_receipt(self._world.warmup(), simulated=self._world.simulated_log)
        while batch := list(itertools.islice(in_order, RECORDS_PER_BATCH)):
            # What the last visits of the log go on to do is the experiment's present: it has to wait for its time.
            self._carried += [record for record in batch if record.received_ms >= start_ms]
            batch = [record for record in batch if record.received_ms < start_ms]
            for record in batch:
                self._announce(record.received_ms)
                self._send(record)
            self.tally.simulated_ms = batch[-1].received_ms if batch else start_ms
            await asyncio.to_thread(self._producer.flush, FLUSH_TIMEOUT_S)
            await self.stored()
            await self._pace.catch_up()

    async def experiment(self) -> None:
        """Let users come, ask and respond."""
        self.tally.phase = "experiment"
        agenda = Agenda(self._world.visits(), WINDOW_MS)
        pending = Pending(self._settings.kafka.partitions)
        pending.carry(self._carried)
        async with _Channels(self._replicas) as stubs:
            while not (agenda.all_answered and pending.empty):
                await asyncio.to_thread(self._announce, agenda.now_ms)
                visits = agenda.ready(VISITS_PER_ROUND)
                for visit, feedback in await self._round(stubs, visits):
                    pending.add(visit, feedback, self._sent)
                for record in pending.due(agenda.horizon_ms):
                    self._send(record)
                pending.sent(self._sent)
                await asyncio.to_thread(self._producer.flush, FLUSH_TIMEOUT_S)
                stored = await asyncio.to_thread(self._committed, "stream")
                # Time goes on when the exposures are stored, not when the replies are here: a replica sends them a
                # moment later, and where nights pass in milliseconds that moment is hours of event time.
                for index in pending.logged(stored):
                    agenda.answered(index)
                for index in pending.settle(stored):
                    agenda.settled(index)
                self.tally.simulated_ms = agenda.now_ms
                await (self._pace.catch_up() if visits else self._pace.pause())
        await self.stored()

    async def _round(
        self, stubs: Sequence[RecallServiceStub], visits: Sequence[Visit]
    ) -> list[tuple[Visit, list[Record]]]:
        """Ask for each visit, and let the users respond; a visit without a reply has no feedback."""
        replies = await self._ask(stubs, visits)
        answered = [(visit, reply) for visit, reply in zip(visits, replies, strict=True) if reply]
        shown = [np.array([item.item_id for item in reply.items], np.int64) for _, reply in answered]
        responses = self._world.respond([visit for visit, _ in answered], shown) if answered else []
        done: list[tuple[Visit, list[Record]]] = [
            (visit, []) for visit, reply in zip(visits, replies, strict=True) if not reply
        ]
        for (visit, reply), response in zip(answered, responses, strict=True):
            done.append((visit, list(response_records(visit, reply, response))))
        return done

    async def stored(self) -> None:
        """Wait until the stream worker has stored everything that was sent."""
        await self._consumed("stream")

    async def collected(self) -> None:
        """Wait until the experiment's collector has seen everything that was sent."""
        await self._consumed("abtest")

    async def _consumed(self, group: str) -> None:
        while True:
            committed = await asyncio.to_thread(self._committed, group)
            if all(committed.get(stream, 0) >= count for stream, count in self._sent.items()):
                return
            await self._pace.pause()

    async def _ask(self, stubs: Sequence[RecallServiceStub], visits: Sequence[Visit]) -> list[RecallReply | None]:
        gate = asyncio.Semaphore(IN_FLIGHT)
        turns = itertools.cycle(stubs)

        async def one(visit: Visit, stub: RecallServiceStub) -> RecallReply | None:
            async with gate:
                return await self._recall(stub, visit)

        return list(await asyncio.gather(*(one(visit, next(turns)) for visit in visits)))

    async def _recall(self, stub: RecallServiceStub, visit: Visit) -> RecallReply | None:
        request = RecallRequest(
            user_id=visit.user_id,
            k=visit.k,
            request_id=f"visit-{visit.index}",
            context=Context(time_ms=visit.time_ms, simulated=True, explain=True),
        )
        began = self._clock.elapsed_s()
        try:
            reply: RecallReply = await stub.Recall(request, timeout=RECALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            self.tally.recalls += 1
            self.tally.recalls_failed += 1
            self.tally.errors[f"{error.code().name}: {error.details()}"] += 1
            return None
        took = self._clock.elapsed_s() - began
        tally = self.tally
        tally.recalls += 1
        tally.latency_s.setdefault(reply.arm, []).append(took)
        spans = tally.spans.setdefault(reply.model, {})
        first_ms, last_ms = spans.get(reply.snapshot_version, (visit.time_ms, visit.time_ms))
        spans[reply.snapshot_version] = min(first_ms, visit.time_ms), max(last_ms, visit.time_ms)
        tally.mixed_version_replies += self._check.mixed(reply)
        if reply.fallback:
            tally.fallbacks[reply.fallback] += 1
        # The replica sends the exposure; it is counted here so that this visit settles only when it is stored.
        self._count(bus.EXPOSURES, visit.user_id)
        return reply

    def _send(self, record: Record) -> None:
        kafka = self._settings.kafka
        partition = self._count(record.topic, record.user_id)
        self._producer.send(
            kafka.topic(record.topic),
            key=bus.key_of(record.user_id),
            value=record.value,
            partition=partition,
            timestamp_ms=record.received_ms,
            headers=[(bus.SENT_AT, str(self._clock.now_ms()).encode())],
        )

    def _count(self, topic: str, user_id: int) -> int:
        partition = bus.partition_of(user_id, self._settings.kafka.partitions)
        self._sent[topic, partition] += 1
        return partition

    def _committed(self, group: str) -> dict[tuple[str, int], int]:
        """How many records of each (topic, partition) a group is done with."""
        prefix = self._settings.kafka.topic_prefix
        offsets = self._admin.list_group_offsets([prefix + group])[prefix + group]
        return {(tp.topic.removeprefix(prefix), tp.partition): committed.offset for tp, committed in offsets.items()}


class _Channels:
    """One channel to each replica, closed on the way out."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._channels = [grpc.aio.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) for address in addresses]

    async def __aenter__(self) -> list[RecallServiceStub]:
        return [RecallServiceStub(channel) for channel in self._channels]

    async def __aexit__(self, *error: object) -> None:
        for channel in self._channels:
            await channel.close()
