"""Driving the live system as its users would: the log replayed to Kafka, then visits that ask `Recall` over gRPC.

Simulated time runs as fast as the system keeps up. Feedback is sent when simulated time has come to it, and before each
wave of requests the driver waits until the stream worker has stored what was sent: so a user's request is answered
with what that user did before, as it would be in life.
"""

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import grpc
import numpy as np
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from contracts import bus, snapshot
from contracts.clock import Clock
from contracts.events import SCHEMA_VERSION
from contracts.features import Floats, Ints, rows_of
from contracts.settings import MINUTE_MS, KafkaSettings, Settings
from contracts.wire.events_pb2 import ExposedItem, Exposure, Feedback, Item
from contracts.wire.recall_pb2 import Context, RecallReply, RecallRequest
from contracts.wire.recall_pb2_grpc import RecallServiceStub
from world.base import VISIT_GAP_MS, Catalogue, LogPage, Response, Visit, World, waves

WAVE_SPAN_MS = 30 * MINUTE_MS
IN_FLIGHT = 16
RECALL_TIMEOUT_S = 20.0
PAGES_PER_BATCH = 1000


@dataclass
class Tally:
    """What the driver itself saw."""

    recalls: int = 0
    recalls_failed: int = 0
    mixed_version_replies: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)
    latency_s: dict[str, list[float]] = field(default_factory=dict)  # by arm
    versions: dict[str, dict[str, int]] = field(default_factory=dict)  # model -> version -> first seen at event time
    simulated_ms: int = 0  # how far simulated time has come
    phase: str = "starting"
    errors: Counter[str] = field(default_factory=Counter)


class VersionCheck:
    """Whether a reply's items and scores are those of the snapshot that the reply names."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[tuple[str, str], tuple[Ints, Floats, Floats]] = {}

    def mixed(self, reply: RecallReply) -> bool:
        """True where a score is not (user vector) · (item vector of the named snapshot).

        Every snapshot moves the item vectors, so an item from another version's index does not pass.
        """
        item_ids, vectors, counts = self._load(reply.model, reply.snapshot_version)
        rows = rows_of(np.array([item.item_id for item in reply.items], np.int64), item_ids)
        if (rows < 0).any():
            return True
        scores = np.array([item.score for item in reply.items], np.float32)
        user = np.array(reply.user_vector, np.float32)
        expected = vectors[rows] @ user if user.size else counts[rows]
        return not np.allclose(scores, expected, rtol=1e-4, atol=1e-4)

    def _load(self, model: str, version: str) -> tuple[Ints, Floats, Floats]:
        key = (model, version)
        if key not in self._known:
            named = snapshot.read(self._root, model, version)
            self._known[key] = (named.item_ids, named.item_vectors, named.item_counts)
        return self._known[key]


class Pace(Protocol):
    """How fast simulated time may run. Either method raises where the run must end."""

    async def pause(self) -> None:
        """Wait a moment for something that is under way."""

    async def catch_up(self) -> None:
        """Wait until no stage is too far behind."""


def send_catalogue(settings: KafkaSettings, catalogue: Catalogue, time_ms: int) -> None:
    """Publish every item of the catalogue."""
    producer = bus.producer(settings)
    try:
        for item_id, categories, duration_ms in zip(
            catalogue.item_ids.tolist(), catalogue.categories, catalogue.durations_ms.tolist(), strict=True
        ):
            item = Item(
                schema_version=SCHEMA_VERSION, item_id=item_id, category_ids=categories, duration_ms=duration_ms
            )
            producer.send(
                settings.topic(bus.ITEMS),
                key=bus.key_of(item_id),
                value=item.SerializeToString(),
                timestamp_ms=time_ms,
            )
        producer.flush()
    finally:
        producer.close()


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
        tally: Tally,
    ) -> None:
        self.tally = tally
        self._settings = settings
        self._world = world
        self._producer = producer
        self._admin = admin
        self._replicas = replicas
        self._clock = clock
        self._pace = pace
        self._sent: Counter[TopicPartition] = Counter()
        self._pending: list[tuple[int, int, bytes]] = []  # feedback by the time at which it happens
        self._check = VersionCheck(settings.snapshots)

    async def warm_up(self) -> None:
        """Replay the log as it happened."""
        self.tally.phase = "warm-up"
        for batch in _batched(self._world.warmup(), PAGES_PER_BATCH):
            for page in batch:
                for topic, value, received_ms in page_records(page, simulated=self._world.simulated_log):
                    self._send(topic, page.user_id or 0, value, received_ms)
            self.tally.simulated_ms = batch[-1].time_ms
            await self._settle()

    async def experiment(self) -> None:
        """Let users come, ask and respond, wave after wave."""
        self.tally.phase = "experiment"
        async with _Channels(self._replicas) as stubs:
            for wave in waves(self._world.visits(), WAVE_SPAN_MS):
                self._release(wave[-1].time_ms)
                await self._settle()
                replies = await self._ask(stubs, wave)
                answered = [(visit, reply) for visit, reply in zip(wave, replies, strict=True) if reply]
                shown = [np.array([i.item_id for i in reply.items], np.int64) for _, reply in answered]
                responses = self._world.respond([visit for visit, _ in answered], shown)
                for (visit, reply), response in zip(answered, responses, strict=True):
                    for start_ms, value in response_records(visit, reply, response):
                        heapq.heappush(self._pending, (start_ms, visit.user_id, value))
                self.tally.simulated_ms = wave[-1].time_ms
            self._release(None)
            await self._settle()

    async def stored(self) -> None:
        """Wait until the stream worker has stored everything that was sent."""
        await self._consumed("stream")

    async def collected(self) -> None:
        """Wait until the experiment's collector has seen everything that was sent."""
        await self._consumed("abtest")

    async def _consumed(self, group: str) -> None:
        name = self._settings.kafka.topic_prefix + group
        while True:
            committed = await asyncio.to_thread(self._committed, name)
            if all(committed.get(partition, 0) >= count for partition, count in self._sent.items()):
                return
            await self._pace.pause()

    def _release(self, until_ms: int | None) -> None:
        """Send the feedback that happens up to `until_ms`, in order; all of it where that is None."""
        while self._pending and (until_ms is None or self._pending[0][0] <= until_ms):
            start_ms, user_id, value = heapq.heappop(self._pending)
            self._send(bus.FEEDBACK, user_id, value, start_ms)

    async def _settle(self) -> None:
        await asyncio.to_thread(self._producer.flush)
        await self.stored()
        await self._pace.catch_up()

    async def _ask(self, stubs: Sequence[RecallServiceStub], wave: Sequence[Visit]) -> list[RecallReply | None]:
        gate = asyncio.Semaphore(IN_FLIGHT)
        turns = itertools.cycle(stubs)

        async def one(visit: Visit, stub: RecallServiceStub) -> RecallReply | None:
            async with gate:
                return await self._recall(stub, visit)

        return list(await asyncio.gather(*(one(visit, next(turns)) for visit in wave)))

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
        tally.versions.setdefault(reply.model, {}).setdefault(reply.snapshot_version, visit.time_ms)
        tally.mixed_version_replies += self._check.mixed(reply)
        if reply.fallback:
            tally.fallbacks[reply.fallback] += 1
        # The replica sends the exposure; it is counted here so that the next wave waits for it.
        self._count(bus.EXPOSURES, visit.user_id)
        return reply

    def _send(self, topic: str, user_id: int, value: bytes, received_ms: int) -> None:
        kafka = self._settings.kafka
        self._count(topic, user_id)
        self._producer.send(
            kafka.topic(topic),
            key=bus.key_of(user_id),
            value=value,
            partition=bus.partition_of(user_id, kafka.partitions),
            timestamp_ms=received_ms,
            headers=[(bus.SENT_AT, str(self._clock.now_ms()).encode())],
        )

    def _count(self, topic: str, user_id: int) -> None:
        kafka = self._settings.kafka
        self._sent[TopicPartition(kafka.topic(topic), bus.partition_of(user_id, kafka.partitions))] += 1

    def _committed(self, group: str) -> dict[TopicPartition, int]:
        offsets = self._admin.list_group_offsets([group])[group]
        return {partition: known.offset for partition, known in offsets.items()}


