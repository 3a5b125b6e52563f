"""From what the steps put out to what is stored for delivery, counted on the way."""

from collections.abc import Iterable

from contracts import bus
from contracts.events import BadEvent, dead_letter
from contracts.settings import KafkaSettings
from contracts.wire.stream_state_pb2 import Outbox, OutgoingLetter
from stream.join import Origin
from stream.metrics import Metrics
from stream.step import Closed, Duplicate, Learned, Output, Rejected, Remembered

# The dead-letter topic takes messages of 32 MiB. What is larger stays where it is, and its letter says so.
LARGEST_VALUE_BYTES = 30 << 20


def collect(outputs: Iterable[Output], kafka: KafkaSettings, metrics: Metrics) -> tuple[Outbox, list[Origin]]:
    """The outbox of one batch, and the origins of the feedback whose users' rows it changes."""
    outbox = Outbox()
    users: dict[int, None] = {}
    learned: list[Origin] = []
    for output in outputs:
        match output:
            case Learned(origin, user_id, example, folded, begun, dropped):
                users[user_id] = None
                learned.append(origin)
                metrics.sessions.inc(begun)
                metrics.dropped.inc(dropped)
                outcome = "example" if example else "folded" if folded else "non_positive"
                metrics.outcomes.labels(bus.FEEDBACK, outcome).inc()
                if example:
                    outbox.examples.add(
                        event_id=example.event_id,
                        key=bus.key_of(user_id),
                        value=example.SerializeToString(),
                        timestamp_ms=origin.timestamp,
                    )
            case Remembered():
                metrics.outcomes.labels(bus.EXPOSURES, "non_positive").inc()
            case Duplicate(origin):
                metrics.outcomes.labels(origin.topic.removeprefix(kafka.topic_prefix), "duplicate").inc()
            case Closed(user_id):
                users[user_id] = None
                metrics.closed.inc()
            case Rejected(origin, error):
                metrics.outcomes.labels(origin.topic.removeprefix(kafka.topic_prefix), "dead_letter").inc()
                metrics.dead_letters.labels(str(error.reason)).inc()
                outbox.dead_letters.append(_letter(origin, error))
    outbox.user_ids.extend(users)
    return outbox, learned


def _letter(origin: Origin, error: BadEvent) -> OutgoingLetter:
    letter = dead_letter(error, origin)
    if len(letter.value) > LARGEST_VALUE_BYTES:
        letter.detail = f"too large for the dead-letter topic, so left in its own; {letter.detail}"
        letter.value = b""
    return OutgoingLetter(
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        key=origin.key,
        value=letter.SerializeToString(),
        timestamp_ms=origin.timestamp,
    )
