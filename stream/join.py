"""What is known of one request: what it showed, what came of each item, what feedback still waits for it. Pure.

Several feedback events on one item fold into one outcome: the earliest time, the longest play, and effective view and
follow if any event said so. Folding is idempotent and its order changes nothing, so neither does a duplicate.

Duplicates are known by event id for as long as their request is, which is what bounds that memory: a request is
forgotten when the watermark has passed its exposure by the attribution window, and feedback on it is too late from
then on. A duplicate that comes later still therefore has no effect either; it is dead-lettered as too late.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from contracts.wire.events_pb2 import Exposure, Feedback
from stream.sessions import Behaviour


class Origin(NamedTuple):
    """Where a record came from, so that it can be dead-lettered whole and its freshness measured."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    sent_at_ms: int


class ExposureSummary(NamedTuple):
    """What later feedback needs to know of an exposure."""

    user_id: int
    time_ms: int
    arm: str
    item_ids: frozenset[int]

    @classmethod
    def of(cls, exposure: Exposure) -> "ExposureSummary":
        """The part of an exposure that is kept."""
        items = frozenset(item.item_id for item in exposure.items)
        return cls(exposure.user_id, exposure.time_ms, exposure.arm, items)


@dataclass(slots=True)
class OpenRequest:
    """All that one request_id is known by."""

    shown: ExposureSummary | None = None  # None while only feedback has come
    outcomes: dict[int, Behaviour] = field(default_factory=dict)  # by item
    event_ids: set[str] = field(default_factory=set)  # of the feedback that was taken in or is held
    held: list[tuple[Feedback, Origin]] = field(default_factory=list)  # in the order in which it arrived

    def expires_ms(self, attribution_window_ms: int) -> int:
        """The event time after which it is of no use: a watermark past it drops the request."""
        if self.shown is not None:
            return self.shown.time_ms + attribution_window_ms
        return self.held[0][0].time_ms


def outcome_of(feedback: Feedback) -> Behaviour:
    """What one feedback event says."""
    return Behaviour(
        feedback.time_ms, feedback.item_id, feedback.play_time_ms, feedback.effective_view, feedback.follow
    )


def fold(one: Behaviour, other: Behaviour) -> Behaviour:
    """Two feedback events on one item as one outcome.

    >>> fold(Behaviour(5, 1, 900, True, False), Behaviour(9, 1, 300, False, True))
    Behaviour(time_ms=5, item_id=1, play_time_ms=900, effective_view=True, follow=True)
    """
    return Behaviour(
        min(one.time_ms, other.time_ms),
        one.item_id,
        max(one.play_time_ms, other.play_time_ms),
        one.effective_view or other.effective_view,
        one.follow or other.follow,
    )