class _Channels:
    """One channel to each replica, closed on the way out."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._channels = [grpc.aio.insecure_channel(address) for address in addresses]

    async def __aenter__(self) -> list[RecallServiceStub]:
        return [RecallServiceStub(channel) for channel in self._channels]

    async def __aexit__(self, *error: object) -> None:
        for channel in self._channels:
            await channel.close()


def page_records(page: LogPage, *, simulated: bool) -> Iterator[tuple[str, bytes, int]]:
    """A logged page as (topic, value, time of receipt): one exposure, and one feedback event a row.

    What the log lacks stays unset and what is wrong stays wrong: judging events is the stream worker's business.
    An exact duplicate of a row has the same event id. A row is received when it happened; one that claims to be later
    than a visit can last is received when the row before it was.
    """
    exposure = Exposure(
        schema_version=SCHEMA_VERSION,
        event_id=page.request_id,
        request_id=page.request_id,
        user_id=page.user_id or 0,
        time_ms=page.time_ms,
        items=[ExposedItem(item_id=row.item_id, source="log") for row in page.rows if row.item_id],
        simulated=simulated,
    )
    yield bus.EXPOSURES, exposure.SerializeToString(), page.time_ms
    received_ms = page.time_ms
    for row in page.rows:
        if row.time_ms is not None and row.time_ms - received_ms <= VISIT_GAP_MS:
            received_ms = max(received_ms, row.time_ms)
        feedback = Feedback(
            schema_version=SCHEMA_VERSION,
            event_id=f"{page.request_id}/{row.item_id}/{row.time_ms}",
            request_id=page.request_id,
            user_id=page.user_id,
            item_id=row.item_id,
            time_ms=row.time_ms,
            play_time_ms=row.play_time_ms,
            effective_view=row.effective_view,
            follow=row.follow,
            simulated=simulated,
        )
        yield bus.FEEDBACK, feedback.SerializeToString(), received_ms


def response_records(visit: Visit, reply: RecallReply, response: Response) -> Iterator[tuple[int, bytes]]:
    """A simulated response as (time, value) of one feedback event an item."""
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
        yield start_ms, feedback.SerializeToString()


def _batched(pages: Iterable[LogPage], size: int) -> Iterator[list[LogPage]]:
    iterator = iter(pages)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
