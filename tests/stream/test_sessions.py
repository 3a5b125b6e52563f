"""Behaviours in event-time order, cut into sessions."""

from hypothesis import given
from hypothesis import strategies as st

from stream.sessions import Behaviour, UserHistory, insert


def history_of(times: list[int], limit: int = 1000) -> tuple[UserHistory, int]:
    history = UserHistory()
    begun = sum(insert(history, Behaviour(t, t, 0, True, False), gap_ms=10, limit=limit) for t in times)
    return history, begun


@given(st.lists(st.integers(0, 200), unique=True), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_history(times: list[int], random: object) -> None:
    shuffled = list(times)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    in_order, _ = history_of(sorted(times))
    any_order, begun = history_of(shuffled)
    assert any_order == in_order
    assert begun == (in_order.sessions[-1] + 1 if times else 0)


def test_a_session_ends_after_the_gap_and_not_at_it() -> None:
    history, begun = history_of([0, 10, 21])
    assert history.sessions == [0, 0, 1]
    assert begun == 2


def test_the_limit_drops_the_oldest_and_keeps_the_numbering() -> None:
    history, _ = history_of([0, 20, 40], limit=2)
    assert [b.time_ms for b in history.behaviours] == [20, 40]
    assert history.sessions == [1, 2]
    assert history.dropped == 1


def test_before_is_strictly_before() -> None:
    history, _ = history_of([5, 6])
    assert [history.before(t) for t in (5, 6, 7)] == [0, 1, 2]
