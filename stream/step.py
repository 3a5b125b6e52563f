"""The stream's logic: `(state, event) → outputs`, one state a partition. Pure: no Kafka, no Feast, no clock.

What counts is decided by `contracts.messages.attribution`, for an experiment's figures as for what is learned. Lateness
is judged within a topic, and the watermark is the slower topic's: how far one topic happens to be read ahead of the
other changes nothing.

An exposure and its feedback meet by request_id. Feedback that comes first is held until its exposure comes, or until
the watermark says that it never will. What came of an item becomes a behaviour of its user; once it is an effective
view it also becomes a training example, with the history as it was before it.

An impression makes behaviours without a play of the items that nothing was known of; the outcome of such an item takes
that behaviour's place. So a user's row has what the user was shown, as far as feedback tells, and no page has more.

What has expired counts as gone from that moment on, whenever `on_time` clears it away: outputs are a function of the
order of events, not of when the clearing runs.

A request to forget a user (`contracts.messages.forget`) drops what came before it in that order, and is itself nothing
that anybody waits for: it moves no watermark.
"""

from collections.abc import Container, Iterator

from contracts.config.settings import StreamSettings
from contracts.messages.attribution import (
    ExposureSummary,
    Unattributed,
    attribute,
    is_impression,
    is_late,
    not_served,
    passed,
    shown_items,
    watermark_ms,
)
from contracts.messages.events import SCHEMA_VERSION, BadEvent, Reason
from contracts.messages.forget import Mark, is_forget
from contracts.wire.events_pb2 import Example, Exposure, Feedback, Page
from stream.join import OpenRequest, Origin
from stream.outputs import (
    Closed,
    Dropped,
    Duplicate,
    Expired,
    Forgotten,
    Impressed,
    Learned,
    Output,
    Rejected,
    Remembered,
)
from stream.sessions import COLUMNS, Behaviour, UserSessions, close, insert, remove, replace
from stream.state import JoinState


def on_exposure(state: JoinState, exposure: Exposure, origin: Origin, settings: StreamSettings) -> list[Output]:
    """An exposure arrived: remember it, and use the feedback that was held for it."""
    request_id = exposure.request_id
    mark = state.marks.get(exposure.user_id)
    if mark is not None and origin.offset < mark.exposures_end:
        state.newest_exposure_ms = max(state.newest_exposure_ms, exposure.time_ms)
        until_ms = exposure.time_ms + settings.attribution_window_ms + settings.allowed_lateness_ms
        if state.marks.extend(exposure.user_id, until_ms):
            state.put_marks()
        return [Dropped(origin)]
    request, outputs = _current(state, request_id, settings)
    late = is_late(exposure.time_ms, state.newest_exposure_ms, settings.allowed_lateness_ms)
    state.newest_exposure_ms = max(state.newest_exposure_ms, exposure.time_ms)
    if request.shown is not None:
        outputs.append(Duplicate(origin))
        return outputs
    if late:
        outputs.append(Rejected(origin, _late(exposure.time_ms)))
        return outputs
    request.shown = ExposureSummary.of(exposure)
    outputs.append(Remembered(origin))
    held, request.held, request.event_ids = request.held, [], set()
    for feedback, feedback_origin in held:
        outputs.append(_join(state, request.shown, request, feedback, feedback_origin, settings))
    state.put_request(request_id, request)
    state.wake_request(request_id, request.expires_ms(settings.attribution_window_ms))
    return outputs


