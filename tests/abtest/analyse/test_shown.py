"""What was served and what was shown, in the report; and what becomes of a verdict on positives alone."""

from itertools import chain

import pytest

from abtest.analyse.analysis import analyse
from abtest.analyse.shown import one_sided, shown_of
from abtest.collect.records import NOT_SERVED, NOTHING_SHOWN, EventSums
from abtest.collect.state import CollectorState
from contracts.config.experiment import MetricPlan
from contracts.runtime.clock import DAY_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, exposure, feedback, impression, observe, rules

PLAY = (MetricPlan(name="play_duration", kind="mean", columns=("play_s",), role="primary"),)
SERVED = tuple((item, "t2diff" if item < 26 else "popular") for item in range(1, 51))
USERS = range(1, 241)


def check(report, name):
    return next((check for check in report.checks if check.name == name), None)


def served(user):
    """A page of which 50 items are served, and the treatment's users watch the first for longer."""
    arm = "treatment" if user % 2 else "control"
    at = START + DAY_MS - (250 - user) * 1000
    play_ms = 1000 * (user % 7 + 3) * (3 if user % 2 else 1)
    return [
        exposure(user, arm, at, str(user), SERVED, served_only=True),
        feedback(user, at + 10, str(user), 1, play_ms),
    ]


def shown(user, items=range(1, 11)):
    return impression(tuple(items), user, START + DAY_MS - (250 - user) * 1000 + 5, str(user))


def report_of(*events):
    return analyse(observe(CollectorState(rules(days=1, metrics=PLAY)), *events))


@pytest.fixture(scope="module")
def pages():
    return report_of(*chain.from_iterable((*served(user), shown(user)) for user in USERS))


@pytest.fixture(scope="module")
def positives():
    return report_of(*chain.from_iterable(served(user) for user in USERS))


def test_the_report_says_how_much_of_what_was_served_was_shown(pages):
    found = check(pages, "shown")
    assert found.level == "ok"
    assert found.said == "control was served 6,000 items and shown 1,200 (20.0 %), treatment 6,000 and 1,200 (20.0 %)."
    assert found.numbers["impressions"] == 240
    assert check(pages, "positives") is None


def test_tables_by_source_go_by_what_was_shown(pages):
    rows = {(row.arm, row.source): row for row in pages.sources}
    assert set(rows) == {("control", "t2diff"), ("treatment", "t2diff")}, "nobody saw an item of popular"
    row = rows["control", "t2diff"]
    assert (row.served, row.shown, row.views, row.effective_views, row.evr) == (3000, 1200, 1200, 120, 0.1)


def test_a_service_that_sends_positives_alone_is_warned_and_no_arm_ships_on_it(pages, positives):
    (told,), (alone,) = pages.verdicts, positives.verdicts
    assert (told.decision, alone.decision) == ("ship", "inconclusive")
    said = "of control and treatment nearly all items shown (100.0 % and 100.0 %) are effective views"
    found = check(positives, "positives")
    assert (found.level, found.said.startswith(said)) == ("warning", True)
    assert "but of treatment and control nearly all items shown" in alone.because


def test_what_was_served_and_not_shown_is_in_no_figure_and_its_user_in_no_arm():
    events = [*served(1), *served(2), shown(2), *served(3)[:1], *served(4)[:1]]
    report = report_of(*events, shown(5), shown(1, (1, 99)))
    assert report.split.users == {"control": 1, "treatment": 1}
    found = check(report, "shown")
    assert found.said.startswith("control was served 100 items and shown 10 (10.0 %), treatment 100 and 1 (1.0 %).")
    assert "Of 2 recalls nothing was shown; no figure has them." in found.said
    assert "1 item of impressions was not served by their requests" in found.said
    assert found.level == "warning"


def test_usage_begins_when_something_is_shown_not_when_it_is_fetched_ahead():
    at = START + MINUTE_MS
    fetched = exposure(1, at=at, request="a", served_only=True)
    report = analyse(
        observe(
            CollectorState(rules()),
            fetched,
            impression((1,), at=at + 5 * MINUTE_MS, request="a"),
            feedback(at=at + 6 * MINUTE_MS, request="a", play_ms=MINUTE_MS),
        )
    )
    (usage,) = (result for result in report.metrics if result.metric == "app_usage")
    assert {arm.arm: arm.value for arm in usage.arms}["treatment"] == 60


def test_where_all_that_is_served_is_shown_the_two_are_equal():
    (found,) = shown_of({"a": EventSums(views=5, served=5), "b": EventSums()}, {})
    assert found.said == "a was served 5 items and shown 5 (100.0 %), b 0 and 0 (none)."
    assert list(shown_of({"a": EventSums()}, {NOTHING_SHOWN: 1, NOT_SERVED: 1})) == []


def test_a_few_strange_items_of_impressions_are_said_and_many_are_a_warning():
    arms = {"a": EventSums(views=5000, told=5000, served=9000)}
    assert [next(shown_of(arms, {NOT_SERVED: n})).level for n in (5, 6)] == ["ok", "warning"]


@pytest.mark.parametrize(("arm", "said"), [("t", True), ("c", True), ("u", False)])
def test_one_sided_is_an_arm_or_its_control(arm, said):
    arms = {name: EventSums(views=1000, effective_views=1000 if name == arm else 10) for name in "tcu"}
    assert bool(one_sided("t", "c", arms)) is said
