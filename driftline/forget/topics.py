"""What topics hold of a user, until when, and what can be done about it.

Kafka deletes no single record. The three topics of events lose what is older than their retention; `trim` lets go of a
log's beginning up to the user's last record, which is everybody's beginning. Changes of experiments are kept for good,
and what an operator wrote there of a user is told. The dead letters are few and nobody's
state, so those of others are written again behind and all up to there is let go of (`rewrite_letters`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from driftline.forget.records import is_request, is_theirs
from driftline.forget.user import User

EVENTS = (bus.EXPOSURES, bus.FEEDBACK, bus.EXAMPLES)
READERS = {
    bus.EXPOSURES: ("stream", "abtest", "trainer"),
    bus.FEEDBACK: ("stream", "abtest"),
    bus.EXAMPLES: ("trainer", "archive"),
}  # whose progress is committed; one that has committed nothing does not run here
ANY_SIZE = 2**30


class InTopic(NamedTuple):
    """The records of a user in one topic, at least one."""

    topic: str  # short name
    partition: int
    records: int
    last_offset: int
    last_ms: int  # timestamp of the newest
    requests: tuple[int, ...]  # offsets of those that ask to forget the user


class Waiting(NamedTuple):
    """A group that has not come past a request yet."""

    group: str
    topic: str
    partition: int
    offset: int  # that it has come to
    request: int  # offset of the request


def search(kafka: KafkaSettings, users: Sequence[User]) -> dict[User, list[InTopic]]:
    """What the topics hold of users; each partition is read once.

    All partitions: producers may have sent records of a user to another one than the user's own.
    """
    found: dict[User, list[InTopic]] = {user: [] for user in users}
    for name in (*EVENTS, bus.DEAD_LETTERS, bus.EXPERIMENTS):
        for where in bus.partitions_of(kafka, [name]):
            known: dict[User, InTopic] = {}
            for record in consumers.read_to_end(kafka, name, where.partition, 0):
                for user in users:
                    if is_theirs(user, name, record.key, record.value):
                        known[user] = _with(known.get(user), user, name, record)
            for user, in_topic in known.items():
                found[user].append(in_topic)
    return found


def waiting(kafka: KafkaSettings, found: Sequence[InTopic]) -> list[Waiting]:
    """Who has yet to read the newest requests that were found."""
    asked = [each for each in found if each.requests and each.topic in READERS]
    offsets = progress(kafka) if asked else {}
    return [behind for each in asked for behind in _behind(kafka, each, each.requests[-1], offsets)]


def progress(kafka: KafkaSettings) -> dict[tuple[str, TopicPartition], int]:
    """How far each group has come in each partition, as far as it has ever told."""
    groups = sorted({group for readers in READERS.values() for group in readers})
    with admin(kafka) as client:
        told = client.list_group_offsets([kafka.topic_prefix + group for group in groups])
    return {
        (group, where): known.offset
        for group in groups
        for where, known in told.get(kafka.topic_prefix + group, {}).items()
        if known.offset >= 0
    }


def _behind(
    kafka: KafkaSettings, found: InTopic, offset: int, offsets: Mapping[tuple[str, TopicPartition], int]
) -> list[Waiting]:
    """Who reads the partition and has not come past an offset of it."""
    where = TopicPartition(kafka.topic(found.topic), found.partition)
    return [
        Waiting(group, found.topic, found.partition, offsets[group, where], offset)
        for group in READERS[found.topic]
        if offsets.get((group, where), offset + 1) <= offset
    ]


def gone_by_ms(kafka: KafkaSettings, found: InTopic) -> int | None:
    """When the broker has deleted a record at the latest, as its settings are now; None: never, or nobody knows.

    A log is deleted by segments, so what is as old as `retention.ms` may stay until its segment has been closed
    (`segment.ms`) and all in it is as old.
    """
    topic = kafka.topic(found.topic)
    with admin(kafka) as client:
        described = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    config = described.get("topic", {}).get(topic, {})
    if "delete" not in str(config.get("cleanup.policy", {}).get("value", "")):
        return None
    retention_ms, segment_ms = (int(config[name]["value"]) for name in ("retention.ms", "segment.ms"))
    return None if retention_ms < 0 else found.last_ms + retention_ms + segment_ms


def can_delete(kafka: KafkaSettings) -> bool:
    """Whether the broker lets go of a log's beginning. The embedded one keeps all in memory while it runs."""
    return not kafka.gapless