def on_feedback(
    state: JoinState, feedback: Feedback, origin: Origin, settings: StreamSettings, known_items: Container[int]
) -> list[Output]:
    """A feedback event arrived: join it, or hold it until its exposure comes. One that asks to forget forgets."""
    if is_forget(feedback):
        return _forget(state, feedback, origin, settings)
    request_id, time_ms = feedback.request_id, feedback.time_ms
    late = is_late(time_ms, state.newest_feedback_ms, settings.allowed_lateness_ms)
    if not is_impression(feedback) and feedback.item_id not in known_items:
        state.newest_feedback_ms = max(state.newest_feedback_ms, time_ms)
        return [Rejected(origin, BadEvent(Reason.UNKNOWN_ITEM, f"item {feedback.item_id} is not in the catalogue"))]
    request, outputs = _current(state, request_id, settings)
    state.newest_feedback_ms = max(state.newest_feedback_ms, time_ms)
    if feedback.event_id in request.event_ids if request.shown is not None else request.holds(feedback):
        outputs.append(Duplicate(origin))
        return outputs
    if late:
        outputs.append(Rejected(origin, _late(time_ms)))
        return outputs
    if request.shown is not None:
        outputs.append(_join(state, request.shown, request, feedback, origin, settings))
    else:
        request.event_ids.add(feedback.event_id)
        request.held.append((feedback, origin))
        if time_ms == request.expires_ms(settings.attribution_window_ms):
            state.wake_request(request_id, time_ms)
    state.put_request(request_id, request)
    return outputs


def on_time(
    state: JoinState,
    watermark_ms: int,
    settings: StreamSettings,
    keep_users_ms: int | None = None,
    exposures_read: int | None = None,
) -> Iterator[Output]:
    """Event time has come to `watermark_ms`: forget what has expired, and close the sessions of idle users.

    `keep_users_ms`: how long after the last behaviour a user is kept; None: for good. `exposures_read`: the offset up
    to which exposures have been read; None: all have.
    """
    for request_id in state.requests_due(watermark_ms):
        request = state.request(request_id)
        if request is not None and request.expires_ms(settings.attribution_window_ms) < watermark_ms:
            yield from _given_up(state, request_id, request)
            state.drop_request(request_id)
    for user_id in state.users_due(watermark_ms):
        user = state.user(user_id)
        if user is not None:
            yield from _user_due(state, user_id, user, watermark_ms, settings, keep_users_ms)
    if state.marks.expire(watermark_ms, lambda mark: exposures_read is None or mark.exposures_end <= exposures_read):
        state.put_marks()


def _user_due(
    state: JoinState,
    user_id: int,
    user: UserSessions,
    watermark_ms: int,
    settings: StreamSettings,
    keep_users_ms: int | None,
) -> Iterator[Output]:
    """A user's timer has fired: the last session ends, or the user has been away for too long."""
    if user.open:
        ends_ms = user.last_ms + settings.session_gap_ms
        if ends_ms >= watermark_ms:
            state.wake_user(user_id, ends_ms)
            return
        close(user)
        state.put_user(user_id, user)
        yield Closed(user_id)
        if keep_users_ms is not None:
            state.wake_user(user_id, user.last_ms + keep_users_ms)
    elif keep_users_ms is not None and user.last_ms + keep_users_ms < watermark_ms:
        state.drop_user(user_id)
        yield Expired(user_id)
    elif keep_users_ms is not None:
        state.wake_user(user_id, user.last_ms + keep_users_ms)


def watermark(state: JoinState, settings: StreamSettings, *, exposures_ms: int = 0, feedback_ms: int = 0) -> int:
    """The event time before which nothing is expected any more.

    `exposures_ms`, `feedback_ms`: for how long each log has been silent on the wall clock; its event time goes on so.
    """
    newest_ms = state.newest_exposure_ms + exposures_ms, state.newest_feedback_ms + feedback_ms
    return watermark_ms(newest_ms, settings.allowed_lateness_ms)


def _current(state: JoinState, request_id: str, settings: StreamSettings) -> tuple[OpenRequest, list[Output]]:
    """What is known of a request, a new one if nothing is, and what is given up because the watermark has passed it."""
    request = state.request(request_id)
    if request is None:
        return OpenRequest(), []
    if request.expires_ms(settings.attribution_window_ms) >= watermark(state, settings):
        return request, []
    state.drop_request(request_id)
    return OpenRequest(), _given_up(state, request_id, request)


def _given_up(state: JoinState, request_id: str, request: OpenRequest) -> list[Output]:
    """The feedback that waited for an exposure in vain; that of a forgotten user goes nowhere."""
    detail = f"no exposure of request {request_id} came in time"
    return [
        Rejected(origin, BadEvent(Reason.NO_EXPOSURE, detail))
        if state.marks.get(feedback.user_id) is None
        else Dropped(origin)
        for feedback, origin in request.held
    ]


