"""Consumers, made one way for all rooms, and what the brokers do differently about a log's end and its gaps.

The embedded broker answers a fetch past a log's end as if nothing were wrong, and its own answer to `end_offsets` is
wrong; Apache Kafka sends a client that asks past the end back to where its settings say. What a fetch tells of the
log's end is right on both, so `LogEnd.end` is that.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.range import RangePartitionAssignor

from contracts.config.settings import KafkaSettings
from contracts.kafka import batches, bus
from contracts.kafka.batches import ReadCounts
from contracts.messages.events import UnreadableBatch

log = structlog.get_logger()

MAX_POLL_INTERVAL_MS = 10 * 60 * 1000  # a member whose sink hangs for longer gives its partitions up
GAP_ATTEMPTS = 100  # fetches that a missing offset is asked for again before it counts as never written


class Placed(Protocol):
    """A record, as far as its place in the log goes."""

    @property
    def offset(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...


R = TypeVar("R", bound=Placed)


def before_gap(records: Sequence[R], expected: int) -> list[R]:
    """The records up to the first offset that is not the next one.

    >>> from types import SimpleNamespace as Record
    >>> def offsets(*records):
    ...     return [record.offset for record in before_gap(records, 5)]
    >>> five, six, nine = (Record(offset=offset, value=b"") for offset in (5, 6, 9))
    >>> offsets(five, six, nine)
    [5, 6]
    >>> batch = Record(offset=8, value=UnreadableBatch(b"", first_offset=7))
    >>> offsets(five, six, batch, nine)
    [5, 6, 8, 9]
    """
    gapless: list[R] = []
    for record in records:
        value = record.value
        first = value.first_offset if isinstance(value, UnreadableBatch) else record.offset
        if first != expected:
            break
        gapless.append(record)
        expected = record.offset + 1
    return gapless


def missing_of(connected: bool, ends: Mapping[TopicPartition, int | None]) -> list[str]:
    """What a consumer lacks that its process's work needs.

    >>> first, second = TopicPartition("feedback", 0), TopicPartition("feedback", 1)
    >>> missing_of(True, {first: 7, second: None})
    ['1 of 2 partitions has not been read from yet: feedback:1']
    >>> missing_of(False, {}), missing_of(True, {first: 0})
    (['no broker is connected', 'no partition is assigned'], [])

    Args:
        connected: to any broker.
        ends: of each assigned partition, where its log ended when it was last fetched; None before that.

    """
    missing = [] if connected else ["no broker is connected"]
    if not ends:
        return [*missing, "no partition is assigned"]
    unread = sorted(where for where, end in ends.items() if end is None)
    if unread:
        have = "has" if len(unread) == 1 else "have"
        named = f"{unread[0].topic}:{unread[0].partition}"
        missing.append(f"{len(unread)} of {len(ends)} partitions {have} not been read from yet: {named}")
    return missing


class LogEnd(Protocol):
    """Where a log ends, and what follows from that."""

    def position(self, partition: TopicPartition) -> int:
        """The next offset."""

    def end(self, partition: TopicPartition) -> int | None:
        """Where the log ended when it was last fetched; None before that."""

    def at_end(self, partition: TopicPartition, fetched: int = 0) -> bool:
        """Whether the broker had no more when it was last asked. `fetched`: the offset up to which the caller has it.

        A log may end in offsets without records, which only the position tells.
        """
        end = self.end(partition)
        return end is not None and (fetched >= end or self.position(partition) >= end)

    def lag(self, partition: TopicPartition, offset: int) -> int:
        """How many offsets there are from `offset` on, as far as the last fetch told."""
        return max((self.end(partition) or 0) - offset, 0)

    def is_another_log(self, partition: TopicPartition, offset: int, polled: Sequence[Any] | None = None) -> bool:
        """Whether this cannot be the log that was read up to `offset`: it ends before, or was last read from before.

        `polled`: what the last poll gave of this partition.
        """
        end = self.end(partition)
        return (end is not None and end < offset) or bool(polled and polled[0].offset < offset)


class LogReader(LogEnd, Protocol):
    """What the trainer uses of a consumer, which others than a broker's can offer."""

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        """Records by partition."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on from an offset."""

    def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offsets that can be read."""

    def pause(self, *partitions: TopicPartition) -> None:
        """Hand out nothing of these."""

    def resume(self, *partitions: TopicPartition) -> None:
        """Hand out these again."""

    def paused(self) -> set[TopicPartition]:
        """What is paused."""

    def commit(self, offsets: dict[TopicPartition, Any], timeout_ms: int) -> None:
        """Show those who watch the group how far it is."""


class Consumer(KafkaConsumer, LogEnd):  # type: ignore[misc]  # kafka-python has no types
    """kafka-python's consumer; it never forgets a partition that was paused, reads past what cannot be decoded, and
    tells where a log ends.
    """

    def __init__(self, *topics: str, reads: ReadCounts, **options: Any) -> None:
        """`reads`: where what cannot be read is counted."""
        super().__init__(*topics, **options)
        self.reads = reads
        batches.read_past(self, reads)

    def end(self, partition: TopicPartition) -> int | None:
        """Where the log ended when it was last fetched; None before that."""
        end: int | None = self.highwater(partition)
        return end

    def position(self, partition: TopicPartition, timeout_ms: float | None = None) -> int:
        """The next offset.

        kafka-python 3.0.12 validates it with the broker at each call, and raises while that is away; `poll` does so
        anyway, and what it has read up to does not change by it.
        """
        held = self._subscription.assignment.get(partition)
        if held is not None and held.position is not None:
            return int(held.position.offset)
        return int(KafkaConsumer.position(self, partition, timeout_ms))

    @property
    def connected(self) -> bool:
        """Whether there is a connection to any broker now."""
        return any(each.connected for each in [*self._manager._conns.values()])  # noqa: SLF001

    def missing(self) -> list[str]:
        """What lacks for reading what is assigned to it (`missing_of`)."""
        return missing_of(self.connected, {where: self.end(where) for where in self.assignment()})

    def poll(self, *arguments: Any, **options: Any) -> dict[TopicPartition, list[Any]]:
        """Records by partition.

        kafka-python 3.0.12 parks what it has fetched of a paused partition. After `resume` it takes that up again only
        while no records are in line, which it tells by None; but records that have been used up stay in line, so the
        partition would never be read again.
        """
        if not self._fetcher._next_partition_records:  # noqa: SLF001
            self._fetcher._next_partition_records = None  # noqa: SLF001
        polled: dict[TopicPartition, list[Any]] = super().poll(*arguments, **options)
        return polled


class GaplessConsumer(Consumer):
    """Asks again for offsets that a fetch skipped.

    The embedded broker can show a batch before an earlier one that another producer is still writing. A consumer that
    goes on past the gap has lost the earlier batch for good.
    """

    def __init__(self, *topics: str, reads: ReadCounts, **options: Any) -> None:
        super().__init__(*topics, reads=reads, **options)
        self._expected: dict[TopicPartition, int] = {}
        self._attempts: Counter[TopicPartition] = Counter()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go to an offset, and expect it next."""
        super().seek(partition, offset)
        self._expected[partition] = offset

    def poll(self, *arguments: Any, **options: Any) -> dict[TopicPartition, list[Any]]:
        """Records without gaps, by partition."""
        polled = super().poll(*arguments, **options)
        return {tp: gapless for tp, records in polled.items() if (gapless := self._gapless(tp, records))}

    def _gapless(self, partition: TopicPartition, records: list[Any]) -> list[Any]:
        expected = self._expected.get(partition, 0)
        gapless = before_gap(records, expected)
        if len(gapless) < len(records):
            found = records[len(gapless)].offset
            if gapless:
                expected = gapless[-1].offset + 1
            self._attempts[partition] += 1
            log.warning(
                "a fetch skipped offsets",
                topic=partition.topic,
                partition=partition.partition,
                expected=expected,
                found=found,
                attempt=self._attempts[partition],
            )
            if self._attempts[partition] <= GAP_ATTEMPTS:
                self.seek(partition, expected)
                return gapless
            gapless = records
        self._attempts[partition] = 0
        self._expected[partition] = gapless[-1].offset + 1
        return gapless


