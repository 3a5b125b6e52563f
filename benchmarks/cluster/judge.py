"""What came of a log, and what an undisturbed worker and collector make of a copy of it."""

import threading
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from abtest.collect.parts import Share
from abtest.collect.rules import Rules
from abtest.collect.store import load as load_state
from contracts.config.settings import KafkaSettings, Settings
from contracts.kafka import bus, consumers
from contracts.wire.events_pb2 import DeadLetter
from feature_repo.row import VERSION, UserRow
from feature_repo.store import UserSequences, apply
from stream.worker import open_worker

LOG = (bus.ITEMS, bus.EXPOSURES, bus.FEEDBACK)
QUIET_STEPS = 10


class Outcome(NamedTuple):
    """What the stream made of a log."""

    examples: dict[int, list[tuple[bytes, bytes]]]  # by partition, in their order
    letters: list[tuple[str, int, int, bytes]]  # topic, partition, offset and all of the letter, sorted


def outcome(kafka: KafkaSettings) -> Outcome:
    """What is committed now; letters of the trainer are left out."""
    letters = []
    for record in consumers.read_to_end(kafka, bus.DEAD_LETTERS, 0, 0):
        letter = DeadLetter.FromString(record.value)
        letter.topic = letter.topic.removeprefix(kafka.topic_prefix)
        if letter.topic in LOG:
            said = letter.SerializeToString(deterministic=True)
            letters.append((letter.topic, letter.partition, letter.offset, said))
    return Outcome(
        {
            at: [(record.key, record.value) for record in consumers.read_to_end(kafka, bus.EXAMPLES, at, 0)]
            for at in range(kafka.partitions)
        },
        sorted(letters),
    )


def compared(found: Outcome, expected: Outcome) -> dict[str, Any]:
    """How many are too few and too many, and whether each partition and the letters are the same."""
    have, want = (Counter(each for rows in of.examples.values() for each in rows) for of in (found, expected))
    return {
        "examples": have.total(),
        "lost": (want - have).total(),
        "doubled": (have - want).total(),
        "examples_equal": found.examples == expected.examples,
        "dead_letters": len(found.letters),
        "dead_letters_equal": set(found.letters) == set(expected.letters),
        "dead_letters_doubled": len(found.letters) - len(set(found.letters)),
    }


def copy(source: KafkaSettings, target: KafkaSettings) -> int:
    """Copy the log, partition by partition; how many records of exposures and feedback it has."""
    producer, count = bus.producer(target), 0
    for place in bus.partitions_of(source, LOG):
        topic = place.topic.removeprefix(source.topic_prefix)
        for record in consumers.read_to_end(source, topic, place.partition, 0):
            producer.send(
                target.topic(topic),
                record.value,
                record.key,
                headers=[*record.headers],
                partition=place.partition,
                timestamp_ms=record.timestamp,
            )
            count += topic != bus.ITEMS
    producer.flush()
    producer.close()
    return count


def by_worker(settings: Settings, records: int) -> Outcome:
    """What an undisturbed worker makes of the log of these settings."""
    apply(settings.feature_repo)
    worker = open_worker(settings, threading.Event())
    try:
        while records > 0:
            records -= worker.step()
        quiet = 0
        while quiet < QUIET_STEPS:
            quiet = 0 if worker.step() else quiet + 1
    finally:
        worker.close()
    return outcome(settings.kafka)


def rows_of(repo: Path, users: int) -> list[dict[str, Any] | None]:
    """The features of all users as plain numbers, without the version that Feast orders a user's rows by."""
    store = UserSequences(repo)
    try:
        rows = store.read(range(1, users + 1))
    finally:
        store.close()
    return [None if row is None else _plain(row) for row in rows]


def _plain(row: UserRow) -> dict[str, Any]:
    return {
        each.name: np.asarray(getattr(row, each.name)).astype(np.int64).tolist()
        for each in fields(row)
        if each.name != VERSION
    }


def caught_up(settings: Settings, share: Share) -> bool:
    """Whether what a collector has saved has all of its partitions' records."""
    saved = load_state(share.path(settings), Rules.of(settings)).offsets
    where = [at for at in bus.partitions_of(settings.kafka, LOG[1:]) if share.has(at.partition)]
    client = consumers.consumer(settings.kafka, [], None)
    try:
        ends = client.end_offsets(where)
    finally:
        client.close()
    return all(saved.get(f"{at.topic}:{at.partition}", 0) == end for at, end in ends.items())
