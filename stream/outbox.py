"""From what the steps put out to what is stored for delivery, counted on the way."""

from collections import Counter
from collections.abc import Iterable, Sequence

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
    taken: list[Learned | Impressed] = []
    closed = 0
    for output in outputs:
        match output:
            case Learned() | Impressed():
                counted[bus.FEEDBACK, _outcome(output)] += 1
                taken.append(output)
                _add_example(outbox, output)
                if isinstance(output, Learned) or output.changed:
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
    metrics.closed.inc(closed)
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
