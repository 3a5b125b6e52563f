"""Kafka clients, made one way for all rooms. What is sent and when offsets are committed is the rooms' business."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, takewhile
from typing import Any, Protocol, TypeVar

import structlog
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError, TopicAlreadyExistsError

from contracts.config.settings import KafkaSettings, SettingsError
from contracts.kafka.security import check, refusal
from contracts.messages.events import BadEvent, Received, dead_letter

log = structlog.get_logger()

ITEMS = "items"
EXPOSURES = "exposures"
FEEDBACK = "feedback"
EXAMPLES = "examples"
DEAD_LETTERS = "deadletters"
TOPICS = (ITEMS, EXPOSURES, FEEDBACK, EXAMPLES, DEAD_LETTERS)
OWN_CONFIG = {
    ITEMS: {"cleanup.policy": "compact"},
    DEAD_LETTERS: {"max.message.bytes": str(32 * 1024 * 1024)},  # they hold whole records, and the reason
}

RECORD_OVERHEAD_BYTES = 2048
LARGEST_LETTER_BYTES = 32 * 1024 * 1024 - RECORD_OVERHEAD_BYTES
BOOTSTRAP_TIMEOUT_MS = 10_000
RECONNECT_BACKOFF_MAX_MS = 2_000  # how long a broker that is back may go unnoticed; the client's own limit is 30 s
MAX_POLL_INTERVAL_MS = 10 * 60 * 1000  # a member whose sink hangs for longer gives its partitions up
GAP_ATTEMPTS = 100  # fetches that a missing offset is asked for again before it counts as never written

SENT_AT = "sent-at-ms"  # record header: wall time of sending; differs from the record's timestamp in a replay


class Offset(Protocol):
    """A record, as far as its place in the log goes."""

    @property
    def offset(self) -> int: ...


R = TypeVar("R", bound=Offset)
C = TypeVar("C")


def before_gap(records: Sequence[R], expected: int) -> list[R]:
    """The records up to the first offset that is not the next one.

    >>> from types import SimpleNamespace as Record
    >>> [r.offset for r in before_gap([Record(offset=5), Record(offset=6), Record(offset=9)], 5)]
    [5, 6]
    """
    return [record for record, _ in takewhile(lambda pair: pair[0].offset == pair[1], zip(records, count(expected)))]


class Consumer(KafkaConsumer):  # type: ignore[misc]  # kafka-python has no types
    """kafka-python's consumer, and it never forgets a partition that was paused."""

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

    def __init__(self, *topics: str, **options: Any) -> None:
        super().__init__(*topics, **options)
        self._expected: dict[TopicPartition, int] = {}
        self._attempts: Counter[TopicPartition] = Counter()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go to an offset, and expect it next."""
        super().seek(partition, offset)
        self._expected[partition] = offset

    def poll(self, *arguments: Any, **options: Any) -> dict[TopicPartition, list[Any]]:
        """Records without gaps, by partition."""
        polled = super().poll(*arguments, **options)
        return {tp: kept for tp, records in polled.items() if (kept := self._gapless(tp, records))}

    def _gapless(self, partition: TopicPartition, records: list[Any]) -> list[Any]:
        expected = self._expected.get(partition, 0)
        kept = before_gap(records, expected)
        if len(kept) < len(records):
            self._attempts[partition] += 1
            log.warning(
                "a fetch skipped offsets",
                topic=partition.topic,
                partition=partition.partition,
                expected=expected + len(kept),
                found=records[len(kept)].offset,
                attempt=self._attempts[partition],
            )
            if self._attempts[partition] <= GAP_ATTEMPTS:
                self.seek(partition, expected + len(kept))
                return kept
            kept = records
        self._attempts[partition] = 0
        self._expected[partition] = kept[-1].offset + 1
        return kept


def partition_of(user_id: int, partitions: int) -> int:
    """The partition of a user's events: the same in `exposures`, `feedback` and `examples`, so they can be joined.

    >>> [partition_of(user, 2) for user in (1, 2, 3)]
    [1, 0, 1]
    """
    return user_id % partitions


def key_of(entity_id: int) -> bytes:
    """The record key of a user or an item."""
    return str(entity_id).encode()


def admin(settings: KafkaSettings) -> KafkaAdminClient:
    """An administration client; the caller closes it.

    Raises:
        SettingsError: no broker answers at the address that the settings name; so do `producer` and `consumer`.

    """
    return _connected(KafkaAdminClient, settings)


def ensure_topics(settings: KafkaSettings, client: KafkaAdminClient) -> None:
    """Create what is not there yet.

    `items` and `deadletters` have one partition, the others the configured number. `items` is a table, so it is
    compacted: the newest record of every item stays. `deadletters` takes larger records than the others.
    """
    existing = set(client.list_topics())
    for name in TOPICS:
        topic = settings.topic(name)
        if topic not in existing:
            config = settings.topic_config | OWN_CONFIG.get(name, {})
            new = NewTopic(
                topic,
                1 if name in (ITEMS, DEAD_LETTERS) else settings.partitions,
                settings.replication_factor,
                topic_configs=config,
            )
            with contextlib.suppress(TopicAlreadyExistsError):
                client.create_topics([new])


def check_topics(settings: KafkaSettings) -> None:
    """Make sure that the topics are there, with as many partitions as the settings say.

    Raises:
        SettingsError: they are not, or no broker answers.

    """
    client = admin(settings)
    try:
        existing = {topic["name"]: len(topic["partitions"]) for topic in client.describe_topics()}
    finally:
        client.close()
    for name in TOPICS:
        topic, wanted = settings.topic(name), len(partitions_of(settings, [name]))
        if topic not in existing:
            raise SettingsError(f"{settings.bootstrap_servers} has no topic {topic}; `driftline init` creates it.")
        if existing[topic] != wanted:
            raise SettingsError(
                f"Topic {topic} has {existing[topic]} partitions, and the settings say {wanted} (kafka.partitions)."
            )


def producer(settings: KafkaSettings, **options: Any) -> KafkaProducer:
    """A producer that waits for all in-sync replicas; the caller flushes and closes it."""
    return _connected(
        KafkaProducer,
        settings,
        acks="all",
        enable_idempotence=settings.idempotence,
        linger_ms=20,  # fewer, larger batches: the embedded broker's latency grows with their number
        compression_type="lz4",
        **options,
    )


def consumer(
    settings: KafkaSettings, topics: Sequence[str], group: str | None, *, wait_ms: int = 200, **options: Any
) -> KafkaConsumer:
    """A consumer assigned to every partition of `topics`, from the first record on.

    Offsets are never committed automatically: a room commits after the effects of what it consumed are stored,
    so that the committed offset is also its progress as lag monitors see it.

    `wait_ms`: how long the broker may keep a fetch that finds nothing. The embedded broker looks again only every half
    of it, so whoever must be fast asks for little; each fetch costs the broker time, so others do not.
    """
    client = _connected(
        GaplessConsumer if settings.gapless else Consumer,
        settings,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=wait_ms,
        **options,
    )
    if topics:
        client.assign(partitions_of(settings, topics))
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
) -> KafkaConsumer:
    """A consumer that shares the partitions of `topics` with the other members of its group.

    A member gets the same partition numbers of every topic, so what is joined meets in one place. Where to read from
    is for the listener to say: an offset that the broker does not have raises OffsetOutOfRangeError from `poll`.

    `instance`: a name that stays the same over restarts; a member that comes back within the session timeout keeps its
    partitions, and the others do not notice.
    """
    client = _connected(
        GaplessConsumer if settings.gapless else Consumer,
        settings,
        group_id=group,
        group_instance_id=instance,
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 3,
        max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=wait_ms,
    )
    client.subscribe([settings.topic(name) for name in topics], listener=listener)
    return client


def partitions_of(settings: KafkaSettings, topics: Iterable[str]) -> list[TopicPartition]:
    """Every partition of `topics` (short names)."""
    return [
        TopicPartition(settings.topic(name), partition)
        for name in topics
        for partition in range(1 if name in (ITEMS, DEAD_LETTERS) else settings.partitions)
    ]


def read_to_end(settings: KafkaSettings, topic: str, partition: int, offset: int) -> Iterator[Any]:
    """The records of one partition from `offset` to what is its end when they have been read.

    `topic` is a short name. Nothing is committed. Records that the broker no longer has are left out.
    """
    client = consumer(settings, [], None, wait_ms=20)
    where = TopicPartition(settings.topic(topic), partition)
    try:
        client.assign([where])
        # The embedded broker's own answer about a log's end is wrong; what a fetch says is right.
        client.seek(where, offset)
        end = None
        while end is None or client.position(where) < end:
            yield from client.poll(100).get(where, ())
            end = client.highwater(where)
    finally:
        client.close()


def largest_letter_bytes(settings: KafkaSettings) -> int:
    """How large a dead letter may be: what its topic takes, less the room for what Kafka adds to a record."""
    topic = settings.topic(DEAD_LETTERS)
    client = admin(settings)
    try:
        described = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    finally:
        client.close()
    known = described.get("topic", {}).get(topic, {}).get("max.message.bytes", {}).get("value")
    return int(known) - RECORD_OVERHEAD_BYTES if known else LARGEST_LETTER_BYTES


def send_dead_letter(producer: KafkaProducer, settings: KafkaSettings, error: BadEvent, record: Received) -> Any:
    """Send a record that cannot be used, whole and with the reason, to the dead-letter topic; the send's future."""
    return producer.send(
        settings.topic(DEAD_LETTERS),
        key=record.key,
        value=dead_letter(error, record).SerializeToString(),
        timestamp_ms=record.timestamp,
    )


def sent_at_ms(headers: Sequence[tuple[str, bytes]], timestamp_ms: int) -> int:
    """Wall time at which a record was sent: its header, or its timestamp where it has none.

    >>> sent_at_ms([("sent-at-ms", b"12")], 5), sent_at_ms([], 5)
    (12, 5)
    """
    for name, value in headers:
        if name == SENT_AT and value.isdigit():
            return int(value)
    return timestamp_ms


def _connected(kind: Callable[..., C], settings: KafkaSettings, **options: Any) -> C:
    check(settings.security)
    try:
        return kind(
            bootstrap_servers=settings.bootstrap_servers,
            bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS,
            reconnect_backoff_max_ms=RECONNECT_BACKOFF_MAX_MS,
            client_id="driftline",
            **settings.security,
            **options,
        )
    except (KafkaError, ValueError) as error:
        raise SettingsError(refusal(settings)) from error
