"""One partition of the stream as a Flink function runs it: records in, envelopes out. It knows nothing of PyFlink.

The order is `stream.intake.merged`, as a worker's. What Flink sends lies in `waiting` until it is its turn: while one
log has nothing at hand the other goes on only if the broker has nothing of it either, which is asked of the broker
itself (`LogEnds`). So no watermark of Flink's decides anything, and a silent partition needs none.
"""

from collections.abc import Container, Iterator
from typing import Protocol

from contracts.config.settings import Settings
from contracts.kafka import bus
from contracts.messages.attribution import is_impression
from contracts.messages.events import BadEvent
from contracts.messages.received import exposure_of, feedback_of
from contracts.runtime.clock import Clock
from contracts.wire.events_pb2 import Exposure, Feedback
from contracts.wire.stream_state_pb2 import Outbox
from stream.catalogue import origin_of
from stream.flink.envelope import LOGS, Record, Sink, packed, unpacked
from stream.flink.state import FlinkState, Tables
from stream.intake import SILENT_AFTER_S, Waiting, merged
from stream.kept import user_bytes
from stream.metrics import StreamMetrics
from stream.outbox import collect
from stream.outputs import Output, Rejected
from stream.step import on_exposure, on_feedback, on_time, watermark


class Catalogue(Protocol):
    """What `stream.catalogue.KnownItems` offers."""

    items: set[int]

    def read(self) -> None:
        """Take in what the broker has of it now."""

    def bad_since(self, offset: int) -> tuple[list[Rejected], int]:
        """The records from `offset` on that are no items, and the offset to ask from next time."""


class Ends(Protocol):
    """Says where logs end."""

    def at_end(self, topic: str, partition: int, offset: int) -> bool:
        """Whether the broker has no record from `offset` on; False where it does not say."""