def _forget(state: JoinState, feedback: Feedback, origin: Origin, settings: StreamSettings) -> list[Output]:
    """Drop all that is known of a user, and for as long as more of it may come mark who it was."""
    user_id, forget = feedback.user_id, feedback.forget
    outputs: list[Output] = []
    gone: list[str] = []
    for request_id, request in state.requests_of(user_id):
        outputs += [Dropped(waiting) for held, waiting in request.held if held.user_id == user_id]
        request.held = [entry for entry in request.held if entry[0].user_id != user_id]
        if request.held:
            request.event_ids = {held.event_id for held, _ in request.held}
            state.put_request(request_id, request)
        else:
            state.drop_request(request_id)
            gone.append(request_id)
    state.drop_user(user_id, gone)
    now_ms = max(state.newest_exposure_ms, state.newest_feedback_ms)
    until_ms = now_ms + settings.attribution_window_ms + settings.allowed_lateness_ms
    state.marks.add(user_id, Mark(forget.exposures_end, until_ms), forget.salt)
    state.put_marks()
    outputs.append(Forgotten(origin, feedback.event_id, user_id, now_ms, forget))
    return outputs


def _join(
    state: JoinState,
    shown: ExposureSummary,
    request: OpenRequest,
    feedback: Feedback,
    origin: Origin,
    settings: StreamSettings,
) -> Output:
    """Feedback and its exposure have met."""
    take = _impress if is_impression(feedback) else _learn
    return take(state, shown, request, feedback, origin, settings)


def _learn(
    state: JoinState,
    shown: ExposureSummary,
    request: OpenRequest,
    feedback: Feedback,
    origin: Origin,
    settings: StreamSettings,
) -> Output:
    """Take an outcome in, and make an example of it where its item has become an effective view."""
    item_id, gap_ms = feedback.item_id, settings.session_gap_ms
    earlier, impressed_ms = request.outcomes.get(item_id), request.impressions.get(item_id)
    reason = attribute(shown, request, feedback, settings.attribution_window_ms)
    if reason is not None:
        return _refused(reason, shown, feedback, origin)
    outcome = request.outcomes[item_id]
    user = state.user(feedback.user_id) or UserSessions()
    positive = outcome.effective_view and not (earlier and earlier.effective_view)
    was_open, dropped, begun = user.open, user.dropped, 0
    if impressed_ms is not None:  # an example does not have its own item in its history
        begun = remove(user, passed(item_id, impressed_ms), gap_ms=gap_ms)
    before = user.before(outcome.time_ms)
    # The example copies the history, so it must be made first.
    example = _example(user, before, shown, feedback, outcome, origin) if positive else None
    if earlier is None:
        begun += insert(user, outcome, gap_ms=gap_ms, limit=settings.history_limit)
    elif outcome != earlier:
        begun = replace(user, earlier, outcome, gap_ms=gap_ms)
    else:
        return Learned(origin, feedback.user_id, None, True, 0, 0)
    if example:
        example.session = _session_at(user, outcome)
        example.page.CopyFrom(_page(shown, request))
    _put(state, feedback.user_id, user, origin, settings, was_open=was_open)
    views = int(shown.served_only and earlier is None and impressed_ms is None)
    effective = int(shown.served_only and positive)
    folded = earlier is not None
    return Learned(origin, feedback.user_id, example, folded, begun, user.dropped - dropped, views, effective)


def _impress(
    state: JoinState,
    shown: ExposureSummary,
    request: OpenRequest,
    feedback: Feedback,
    origin: Origin,
    settings: StreamSettings,
) -> Output:
    """Take an impression in."""
    earlier = {item_id: request.behaviour(item_id) for item_id in sorted(set(feedback.shown_item_ids))}
    reason = attribute(shown, request, feedback, settings.attribution_window_ms)
    if reason is not None:
        return _refused(reason, shown, feedback, origin)
    user = state.user(feedback.user_id) or UserSessions()
    gap_ms, was_open, dropped, begun, new = settings.session_gap_ms, user.open, user.dropped, 0, 0
    changes = {each: now for each, was in earlier.items() if (now := request.behaviour(each)) not in (None, was)}
    for item_id, now in changes.items():
        before = earlier[item_id]
        if before is None:
            new += 1
            begun += insert(user, now, gap_ms=gap_ms, limit=settings.history_limit)
        else:
            begun += replace(user, before, now, gap_ms=gap_ms)
    if changes:
        _put(state, feedback.user_id, user, origin, settings, was_open=was_open)
    views, strangers = new if shown.served_only else 0, not_served(shown, feedback)
    return Impressed(origin, feedback.user_id, bool(changes), strangers, begun, user.dropped - dropped, views)


