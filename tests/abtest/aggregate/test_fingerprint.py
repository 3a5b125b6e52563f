"""The fingerprint of an aggregate."""

from dataclasses import replace

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.fingerprint import digest
from abtest.aggregate.user_days import table
from abtest.collect.state import CollectorState, folded
from tests.abtest.abtest_cases import feedback, observe, rules, week
from tests.abtest.report_cases import report_of


def of(events):
    return aggregate(table(folded(observe(CollectorState(rules()), *events))))


def test_the_same_data_has_the_same_hash_in_any_order_and_however_it_was_merged():
    events = week(users=60, days=3)
    halves = [
        [event for event in events if event.user_id % 7 < 3],
        [event for event in events if event.user_id % 7 >= 3],
    ]
    whole = digest(of(events))
    assert digest(of(events[::-1])) == whole
    assert digest(of(halves[0]) + of(halves[1])) == whole
    assert digest(of(halves[1]) + of(halves[0])) == whole


def test_one_more_view_is_another_hash():
    events = week(users=60, days=3)
    first = next(event for event in events if event.DESCRIPTOR.name == "Exposure")
    more = feedback(first.user_id, first.time_ms + 5, first.request_id, 2, play_ms=1)
    before = of(events)
    assert digest(of([*events, more])) != digest(before)
    assert digest(replace(before, in_two_arms=1)) != digest(before)


def test_a_report_carries_it():
    assert len(report_of("full").data_hash) == 64
    assert report_of("full").data_hash != report_of("mismatch").data_hash
