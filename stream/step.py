"""The stream's logic: `(state, event) → outputs`, one state a partition. Pure: no Kafka, no Feast, no clock.

Lateness is judged within a topic, and the watermark is the slower topic's: how far one topic happens to be read ahead
of the other changes nothing.

An exposure and its feedback meet by request_id. Feedback that comes first is held until its exposure comes, or until
the watermark says that it never will. Each accepted feedback event becomes a behaviour of its user; an effective view
also becomes a training example, with the history as it was before it.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from contracts.events import SCHEMA_VERSION, BadEvent, Reason
from contracts.settings import StreamSettings
from contracts.wire.events_pb2 import Example, Exposure, Feedback, History
from stream.dedupe import SeenIds
from stream.sessions import Behaviour, UserHistory, insert


@dataclass(frozen=True)
class Origin:
    """Where a record came from, so that it can be dead-lettered whole and its freshness measured."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    sent_at_ms: int


@dataclass(frozen=True)
class Learned:
    """A feedback event became a behaviour of its user: `example` where it was positive."""

    user_id: int
    example: Example | None
    origin: Origin
    sessions_begun: int


@dataclass(frozen=True)
class Remembered:
    """An exposure was accepted; feedback can join it."""

    origin: Origin


@dataclass(frozen=True)
class Duplicate:
    """An event id that was seen before; dropped."""

    origin: Origin


@dataclass(frozen=True)
class Rejected:
    """An event that goes to the dead-letter topic."""

    error: BadEvent
    origin: Origin


Output: TypeAlias = Learned | Remembered | Duplicate | Rejected


@dataclass(frozen=True)
class Shown:
    """What later feedback needs to know of an exposure."""

    user_id: int
    time_ms: int
    arm: str
    items: frozenset[int]


@dataclass
class PartitionState:
    """All that one partition's steps remember."""

    seen_exposures: SeenIds
    seen_feedback: SeenIds
    exposures: OrderedDict[str, Shown] = field(default_factory=OrderedDict)  # by request_id, oldest arrival first
    held: dict[str, list[tuple[Feedback, Origin]]] = field(default_factory=dict)  # by request_id
    expiry: deque[tuple[int, str]] = field(default_factory=deque)  # (time, request_id) of held feedback
    users: dict[int, UserHistory] = field(default_factory=dict)
    newest_exposure_ms: int = 0
    newest_feedback_ms: int = 0

    @classmethod
    def empty(cls, settings: StreamSettings) -> "PartitionState":
        """The state before the first event."""
        # Each topic by itself, as lateness is: an id that is forgotten is always too late in its own topic.
        return cls(SeenIds(settings.allowed_lateness_ms), SeenIds(settings.allowed_lateness_ms))


def on_exposure(
    state: PartitionState, exposure: Exposure, origin: Origin, settings: StreamSettings
) -> Iterator[Output]:
    """An exposure arrived: remember it, and use the feedback that was held for it."""
    if not state.seen_exposures.add(exposure.event_id, exposure.time_ms) or exposure.request_id in state.exposures:
        yield Duplicate(origin)
        return
    if exposure.time_ms < state.newest_exposure_ms - settings.allowed_lateness_ms:
        yield Rejected(_late_error(exposure.time_ms), origin)
        return
    state.newest_exposure_ms = max(state.newest_exposure_ms, exposure.time_ms)
    items = frozenset(item.item_id for item in exposure.items)
    shown = Shown(exposure.user_id, exposure.time_ms, exposure.arm, items)
    state.exposures[exposure.request_id] = shown
    yield Remembered(origin)
    for feedback, feedback_origin in state.held.pop(exposure.request_id, ()):
        yield _joined(state, shown, feedback, feedback_origin, settings)
    yield from expire(state, settings)


