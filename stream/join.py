"""What is known of one request: its exposure, what feedback told of each item, and what still waits for it. Pure.

Which feedback counts, and how several events on one item fold into one outcome, is not decided here but in
`contracts.messages.attribution`, as it is for the experiments' figures.

Duplicates are known by event id for as long as their request is, which is what bounds that memory: a request is
forgotten when the watermark has passed its exposure by the attribution window, and feedback on it is too late from
then on. A duplicate that comes later still therefore has no effect either; it is dead-lettered as too late.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from contracts.messages.attribution import ExposureSummary, Told, last_feedback_ms
from contracts.wire.events_pb2 import Feedback


class Origin(NamedTuple):
    """Where a record came from, so that it can be dead-lettered whole and its freshness measured."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    sent_at_ms: int


@dataclass(slots=True)
class OpenRequest(Told):
    """All that one request_id is known by. Before the exposure `event_ids` are of the feedback that is held."""

    shown: ExposureSummary | None = None  # None while only feedback has come
    held: list[tuple[Feedback, Origin]] = field(default_factory=list)  # in the order in which it arrived

    def expires_ms(self, attribution_window_ms: int) -> int:
        """The event time after which it is of no use: a watermark past it drops the request."""
        if self.shown is not None:
            return last_feedback_ms(self.shown.time_ms, attribution_window_ms)
        # An exposure is not after its feedback, so one that could still come for the newest is late after that.
        return max(feedback.time_ms for feedback, _ in self.held)

    def holds(self, feedback: Feedback) -> bool:
        """Whether the same event waits already. Another one with its id may be the one that counts, so it waits too."""
        return feedback.event_id in self.event_ids and any(feedback == waiting for waiting, _ in self.held)
