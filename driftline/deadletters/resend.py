"""Sending the originals of dead letters again, to where they came from, and noting it: `driftline deadletters replay`.
What lay in a wrong partition, or under a wrong key, goes to the right one.

Order, so that what was noted was also sent: (1) send a batch; (2) wait until the broker has it; (3) send a note for
each record it took; (4) wait. A replay that is killed before (4) sends that batch once more when it is run again.
"""

import contextlib
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError

from abtest.format import counted
from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from contracts.messages.events import SCHEMA_VERSION, Reason, fill_numbers
from contracts.runtime.clock import Clock
from contracts.wire.events_pb2 import DeadLetter, Exposure, Feedback, Item
from driftline.deadletters.letters import KINDS, REPLAYED, Letter, Origin, decoded, short_name
from driftline.errors import RunError, UsageError

REPLAYED_FROM = "replayed-from"  # record header: the id of the letter whose original this is
BATCH_RECORDS = 500  # sent between two waits for the broker: what an interrupted replay may send once more
BATCH_BYTES = 16 * 1024 * 1024
ANY_SIZE = 2**30  # what is too large for a topic is the broker's to say: it counts compressed bytes


@dataclass
class Outcome:
    """What a replay came to."""

    sent: list[Letter] = field(default_factory=list)
    failed: list[tuple[Letter, str]] = field(default_factory=list)  # with a sentence that says why


class Original(NamedTuple):
    """The record that a letter is about. `value` is None where it is gone."""

    letter: Letter
    key: bytes | None
    value: bytes | None


def places(settings: KafkaSettings) -> set[tuple[str, int]]:
    """The topics and partitions on the broker that can be replayed into.

    Raises:
        SettingsError: the broker does not answer.
        UsageError: there is no dead-letter topic. (Reading it anyway would make the broker create one.)

    """
    client = bus.admin(settings)
    try:
        existing = set(client.list_topics())
        if settings.topic(bus.DEAD_LETTERS) not in existing:
            raise UsageError(
                f"{settings.bootstrap_servers} has no topic {settings.topic(bus.DEAD_LETTERS)};"
                " `driftline init` creates it."
            )
        targets = sorted({settings.topic(name) for name in KINDS} & existing)
        return {
            (topic["name"], partition["partition_index"])
            for topic in (client.describe_topics(targets) if targets else ())
            for partition in topic["partitions"]
        }
    finally:
        client.close()


def original(settings: KafkaSettings, letter: Letter, replayable: Container[tuple[str, int]]) -> Original:
    """The original of a letter: from the letter, or else from where it came if that place is `replayable`."""
    return next(originals(settings, [letter], replayable), Original(letter, None, None))


def originals(
    settings: KafkaSettings, letters: Sequence[Letter], replayable: Container[tuple[str, int]]
) -> Iterator[Original]:
    """The originals of these letters (oldest first); letters that the topic has dropped by now are left out."""
    if not letters:
        return
    wanted = {letter.id: letter for letter in letters}
    with _until_found(settings, bus.DEAD_LETTERS, 0, letters[0].id) as records:
        for record in records:
            letter = wanted.pop(record.offset, None)
            if letter is not None and letter.size is not None:
                # The record's key is the original's; the letter's cannot tell an empty key from none.
                yield Original(letter, record.key, DeadLetter.FromString(record.value).value)
            elif letter is not None:
                yield Original(letter, record.key, _left_out(settings, letter.origin, record.key, replayable))
            if not wanted:
                return


def replay(
    settings: KafkaSettings, letters: Sequence[Letter], replayable: Container[tuple[str, int]], clock: Clock
) -> Outcome:
    """Send the originals of these letters (oldest first) again and note each that the broker has acknowledged.

    Raises:
        RunError: originals were sent, but that could not be noted.

    """
    # One request at a time: a batch that has to be sent twice does not land behind the next one.
    producer = bus.producer(settings, max_request_size=ANY_SIZE, max_in_flight_requests_per_connection=1)
    outcome = Outcome()
    try:
        for batch in _batches(originals(settings, letters, replayable)):
            if not _send(settings, producer, batch, clock.now_ms(), outcome):
                break
    finally:
        producer.close()
    handled = {letter.id for letter in outcome.sent} | {letter.id for letter, _ in outcome.failed}
    outcome.failed += [(letter, "it was not tried") for letter in letters if letter.id not in handled]
    return outcome


