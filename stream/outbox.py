"""From what the steps put out to what is stored for delivery, counted on the way."""

from collections import Counter
from collections.abc import Iterable

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.messages.events import BadEvent, fitting_letter
from contracts.wire.stream_state_pb2 import Outbox, OutgoingLetter
from stream.join import Origin
from stream.metrics import StreamMetrics
from stream.step import Closed, Duplicate, Impressed, Learned, Output, Rejected, Remembered


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
    begun = dropped = closed = views = effective = strangers = 0
    for output in outputs:
        match output:
            case Learned():
                users[output.user_id] = None
                learned.append(output.origin)
                begun += output.sessions_begun
                dropped += output.dropped
                views += output.views
                effective += output.effective_views
                example = output.example
                if example is None:
                    counted[bus.FEEDBACK, "folded" if output.folded else "non_positive"] += 1
                else:
                    counted[bus.FEEDBACK, "example"] += 1
                    outbox.examples.add(
                        event_id=example.event_id,
                        key=bus.key_of(output.user_id),
                        value=example.SerializeToString(),
                        timestamp_ms=output.origin.timestamp,
                    )
            case Impressed():
                counted[bus.FEEDBACK, "impression"] += 1
                begun += output.sessions_begun
                dropped += output.dropped
                views += output.views
                strangers += output.not_served
                if output.changed:
                    users[output.user_id] = None
                    learned.append(output.origin)
            case Remembered():
                counted[bus.EXPOSURES, "non_positive"] += 1
            case Duplicate():
                counted[_name(output.origin, kafka), "duplicate"] += 1
            case Closed():
                users[output.user_id] = None
                closed += 1
            case Rejected():
                counted[_name(output.origin, kafka), "dead_letter"] += 1
                metrics.dead_letters.labels(str(output.error.reason)).inc()
                outbox.dead_letters.append(_letter(output.origin, output.error, largest_letter_bytes))
    outbox.user_ids.extend(users)
    metrics.sessions.inc(begun)
    metrics.dropped.inc(dropped)
    metrics.closed.inc(closed)
    metrics.views.inc(views)
    metrics.effective_views.inc(effective)
    metrics.not_served.inc(strangers)
    for (topic, outcome), count in counted.items():
        metrics.outcomes.labels(topic, outcome).inc(count)
    return outbox, learned


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
