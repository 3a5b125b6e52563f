from abtest.collect.attribution import attributed, sums_by_source, sums_of
from abtest.collect.records import EventSums, ExposureRecord, Response, Unused
from contracts.messages.attribution import Outcome, outcome_of

EXPOSURE = ExposureRecord(
    "x", 100, 1, "treatment", "t2diff", "v1", ((1, "new"), (2, "old"), (1, "old")), simulated=False, answer_us=1500
)
WINDOW_MS = 50


def response(user=1, item=1, at=120, play_ms=1000, ev=True, event=None):
    return Response(event or f"f{item}", at, user, item, play_ms, ev, follow=False, simulated=False)


def test_feedback_of_the_same_user_on_a_shown_item_counts_up_to_the_end_of_the_window():
    first, last = response(at=100), response(item=2, at=150)
    views = [Outcome(100, 1, 1000, True, False), Outcome(150, 2, 1000, True, False)]
    assert attributed(WINDOW_MS, EXPOSURE, [first, last]) == (views, [first, last], [])


def test_progress_updates_of_one_item_are_one_view_as_long_as_the_longest():
    updates = [response(at=110, play_ms=9_000, event="a"), response(at=105, play_ms=18_000, event="b")]
    joined = attributed(WINDOW_MS, EXPOSURE, updates)
    assert joined == ([Outcome(105, 1, 18_000, True, False)], updates, [])
    assert sums_of(EXPOSURE, joined.views) == EventSums(1, 3, 1, 1, 0, 18_000, timed=1, answer_us=1500)


def test_of_two_events_with_one_id_the_first_that_matches_counts():
    strange, first, again = response(item=9), response(play_ms=7), response(play_ms=8)
    unused = [(Unused.NOT_SHOWN, strange), (Unused.DUPLICATE_FEEDBACK, again)]
    assert attributed(WINDOW_MS, EXPOSURE, [strange, first, again]) == ([outcome_of(first)], [first], unused)


def test_feedback_that_does_not_count_has_a_reason():
    responses = [response(user=2), response(item=9), response(at=99), response(at=151)]
    _, _, unused = attributed(WINDOW_MS, EXPOSURE, responses)
    reasons = [Unused.OTHER_USER, Unused.NOT_SHOWN, Unused.BEFORE_EXPOSURE, Unused.TOO_LATE]
    assert unused == list(zip(reasons, responses, strict=True))


def test_an_exposure_and_its_views_add_up_to_one_recall():
    sums = sums_of(EXPOSURE, [outcome_of(response()), outcome_of(response(item=2, play_ms=500, ev=False))])
    assert sums == EventSums(1, 3, 2, 1, 0, 1500, timed=1, answer_us=1500)


def test_an_item_shown_twice_belongs_to_the_source_of_its_first_place():
    by_source = sums_by_source(EXPOSURE, [outcome_of(response(item=1)), outcome_of(response(item=2, ev=False))])
    assert by_source == {"new": EventSums(1, 1, 1, 1, 0, 1000), "old": EventSums(1, 2, 1, 0, 0, 1000)}