def isolation(settings: KafkaSettings) -> str:
    """Which records are read: those of transactions that were committed, as a stream on Flink writes.

    The embedded broker has no transactions that could be relied on; nobody writes in any there.
    """
    return "read_uncommitted" if settings.gapless else "read_committed"


def consumer(
    settings: KafkaSettings,
    topics: Sequence[str],
    group: str | None,
    *,
    wait_ms: int = 200,
    reads: ReadCounts | None = None,
    **options: Any,
) -> Consumer:
    """A consumer assigned to every partition of `topics`, from the first record on.

    Offsets are never committed automatically: a room commits after the effects of what it consumed are stored,
    so that the committed offset is also its progress as lag monitors see it.

    `wait_ms`: how long the broker may keep a fetch that finds nothing. The embedded broker looks again only every half
    of it, so whoever must be fast asks for little; each fetch costs the broker time, so others do not. `reads`: where
    what cannot be read is counted; None: with the consumer itself.
    """
    client = bus.connected(
        GaplessConsumer if settings.gapless else Consumer,
        settings,
        reads=reads or ReadCounts(),
        group_id=group,
        isolation_level=isolation(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=wait_ms,
        **options,
    )
    if topics:
        client.assign(bus.partitions_of(settings, topics))
        client.seek_to_beginning()
    return client


def member(
    settings: KafkaSettings,
    topics: Sequence[str],
    group: str,
    listener: ConsumerRebalanceListener,
    *,
    instance: str | None,
    wait_ms: int,
    reads: ReadCounts,
) -> Consumer:
    """A consumer that shares the partitions of `topics` with the other members of its group.

    A member gets the same partition numbers of every topic, so what is joined meets in one place. Where to read from
    is for the listener to say: an offset that the broker does not have raises OffsetOutOfRangeError from `poll`.

    `instance`: a name that stays the same over restarts; a member that comes back within the session timeout keeps its
    partitions, and the others do not notice.
    """
    client = bus.connected(
        GaplessConsumer if settings.gapless else Consumer,
        settings,
        reads=reads,
        group_id=group,
        group_instance_id=instance,
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 3,
        max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
        isolation_level=isolation(settings),
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=wait_ms,
    )
    client.subscribe([settings.topic(name) for name in topics], listener=listener)
    return client


def read_to_end(
    settings: KafkaSettings, topic: str, partition: int, offset: int, reads: ReadCounts | None = None
) -> Iterator[Any]:
    """The records of one partition from `offset` to what is its end when they have been read.

    `topic` is a short name. Nothing is committed. Records that the broker no longer has are left out.
    """
    client = consumer(settings, [], None, wait_ms=20, reads=reads)
    where = TopicPartition(settings.topic(topic), partition)
    try:
        client.assign([where])
        client.seek(where, offset)
        while not client.at_end(where):
            yield from client.poll(100).get(where, ())
    finally:
        client.close()