class Partition:
    """A partition's steps. The keyed state that `tables` reach is that of this partition whenever it is called."""

    def __init__(
        self,
        settings: Settings,
        number: int,
        tables: Tables,
        catalogue: Catalogue,
        ends: Ends,
        clock: Clock,
        metrics: StreamMetrics,
        largest_letter_bytes: int,
    ) -> None:
        self._settings = settings
        self._number = number
        self._tables = tables
        self._catalogue = catalogue
        self._ends = ends
        self._clock = clock
        self._metrics = metrics
        self._largest_letter_bytes = largest_letter_bytes
        kafka = settings.kafka
        self._topics = (kafka.topic(LOGS[0]), kafka.topic(LOGS[1]))
        self._state = FlinkState(tables, self._topics[1], number, settings.stream)
        now_s = clock.elapsed_s()
        position = self._state.position
        self._looked_s = now_s  # when it was last looked for silence
        self._logs = (Waiting(position.exposures, now_s), Waiting(position.feedback, now_s))
        for _, raw in sorted(tables.waiting.items()):
            self._logs[raw[0]].add([unpacked(raw, self._topics)], now_s)

    @property
    def waiting(self) -> int:
        """How many records can be stepped through without asking the broker, at the least."""
        return min(len(log.records) for log in self._logs)

    def take(self, raw: bytes) -> None:
        """Keep a record that has come."""
        self._logs[raw[0]].add([unpacked(raw, self._topics)], self._clock.elapsed_s())
        self._tables.waiting.put(raw[:1] + raw[5:13], raw)

    def step(self) -> Iterator[bytes]:
        """Step through what is at hand of both logs, up to a batch; the envelopes that come of it."""
        yield from self._step(exposures_end=False, feedback_end=False)

    def tick(self) -> Iterator[bytes]:
        """Step through all that may be, and let event time go on."""
        left = -1
        while left != (waiting := sum(len(log.records) for log in self._logs)):
            left = waiting
            alone = sum(bool(log.records) for log in self._logs) == 1
            ends = [alone and not log.records and self._at_end(at) for at, log in enumerate(self._logs)]
            yield from self._step(exposures_end=ends[0], feedback_end=ends[1])

    def _step(self, *, exposures_end: bool, feedback_end: bool) -> Iterator[bytes]:
        exposures, feedback = self._logs
        limit = self._settings.stream.poll_records
        batch = merged(exposures, feedback, exposures_end=exposures_end, feedback_end=feedback_end, limit=limit)
        outputs = [*self._outputs(batch), *self._due()]
        for record in batch:
            self._tables.waiting.remove(bytes([self._topics.index(record.topic)]) + record.offset.to_bytes(8, "big"))
        if not (batch or outputs or self._state.changed):
            return
        outbox, _ = collect(outputs, self._settings.kafka, self._metrics, self._largest_letter_bytes)
        envelopes = list(self._envelopes(outbox))
        self._state.commit()
        yield from envelopes

    def _outputs(self, batch: list[Record]) -> Iterator[Output]:
        """The pure steps of a batch."""
        limits, items, state = self._settings.stream, self._catalogue.items, self._state
        decoded = [(origin_of(record), self._decoded(record)) for record in batch]
        if any(_is_of_unknown_item(event, items) for _, event in decoded):
            self._catalogue.read()
        for origin, event in decoded:
            if origin.topic == self._topics[0]:
                state.position.exposures = origin.offset + 1
            else:
                state.position.feedback = origin.offset + 1
            match event:
                case Exposure():
                    yield from on_exposure(state, event, origin, limits)
                case Feedback():
                    yield from on_feedback(state, event, origin, limits, items)
                case BadEvent():
                    yield Rejected(origin, event)
        if self._number == 0:
            bad, state.position.items = self._catalogue.bad_since(state.position.items)
            yield from bad

    def _decoded(self, record: Record) -> Exposure | Feedback | BadEvent:
        decode = exposure_of if record.topic == self._topics[0] else feedback_of
        try:
            return decode(record, self._settings.stream, self._settings.kafka.partitions)
        except BadEvent as error:
            return error

    def _due(self) -> Iterator[Output]:
        """What falls due: by the watermark, which goes on by the clock while a log is silent."""
        now_s = self._clock.elapsed_s()
        exposures_ms = feedback_ms = 0
        if now_s - self._looked_s >= SILENT_AFTER_S:
            self._looked_s = now_s
            exposures_ms, feedback_ms = (self._silent_ms(at, now_s) for at in (0, 1))
        limits = self._settings.stream
        until_ms = watermark(self._state, limits, exposures_ms=exposures_ms, feedback_ms=feedback_ms)
        read = self._state.position.exposures
        yield from on_time(self._state, until_ms, limits, self._settings.retention.users_ms, read)

    def _silent_ms(self, at: int, now_s: float) -> int:
        """For how long a log that was read to its end has been silent; 0 where that is not worth a look."""
        log = self._logs[at]
        silent_s = now_s - log.heard_s
        long = silent_s >= SILENT_AFTER_S and not log.records and self._at_end(at)
        return int(1000 * silent_s) if long else 0

    def _at_end(self, at: int) -> bool:
        return self._ends.at_end(self._topics[at], self._number, self._logs[at].end)

    def _envelopes(self, outbox: Outbox) -> Iterator[bytes]:
        """What is to be sent, in the order in which a worker delivers it."""
        for example in outbox.examples:
            yield packed(Sink.EXAMPLES, self._number, example.timestamp_ms, example.key, example.value)
        for letter in outbox.dead_letters:
            key = letter.key if letter.HasField("key") else None
            yield packed(Sink.DEAD_LETTERS, 0, letter.timestamp_ms, key, letter.value)
        now_ms = self._clock.now_ms()
        for user_id in (*outbox.forgotten_ids, *outbox.expired_ids):
            yield packed(Sink.ROWS, self._number, now_ms, bus.key_of(user_id), None)
        for user_id in outbox.user_ids:
            user = self._state.user(user_id)
            if user is not None:
                yield packed(Sink.ROWS, self._number, now_ms, bus.key_of(user_id), user_bytes(user))


def _is_of_unknown_item(event: Exposure | Feedback | BadEvent, items: Container[int]) -> bool:
    return isinstance(event, Feedback) and not is_impression(event) and event.item_id not in items
