"""Visits are handed out once, a user's one after the other, none too far ahead."""

from hypothesis import given
from hypothesis import strategies as st

from world.agenda import Agenda
from world.base import Visit

WINDOW_MS = 50


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 300)), max_size=40), st.randoms(use_true_random=False))
def test_any_order_of_settling_keeps_the_rules(arrivals: list[tuple[int, int]], random: object) -> None:
    ordered = sorted(arrivals, key=lambda arrival: arrival[1])
    visits = [Visit(i, user, time_ms, 4) for i, (user, time_ms) in enumerate(ordered)]
    agenda = Agenda(visits, WINDOW_MS)
    asked: list[int] = []
    answered: set[int] = set()
    unsettled: dict[int, int] = {}
    while not agenda.all_answered:
        for visit in agenda.ready(3):
            oldest = min(v.time_ms for v in visits if v.index not in answered)
            assert visit.time_ms <= oldest + WINDOW_MS
            assert visit.user_id not in unsettled
            unsettled[visit.user_id] = visit.index
            asked.append(visit.index)
            agenda.answered(visit.index)
            answered.add(visit.index)
        if unsettled:
            user = random.choice(sorted(unsettled))  # type: ignore[attr-defined]
            agenda.settled(unsettled.pop(user))
    assert sorted(asked) == list(range(len(visits)))
    for user in {v.user_id for v in visits}:
        mine = [index for index in asked if visits[index].user_id == user]
        assert mine == sorted(mine)


def test_nobody_left_means_no_horizon() -> None:
    agenda = Agenda([], WINDOW_MS)
    assert agenda.all_answered
    assert agenda.horizon_ms == float("inf")
