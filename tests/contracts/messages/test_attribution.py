"""The rule that joins exposure and feedback, case by case; tests/test_one_attribution.py: both rooms keep to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.messages.attribution import (
    ExposureSummary,
    Outcome,
    Told,
    Unattributed,
    attribute,
    fold,
    is_late,
    last_feedback_ms,
    mismatch,
    not_served,
    only_positives,
    shown_items,
    watermark_ms,
)
from tests.stream.step_cases import exposure, feedback, impression

WINDOW_MS = 50
SHOWN = ExposureSummary.of(exposure(time_ms=100, items=(1, 2), user=7))
OUTCOMES = st.builds(Outcome, st.integers(0, 9), st.just(1), st.integers(0, 9), st.booleans(), st.booleans())


def test_an_exposure_is_known_by_what_its_feedback_must_match():
    assert ExposureSummary(7, 100, "a", frozenset({1, 2})) == SHOWN


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (feedback(1, 100), None),
        (feedback(1, 150), None),
        (feedback(1, 99), Unattributed.BEFORE_EXPOSURE),
        (feedback(1, 151), Unattributed.AFTER_WINDOW),
        (feedback(3, 120), Unattributed.NOT_SHOWN),
        (feedback(1, 120, user=8), Unattributed.OTHER_USER),
        (impression((2,), 100), None),
        (impression((9, 2), 150), None),
        (impression((2,), 99), Unattributed.BEFORE_EXPOSURE),
        (impression((2,), 151), Unattributed.AFTER_WINDOW),
        (impression((8, 9), 120), Unattributed.NOT_SHOWN),
        (impression((2,), 120, user=8), Unattributed.OTHER_USER),
    ],
)
def test_feedback_belongs_to_its_exposure_from_that_moment_to_the_end_of_the_window(event, reason):
    assert mismatch(SHOWN, event, WINDOW_MS) == reason


def test_what_does_not_count_changes_nothing_and_may_come_again_with_its_id():
    told = Told()
    assert attribute(SHOWN, told, feedback(3, 120, event="f"), WINDOW_MS) is Unattributed.NOT_SHOWN
    assert told == Told()
    assert attribute(SHOWN, told, feedback(2, 120, event="f"), WINDOW_MS) is None
    assert told == Told(outcomes={2: Outcome(120, 2, 3, True, False)}, event_ids={"f"})


def test_progress_updates_are_one_outcome_and_repeats_of_an_id_are_none():
    told = Told()
    for event, play_ms in (("9 s", 9_000), ("18 s", 18_000)):
        assert attribute(SHOWN, told, feedback(1, 120, event=event, play_ms=play_ms), WINDOW_MS) is None
    longer = feedback(1, 120, event="9 s", play_ms=99_000)
    assert attribute(SHOWN, told, longer, WINDOW_MS) is Unattributed.DUPLICATE
    assert told.outcomes == {1: Outcome(120, 1, 18_000, True, False)}


def test_an_impression_tells_of_the_items_of_its_exposure_from_the_earliest_time_on():
    told = Told()
    for event in (impression((2, 9), 140, event="a"), impression((1, 2, 2), 120, event="b")):
        assert attribute(SHOWN, told, event, WINDOW_MS) is None
    assert told == Told(impressions={1: 120, 2: 120}, event_ids={"a", "b"})
    assert not_served(SHOWN, impression((2, 9, 9), 140)) == 1
    assert attribute(SHOWN, told, impression((1,), 100, event="a"), WINDOW_MS) is Unattributed.DUPLICATE


@pytest.mark.parametrize("in_order", [True, False])
def test_an_outcome_stands_for_the_impression_of_its_item_in_any_order(in_order):
    told, events = Told(), [impression((1, 2), 110), feedback(1, 130)]
    for event in events if in_order else reversed(events):
        assert attribute(SHOWN, told, event, WINDOW_MS) is None
    watched, passed = Outcome(130, 1, 3, True, False), Outcome(110, 2, 0, False, False)
    assert (told.outcomes, told.impressions) == ({1: watched}, {2: 110})
    assert told.behaviours() == [watched, passed]
    assert (told.behaviour(1), told.behaviour(2), told.behaviour(3)) == (watched, passed, None)


def test_what_was_shown_is_what_was_served_or_what_feedback_tells_of():
    told, served_only = Told(), SHOWN._replace(served_only=True)
    assert (shown_items(SHOWN, told), shown_items(served_only, told)) == ({1, 2}, set())
    attribute(served_only, told, impression((1, 9), 110), WINDOW_MS)
    assert (shown_items(SHOWN, told), shown_items(served_only, told)) == ({1, 2}, {1})
    attribute(served_only, told, feedback(2, 110), WINDOW_MS)
    assert shown_items(served_only, told) == {1, 2}


@pytest.mark.parametrize(
    ("views", "effective", "only"), [(99, 99, False), (100, 99, True), (100, 98, False), (1000, 990, True)]
)
def test_positives_alone_are_known_by_a_rate_that_nobody_has(views, effective, only):
    assert only_positives(views, effective) is only


@given(OUTCOMES, OUTCOMES, OUTCOMES)
def test_folding_is_idempotent_and_of_no_order(a, b, c):
    assert fold(a, a) == a
    assert fold(a, b) == fold(b, a)
    assert fold(fold(a, b), c) == fold(a, fold(b, c))


@given(st.integers(0, 99), st.lists(st.integers(0, 99), min_size=1), st.integers(0, 20))
def test_no_feedback_comes_in_time_once_the_watermark_has_passed_the_window(exposed_ms, newest_ms, lateness_ms):
    """What lets both rooms forget a request, and makes it harmless when they do."""
    last_ms = last_feedback_ms(exposed_ms, WINDOW_MS)
    if last_ms < watermark_ms(newest_ms, lateness_ms):
        assert all(is_late(last_ms, newest, lateness_ms) for newest in newest_ms)
