"""The exposure log: every reply to Kafka, beside the requests and never in their way.

A request only puts its exposure into a bounded queue. A thread sends; a stop in good order sends and confirms all that
is in the queue. What finds the queue full, or what Kafka does not take, is lost, counted and said.
"""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.messages.events import SCHEMA_VERSION
from contracts.runtime.clock import Clock
from contracts.wire.events_pb2 import Exposure
from contracts.wire.recall_pb2 import RecallReply
from serving.metrics import ServingMetrics

log = structlog.get_logger()
FLUSH_TIMEOUT_S = 30.0
PAUSE_S = 0.02  # to send many at a time: a thread that woke for each would take turns with those that answer


@dataclass(frozen=True)
class AnsweredRequest:
    """A reply, and what of its request the exposure says."""

    user_id: int
    time_ms: int
    simulated: bool
    reply: RecallReply
    answer_ms: float
    served_only: bool = False
    user_key: str = ""
    span: Any = None  # the request's, where it is traced (`serving.tracing`)


class ExposureLog:
    """A thread that sends exposures."""

    def __init__(
        self,
        producer: KafkaProducer,
        settings: KafkaSettings,
        replica: str,
        room: int,
        clock: Clock,
        metrics: ServingMetrics,
    ) -> None:
        self._producer = producer
        self._settings = settings
        self._replica = replica
        self._clock = clock
        self._metrics = metrics
        self._losses = 0
        self._room = room
        self._waiting: deque[AnsweredRequest] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exposures", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def offer(self, answered: AnsweredRequest) -> None:
        """Take an exposure in, or lose it where there is no room; never waits. A reply without items shows nothing."""
        if not answered.reply.items:
            return
        if len(self._waiting) < self._room:
            self._waiting.append(answered)
        else:
            self._lost("the buffer is full")

    def close(self) -> None:
        """Send all that was taken in, and wait until Kafka has confirmed it, for as long as FLUSH_TIMEOUT_S."""
        self._closing.set()
        self._thread.join(FLUSH_TIMEOUT_S)
        if self._thread.is_alive():
            log.error("the exposure log did not stop", seconds=FLUSH_TIMEOUT_S, unsent=len(self._waiting))
        try:
            self._producer.flush(FLUSH_TIMEOUT_S)
        except KafkaError:  # what is not confirmed by now comes to `_lost` when the producer closes
            log.exception("exposures not confirmed in time")
        self._producer.close(timeout=1)

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(PAUSE_S)
            while self._waiting:
                try:
                    self._send(self._waiting.popleft())
                except Exception as error:  # noqa: BLE001  (the client asserts, too; the log must not end with one record)
                    self._lost(str(error))

    def _send(self, answered: AnsweredRequest) -> None:
        topic = self._settings.topic(bus.EXPOSURES)
        self._producer.send(
            topic,
            key=bus.key_of(answered.user_id),
            value=exposure_of(answered, self._replica).SerializeToString(),
            partition=bus.partition_of(answered.user_id, self._settings.partitions),
            # A client's time must not be what the log takes for now; a simulator's is.
            timestamp_ms=answered.time_ms if answered.simulated else self._clock.now_ms(),
            headers=self._headers(answered),
        ).add_errback(lambda error: self._lost(str(error)))

    def _headers(self, answered: AnsweredRequest) -> list[tuple[str, bytes]]:
        """Of an exposure's record."""
        del answered
        return [(bus.SENT_AT, str(self._clock.now_ms()).encode())]

    def _lost(self, why: str) -> None:
        self._metrics.exposures_lost.inc()
        self._losses += 1
        if self._losses & (self._losses - 1) == 0:  # 1, 2, 4, 8 …: said at once, and not a thousand times a second
            log.error("exposures lost", why=why, since_start=self._losses)


def exposure_of(answered: AnsweredRequest, replica: str) -> Exposure:
    """The exposure of a reply. Its event id is the request's, so that a request asked twice is exposed once."""
    reply = answered.reply
    exposure = Exposure(
        schema_version=SCHEMA_VERSION,
        event_id=reply.request_id,
        request_id=reply.request_id,
        user_id=answered.user_id,
        time_ms=answered.time_ms,
        experiment=reply.experiment,
        arm=reply.arm,
        model=reply.model,
        snapshot_version=reply.snapshot_version,
        simulated=answered.simulated,
        snapshot_versions={each.source: version for each in reply.sources if (version := each.snapshot_version)},
        replica=replica,
        answer_ms=answered.answer_ms,
        user_key=answered.user_key,
        served_only=answered.served_only,
        experiment_hash=reply.experiment_hash,
    )
    if reply.snapshot_version:
        exposure.model_time_ms = reply.model_time_ms
    add = exposure.items.add
    for each in reply.items:
        shown = add(item_id=each.item_id, source=each.source, score=each.score)
        if text := each.item_key:
            shown.item_key = text
        if each.HasField("propensity"):
            shown.propensity = each.propensity
    return exposure
