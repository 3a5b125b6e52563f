from abtest.collect.attribution import attributed, sums_by_source, sums_of
from abtest.collect.records import EventSums, ExposureRecord, Response, Unused

EXPOSURE = ExposureRecord(
    "x", 100, 1, "treatment", "t2diff", "v1", ((1, "new"), (2, "old"), (1, "old")), simulated=False, answer_us=1500
)
WINDOW_MS = 50


def response(user=1, item=1, at=120, play_ms=1000, ev=True):
    return Response("f", at, user, item, play_ms, ev, follow=False, simulated=False)


def test_feedback_of_the_same_user_on_a_shown_item_counts_up_to_the_end_of_the_window():
    first, last = response(at=100), response(at=150)
    assert attributed(WINDOW_MS, EXPOSURE, [first, last]) == ([first, last], [])


def test_feedback_that_does_not_count_has_a_reason():
    responses = [response(user=2), response(item=9), response(at=99), response(at=151)]
    _, unused = attributed(WINDOW_MS, EXPOSURE, responses)
    reasons = [Unused.OTHER_USER, Unused.NOT_SHOWN, Unused.BEFORE_EXPOSURE, Unused.TOO_LATE]
    assert unused == list(zip(reasons, responses, strict=True))


def test_an_exposure_and_its_views_add_up_to_one_recall():
    sums = sums_of(EXPOSURE, [response(), response(item=2, play_ms=500, ev=False)])
    assert sums == EventSums(1, 3, 2, 1, 0, 1500, timed=1, answer_us=1500)


def test_an_item_shown_twice_belongs_to_the_source_of_its_first_place():
    by_source = sums_by_source(EXPOSURE, [response(item=1), response(item=2, ev=False)])
    assert by_source == {"new": EventSums(1, 1, 1, 1, 0, 1000), "old": EventSums(1, 2, 1, 0, 0, 1000)}
