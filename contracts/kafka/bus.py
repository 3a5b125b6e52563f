"""Topics, connections, producers and dead letters, one way for all rooms; `consumers` is about reading.

What is sent and when offsets are committed is decided in the rooms.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from contracts.config.secret import revealed
from contracts.config.settings import KafkaSettings, SettingsError
from contracts.kafka.security import check, refusal
from contracts.messages.events import BadEvent, Received, fitting_letter
from contracts.messages.placement import key_of, partition_of

__all__ = [
    "DEAD_LETTERS",
    "EXAMPLES",
    "EXPERIMENTS",
    "EXPOSURES",
    "FEEDBACK",
    "ITEMS",
    "LARGEST_LETTER_BYTES",
    "LARGEST_RECORD_BYTES",
    "ROWS",
    "SENT_AT",
    "TOPICS",
    "admin",
    "check_topics",
    "connected",
    "ensure_rows",
    "ensure_topics",
    "keep_for",
    "key_of",
    "largest_letter_bytes",
    "partition_of",
    "partitions_of",
    "producer",
    "send_dead_letter",
    "sent_at_ms",
]

ITEMS = "items"
EXPOSURES = "exposures"
FEEDBACK = "feedback"
EXAMPLES = "examples"
DEAD_LETTERS = "deadletters"
EXPERIMENTS = "experiments"
ROWS = "rows"
TOPICS = (ITEMS, EXPOSURES, FEEDBACK, EXAMPLES, DEAD_LETTERS, EXPERIMENTS)
ONE_PARTITION = (ITEMS, DEAD_LETTERS, EXPERIMENTS)

LARGEST_RECORD_BYTES = 32 * 1024 * 1024  # a dead letter holds a whole record; the client's own limit is 1 MiB
RECORD_OVERHEAD_BYTES = 2048
LARGEST_LETTER_BYTES = LARGEST_RECORD_BYTES - RECORD_OVERHEAD_BYTES
OWN_CONFIG = {
    ITEMS: {"cleanup.policy": "compact"},
    DEAD_LETTERS: {"max.message.bytes": str(LARGEST_RECORD_BYTES)},
    EXPERIMENTS: {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"},  # each record counts
}
# A forgotten user's rows are gone from it a day after the request at the latest.
ROWS_CONFIG = {"cleanup.policy": "compact", "max.compaction.lag.ms": "86400000", "segment.ms": "21600000"}

BOOTSTRAP_TIMEOUT_MS = 10_000
RECONNECT_BACKOFF_MAX_MS = 2_000  # how long a broker that is back may go unnoticed; the client's own limit is 30 s
SENT_AT_DIGITS = 15  # of a time in this era, with two to spare; more are no time, and might be no int64
SENT_AT = "sent-at-ms"  # record header: wall time of sending; differs from the record's timestamp in a replay


C = TypeVar("C")


def admin(settings: KafkaSettings) -> KafkaAdminClient:
    """An administration client; the caller closes it.

    Raises:
        SettingsError: no broker answers at the address that the settings name; so do `producer` and `consumer`.

    """
    return connected(KafkaAdminClient, settings)


def ensure_topics(settings: KafkaSettings, client: KafkaAdminClient) -> None:
    """Create what is not there yet.

    `items`, `deadletters` and `experiments` have one partition, the others the configured number. `items` is a table,
    so it is compacted: the newest record of every item stays. `deadletters` takes larger records than the others, and
    `experiments` keeps all.
    """
    existing = set(client.list_topics())
    for name in TOPICS:
        topic = settings.topic(name)
        if topic not in existing:
            config = settings.topic_config | OWN_CONFIG.get(name, {})
            new = NewTopic(
                topic,
                1 if name in ONE_PARTITION else settings.partitions,
                settings.replication_factor,
                topic_configs=config,
            )
            with contextlib.suppress(TopicAlreadyExistsError):
                client.create_topics([new])


def ensure_rows(settings: KafkaSettings, client: KafkaAdminClient) -> None:
    """Create `rows`, which only a stream on Flink has: users' rows on their way to Feast, the newest of each user."""
    topic = settings.topic(ROWS)
    if topic not in set(client.list_topics()):
        new = NewTopic(topic, settings.partitions, settings.replication_factor, topic_configs=ROWS_CONFIG)
        with contextlib.suppress(TopicAlreadyExistsError):
            client.create_topics([new])


