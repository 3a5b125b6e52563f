"""Dead letters: what the dead-letter topic holds, and what to do with it. `driftline.deadletters.resend` sends
originals again.

A letter's id is its offset in the topic. That a record was sent again is noted in the same topic, behind its letter, as
a `DeadLetter` with the reason `replayed` that names the record's place. So every machine sees it, it survives what the
topic survives, and a log, which ages from its front, never forgets a replay before its letter. What is noted is the
record, not the letter: a worker that reads its topics again after a restart writes its letters again.
"""

from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError, Message

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from contracts.messages.events import SCHEMA_VERSION, Reason
from contracts.wire.events_pb2 import DeadLetter, Example, Exposure, Feedback, Item
from driftline.errors import UsageError

REPLAYED = "replayed"  # the reason of a note; not one of `contracts.messages.events.Reason`, as nothing was wrong
LEFT_OUT = "too large for the dead-letter topic"  # how the detail of a letter without its original begins
KINDS: dict[str, type[Message]] = {
    bus.ITEMS: Item,
    bus.EXPOSURES: Exposure,
    bus.FEEDBACK: Feedback,
    bus.EXAMPLES: Example,
}


class Origin(NamedTuple):
    """Where a record came from. The time tells it from one of a topic that was deleted and made anew."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Letter:
    """What there is to say about a dead letter without its original. `size` is None where that was left out."""

    id: int
    reason: str
    detail: str
    origin: Origin
    size: int | None


@dataclass(frozen=True, slots=True)
class Replay:
    """That a record was sent again: when, and in words from which letter and where to."""

    at_ms: int
    detail: str


@dataclass
class Log:
    """The dead-letter topic, as far as it has been read; `strangers` counts records that are not dead letters."""

    letters: list[Letter] = field(default_factory=list)
    replays: dict[Origin, list[Replay]] = field(default_factory=dict)
    strangers: int = 0

    def add(self, offset: int, written_ms: int, letter: DeadLetter | None) -> None:
        """Take in the topic's next record; None stands for one that is not a dead letter."""
        if letter is None:
            self.strangers += 1
            return
        origin = Origin(letter.topic, letter.partition, letter.offset, letter.timestamp_ms)
        if letter.reason == REPLAYED:
            self.replays.setdefault(origin, []).append(Replay(written_ms, letter.detail))
            return
        size = None if not letter.value and letter.detail.startswith(LEFT_OUT) else len(letter.value)
        self.letters.append(Letter(offset, letter.reason, letter.detail, origin, size))

    def replayed_ms(self, letter: Letter) -> int | None:
        """When the letter's original was sent again last."""
        return max((replay.at_ms for replay in self.replays.get(letter.origin, ())), default=None)


@dataclass(frozen=True)
class Plan:
    """What a replay sends, and what it leaves out for which reason."""

    send: list[Letter]
    done: list[Letter]  # sent again before
    copies: list[Letter]  # of a letter in `send`: the same record, dead-lettered twice
    refused: list[Letter]  # they are not from a place that is replayed into
    batches: list[Letter]  # whole batches that could not be decoded: they are no records


def parse(value: bytes | None) -> DeadLetter | None:
    """The dead letter that a record of the dead-letter topic holds, if it is one that this build reads.

    >>> parse(b"no such thing"), parse(None), parse(b"")
    (None, None, None)
    """
    try:
        letter = DeadLetter.FromString(value or b"")
    except DecodeError:
        return None
    return letter if letter.schema_version == SCHEMA_VERSION else None


def matching(
    log: Log,
    *,
    reason: str | None = None,
    topics: Container[str] | None = None,
    since_ms: int | None = None,
    pending: bool = False,
) -> list[Letter]:
    """The letters with this reason, from one of these topics, of originals no older, that wait for a replay."""
    return [
        letter
        for letter in log.letters
        if (reason is None or letter.reason == reason)
        and (topics is None or letter.origin.topic in topics)
        and (since_ms is None or letter.origin.timestamp_ms >= since_ms)
        and not (pending and letter.origin in log.replays)
    ]


def with_ids(log: Log, ids: Collection[int]) -> list[Letter]:
    """The letters with these ids, oldest first.

    Raises:
        UsageError: there is none with one of the ids.

    """
    chosen = [letter for letter in log.letters if letter.id in ids]
    if unknown := sorted(set(ids) - {letter.id for letter in chosen}):
        names = ", ".join(str(unknown_id) for unknown_id in unknown)
        raise UsageError(f"There is no dead letter {names}; `driftline deadletters list` shows those there are.")
    return chosen


def plan(log: Log, selected: Iterable[Letter], places: Container[tuple[str, int]], *, again: bool) -> Plan:
    """Decide what to do with each letter; `places` are the topics and partitions that may be replayed into."""
    decided = Plan([], [], [], [], [])
    origins: set[Origin] = set()
    for letter in selected:
        if letter.reason == Reason.UNREADABLE_BATCH:
            decided.batches.append(letter)
        elif (letter.origin.topic, letter.origin.partition) not in places:
            decided.refused.append(letter)
        elif letter.origin in log.replays and not again:
            decided.done.append(letter)
        elif letter.origin in origins:
            decided.copies.append(letter)
        else:
            decided.send.append(letter)
            origins.add(letter.origin)
    return decided


def decoded(name: str | None, value: bytes) -> Message | None:
    """The message in an original of the topic with this short name, as far as the schema knows it, unvalidated.

    >>> decoded("items", Item(item_id=7).SerializeToString()) == Item(item_id=7)
    True
    >>> decoded("items", b"no such thing") is None, decoded("clicks", b"") is None
    (True, True)
    """
    kind = KINDS.get(name or "")
    if kind is None:
        return None
    message = kind()
    try:
        message.ParseFromString(value)
    except DecodeError:
        return None
    message.DiscardUnknownFields()
    return message if message.ByteSize() else None


def short_name(settings: KafkaSettings, topic: str) -> str | None:
    """The short name of a topic that can be replayed into; None for any other.

    >>> kafka = KafkaSettings(bootstrap_servers="h:1")
    >>> short_name(kafka, "driftline.feedback"), short_name(kafka, "driftline.deadletters")
    ('feedback', None)
    """
    return next((name for name in KINDS if settings.topic(name) == topic), None)


def read(settings: KafkaSettings) -> Log:
    """Read the whole dead-letter topic, without keeping the originals."""
    log = Log()
    for record in consumers.read_to_end(settings, bus.DEAD_LETTERS, 0, 0):
        log.add(record.offset, record.timestamp, parse(record.value))
    return log


def save(settings: KafkaSettings, path: Path) -> int:
    """Write every dead letter as a line of JSON (bytes in base64) and return how many there were."""
    saved = 0
    with path.open("w") as file:
        for record in consumers.read_to_end(settings, bus.DEAD_LETTERS, 0, 0):
            letter = parse(record.value)
            if letter is None or letter.reason == REPLAYED:
                continue
            line = MessageToJson(
                letter, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
            )
            file.write(line + "\n")
            saved += 1
    return saved