def trim(kafka: KafkaSettings, found: InTopic) -> list[Waiting]:
    """Let go of a partition up to a user's last record, where all who read it have come past; those who have not."""
    behind = _behind(kafka, found, found.last_offset, progress(kafka))
    if not behind:
        with admin(kafka) as client:
            client.delete_records({TopicPartition(kafka.topic(found.topic), found.partition): found.last_offset + 1})
    return behind


def rewrite_letters(kafka: KafkaSettings, users: Sequence[User]) -> int:
    """Take users' letters out of the dead-letter topic; returns how many went.

    Order: (1) send the letters of others again; (2) wait until the broker has them; (3) let go of all that was there
    before. One that is killed between leaves letters twice, of which the next one sends one. Ids, which are offsets,
    are others then. What is written meanwhile stays as it is.
    """

    def theirs(record: Any) -> bool:
        return any(is_theirs(user, bus.DEAD_LETTERS, record.key, record.value) for user in users)

    ends, gone = 0, 0
    for record in consumers.read_to_end(kafka, bus.DEAD_LETTERS, 0, 0):
        ends, gone = record.offset + 1, gone + theirs(record)
    if not gone:
        return 0
    producer = bus.producer(kafka, max_request_size=ANY_SIZE, max_in_flight_requests_per_connection=1)
    try:
        sent: set[tuple[bytes | None, bytes | None]] = set()
        futures = []
        for record in consumers.read_to_end(kafka, bus.DEAD_LETTERS, 0, 0):
            if record.offset < ends and not theirs(record) and (record.key, record.value) not in sent:
                sent.add((record.key, record.value))
                futures.append(_send_again(producer, record))
        producer.flush()
        for future in futures:
            future.get(timeout=0)
    finally:
        producer.close()
    with admin(kafka) as client:
        client.delete_records({TopicPartition(kafka.topic(bus.DEAD_LETTERS), 0): ends})
    return gone


def _send_again(producer: Any, record: Any) -> Any:
    return producer.send(
        record.topic,
        key=record.key,
        value=record.value,
        partition=0,
        timestamp_ms=record.timestamp,
        headers=list(record.headers),
    )


def exposures_end(kafka: KafkaSettings, partitions: Sequence[int]) -> dict[int, int]:
    """Where the logs of exposures end now."""
    wanted = [TopicPartition(kafka.topic(bus.EXPOSURES), partition) for partition in partitions]
    client = consumers.consumer(kafka, [], None, wait_ms=20)
    try:
        client.assign(wanted)
        client.seek_to_beginning()
        while not all(client.end(where) is not None for where in wanted):
            client.poll(100)
        return {where.partition: client.end(where) or 0 for where in wanted}
    finally:
        client.close()


@contextmanager
def admin(kafka: KafkaSettings) -> Iterator[KafkaAdminClient]:
    """An administration client for a while."""
    client = bus.admin(kafka)
    try:
        yield client
    finally:
        client.close()


def _with(known: InTopic | None, user: User, name: str, record: Any) -> InTopic:
    asked = (record.offset,) if is_request(user, name, record.value) else ()
    if known is None:
        return InTopic(name, record.partition, 1, record.offset, record.timestamp, asked)
    newest_ms = max(known.last_ms, record.timestamp)
    return known._replace(
        records=known.records + 1,
        last_offset=record.offset,
        last_ms=newest_ms,
        requests=(*known.requests, *asked),
    )