def keep_for(settings: KafkaSettings, ages_ms: Mapping[str, int], client: KafkaAdminClient) -> None:
    """Have topics (short names) keep records for so long; those that are not named are left as they are.

    A log is deleted by whole segments, so a segment is closed after a quarter of that time.
    """
    resources = [
        ConfigResource(
            ConfigResourceType.TOPIC,
            settings.topic(name),
            {"retention.ms": str(age_ms), "segment.ms": str(max(age_ms // 4, 1))},
        )
        for name, age_ms in ages_ms.items()
    ]
    if resources:
        client.alter_configs(resources)


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
    return connected(
        KafkaProducer,
        settings,
        acks="all",
        enable_idempotence=settings.idempotence,
        linger_ms=20,  # fewer, larger batches: the embedded broker's latency grows with their number
        compression_type="lz4",
        **options,
    )


def partitions_of(settings: KafkaSettings, topics: Iterable[str]) -> list[TopicPartition]:
    """Every partition of `topics` (short names)."""
    return [
        TopicPartition(settings.topic(name), partition)
        for name in topics
        for partition in range(1 if name in ONE_PARTITION else settings.partitions)
    ]


def largest_letter_bytes(settings: KafkaSettings) -> int:
    """How large a dead letter may be: what its topic takes, less the room for what Kafka adds to a record."""
    topic = settings.topic(DEAD_LETTERS)
    client = admin(settings)
    try:
        described = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    finally:
        client.close()
    max_message_bytes = described.get("topic", {}).get(topic, {}).get("max.message.bytes", {}).get("value")
    return int(max_message_bytes) - RECORD_OVERHEAD_BYTES if max_message_bytes else LARGEST_LETTER_BYTES


def send_dead_letter(
    producer: KafkaProducer,
    settings: KafkaSettings,
    error: BadEvent,
    record: Received,
    largest_bytes: int = LARGEST_LETTER_BYTES,
) -> Any:
    """Send a record that cannot be used, with the reason, to the dead-letter topic; the send's future.

    It goes there whole, unless it is larger than `largest_bytes`: what that topic takes (`largest_letter_bytes`), or
    what `ensure_topics` lets it take.
    """
    key, letter = fitting_letter(error, record, largest_bytes)
    return producer.send(
        settings.topic(DEAD_LETTERS),
        key=key,
        value=letter.SerializeToString(),
        timestamp_ms=record.timestamp,
    )


def sent_at_ms(headers: Sequence[tuple[str, bytes | None]], timestamp_ms: int) -> int:
    """Wall time at which a record was sent: its header, or its timestamp where it has none that is a time.

    >>> sent_at_ms([("sent-at-ms", b"12")], 5), sent_at_ms([], 5)
    (12, 5)
    >>> [sent_at_ms([("sent-at-ms", value)], 5) for value in (None, b"", b"soon", b"9" * 5000)]
    [5, 5, 5, 5]
    """
    for name, value in headers:
        if name == SENT_AT and value and value.isdigit() and len(value) <= SENT_AT_DIGITS:
            return int(value)
    return timestamp_ms


def connected(kind: Callable[..., C], settings: KafkaSettings, **options: Any) -> C:
    """A client of this kind on the broker that the settings name.

    Raises:
        SettingsError: no broker answers there, or it refuses the client.

    """
    check(settings.security)
    try:
        return kind(
            bootstrap_servers=settings.bootstrap_servers,
            bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS,
            reconnect_backoff_max_ms=RECONNECT_BACKOFF_MAX_MS,
            client_id="driftline",
            **revealed(settings.security),
            **options,
        )
    except (KafkaError, ValueError) as error:
        raise SettingsError(refusal(settings)) from error
