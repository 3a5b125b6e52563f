"""The rule that joins exposure and feedback, case by case; tests/test_one_attribution.py: both rooms keep to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.messages.attribution import (
    ExposureSummary,
    Outcome,
    Unattributed,
    attribute,
    fold,
    is_late,
    last_feedback_ms,
    mismatch,
    watermark_ms,
)
from tests.stream.step_cases import exposure, feedback

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
    ],
)
def test_feedback_belongs_to_its_exposure_from_that_moment_to_the_end_of_the_window(event, reason):
    assert mismatch(SHOWN, event, WINDOW_MS) == reason


def test_what_does_not_count_changes_nothing_and_may_come_again_with_its_id():
    outcomes, event_ids = {}, set()
    assert attribute(SHOWN, outcomes, event_ids, feedback(3, 120, event="f"), WINDOW_MS) is Unattributed.NOT_SHOWN
    assert (outcomes, event_ids) == ({}, set())
    assert attribute(SHOWN, outcomes, event_ids, feedback(2, 120, event="f"), WINDOW_MS) is None
    assert (outcomes, event_ids) == ({2: Outcome(120, 2, 3, True, False)}, {"f"})


def test_progress_updates_are_one_outcome_and_repeats_of_an_id_are_none():
    outcomes, event_ids = {}, set()
    for event, play_ms in (("9 s", 9_000), ("18 s", 18_000)):
        assert attribute(SHOWN, outcomes, event_ids, feedback(1, 120, event=event, play_ms=play_ms), WINDOW_MS) is None
    longer = feedback(1, 120, event="9 s", play_ms=99_000)
    assert attribute(SHOWN, outcomes, event_ids, longer, WINDOW_MS) is Unattributed.DUPLICATE
    assert outcomes == {1: Outcome(120, 1, 18_000, True, False)}


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