def on_feedback(
    state: PartitionState, feedback: Feedback, origin: Origin, settings: StreamSettings
) -> Iterator[Output]:
    """A feedback event arrived: join it, or hold it until its exposure comes."""
    if not state.seen_feedback.add(feedback.event_id, feedback.time_ms):
        yield Duplicate(origin)
        return
    if feedback.time_ms < state.newest_feedback_ms - settings.allowed_lateness_ms:
        yield Rejected(_late_error(feedback.time_ms), origin)
        return
    state.newest_feedback_ms = max(state.newest_feedback_ms, feedback.time_ms)
    shown = state.exposures.get(feedback.request_id)
    if shown is None:
        state.held.setdefault(feedback.request_id, []).append((feedback, origin))
        state.expiry.append((feedback.time_ms, feedback.request_id))
    else:
        yield _joined(state, shown, feedback, origin, settings)
    yield from expire(state, settings)


def expire(state: PartitionState, settings: StreamSettings) -> Iterator[Output]:
    """Give up what the watermark has passed: old exposures, and held feedback whose exposure never came."""
    newest_ms = min(state.newest_exposure_ms, state.newest_feedback_ms)
    watermark = newest_ms - settings.allowed_lateness_ms
    while state.expiry and state.expiry[0][0] < watermark:
        _, request_id = state.expiry.popleft()
        for _, origin in state.held.pop(request_id, ()):
            error = BadEvent(Reason.NO_EXPOSURE, f"no exposure of request {request_id} came in time")
            yield Rejected(error, origin)
    horizon = watermark - settings.attribution_window_ms
    while state.exposures and next(iter(state.exposures.values())).time_ms < horizon:
        state.exposures.popitem(last=False)


def held_count(state: PartitionState) -> int:
    """Feedback events that still wait for their exposure."""
    return sum(len(waiting) for waiting in state.held.values())


def _joined(
    state: PartitionState, shown: Shown, feedback: Feedback, origin: Origin, settings: StreamSettings
) -> Output:
    if feedback.user_id != shown.user_id:
        detail = f"request {feedback.request_id} was not user {feedback.user_id}'s"
        return Rejected(BadEvent(Reason.NO_EXPOSURE, detail), origin)
    if feedback.item_id not in shown.items:
        detail = f"item {feedback.item_id} was not shown by request {feedback.request_id}"
        return Rejected(BadEvent(Reason.NO_EXPOSURE, detail), origin)
    if feedback.time_ms - shown.time_ms > settings.attribution_window_ms:
        detail = f"{feedback.time_ms - shown.time_ms} ms after its exposure, past the attribution window"
        return Rejected(BadEvent(Reason.TOO_LATE, detail), origin)
    history = state.users.setdefault(feedback.user_id, UserHistory())
    example = _example(history, shown, feedback, origin) if feedback.effective_view else None
    behaviour = Behaviour(
        feedback.item_id, feedback.time_ms, feedback.play_time_ms, feedback.effective_view, feedback.follow
    )
    begun = insert(history, behaviour, gap_ms=settings.session_gap_ms, limit=settings.history_limit)
    history.next_offset = max(history.next_offset, origin.offset + 1)
    return Learned(feedback.user_id, example, origin, begun)


def _example(history: UserHistory, shown: Shown, feedback: Feedback, origin: Origin) -> Example:
    known = history.before(feedback.time_ms)
    past = history.behaviours[:known]
    return Example(
        schema_version=SCHEMA_VERSION,
        event_id=feedback.event_id,
        request_id=feedback.request_id,
        user_id=feedback.user_id,
        item_id=feedback.item_id,
        time_ms=feedback.time_ms,
        arm=shown.arm,
        history=History(
            item_ids=[b.item_id for b in past],
            times_ms=[b.time_ms for b in past],
            play_times_ms=[b.play_time_ms for b in past],
            effective_views=[b.effective_view for b in past],
            follows=[b.follow for b in past],
            sessions=history.sessions[:known],
        ),
        sent_at_ms=origin.sent_at_ms,
    )


def _late_error(time_ms: int) -> BadEvent:
    return BadEvent(Reason.TOO_LATE, f"time_ms {time_ms} is behind the watermark")
