"""Literal events, and a run of them through the pure steps."""

from collections.abc import Container

from contracts.config.settings import StreamSettings
from contracts.wire.events_pb2 import ExposedItem, Exposure, Feedback
from contracts.wire.stream_state_pb2 import Outbox
from stream.join import Origin
from stream.outputs import Learned, Output, Rejected
from stream.partition import PartitionStore
from stream.state import JoinState
from stream.step import on_exposure, on_feedback, on_time, watermark

SETTINGS = StreamSettings(session_gap_ms=100, attribution_window_ms=1000, allowed_lateness_ms=500, history_limit=50)
ITEMS = range(1, 100)

Event = Exposure | Feedback


def exposure(
    request: str = "r",
    time_ms: int = 1000,
    items: tuple[int, ...] = (1, 2),
    user: int = 7,
    *,
    served_only: bool = False,
) -> Exposure:
    return Exposure(
        schema_version=1,
        event_id=request,
        request_id=request,
        user_id=user,
        time_ms=time_ms,
        arm="a",
        items=[ExposedItem(item_id=i) for i in items],
        served_only=served_only,
    )


def feedback(
    item: int = 1,
    time_ms: int = 1001,
    request: str = "r",
    *,
    view: bool = True,
    event: str = "",
    user: int = 7,
    play_ms: int = 3,
    follow: bool = False,
) -> Feedback:
    return Feedback(
        schema_version=1,
        event_id=event or f"{request}/{item}/{time_ms}",
        request_id=request,
        user_id=user,
        item_id=item,
        time_ms=time_ms,
        play_time_ms=play_ms,
        effective_view=view,
        follow=follow,
    )


def impression(
    items: tuple[int, ...] = (1, 2), time_ms: int = 1001, request: str = "r", *, event: str = "", user: int = 7
) -> Feedback:
    return Feedback(
        schema_version=1,
        event_id=event or f"{request}/shown/{time_ms}",
        request_id=request,
        user_id=user,
        time_ms=time_ms,
        shown_item_ids=items,
    )


def origin_of(event: Event, offset: int = 0) -> Origin:
    topic = "exposures" if isinstance(event, Exposure) else "feedback"
    return Origin(topic, 0, offset, None, event.SerializeToString(), 0, 42)


def step(state: JoinState, event: Event, offset: int = 0, items: Container[int] = ITEMS) -> list[Output]:
    if isinstance(event, Exposure):
        return list(on_exposure(state, event, origin_of(event, offset), SETTINGS))
    return list(on_feedback(state, event, origin_of(event, offset), SETTINGS, items))


def run(state: JoinState, *events: Event) -> list[Output]:
    """Step through the events."""
    return [output for offset, event in enumerate(events) for output in step(state, event, offset)]


def look_at_the_time(state: JoinState) -> list[Output]:
    """Let the timers of all that was stepped through fire."""
    if isinstance(state, PartitionStore):
        state.commit(Outbox())
    return list(on_time(state, watermark(state, SETTINGS), SETTINGS))


def kinds(outputs: list[Output]) -> list[str]:
    return [str(o.error.reason) if isinstance(o, Rejected) else type(o).__name__.lower() for o in outputs]


def examples(outputs: list[Output]) -> list[Learned]:
    return [o for o in outputs if isinstance(o, Learned) and o.example]
