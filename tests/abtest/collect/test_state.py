import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abtest.aggregate.user_days import table
from abtest.collect.records import VERSIONS, EventSums, Unused, full_version
from abtest.collect.rules import PRE_DAYS
from abtest.collect.state import (
    CollectorState,
    close,
    folded,
    live,
    merge,
    observe_exposure,
    observe_feedback,
    users_per_arm,
)
from contracts.runtime.clock import DAY_MS, HOUR_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, experiment, exposure, feedback, observe, rules, week


def content(state: CollectorState):
    done = folded(state)
    return done.users, done.arms, done.recalls, {name: count for name, count in done.counts.items() if count}


def test_a_request_counts_on_its_day_for_its_user_and_its_sources():
    state = folded(
        observe(
            CollectorState(rules()),
            exposure(at=START + DAY_MS),
            feedback(at=START + DAY_MS + MINUTE_MS, item=1, play_ms=2000),
            feedback(at=START + DAY_MS + 2 * MINUTE_MS, item=2, play_ms=500, ev=False, follow=True),
        )
    )
    user = state.users[1]
    assert user.days == {1: EventSums(1, 2, 2, 1, 1, 2500, served=2)}
    assert user.sources == {
        "t2diff": EventSums(1, 1, 1, 1, 0, 2000, served=1),
        "popular": EventSums(1, 1, 1, 0, 1, 500, served=1),
    }
    assert user.sessions == [(START + DAY_MS, START + DAY_MS + 2 * MINUTE_MS + 500)]
    assert state.recalls == {("treatment", "t2diff", "v1"): 1}


def test_feedback_may_come_before_its_exposure():
    shown, seen = exposure(), feedback()
    assert content(observe(CollectorState(rules()), seen, shown)) == content(
        observe(CollectorState(rules()), shown, seen)
    )


def test_tenfold_delivery_changes_nothing_but_the_count_of_duplicates():
    events = week(8)
    once, often = observe(CollectorState(rules()), *events), observe(CollectorState(rules()), *events * 10)
    assert content(once)[:3] == content(often)[:3]
    requests = sum(hasattr(event, "arm") for event in events)
    assert often.counts[Unused.DUPLICATE_EXPOSURE] == 9 * requests
    assert often.counts[Unused.DUPLICATE_FEEDBACK] == 9 * (len(events) - requests)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (feedback(request="nowhere"), Unused.NO_EXPOSURE),
        (feedback(item=9), Unused.NOT_SHOWN),
        (feedback(user=2), Unused.OTHER_USER),
        (feedback(at=START + HOUR_MS - 1), Unused.BEFORE_EXPOSURE),
        (feedback(at=START + 7 * HOUR_MS + 1), Unused.TOO_LATE),
        (feedback(at=START - PRE_DAYS * DAY_MS - 1), Unused.OUTSIDE_PERIOD),
        (exposure(request="x", at=START - PRE_DAYS * DAY_MS - 1), Unused.OTHER_EXPERIMENT),
        (exposure(request="x", at=START + 7 * DAY_MS), Unused.OTHER_EXPERIMENT),
        (exposure(request="x", experiment="another"), Unused.OTHER_EXPERIMENT),
        (exposure(request="x", arm="no such arm"), Unused.OTHER_EXPERIMENT),
    ],
)
def test_what_does_not_count_is_counted_by_reason(event, reason):
    state = folded(observe(CollectorState(rules()), exposure(at=START + HOUR_MS), event))
    assert state.arms == {"treatment": EventSums(1, 2, served=2)}
    assert state.counts[reason] == 1


def test_the_days_before_the_start_are_a_users_pre_period_whoever_showed_it():
    before = [
        exposure(at=START - DAY_MS, request="before", experiment="", arm=""),
        feedback(at=START - DAY_MS, request="before", play_ms=700),
    ]
    state = folded(observe(CollectorState(rules()), *before, exposure(at=START)))
    assert state.users[1].pre == EventSums(recalls=1, views=2, told=1, effective_views=1, play_ms=700, served=2)
    assert state.arms == {"treatment": EventSums(1, 2, served=2)}
    assert state.counts["pre_period_exposures"] == 1


def test_a_user_seen_only_before_the_start_is_in_no_arm():
    state = folded(observe(CollectorState(rules()), exposure(at=START - DAY_MS)))
    assert not state.users[1].arms
    assert table(state).in_two_arms == 0
    assert not len(table(state).arm)


def test_requests_are_told_apart_by_the_age_of_their_model_and_by_replica():
    events = [
        exposure(request="fresh", at=START + HOUR_MS, replica="a:1", answer_ms=2.5, model_time_ms=START + HOUR_MS - 1),
        exposure(request="stale", at=START + HOUR_MS, replica="b:1", answer_ms=1.5, model_time_ms=START),
        exposure(request="unknown", at=START + HOUR_MS),
    ]
    user = folded(observe(CollectorState(rules()), *events, feedback(request="stale", at=START + HOUR_MS))).users[1]
    assert {age: sums.recalls for age, sums in user.ages.items()} == {0: 1, 2: 1, -1: 1}
    assert user.ages[2].effective_views == 1
    assert user.replicas == {"a:1", "b:1"}
    assert (user.days[0].timed, user.days[0].answer_us) == (2, 4000)


def test_feedback_of_another_experiment_is_no_view_here():
    state = folded(observe(CollectorState(rules()), exposure(experiment="another"), feedback()))
    assert state.counts[Unused.OUTSIDE_EXPERIMENT] == 1
    assert not state.users


