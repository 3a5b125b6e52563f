"""From what the steps put out to what is stored for delivery, counted on the way."""

from collections import Counter
from collections.abc import Iterable, Sequence

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.messages.events import SCHEMA_VERSION, BadEvent, fitting_letter
from contracts.wire.events_pb2 import Example
from contracts.wire.stream_state_pb2 import Outbox, OutgoingLetter
from stream.join import Origin
from stream.metrics import StreamMetrics
from stream.outputs import (
    Closed,
    Dropped,
    Duplicate,
    Expired,
    Forgotten,
    Impressed,
    Learned,
    Output,
    Rejected,
    Remembered,
)

OUTCOMES: dict[type[Output], str] = {
    Remembered: "non_positive",
    Duplicate: "duplicate",
    Rejected: "dead_letter",
    Dropped: "forgotten",
    Forgotten: "forget",
}  # as metrics name them


def collect(
    outputs: Iterable[Output],
    kafka: KafkaSettings,
    metrics: StreamMetrics,
    largest_letter_bytes: int = bus.LARGEST_LETTER_BYTES,
) -> tuple[Outbox, list[Origin]]:
    """The outbox of one batch, and the origins of the feedback whose users' rows it changes.

    `largest_letter_bytes`: what the dead-letter topic takes. A record that does not fit stays where it is, and its
    letter says so.
    """
    outbox = Outbox()
    users: dict[int, None] = {}
    learned: list[Origin] = []
    counted: Counter[tuple[str, str]] = Counter()
    taken: list[Learned | Impressed] = []
    closed = 0
    # Whose rows go; of those who have come back since, new ones are written.
    forgotten: dict[int, None] = {}
    expired: dict[int, None] = {}
    for output in outputs:
        match output:
            case Learned() | Impressed():
                counted[bus.FEEDBACK, _outcome(output)] += 1
                taken.append(output)
                _add_example(outbox, output)
                if isinstance(output, Learned) or output.changed:
                    users[output.user_id] = None
                    learned.append(output.origin)
            case Closed():
                users[output.user_id] = None
                closed += 1
            case Expired():
                expired[output.user_id] = None
            case _:
                counted[_name(output.origin, kafka), OUTCOMES[type(output)]] += 1
                if isinstance(output, Rejected):
                    metrics.dead_letters.labels(str(output.error.reason)).inc()
                    outbox.dead_letters.append(_letter(output.origin, output.error, largest_letter_bytes))
                elif isinstance(output, Forgotten):
                    forgotten[output.user_id] = None
                    _add_forget(outbox, output)
    outbox.user_ids.extend(users)
    outbox.forgotten_ids.extend(forgotten)
    outbox.expired_ids.extend(expired)
    metrics.closed.inc(closed)
    metrics.expired_users.inc(len(expired))
    _count(taken, metrics)
    for (topic, outcome), count in counted.items():
        metrics.outcomes.labels(topic, outcome).inc(count)
    return outbox, learned


def _add_example(outbox: Outbox, output: Learned | Impressed) -> None:
    """The example that feedback has made, where it has made one."""
    if isinstance(output, Learned) and output.example is not None:
        outbox.examples.add(
            event_id=output.example.event_id,
            key=bus.key_of(output.user_id),
            value=output.example.SerializeToString(),
            timestamp_ms=output.origin.timestamp,
        )


def _add_forget(outbox: Outbox, output: Forgotten) -> None:
    """The request to forget, for those who read examples: at the event time that the partition has come to."""
    request = Example(
        schema_version=SCHEMA_VERSION,
        event_id=output.event_id,
        user_id=output.user_id,
        time_ms=max(output.time_ms, 1),
        forget=output.forget,
    )
    outbox.examples.add(
        event_id=output.event_id,
        key=bus.key_of(output.user_id),
        value=request.SerializeToString(),
        timestamp_ms=output.origin.timestamp,
    )


def _count(taken: Sequence[Learned | Impressed], metrics: StreamMetrics) -> None:
    """What feedback that was taken in adds up to."""
    metrics.sessions.inc(sum(output.sessions_begun for output in taken))
    metrics.dropped.inc(sum(output.dropped for output in taken))
    metrics.views.inc(sum(output.views for output in taken))
    metrics.effective_views.inc(sum(output.effective_views for output in taken if isinstance(output, Learned)))
    metrics.not_served.inc(sum(output.not_served for output in taken if isinstance(output, Impressed)))


def _outcome(output: Learned | Impressed) -> str:
    """What became of feedback, as metrics name it."""
    if isinstance(output, Impressed):
        return "impression"
    if output.example is not None:
        return "example"
    return "folded" if output.folded else "non_positive"


def _name(origin: Origin, kafka: KafkaSettings) -> str:
    return origin.topic.removeprefix(kafka.topic_prefix)


def _letter(origin: Origin, error: BadEvent, largest_bytes: int) -> OutgoingLetter:
    key, letter = fitting_letter(error, origin, largest_bytes)
    return OutgoingLetter(
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        key=key,
        value=letter.SerializeToString(),
        timestamp_ms=origin.timestamp,
    )
