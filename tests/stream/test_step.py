"""The join, step by step: literal events in, literal outcomes out."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from contracts.messages.events import Reason
from stream.outputs import Closed, Duplicate, Impressed, Learned, Rejected, Remembered
from stream.state import JoinState, MemoryState
from tests.stream.step_cases import Event, examples, exposure, feedback, impression, kinds, look_at_the_time, run, step


def test_an_effective_view_becomes_an_example_with_the_history_before_it(state: JoinState) -> None:
    learned = examples(run(state, exposure(), feedback(1, 1001), feedback(2, 1002, follow=True)))
    assert [list(o.example.history.item_ids) for o in learned if o.example] == [[], [1]]
    assert all(o.example and o.example.arm == "a" and o.example.sent_at_ms == 42 for o in learned)
    assert [(o.example.follow, o.example.play_time_ms, o.example.session) for o in learned if o.example] == [
        (False, 3, 0),
        (True, 3, 0),
    ]


def test_an_example_carries_its_page_as_far_as_it_is_known(state: JoinState) -> None:
    shown, first = exposure(items=(3, 1, 2)), feedback(item=3, time_ms=1001)
    passed, last = feedback(item=1, time_ms=1002, view=False), feedback(item=2, time_ms=1003)
    pages = [o.example.page for o in examples(run(state, shown, first, passed, last)) if o.example]
    assert [list(page.item_ids) for page in pages] == [[1, 2, 3]] * 2
    assert [list(page.effective_views) for page in pages] == [[False, False, True], [False, True, True]]


def test_another_view_is_a_behaviour_but_no_example(state: JoinState) -> None:
    outputs = run(state, exposure(), feedback(1, 1001, view=False), feedback(2, 1002))
    (learned,) = examples(outputs)
    assert learned.example
    assert list(learned.example.history.effective_views) == [False]
    assert kinds(outputs) == ["remembered", "learned", "learned"]


def test_a_late_view_has_only_what_was_before_it(state: JoinState) -> None:
    learned = examples(run(state, exposure(), feedback(1, 1010), feedback(2, 1005)))
    assert [list(o.example.history.item_ids) for o in learned if o.example] == [[], []]
    assert list(state.user(7).history.item_ids) == [2, 1]  # type: ignore[union-attr]


def test_several_feedback_events_of_one_item_fold_into_one_outcome(state: JoinState) -> None:
    outputs = run(
        state,
        exposure(),
        feedback(1, 1005, view=False, play_ms=10),
        feedback(1, 1003, view=True, play_ms=50),
        feedback(1, 1007, view=False, play_ms=20, follow=True),
    )
    history = state.user(7).history  # type: ignore[union-attr]
    assert (list(history.item_ids), list(history.times_ms)) == ([1], [1003])
    assert (list(history.play_times_ms), list(history.effective_views), list(history.follows)) == ([50], [True], [True])
    assert [o.folded for o in outputs if isinstance(o, Learned)] == [False, True, True]
    assert len(examples(outputs)) == 1, "an item becomes an example once, when it becomes an effective view"


def test_an_example_has_the_play_time_that_was_known_when_it_was_made(state: JoinState) -> None:
    """A player that reports as it plays: the effective view is known before the play is over."""
    reports = [feedback(play_ms=play, view=play >= 18, event=f"f{play}") for play in (5, 18, 60)]
    outputs = run(state, exposure(), *reports)
    made = [o.example for o in outputs if isinstance(o, Learned) and o.example is not None]
    assert [example.play_time_ms for example in made] == [18]
    assert list(state.user(7).history.play_times_ms) == [60]  # type: ignore[union-attr]


def test_feedback_before_its_exposure_is_held(state: JoinState) -> None:
    assert step(state, feedback()) == []
    assert kinds(step(state, exposure())) == ["remembered", "learned"]


def test_feedback_whose_exposure_never_comes_is_given_up_when_the_watermark_passes(state: JoinState) -> None:
    outputs = run(state, feedback(request="lost", time_ms=1000), exposure(time_ms=1501), feedback(time_ms=1501))
    assert kinds(outputs) == ["remembered", "learned"]
    assert kinds(look_at_the_time(state)) == [Reason.NO_EXPOSURE]


def test_what_has_expired_is_gone_whether_or_not_it_was_cleared_away(state: JoinState) -> None:
    events = (feedback(request="lost", time_ms=1000), exposure(time_ms=1501), feedback(time_ms=1501))
    outputs = [output for event in events for output in step(state, event)]
    assert kinds(outputs) == ["remembered", "learned"]
    assert kinds(step(state, exposure("lost", 1001))) == [Reason.NO_EXPOSURE, "remembered"]


def test_held_feedback_waits_for_as_long_as_the_exposure_of_the_newest_may_come(state: JoinState) -> None:
    run(state, feedback(1, 1000), feedback(2, 1900), exposure("o", 2000), feedback(1, 2000, "o"))
    assert look_at_the_time(state) == [], "the watermark is 1500: an exposure at 1600 would be in time"
    assert kinds(step(state, exposure(time_ms=1600))) == ["remembered", Reason.BEFORE_EXPOSURE, "learned"]


def test_held_feedback_is_given_up_with_the_newest(state: JoinState) -> None:
    run(state, feedback(1, 1000), feedback(2, 1900), exposure("o", 2401), feedback(1, 2400, "o"))
    assert look_at_the_time(state) == []
    step(state, feedback(2, 2401, "o"))
    assert kinds(look_at_the_time(state)) == [Reason.NO_EXPOSURE] * 2


def test_feedback_dated_before_its_exposure_is_not_learned_whichever_comes_first(state: JoinState) -> None:
    outputs = run(state, feedback(1, 999), exposure(time_ms=1000), feedback(2, 999))
    assert kinds(outputs) == ["remembered", *[Reason.BEFORE_EXPOSURE] * 2]
    assert state.user(7) is None


def test_of_held_feedback_with_one_id_the_first_that_matches_counts(state: JoinState) -> None:
    strange, first, again = (feedback(item, event="f", play_ms=play) for item, play in ((9, 1), (1, 2), (1, 3)))
    outputs = run(state, strange, first, again, again, exposure())
    assert kinds(outputs) == ["duplicate", "remembered", Reason.NO_EXPOSURE, "learned", "duplicate"]
    assert list(state.user(7).history.play_times_ms) == [2]  # type: ignore[union-attr]


def test_an_event_that_becomes_nothing_still_says_how_far_its_log_is(state: JoinState) -> None:
    step(state, feedback(1, 1501), items={2})
    step(state, exposure("again", 1501))
    step(state, exposure("again", 1502))
    outputs = run(state, feedback(1, 1000), exposure("late", 1001))
    assert kinds(outputs) == [Reason.TOO_LATE, Reason.TOO_LATE]


def test_reading_one_topic_ahead_of_the_other_gives_nothing_up(state: JoinState) -> None:
    outputs = run(state, feedback(request="r", time_ms=1000), *(exposure(f"r{t}", t) for t in (5000, 9000)))
    assert kinds(outputs) == ["remembered"] * 2


def test_feedback_for_an_item_that_was_not_shown_is_rejected_and_may_be_tried_again(state: JoinState) -> None:
    assert kinds(run(state, exposure(), feedback(9), feedback(9))) == ["remembered", *[Reason.NO_EXPOSURE] * 2]


def test_feedback_on_an_item_outside_the_catalogue_is_rejected(state: JoinState) -> None:
    assert kinds(step(state, feedback(1), items={2})) == [Reason.UNKNOWN_ITEM]


def test_feedback_of_another_user_than_the_exposures_is_rejected(state: JoinState) -> None:
    assert kinds(run(state, exposure(), feedback(user=9))) == ["remembered", Reason.NO_EXPOSURE]


def test_feedback_past_the_attribution_window_is_too_late(state: JoinState) -> None:
    assert kinds(run(state, exposure(time_ms=1000), feedback(time_ms=2001))) == ["remembered", Reason.TOO_LATE]


def test_an_event_behind_the_watermark_is_too_late(state: JoinState) -> None:
    outputs = run(state, exposure("new", 2000), exposure("old", 1499), feedback(time_ms=2000), feedback(time_ms=1499))
    assert kinds(outputs) == ["remembered", Reason.TOO_LATE, Reason.TOO_LATE]


def test_duplicates_are_dropped_by_event_id_and_exposures_by_request(state: JoinState) -> None:
    again = exposure()
    again.event_id = "other"
    outputs = run(state, exposure(), exposure(), again, feedback(), feedback())
    assert kinds(outputs) == ["remembered", "duplicate", "duplicate", "learned", "duplicate"]


def test_a_duplicate_of_held_feedback_is_dropped(state: JoinState) -> None:
    assert kinds(run(state, feedback(), feedback(), exposure())) == ["duplicate", "remembered", "learned"]


def test_a_duplicate_has_no_effect_however_far_the_other_topic_was_read_ahead(state: JoinState) -> None:
    outputs = run(state, exposure(), feedback(), *(exposure(f"r{t}", t) for t in (50_000, 90_000)), feedback())
    assert kinds(outputs) == ["remembered", "learned", "remembered", "remembered", "duplicate"]


def test_an_idle_users_session_is_closed_by_the_watermark_and_a_new_one_opened_by_the_next_view(
    state: JoinState,
) -> None:
    run(state, exposure(), feedback(1, 1001), exposure("o", 1602, user=8), feedback(1, 1602, "o", user=8))
    user = state.user(7)
    assert user
    assert user.open
    assert look_at_the_time(state) == [Closed(7)]
    assert not user.open
    step(state, exposure("again", 1700))
    step(state, feedback(2, 1701, "again"))
    assert user.open
    assert list(user.history.sessions) == [0, 1]


def test_requests_are_forgotten_when_feedback_on_them_is_too_late(state: JoinState) -> None:
    run(state, exposure("r1", 1000), exposure("r2", 2502))
    assert state.request("r1")
    step(state, feedback(request="r2", time_ms=2502))
    look_at_the_time(state)
    assert state.request("r1") is None
    assert state.request("r2")


# Impressions


def behaviours(state: JoinState) -> list[tuple[int, int, bool]]:
    """Item, time and effective view of each behaviour of user 7."""
    user = state.user(7)
    assert user
    history = user.history
    return list(zip(history.item_ids, history.times_ms, history.effective_views, strict=True))


def test_what_an_impression_shows_is_a_behaviour_without_a_play(state: JoinState) -> None:
    outputs = run(state, exposure(items=(1, 2, 3)), impression((3, 1), 1005))
    assert kinds(outputs) == ["remembered", "impressed"]
    assert behaviours(state) == [(1, 1005, False), (3, 1005, False)]
    assert state.user(7).open  # type: ignore[union-attr]


def test_an_outcome_takes_the_place_of_the_impression_of_its_item(state: JoinState) -> None:
    shown = exposure(items=(1, 2, 3), served_only=True)
    outputs = run(state, shown, impression((1, 2), 1005), feedback(1, 1010, play_ms=7), impression((1,), 1020))
    assert kinds(outputs) == ["remembered", "impressed", "learned", "impressed"]
    assert behaviours(state) == [(2, 1005, False), (1, 1010, True)]
    (learned,) = examples(outputs)
    assert learned.example
    assert list(learned.example.history.item_ids) == [2], "its own item is not in the history of an example"
    assert (learned.folded, learned.views, learned.effective_views) == (False, 0, 1)
    assert [(o.changed, o.views) for o in outputs if isinstance(o, Impressed)] == [(True, 2), (False, 0)]


def test_a_page_is_what_was_shown_of_what_was_served(state: JoinState) -> None:
    """A page of 2 of 5, an outcome on an item that no impression told of, and then another page."""
    served = exposure(items=(1, 2, 3, 4, 5), served_only=True)
    events = (impression((1, 2), 1001), feedback(2, 1002), feedback(4, 1003), impression((5,), 1004), feedback(5, 1005))
    pages = [o.example.page for o in examples(run(state, served, *events)) if o.example]
    assert [list(page.item_ids) for page in pages] == [[1, 2], [1, 2, 4], [1, 2, 4, 5]]
    assert [list(page.effective_views) for page in pages][-1] == [False, True, True, True]


def test_the_page_of_what_is_shown_as_served_is_all_of_it_whatever_impressions_say(state: JoinState) -> None:
    (learned,) = examples(run(state, exposure(items=(1, 2, 3)), impression((1,), 1001), feedback(1, 1002)))
    assert learned.example
    assert list(learned.example.page.item_ids) == [1, 2, 3]


def test_a_page_has_the_propensities_of_what_was_shown(state: JoinState) -> None:
    served = exposure(items=(1, 2, 3), served_only=True)
    served.items[0].propensity, served.items[2].propensity = 0.5, 0.25
    learned = examples(run(state, served, feedback(2, 1001), impression((3,), 1002), feedback(3, 1003)))
    assert [list(o.example.page.propensities) for o in learned if o.example] == [[], [0.0, 0.25]]


def test_the_earliest_of_several_impressions_says_when_an_item_was_shown(state: JoinState) -> None:
    outputs = run(state, exposure(), impression((1,), 1010), impression((1, 2), 1005), impression((1,), 1007))
    assert behaviours(state) == [(1, 1005, False), (2, 1005, False)]
    assert [o.changed for o in outputs if isinstance(o, Impressed)] == [True, True, False]


def test_items_of_an_impression_that_were_not_served_are_counted_and_the_others_count(state: JoinState) -> None:
    outputs = run(state, exposure(), impression((1, 8, 9), 1001))
    assert [(o.not_served, o.changed) for o in outputs if isinstance(o, Impressed)] == [(2, True)]
    assert behaviours(state) == [(1, 1001, False)]


def test_an_item_that_an_impression_names_twice_is_shown_once(state: JoinState) -> None:
    run(state, exposure(), impression((1, 1), 1001))
    assert behaviours(state) == [(1, 1001, False)]


def test_impressions_need_no_catalogue(state: JoinState) -> None:
    assert kinds([*step(state, exposure()), *step(state, impression(), items={9})]) == ["remembered", "impressed"]


def test_impressions_that_do_not_count_have_their_reasons(state: JoinState) -> None:
    wrong = {
        Reason.NO_EXPOSURE: [impression((8, 9), 1100), impression(user=9, time_ms=1100)],
        Reason.BEFORE_EXPOSURE: [impression(time_ms=1099)],
        Reason.TOO_LATE: [impression(time_ms=2101)],
    }
    step(state, exposure(time_ms=1100))
    (rejected,) = step(state, impression((8, 9, 9), 1100))
    assert isinstance(rejected, Rejected)
    assert rejected.error.detail == "none of its 2 items is of request r"
    for reason, events in wrong.items():
        assert kinds(run(state, *events)) == [reason] * len(events)
    assert state.user(7) is None


def test_a_late_impression_is_too_late(state: JoinState) -> None:
    outputs = run(state, exposure("new", 2000), exposure(), feedback(time_ms=2000, request="new"), impression())
    assert kinds(outputs)[-1] == Reason.TOO_LATE


def test_an_impression_waits_for_its_exposure_and_is_given_up_without_one(state: JoinState) -> None:
    assert kinds(run(state, impression(), impression(), exposure())) == ["duplicate", "remembered", "impressed"]
    run(state, impression(request="lost", time_ms=1000), exposure("o", 1501), feedback(request="o", time_ms=1501))
    assert Reason.NO_EXPOSURE in kinds(look_at_the_time(state))


def test_impressions_and_outcomes_share_event_ids(state: JoinState) -> None:
    outputs = run(state, exposure(), impression(event="f"), feedback(event="f"), impression(event="f"))
    assert kinds(outputs) == ["remembered", "impressed", "duplicate", "duplicate"]


def test_an_outcome_counts_though_the_limit_has_cut_the_impression_of_its_item_off(state: JoinState) -> None:
    many = tuple(range(2, 62))  # the limit is 50
    run(state, exposure(items=(1, *many)), impression((1,), 1001), impression(many, 1002), feedback(1, 1003))
    found = behaviours(state)
    assert (len(found), found[-1]) == (50, (1, 1003, True))


PAGES = st.builds(lambda some, one: some | {one}, st.sets(st.integers(1, 4)), st.integers(1, 3))
REQUESTS = st.lists(
    st.tuples(
        st.integers(1000, 1400),  # when it was shown
        st.lists(  # feedback on its items: item, how long after, what it says
            st.tuples(st.integers(1, 3), st.integers(0, 90), st.booleans(), st.booleans(), st.integers(0, 5)),
            max_size=5,
        ),
        st.lists(st.tuples(st.integers(0, 90), PAGES), max_size=2),  # its pages, and when
    ),
    min_size=1,
    max_size=5,
)


Request = tuple[int, list[tuple[int, int, bool, bool, int]], list[tuple[int, set[int]]]]


@given(REQUESTS, st.randoms(use_true_random=False))
def test_any_interleaving_within_lateness_gives_the_same_sequence(requests: list[Request], random: object) -> None:
    events: list[Event] = []
    for number, (shown_ms, responses, pages) in enumerate(requests):
        events.append(exposure(str(number), shown_ms, (1, 2, 3), served_only=number % 2 == 1))
        events += pages_of(number, shown_ms, pages)
        events += [
            feedback(item, shown_ms + after, str(number), view=view, follow=follow, play_ms=play, event=f"{number}/{i}")
            for i, (item, after, view, follow, play) in enumerate(responses)
        ]
    shuffled = [*events, *events]  # every event twice: duplicates change nothing
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    in_order, any_order = MemoryState(), MemoryState()
    run(in_order, *events)
    outputs = run(any_order, *shuffled)
    assert users(any_order) == users(in_order)
    counted = Counter(type(o) for o in outputs)
    assert counted[Rejected] == 0
    assert counted[Remembered] == len(requests)
    assert counted[Duplicate] == len(events)
    assert len({o.example.event_id for o in examples(outputs) if o.example}) == len(examples(outputs))


@given(REQUESTS, st.integers(2, 4))
def test_partitions_share_nothing_so_any_split_by_user_gives_the_same_users(
    requests: list[Request], partitions: int
) -> None:
    whole, parts = MemoryState(), [MemoryState() for _ in range(partitions)]
    for number, (shown_ms, responses, pages) in enumerate(requests):
        user = number % 3 + 1
        events: list[Event] = [exposure(str(number), shown_ms, (1, 2, 3), user=user)]
        events += [
            feedback(
                item, shown_ms + after, str(number), view=view, follow=follow, play_ms=play, user=user, event=f"{i}"
            )
            for i, (item, after, view, follow, play) in enumerate(responses)
        ]
        events += pages_of(number, shown_ms, pages, user)
        for event in events:
            step(whole, event)
            step(parts[user % partitions], event)
    merged = {user_id: history for part in reversed(parts) for user_id, history in users(part).items()}
    assert merged == users(whole)


def pages_of(number: int, shown_ms: int, pages: list[tuple[int, set[int]]], user: int = 7) -> list[Event]:
    """Impressions of a request whose items are 1 to 3."""
    return [
        impression(tuple(items), shown_ms + after, str(number), event=f"{number}/page {i}", user=user)
        for i, (after, items) in enumerate(pages)
    ]


def users(state: MemoryState) -> dict[int, tuple[bytes, bool]]:
    return {
        user_id: (user.history.SerializeToString(deterministic=True), user.open)
        for user_id, user in state.users.items()
    }
