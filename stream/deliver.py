"""Carrying outboxes to where they go: user rows to Feast, examples and dead letters to Kafka.

A batch takes these steps, in this order:
  (1) consume: records are fetched and stepped through; nothing outside memory changes;
  (2) commit: state, offsets and outbox go to disk in one atomic write (`PartitionStore.commit`);
  (3) send: examples and dead letters are handed to the Kafka client;
  (4) write: the rows of forgotten users leave Feast, and the changed users' rows go there;
  (5) acknowledge: wait until the broker has what (3) sent;
  (6) report: commit the group's offsets, which tells whoever watches the lag that all this is done.
State is never behind what it has put out. So a row in Feast is never replaced by an older one, and a worker that dies
after (2) finds the whole outbox when it starts again and delivers it once more: rows are the same rows, and what the
logs hold already is not sent again.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from google.protobuf.message import DecodeError
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus, consumers
from contracts.wire.events_pb2 import DeadLetter, Example
from contracts.wire.stream_state_pb2 import Outbox, OutgoingLetter
from feature_repo.store import UserRow, UserSequences
from stream.metrics import StreamMetrics
from stream.partition import PartitionStore
from stream.sessions import UserSessions

log = structlog.get_logger()
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
PRODUCER_BATCH_BYTES = 256 << 10  # a stream's batch leaves as few requests, where the default makes hundreds
LOOK_UP_S = 0.5  # how often a wait for a sink looks whether it should stop

M = TypeVar("M", Example, DeadLetter)
At = Callable[[str], None]  # told the name of each step as it begins or ends; proofs of crashes stand there


class Stopped(Exception):
    """The worker was asked to stop while a sink did not answer; the outbox waits for the next start."""


class Delivery:
    """Delivers what partitions have committed, and does not return before the sinks have it."""

    def __init__(
        self,
        settings: KafkaSettings,
        producer: KafkaProducer,
        features: UserSequences,
        stop: threading.Event,
        metrics: StreamMetrics,
        at: At,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`alive`: called while a sink is waited for, as often as it is looked at."""
        self.failing = False  # whether a sink has failed, and has not taken since what it is given
        self._alive = alive
        self._settings = settings
        self._producer = producer
        self._features = features
        self._stop = stop
        self._metrics = metrics
        self._at = at
        self._sent_before: list[Any] = []  # by an attempt that has not been seen to its end

    def deliver(self, outboxes: Sequence[tuple[PartitionStore, Outbox]], *, again: bool) -> None:
        """Deliver outboxes, and again for as long as a sink fails.

        `again`: an earlier worker may have delivered some of it.

        Raises:
            Stopped: asked to stop while a sink still fails.

        """
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                self._attempt(outboxes, again)
            except Stopped:
                raise
            # Each store that Feast can stand on has errors of its own.
            except Exception:
                log.exception("a sink failed; trying again", pause_s=pause_s)
                self._metrics.redelivered.labels("sink").inc()
                self.failing = True
                self._alive()
                if self._stop.wait(pause_s):
                    raise Stopped from None
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                again = True
            else:
                self.failing = False
                return

    def _attempt(self, outboxes: Sequence[tuple[PartitionStore, Outbox]], again: bool) -> None:
        if again:
            self._answered(self._sent_before)  # what the log holds must not change any more
            self._sent_before.clear()
        self._at("send")
        sent = [
            (store, *self._send(store, outbox, *(self._known(store) if again else (set(), set()))))
            for store, outbox in outboxes
        ]
        self._at("sent")
        for erase in (True, False):
            gone = [
                user_id for _, outbox in outboxes for user_id in (outbox.forgotten_ids if erase else outbox.expired_ids)
            ]
            if gone:
                self._features.forget(gone, erase=erase)
        rows = [
            row_of(user_id, user)
            for store, outbox in outboxes
            for user_id in outbox.user_ids
            if (user := store.user(user_id)) is not None
        ]
        self._features.write(rows)
        self._at("written")
        ends = [
            (store.position, self._acknowledged(examples), self._acknowledged(letters))
            for store, examples, letters in sent
        ]
        self._sent_before.clear()
        self._at("acknowledged")
        # Not before all of them: another attempt would look for what this one has sent only after these offsets.
        for position, examples_ends, letters_ends in ends:
            position.examples_end = max(position.examples_end, *examples_ends, 0)
            position.dead_letters_end = max(position.dead_letters_end, *letters_ends, 0)

    def _known(self, store: PartitionStore) -> tuple[set[str], set[tuple[str, int, int]]]:
        """What the logs hold since the offsets that the partition's state knows of."""
        position, partition = store.position, store.partition
        examples = consumers.read_to_end(self._settings, bus.EXAMPLES, partition, position.examples_end)
        letters = consumers.read_to_end(self._settings, bus.DEAD_LETTERS, 0, position.dead_letters_end)
        return (
            {example.event_id for example in _messages(Example, examples)},
            {(letter.topic, letter.partition, letter.offset) for letter in _messages(DeadLetter, letters)},
        )

    def _send(
        self, store: PartitionStore, outbox: Outbox, examples: set[str], letters: set[tuple[str, int, int]]
    ) -> tuple[list[Any], list[Any]]:
        """Hand an outbox to the client, but for the examples and dead letters that are in their logs already."""
        kafka = self._settings
        return (
            [
                self._sent(
                    kafka.topic(bus.EXAMPLES),
                    key=example.key,
                    value=example.value,
                    partition=store.partition,
                    timestamp_ms=example.timestamp_ms,
                )
                for example in outbox.examples
                if example.event_id not in examples
            ],
            [
                self._sent_letter(letter)
                for letter in outbox.dead_letters
                if (letter.topic, letter.partition, letter.offset) not in letters
            ],
        )

    def _sent_letter(self, letter: OutgoingLetter) -> Any:
        key = letter.key if letter.HasField("key") else None
        return self._sent(
            self._settings.topic(bus.DEAD_LETTERS),
            key=key,
            value=letter.value,
            partition=0,
            timestamp_ms=letter.timestamp_ms,
        )

    def _sent(self, topic: str, **record: Any) -> Any:
        while True:
            try:
                future = self._producer.send(topic, **record)
            except KafkaTimeoutError:
                # The broker does not answer, or the client's memory is full of what it could not send yet.
                self._alive()
                if self._stop.is_set():
                    raise Stopped from None
            else:
                self._sent_before.append(future)
                return future

    def _acknowledged(self, futures: Sequence[Any]) -> list[int]:
        """Wait until the broker has what was sent; the offset after each of `futures`."""
        self._answered(futures)
        return [future.get(timeout=0).offset + 1 for future in futures]

    def _answered(self, futures: Sequence[Any]) -> None:
        """Wait until each of `futures` is done, well or not.

        Unlike the client's `flush` this tells those that were waited for from those of an attempt before.
        """
        for future in futures:
            while not future.is_done:
                with suppress(KafkaError):
                    future.get(timeout=LOOK_UP_S)
                self._alive()
                if self._stop.is_set() and not future.is_done:
                    raise Stopped


def producer_of(kafka: KafkaSettings) -> KafkaProducer:
    """A producer for `Delivery`.

    Whole records travel as dead letters, and the client must never give up on a record: it would not know whether the
    broker has it, and so could neither send it again nor leave it.
    """
    return bus.producer(
        kafka,
        max_request_size=bus.LARGEST_RECORD_BYTES,
        batch_size=PRODUCER_BATCH_BYTES,
        max_block_ms=1000,
        delivery_timeout_ms=2**31 - 1,
    )


def _messages(kind: type[M], records: Iterable[Any]) -> Iterator[M]:
    """The messages in records of a topic that others may write to as well; what is none is not this worker's."""
    for record in records:
        with suppress(DecodeError):
            yield kind.FromString(record.value or b"")


def row_of(user_id: int, user: UserSessions) -> UserRow:
    """A user's row in Feast."""
    return UserRow.of(
        user_id,
        user.history,
        session_start=user.session_start,
        last_event_ms=user.last_ms,
        feedback_offset=user.next_offset,
        written_us=user.row_us,
    )
