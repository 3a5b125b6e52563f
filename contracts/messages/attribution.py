"""Which feedback belongs to which exposure, and what it comes to: one rule for all who join the two. Pure.

The stream learns by it and the collector of an experiment counts by it, so a view that is learned from is a view that
is counted (`docs/stream.md`, "One attribution"). Each feeds its own memory; what is decided here is decided for both:

- an event is late by its own log alone: what is more than `allowed_lateness_ms` behind the newest event of its topic
  and partition has no effect (`is_late`);
- feedback counts for the exposure of its `request_id` if that exposure showed its item to its user, not after it and
  not more than the attribution window before it (`mismatch`). What comes before its exposure cannot be its effect, and
  because of that rule the watermark says when feedback waits for its exposure in vain;
- feedback is an outcome of one item, or an impression: items of the exposure that were shown (`is_impression`);
- all outcomes of one item are one (`fold`). An item that was shown and has none is a behaviour without a play;
- what a request showed are the items of its exposure or, where that is `served_only`, those that counting feedback
  tells of, by an impression or an outcome (`shown_items`);
- of events that count and share an `event_id`, the first in the log counts (`attribute`); so does the first exposure
  of a `request_id`.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from contracts.wire.events_pb2 import Exposure

FEWEST_VIEWS = 100  # with fewer, a share says nothing
ONLY_POSITIVES = 0.99  # of what was shown: no service has such an EVR, but one that tells of positives alone


class ExposureSummary(NamedTuple):
    """What feedback needs to know of its exposure."""

    user_id: int
    time_ms: int
    arm: str
    item_ids: frozenset[int]
    model: str = ""  # that answered
    snapshot_version: str = ""  # that answered
    propensities: tuple[tuple[int, float], ...] = ()  # (item, chance) of those that came to their places at random
    served_only: bool = False  # its items were answered; which of them were shown, feedback tells

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
            exposure.served_only,
        )


class Outcome(NamedTuple):
    """What a user did with one shown item. Outcomes are ordered as these tuples are: ties in time have one order."""

    time_ms: int
    item_id: int
    play_time_ms: int
    effective_view: bool
    follow: bool


@dataclass(slots=True)
class Told:
    """What the feedback on one exposure has told so far, of what counts."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)  # by item
    impressions: dict[int, int] = field(default_factory=dict)  # when an item was first shown; of those without outcome
    event_ids: set[str] = field(default_factory=set)

    def behaviour(self, item_id: int) -> Outcome | None:
        """What the user did with an item: its outcome; without one, nothing at the time when it was shown.

        >>> Told(impressions={7: 1000}).behaviour(7)
        Outcome(time_ms=1000, item_id=7, play_time_ms=0, effective_view=False, follow=False)
        """
        outcome = self.outcomes.get(item_id)
        if outcome is None and item_id in self.impressions:
            return passed(item_id, self.impressions[item_id])
        return outcome

    def behaviours(self) -> list[Outcome]:
        """Those of all items that feedback has told of."""
        return [*self.outcomes.values(), *(passed(item_id, time_ms) for item_id, time_ms in self.impressions.items())]


def passed(item_id: int, shown_ms: int) -> Outcome:
    """What came of an item that was shown and not played."""
    return Outcome(shown_ms, item_id, 0, False, False)


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
    @property
    def shown_item_ids(self) -> Collection[int]: ...


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


def is_impression(feedback: FeedbackFields) -> bool:
    """Whether feedback says which items were shown, and not what became of one. It has been validated."""
    return feedback.item_id == 0


def shown_items(exposure: ExposureSummary, told: Told) -> frozenset[int]:
    """What a request has shown, as far as is known.

    >>> exposure, told = ExposureSummary(7, 1000, "a", frozenset({1, 2, 3})), Told(impressions={2: 1001})
    >>> sorted(shown_items(exposure, told)), sorted(shown_items(exposure._replace(served_only=True), told))
    ([1, 2, 3], [2])
    """
    return frozenset((*told.outcomes, *told.impressions)) if exposure.served_only else exposure.item_ids


def not_served(exposure: ExposureSummary, feedback: FeedbackFields) -> int:
    """How many items an impression names that its exposure does not have. The others count all the same."""
    return len(set(feedback.shown_item_ids) - exposure.item_ids)


def only_positives(views: int, effective_views: int) -> bool:
    """Whether nothing seems to tell of items that were shown and not viewed, so that their rate says nothing.

    >>> only_positives(1000, 1000), only_positives(1000, 900), only_positives(20, 20)
    (True, False, False)
    """
    return views >= FEWEST_VIEWS and effective_views >= ONLY_POSITIVES * views


def mismatch(exposure: ExposureSummary, feedback: FeedbackFields, attribution_window_ms: int) -> Unattributed | None:
    """Why feedback does not belong to the exposure with its request_id; None where it does."""
    if feedback.user_id != exposure.user_id:
        return Unattributed.OTHER_USER
    item_ids = exposure.item_ids
    if item_ids.isdisjoint(feedback.shown_item_ids) if is_impression(feedback) else feedback.item_id not in item_ids:
        return Unattributed.NOT_SHOWN
    if feedback.time_ms < exposure.time_ms:
        return Unattributed.BEFORE_EXPOSURE
    if feedback.time_ms > last_feedback_ms(exposure.time_ms, attribution_window_ms):
        return Unattributed.AFTER_WINDOW
    return None


def outcome_of(feedback: FeedbackFields) -> Outcome:
    """What one feedback event says that is no impression."""
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
    exposure: ExposureSummary, told: Told, feedback: FeedbackFields, attribution_window_ms: int
) -> Unattributed | None:
    """Take the next feedback event of an exposure, in the order of the log, into what is known of the exposure.

    Args:
        exposure: what the request of the event showed or served.
        told: by the events before it; changed in place where the event counts. The id of one that did not count is not
            in it: one that is sent again with the same id, put right, counts.
        feedback: an event that is not late.
        attribution_window_ms: for how long after its exposure feedback counts.

    Returns:
        None where the event counts, else why it does not.

    """
    if feedback.event_id in told.event_ids:
        return Unattributed.DUPLICATE
    reason = mismatch(exposure, feedback, attribution_window_ms)
    if reason is not None:
        return reason
    told.event_ids.add(feedback.event_id)
    if is_impression(feedback):
        for item_id in exposure.item_ids.intersection(feedback.shown_item_ids) - told.outcomes.keys():
            told.impressions[item_id] = min(feedback.time_ms, told.impressions.get(item_id, feedback.time_ms))
        return None
    outcome, earlier = outcome_of(feedback), told.outcomes.get(feedback.item_id)
    told.outcomes[feedback.item_id] = outcome if earlier is None else fold(earlier, outcome)
    told.impressions.pop(feedback.item_id, None)
    return None