def test_every_feedback_event_is_a_view_or_has_a_reason():
    events = [*week(12), *week(3), feedback(request="nowhere"), feedback(at=START - 1), feedback(item=9, request="1-0")]
    state = folded(observe(CollectorState(rules()), *events))
    views = sum(sums.told for sums in state.arms.values())
    unused = sum(state.counts[r] for r in Unused if "exposures" not in r)
    assert state.counts["feedback"] == views + unused


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_of_two_that_differ_under_one_id_the_first_of_the_log_counts_in_any_order(order):
    shown = [exposure(items=((item, "t2diff"),)) for item in (1, 2)]
    seen = [feedback(item=1, play_ms=play_ms, event_id="f") for play_ms in (900, 500)]
    state = CollectorState(rules())
    for i in order:
        (observe_exposure if i < 2 else observe_feedback)(state, (*shown, *seen)[i], i)
    done = folded(state)
    assert done.arms == {"treatment": EventSums(1, 1, 1, 1, 0, 900, served=1)}
    assert done.counts[Unused.DUPLICATE_EXPOSURE] == done.counts[Unused.DUPLICATE_FEEDBACK] == 1


def test_what_is_late_in_its_log_counts_only_as_that():
    shown, seen = exposure(), feedback()
    state = observe(CollectorState(rules()), shown, seen)
    for event, take in ((shown, observe_exposure), (seen, observe_feedback)):
        take(state, event, 5, late=True)  # known already
    observe_exposure(state, exposure(request="other"), 6, late=True)
    observe_feedback(state, feedback(item=2), 6, late=True)
    done = folded(state)
    assert done.arms == {"treatment": EventSums(1, 2, 1, 1, 0, 1000, served=2)}
    late = (Unused.DUPLICATE_EXPOSURE, Unused.DUPLICATE_FEEDBACK, Unused.LATE_EXPOSURE, Unused.LATE_FEEDBACK)
    assert [done.counts[reason] for reason in late] == [1, 1, 1, 1]


@given(st.randoms(use_true_random=False), st.integers(0, 2))
@settings(max_examples=25)
def test_any_order_and_any_partition_by_user_give_the_same_state(random, closings):
    events = week(8)
    events += random.sample(events, 10)
    parts = [CollectorState(rules()) for _ in range(3)]
    for _, event in sorted(enumerate(events), key=lambda _: random.random()):
        observe(parts[event.user_id % 3], event)
    for part in parts[:closings]:
        close(part, START + 4 * DAY_MS)
    random.shuffle(parts)
    assert content(merge(parts[0], merge(parts[1], parts[2]))) == content(observe(CollectorState(rules()), *events))


@given(st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_open_requests_merge_even_where_one_was_split(random):
    events = week(6)
    a, b = CollectorState(rules()), CollectorState(rules())
    for event in events:
        observe(random.choice([a, b]), event)
    assert content(merge(a, b)) == content(merge(b, a)) == content(observe(CollectorState(rules()), *events))


def test_what_was_folded_is_not_counted_again():
    shown, seen = exposure(), feedback(at=START + MINUTE_MS)
    state = observe(CollectorState(rules()), shown, seen)
    close(state, START + HOUR_MS)
    assert not state.requests
    observe(state, shown, seen)
    assert state.arms == {"treatment": EventSums(1, 2, 1, 1, 0, 1000, served=2)}
    assert state.counts[Unused.LATE_EXPOSURE] == state.counts[Unused.NO_EXPOSURE] == 1


def test_feedback_that_waits_in_vain_is_let_go():
    state = observe(CollectorState(rules()), feedback(request="nowhere"))
    close(state, START + HOUR_MS)
    assert not state.requests
    assert state.counts[Unused.NO_EXPOSURE] == 1


def test_the_live_view_counts_open_requests_and_users_of_every_arm():
    state = observe(CollectorState(rules()), *week(6))
    close(state, START + DAY_MS)
    assert live(state) == live(folded(state)) == folded(state).arms
    assert users_per_arm(state) == {"control": 3, "treatment": 3}


def test_testers_are_left_out():
    testers = rules(overrides={"treatment": [1]})
    state = folded(observe(CollectorState(testers), exposure(), feedback(), exposure(user=2, request="other")))
    assert list(state.users) == [2]


def test_states_of_different_experiments_do_not_merge():
    with pytest.raises(ValueError, match="different experiments"):
        merge(CollectorState(rules()), CollectorState(rules(salt="other")))


def test_days_are_cut_at_the_stated_midnight():
    shifted = rules(day_offset_ms=8 * HOUR_MS)
    assert shifted.day(START) == 0
    assert shifted.day(START + 16 * HOUR_MS - 1) == 0
    assert shifted.day(START + 16 * HOUR_MS) == 1
    assert experiment(day_offset_ms=8 * HOUR_MS).day_offset_ms == 8 * HOUR_MS


def test_of_many_versions_a_sample_is_tracked_the_same_in_any_order():
    events = []
    for i in range(3 * VERSIONS):
        for user in (1, 2):
            arm, at = ("control", "treatment")[user % 2], START + i * HOUR_MS
            events.append(exposure(user, arm, at, f"{user}-{i}", snapshot_version=f"v{i}+001"))
    onward = folded(observe(CollectorState(rules()), *events))
    parts = [folded(observe(CollectorState(rules()), *events[i::4])) for i in range(4)]
    merged = merge(merge(parts[3], parts[1]), merge(parts[0], parts[2]))
    assert onward.spans == merged.spans
    assert onward.users == merged.users
    assert len(onward.spans) == 2 * VERSIONS
    for user in onward.users.values():
        assert len(user.versions) == VERSIONS
        assert all(sums.recalls == 1 for sums in user.versions.values())
    assert full_version("v3+001") in {
        version for _, version in folded(observe(CollectorState(rules()), *events[:8])).spans
    }
