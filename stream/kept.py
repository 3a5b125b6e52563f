"""What a partition's state holds, as messages (`stream_state.proto`) and back. Pure."""

from contracts.messages.attribution import ExposureSummary, Outcome
from contracts.messages.events import fill_numbers
from contracts.messages.forget import Mark, Marks
from contracts.wire.events_pb2 import Feedback
from contracts.wire.stream_state_pb2 import ForgottenUsers, HeldFeedback, OutcomeState, RequestState, UserState
from stream.join import OpenRequest, Origin
from stream.sessions import UserSessions


def _held(value: bytes) -> Feedback:
    """Feedback as it was decoded when it came."""
    feedback = Feedback.FromString(value)
    fill_numbers(feedback)
    return feedback


def marks_of(state: ForgottenUsers) -> Marks:
    """Who has been forgotten, as it was kept."""
    return Marks(state.salt, {user.hash: Mark(user.exposures_end, user.until_ms) for user in state.users})


def user_bytes(user: UserSessions) -> bytes:
    """A user as it is kept."""
    state = UserState(
        history=user.history, dropped=user.dropped, next_offset=user.next_offset, row_us=user.row_us, open=user.open
    )
    encoded: bytes = state.SerializeToString()
    return encoded


def user_of(state: UserState) -> UserSessions:
    """A user as it was kept."""
    return UserSessions(state.history, state.dropped, state.next_offset, state.row_us, state.open)


def request_bytes(request: OpenRequest) -> bytes:
    """A request as it is kept."""
    shown = request.shown
    state = RequestState(
        exposed=shown is not None,
        outcomes=[
            OutcomeState(
                item_id=outcome.item_id,
                time_ms=outcome.time_ms,
                play_time_ms=outcome.play_time_ms,
                effective_view=outcome.effective_view,
                follow=outcome.follow,
            )
            for outcome in request.outcomes.values()
        ],
        impressions=request.impressions,
        event_ids=sorted(request.event_ids),
        held=[
            HeldFeedback(
                offset=origin.offset,
                key=origin.key,
                value=origin.value,
                timestamp_ms=origin.timestamp,
                sent_at_ms=origin.sent_at_ms,
            )
            for _, origin in request.held
        ],
    )
    if shown is not None:
        state.user_id, state.time_ms, state.arm = shown.user_id, shown.time_ms, shown.arm
        state.item_ids.extend(sorted(shown.item_ids))
        state.model, state.snapshot_version = shown.model, shown.snapshot_version
        state.propensities.update(shown.propensities)
        state.served_only = shown.served_only
    encoded: bytes = state.SerializeToString(deterministic=True)
    return encoded


def request_of(state: RequestState, topic: str, partition: int) -> OpenRequest:
    """A request as it was kept; feedback that it holds lies in this partition of this topic."""
    shown = (
        ExposureSummary(
            state.user_id,
            state.time_ms,
            state.arm,
            frozenset(state.item_ids),
            state.model,
            state.snapshot_version,
            tuple(sorted(state.propensities.items())),
            state.served_only,
        )
        if state.exposed
        else None
    )
    held = [
        (
            _held(stored_event.value),
            Origin(
                topic,
                partition,
                stored_event.offset,
                stored_event.key if stored_event.HasField("key") else None,
                stored_event.value,
                stored_event.timestamp_ms,
                stored_event.sent_at_ms,
            ),
        )
        for stored_event in state.held
    ]
    outcomes = {
        stored_event.item_id: Outcome(
            stored_event.time_ms,
            stored_event.item_id,
            stored_event.play_time_ms,
            stored_event.effective_view,
            stored_event.follow,
        )
        for stored_event in state.outcomes
    }
    return OpenRequest(outcomes, dict(state.impressions), set(state.event_ids), shown, held)
