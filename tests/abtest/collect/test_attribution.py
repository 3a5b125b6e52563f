from abtest.collect.attribution import attributed, sums_by_source, sums_of
from abtest.collect.records import EventSums, ExposureRecord, Response, Unused
from contracts.messages.attribution import Outcome, outcome_of

EXPOSURE = ExposureRecord(
    "x", 100, 1, "treatment", "t2diff", "v1", ((1, "new"), (2, "old"), (1, "old")), simulated=False, answer_us=1500
)
WINDOW_MS = 50


SERVED_ONLY = EXPOSURE._replace(served_only=True)
BOTH = frozenset({1, 2})


def response(user=1, item=1, at=120, play_ms=1000, ev=True, event=None):
    return Response(event or f"f{item}", at, user, item, play_ms, ev, follow=False, simulated=False)


def impression(*items, at=110, event="shown"):
    return Response(event, at, 1, 0, 0, False, False, False, items)


def joined(*responses, exposure=EXPOSURE):
    return attributed(WINDOW_MS, exposure, responses)


def test_feedback_of_the_same_user_on_a_shown_item_counts_up_to_the_end_of_the_window():
    first, last = response(at=100), response(item=2, at=150)
    views = [Outcome(100, 1, 1000, True, False), Outcome(150, 2, 1000, True, False)]
    assert joined(first, last) == (BOTH, views, [first, last], [], 0)


def test_progress_updates_of_one_item_are_one_view_as_long_as_the_longest():
    updates = [response(at=110, play_ms=9_000, event="a"), response(at=105, play_ms=18_000, event="b")]
    found = joined(*updates)
    assert found == (BOTH, [Outcome(105, 1, 18_000, True, False)], updates, [], 0)
    assert found.folded == 1
    assert sums_of(EXPOSURE, found) == EventSums(1, 2, 1, 1, 0, 18_000, timed=1, answer_us=1500, served=2)


def test_of_two_events_with_one_id_the_first_that_matches_counts():
    strange, first, again = response(item=9), response(play_ms=7), response(play_ms=8)
    unused = [(Unused.NOT_SHOWN, strange), (Unused.DUPLICATE_FEEDBACK, again)]
    assert joined(strange, first, again) == (BOTH, [outcome_of(first)], [first], unused, 0)


def test_feedback_that_does_not_count_has_a_reason():
    responses = [response(user=2), response(item=9), response(at=99), response(at=151)]
    unused = joined(*responses).unused
    reasons = [Unused.OTHER_USER, Unused.NOT_SHOWN, Unused.BEFORE_EXPOSURE, Unused.TOO_LATE]
    assert unused == list(zip(reasons, responses, strict=True))


def test_an_exposure_and_its_views_add_up_to_one_recall():
    sums = sums_of(EXPOSURE, joined(response(), response(item=2, play_ms=500, ev=False)))
    assert sums == EventSums(1, 2, 2, 1, 0, 1500, timed=1, answer_us=1500, served=2)


def test_an_item_shown_twice_belongs_to_the_source_of_its_first_place():
    by_source = sums_by_source(EXPOSURE, joined(response(item=1), response(item=2, ev=False)))
    assert by_source == {
        "new": EventSums(1, 1, 1, 1, 0, 1000, served=1),
        "old": EventSums(1, 1, 1, 0, 0, 1000, served=1),
    }


def test_what_was_served_only_is_a_view_where_feedback_tells_of_it():
    found = joined(impression(2, 9), response(item=2, ev=False), exposure=SERVED_ONLY)
    assert (found.shown, found.not_served, found.folded) == ({2}, 1, 0)
    assert sums_of(SERVED_ONLY, found) == EventSums(1, 1, 1, 0, 0, 1000, timed=1, answer_us=1500, served=2)
    assert sums_by_source(SERVED_ONLY, found) == {
        "new": EventSums(served=1),
        "old": EventSums(1, 1, 1, 0, 0, 1000, served=1),
    }


def test_of_a_request_that_has_shown_nothing_only_what_was_served_counts():
    found = joined(impression(9), response(at=151), exposure=SERVED_ONLY)
    assert found.shown == frozenset()
    assert [reason for reason, _ in found.unused] == [Unused.NOT_SHOWN, Unused.TOO_LATE]
    assert sums_of(SERVED_ONLY, found) == EventSums(served=2)


def test_an_impression_of_what_is_shown_as_served_adds_no_view():
    assert sums_of(EXPOSURE, joined(impression(2))) == EventSums(1, 2, 1, timed=1, answer_us=1500, served=2)
