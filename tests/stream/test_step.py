"""The join, step by step: literal events in, literal outcomes out."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from contracts.events import Reason
from contracts.settings import StreamSettings
from contracts.wire.events_pb2 import ExposedItem, Exposure, Feedback
from stream.step import (
    Duplicate,
    Learned,
    Origin,
    Output,
    PartitionState,
    Rejected,
    Remembered,
    held_count,
    on_exposure,
    on_feedback,
)

SETTINGS = StreamSettings(session_gap_ms=100, attribution_window_ms=1000, allowed_lateness_ms=500, history_limit=50)
ORIGIN = Origin("feedback", 0, 0, None, b"", 0, 42)


def exposure(request: str = "r", time_ms: int = 1000, items: tuple[int, ...] = (1, 2), arm: str = "a") -> Exposure:
    return Exposure(
        event_id=request,
        request_id=request,
        user_id=7,
        time_ms=time_ms,
        arm=arm,
        items=[ExposedItem(item_id=i) for i in items],
    )


def feedback(item: int = 1, time_ms: int = 1001, request: str = "r", view: bool = True, event: str = "") -> Feedback:
    return Feedback(
        event_id=event or f"{request}/{item}/{time_ms}",
        request_id=request,
        user_id=7,
        item_id=item,
        time_ms=time_ms,
        play_time_ms=3,
        effective_view=view,
        follow=False,
    )


def run(*events: Exposure | Feedback, state: PartitionState | None = None) -> list[Output]:
    state = state or PartitionState.empty(SETTINGS)
    outputs: list[Output] = []
    for event in events:
        if isinstance(event, Exposure):
            outputs += on_exposure(state, event, ORIGIN, SETTINGS)
        else:
            outputs += on_feedback(state, event, ORIGIN, SETTINGS)
    return outputs


def kinds(outputs: list[Output]) -> list[str]:
    return [str(o.error.reason) if isinstance(o, Rejected) else type(o).__name__.lower() for o in outputs]


def examples(outputs: list[Output]) -> list[Learned]:
    return [o for o in outputs if isinstance(o, Learned) and o.example]


def test_an_effective_view_becomes_an_example_with_the_history_before_it() -> None:
    learned = examples(run(exposure(), feedback(1, 1001), feedback(2, 1002)))
    assert [list(o.example.history.item_ids) for o in learned if o.example] == [[], [1]]
    assert all(o.example and o.example.arm == "a" and o.example.sent_at_ms == 42 for o in learned)


def test_another_view_is_a_behaviour_but_no_example() -> None:
    outputs = run(exposure(), feedback(1, 1001, view=False), feedback(2, 1002))
    (learned,) = examples(outputs)
    assert learned.example
    assert list(learned.example.history.effective_views) == [False]
    assert kinds(outputs) == ["remembered", "learned", "learned"]


def test_feedback_before_its_exposure_is_held() -> None:
    state = PartitionState.empty(SETTINGS)
    assert run(feedback(), state=state) == []
    assert held_count(state) == 1
    assert kinds(run(exposure(), state=state)) == ["remembered", "learned"]
    assert held_count(state) == 0


def test_feedback_whose_exposure_never_comes_is_given_up_when_the_watermark_passes() -> None:
    outputs = run(
        feedback(request="lost", time_ms=1000), exposure(time_ms=1501), feedback(request="also", time_ms=1501)
    )
    assert kinds(outputs) == ["remembered", Reason.NO_EXPOSURE]


def test_reading_one_topic_ahead_of_the_other_gives_nothing_up() -> None:
    outputs = run(feedback(request="r", time_ms=1000), *(exposure(f"r{t}", t) for t in (5000, 9000)))
    assert kinds(outputs) == ["remembered"] * 2


def test_feedback_for_an_item_that_was_not_shown_is_rejected() -> None:
    assert kinds(run(exposure(), feedback(9))) == ["remembered", Reason.NO_EXPOSURE]


def test_feedback_of_another_user_than_the_exposures_is_rejected() -> None:
    other = feedback()
    other.user_id = 9
    assert kinds(run(exposure(), other)) == ["remembered", Reason.NO_EXPOSURE]


def test_feedback_past_the_attribution_window_is_too_late() -> None:
    assert kinds(run(exposure(time_ms=1000), feedback(time_ms=2001))) == ["remembered", Reason.TOO_LATE]


def test_an_event_behind_the_watermark_is_too_late() -> None:
    outputs = run(exposure("new", 2000), exposure("old", 1499), feedback(time_ms=2000), feedback(time_ms=1499))
    assert kinds(outputs) == ["remembered", Reason.TOO_LATE, Reason.TOO_LATE]


def test_duplicates_are_dropped_by_event_id_and_exposures_by_request_too() -> None:
    again = exposure()
    again.event_id = "other"
    outputs = run(exposure(), exposure(), again, feedback(), feedback())
    assert kinds(outputs) == ["remembered", "duplicate", "duplicate", "learned", "duplicate"]


def test_a_duplicate_has_no_effect_however_far_the_other_topic_was_read_ahead() -> None:
    outputs = run(exposure(), feedback(), *(exposure(f"r{t}", t) for t in (50_000, 90_000)), feedback())
    assert kinds(outputs) == ["remembered", "learned", "remembered", "remembered", "duplicate"]


def test_feedback_may_have_the_event_id_of_its_exposure() -> None:
    assert kinds(run(exposure(), feedback(event="r"))) == ["remembered", "learned"]


def test_old_exposures_are_forgotten() -> None:
    state = PartitionState.empty(SETTINGS)
    run(exposure("r1", 1000), exposure("r2", 2502), state=state)
    assert list(state.exposures) == ["r1", "r2"]
    run(feedback(request="r2", time_ms=2502), state=state)
    assert list(state.exposures) == ["r2"]


@given(st.permutations([exposure(), *(feedback(i, 1000 + i) for i in (1, 2)), feedback(1, 1001)]))
def test_any_interleaving_within_lateness_gives_the_same_user(order: list[Exposure | Feedback]) -> None:
    state = PartitionState.empty(SETTINGS)
    outputs = run(*order, state=state)
    assert [b.item_id for b in state.users[7].behaviours] == [1, 2]
    counted = Counter(type(o) for o in outputs)
    assert (counted[Remembered], counted[Learned], counted[Duplicate]) == (1, 2, 1)