def _put(
    state: JoinState, user_id: int, user: UserSessions, origin: Origin, settings: StreamSettings, *, was_open: bool
) -> None:
    """Keep a user whose behaviours feedback has changed."""
    user.next_offset = max(user.next_offset, origin.offset + 1)
    state.put_user(user_id, user)
    if user.open and not was_open:
        state.wake_user(user_id, user.last_ms + settings.session_gap_ms)


def _refused(reason: Unattributed, shown: ExposureSummary, feedback: Feedback, origin: Origin) -> Duplicate | Rejected:
    if reason is Unattributed.DUPLICATE:
        return Duplicate(origin)
    return Rejected(origin, _unattributed(reason, shown, feedback))


def _unattributed(reason: Unattributed, shown: ExposureSummary, feedback: Feedback) -> BadEvent:
    """Why feedback cannot belong to the exposure with its request_id, for the dead-letter topic."""
    after_ms = feedback.time_ms - shown.time_ms
    match reason:
        case Unattributed.OTHER_USER:
            return BadEvent(Reason.NO_EXPOSURE, f"request {feedback.request_id} was not user {feedback.user_id}'s")
        case Unattributed.NOT_SHOWN if is_impression(feedback):
            detail = f"none of its {len(set(feedback.shown_item_ids))} items is of request {feedback.request_id}"
            return BadEvent(Reason.NO_EXPOSURE, detail)
        case Unattributed.NOT_SHOWN:
            detail = f"item {feedback.item_id} was not shown by request {feedback.request_id}"
            return BadEvent(Reason.NO_EXPOSURE, detail)
        case Unattributed.BEFORE_EXPOSURE:
            return BadEvent(Reason.BEFORE_EXPOSURE, f"{-after_ms} ms before its exposure, so it is no effect of it")
        case _:
            return BadEvent(Reason.TOO_LATE, f"{after_ms} ms after its exposure, past the attribution window")


def _example(
    user: UserSessions, before: int, shown: ExposureSummary, feedback: Feedback, outcome: Behaviour, origin: Origin
) -> Example:
    example = Example(
        schema_version=SCHEMA_VERSION,
        event_id=feedback.event_id,
        request_id=feedback.request_id,
        user_id=feedback.user_id,
        item_id=feedback.item_id,
        time_ms=outcome.time_ms,
        arm=shown.arm,
        sent_at_ms=origin.sent_at_ms,
        play_time_ms=outcome.play_time_ms,
        follow=outcome.follow,
        model=shown.model,
        snapshot_version=shown.snapshot_version,
    )
    example.history.CopyFrom(user.history)
    if before < len(user.history.times_ms):
        for name in COLUMNS:
            del getattr(example.history, name)[before:]
    return example


def _page(shown: ExposureSummary, request: OpenRequest) -> Page:
    """What the request has shown. What comes of an item later is in the example that it makes by itself then."""
    item_ids = sorted(shown_items(shown, request))
    outcomes = request.outcomes
    watched = (item_id in outcomes and outcomes[item_id].effective_view for item_id in item_ids)
    chances = dict(shown.propensities)
    propensities = [chances.get(item_id, 0.0) for item_id in item_ids]
    return Page(item_ids=item_ids, effective_views=watched, propensities=propensities if any(propensities) else [])


def _session_at(user: UserSessions, outcome: Behaviour) -> int:
    """Session index of a behaviour that is in the history; that of the oldest where the limit has cut it off."""
    sessions = user.history.sessions
    return int(sessions[min(user.before(outcome.time_ms), len(sessions) - 1)])


def _late(time_ms: int) -> BadEvent:
    return BadEvent(Reason.TOO_LATE, f"time_ms {time_ms} is behind the watermark")