@contextlib.contextmanager
def _until_found(settings: KafkaSettings, topic: str, partition: int, offset: int) -> Iterator[Iterator[Any]]:
    """`consumers.read_to_end` for those who may stop before the end: its consumer is closed all the same."""
    records: Any = consumers.read_to_end(settings, topic, partition, offset)
    with contextlib.closing(records):
        yield records


def _left_out(
    settings: KafkaSettings, origin: Origin, key: bytes | None, replayable: Container[tuple[str, int]]
) -> bytes | None:
    """The value of the record at `origin`, if it is still there."""
    name = short_name(settings, origin.topic)
    if name is None or (origin.topic, origin.partition) not in replayable:
        return None
    with _until_found(settings, name, origin.partition, origin.offset) as records:
        record = next(records, None)
    if record is None or (record.offset, record.timestamp, record.key) != (origin.offset, origin.timestamp_ms, key):
        return None
    value: bytes | None = record.value
    return value


def _batches(entries: Iterable[Original]) -> Iterator[list[Original]]:
    batch: list[Original] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += len(entry.value or b"")
        if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _send(
    settings: KafkaSettings, producer: KafkaProducer, batch: list[Original], now_ms: int, outcome: Outcome
) -> bool:
    """Send a batch, wait, note what was acknowledged, wait; False where there is no use in sending another."""
    reachable = True
    sending: list[tuple[Original, Any]] = []
    for entry in batch:
        origin = entry.letter.origin
        if entry.value is None:
            outcome.failed.append((entry.letter, f"offset {origin.offset} is gone from {origin.topic}"))
            continue
        key, partition = _destination(settings, entry, entry.value)
        headers = [(bus.SENT_AT, str(now_ms).encode()), (REPLAYED_FROM, str(entry.letter.id).encode())]
        try:
            future = producer.send(
                origin.topic,
                key=key,
                value=entry.value,
                partition=partition,
                timestamp_ms=origin.timestamp_ms,
                headers=headers,
            )
        except (KafkaError, ValueError) as error:
            outcome.failed.append((entry.letter, f"the client refused it: {error}"))
        else:
            sending.append((entry, future))
    notes: list[Any] = []
    for entry, future in sending:
        try:
            offset = future.get().offset
        except KafkaError as error:
            outcome.failed.append((entry.letter, f"the broker did not take it: {error}"))
            reachable &= not error.retriable  # it was retried for two minutes
        else:
            outcome.sent.append(entry.letter)
            notes.append(_note(settings, producer, entry, offset, now_ms))
    try:
        for noted in notes:
            noted.get()
    except KafkaError as error:
        sent = counted(len(outcome.sent), "record was", "records were")
        raise RunError(
            f"{sent} sent again, but for the last {len(notes)} of them that could not be noted, so another replay sends"
            f" those once more: {error}."
        ) from error
    return reachable


def _destination(settings: KafkaSettings, entry: Original, value: bytes) -> tuple[bytes | None, int]:
    """Key and partition of a record that is sent again: its own, or the right ones where those were what was wrong."""
    origin = entry.letter.origin
    if entry.letter.reason in (Reason.WRONG_PARTITION, Reason.WRONG_KEY):
        message = decoded(short_name(settings, origin.topic), value)
        if isinstance(message, Exposure | Feedback | Item):  # it was sound but for its place
            fill_numbers(message)
        if isinstance(message, Exposure | Feedback):
            return bus.key_of(message.user_id), bus.partition_of(message.user_id, settings.partitions)
        if isinstance(message, Item):
            return bus.key_of(message.item_id), origin.partition
    return entry.key, origin.partition


def _note(settings: KafkaSettings, producer: KafkaProducer, entry: Original, offset: int, now_ms: int) -> Any:
    """Send the note that an original was sent again and now lies at `offset`, too."""
    origin = entry.letter.origin
    note = DeadLetter(
        schema_version=SCHEMA_VERSION,
        reason=REPLAYED,
        detail=f"dead letter {entry.letter.id} was sent again, as offset {offset}",
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        key=entry.key or b"",
        timestamp_ms=origin.timestamp_ms,
    )
    return producer.send(
        settings.topic(bus.DEAD_LETTERS), key=entry.key, value=note.SerializeToString(), timestamp_ms=now_ms
    )
