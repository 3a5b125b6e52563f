"""Which feedback belongs to which exposure, and what it comes to: one rule for all who join the two. Pure.

The stream learns by it and the collector of an experiment counts by it, so a view that is learned from is a view that
is counted (`docs/stream.md`, "One attribution"). Each feeds its own memory; what is decided here is decided for both:

- an event is late by its own log alone: what is more than `allowed_lateness_ms` behind the newest event of its topic
  and partition has no effect (`is_late`);
- feedback counts for the exposure of its `request_id` if that exposure showed its item to its user, not after it and
  not more than the attribution window before it (`mismatch`). What comes before its exposure cannot be its effect, and
  because of that rule the watermark says when feedback waits for its exposure in vain;
- all feedback on one item is one outcome (`fold`);
- of events that count and share an `event_id`, the first in the log counts (`attribute`); so does the first exposure
  of a `request_id`.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple, Protocol

from contracts.wire.events_pb2 import Exposure


class ExposureSummary(NamedTuple):
    """What feedback needs to know of its exposure."""

    user_id: int
    time_ms: int
    arm: str
    item_ids: frozenset[int]
    model: str = ""  # that answered
    snapshot_version: str = ""  # that answered
    propensities: tuple[tuple[int, float], ...] = ()  # (item, chance) of those that came to their places at random

    @classmethod
    def of(cls, exposure: Exposure) -> "ExposureSummary":
        """The part of an exposure that is kept."""
        return cls(
            exposure.user_id,
            exposure.time_ms,
            exposure.arm,
            frozenset(item.item_id for item in exposure.items),
            exposure.model,
            exposure.snapshot_version,
            tuple(sorted((item.item_id, item.propensity) for item in exposure.items if item.HasField("propensity"))),
        )


class Outcome(NamedTuple):
    """What a user did with one shown item. Outcomes are ordered as these tuples are: ties in time have one order."""

    time_ms: int
    item_id: int
    play_time_ms: int
    effective_view: bool
    follow: bool


class FeedbackFields(Protocol):
    """What the rule reads of a feedback event, be it the message or a record of it."""

    @property
    def event_id(self) -> str: ...
    @property
    def time_ms(self) -> int: ...
    @property
    def user_id(self) -> int: ...
    @property
    def item_id(self) -> int: ...
    @property
    def play_time_ms(self) -> int: ...
    @property
    def effective_view(self) -> bool: ...
    @property
    def follow(self) -> bool: ...


class Unattributed(StrEnum):
    """Why a feedback event does not count for the exposure of its request."""

    DUPLICATE = "duplicate"
    OTHER_USER = "other_user"
    NOT_SHOWN = "not_shown"
    BEFORE_EXPOSURE = "before_exposure"
    AFTER_WINDOW = "after_window"


def is_late(time_ms: int, newest_ms: int, allowed_lateness_ms: int) -> bool:
    """Whether an event comes too late to count.

    `newest_ms`: the newest event time that was read before it in its topic and partition, of events that could be
    decoded, whatever became of them.

    >>> is_late(400, 1000, 600), is_late(399, 1000, 600)
    (False, True)
    """
    return time_ms < newest_ms - allowed_lateness_ms


def watermark_ms(newest_ms: Iterable[int], allowed_lateness_ms: int) -> int:
    """The event time before which nothing that comes counts; `newest_ms` is as in `is_late`, of each log read.

    >>> watermark_ms([1000, 4000], 600)
    400
    """
    return min(newest_ms) - allowed_lateness_ms


def last_feedback_ms(exposed_ms: int, attribution_window_ms: int) -> int:
    """The newest event time that feedback on an exposure may have. Once the watermark is past it, none can come."""
    return exposed_ms + attribution_window_ms


def mismatch(exposure: ExposureSummary, feedback: FeedbackFields, attribution_window_ms: int) -> Unattributed | None:
    """Why feedback does not belong to the exposure with its request_id; None where it does."""
    if feedback.user_id != exposure.user_id:
        return Unattributed.OTHER_USER
    if feedback.item_id not in exposure.item_ids:
        return Unattributed.NOT_SHOWN
    if feedback.time_ms < exposure.time_ms:
        return Unattributed.BEFORE_EXPOSURE
    if feedback.time_ms > last_feedback_ms(exposure.time_ms, attribution_window_ms):
        return Unattributed.AFTER_WINDOW
    return None


def outcome_of(feedback: FeedbackFields) -> Outcome:
    """What one feedback event says."""
    return Outcome(feedback.time_ms, feedback.item_id, feedback.play_time_ms, feedback.effective_view, feedback.follow)


def fold(one: Outcome, other: Outcome) -> Outcome:
    """Two feedback events on one item as one outcome: the earliest time, the longest play, and all that was done.

    Players report the play so far, again and again: the longest is the play, and their sum would count its seconds
    twice. Folding is idempotent and its order changes nothing.

    >>> fold(Outcome(5, 1, 900, True, False), Outcome(9, 1, 300, False, True))
    Outcome(time_ms=5, item_id=1, play_time_ms=900, effective_view=True, follow=True)
    """
    return Outcome(
        min(one.time_ms, other.time_ms),
        one.item_id,
        max(one.play_time_ms, other.play_time_ms),
        one.effective_view or other.effective_view,
        one.follow or other.follow,
    )


def attribute(
    exposure: ExposureSummary,
    outcomes: dict[int, Outcome],
    event_ids: set[str],
    feedback: FeedbackFields,
    attribution_window_ms: int,
) -> Unattributed | None:
    """Take the next feedback event of an exposure, in the order of the log, into what is known of the exposure.

    Args:
        exposure: what the request of the event showed.
        outcomes: what came of each item so far, by item; changed in place where the event counts.
        event_ids: of the events that have counted; changed likewise. An event that did not count is not among them: one
            that is sent again with the same id, put right, counts.
        feedback: an event that is not late.
        attribution_window_ms: for how long after its exposure feedback counts.

    Returns:
        None where the event counts, else why it does not.

    """
    if feedback.event_id in event_ids:
        return Unattributed.DUPLICATE
    reason = mismatch(exposure, feedback, attribution_window_ms)
    if reason is not None:
        return reason
    event_ids.add(feedback.event_id)
    outcome, earlier = outcome_of(feedback), outcomes.get(feedback.item_id)
    outcomes[feedback.item_id] = outcome if earlier is None else fold(earlier, outcome)
    return None
