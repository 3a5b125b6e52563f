"""Behaviours in event-time order, cut into sessions."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.wire.events_pb2 import History
from stream.sessions import COLUMNS, Behaviour, UserSessions, close, insert, replace

GAP = 10
behaviours = st.builds(
    Behaviour, st.integers(1, 200), st.integers(1, 4), st.integers(0, 9), st.booleans(), st.booleans()
)


def user_of(*known: Behaviour, limit: int = 1000) -> tuple[UserSessions, int]:
    user = UserSessions()
    return user, sum(insert(user, behaviour, gap_ms=GAP, limit=limit) for behaviour in known)


def at(*times: int) -> list[Behaviour]:
    return [Behaviour(t, t, 0, True, False) for t in times]


@given(st.lists(behaviours, min_size=1), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_history(known: list[Behaviour], random: object) -> None:
    shuffled = list(known)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    in_order, _ = user_of(*sorted(known))
    any_order, begun = user_of(*shuffled)
    assert any_order.history == in_order.history
    assert begun == in_order.history.sessions[-1] + 1


@given(st.lists(behaviours, min_size=1, max_size=30), st.integers(1, 5))
def test_the_limit_keeps_the_newest(known: list[Behaviour], limit: int) -> None:
    user, _ = user_of(*known, limit=limit)
    assert list(user.history.times_ms) == [b.time_ms for b in sorted(known)[-limit:]]
    assert user.dropped == max(len(known) - limit, 0)


@given(st.lists(behaviours, min_size=1, max_size=20), behaviours, st.data())
def test_replacing_is_as_if_the_new_one_had_come_at_once(
    known: list[Behaviour], new: Behaviour, data: st.DataObject
) -> None:
    old = data.draw(st.sampled_from(known))
    user, begun = user_of(*known)
    begun += replace(user, old, new, gap_ms=GAP)
    rest = list(known)
    rest.remove(old)
    direct, begun_direct = user_of(*rest, new)
    assert user.history == direct.history
    assert begun == begun_direct


def test_what_the_limit_has_cut_off_cannot_be_replaced() -> None:
    user, _ = user_of(*at(1, 2, 3), limit=2)
    before = History.FromString(user.history.SerializeToString())
    assert replace(user, at(1)[0], at(5)[0], gap_ms=GAP) == 0
    assert user.history == before


def test_a_session_ends_after_the_gap_and_not_at_it() -> None:
    user, begun = user_of(*at(1, 11, 22))
    assert list(user.history.sessions) == [0, 0, 1]
    assert begun == 2


def test_the_limit_drops_the_oldest_and_keeps_the_numbering() -> None:
    user, _ = user_of(*at(1, 21, 41), limit=2)
    assert list(user.history.times_ms) == [21, 41]
    assert list(user.history.sessions) == [1, 2]
    assert {len(getattr(user.history, name)) for name in COLUMNS} == {2}


def test_before_is_strictly_before() -> None:
    user, _ = user_of(*at(5, 6))
    assert [user.before(t) for t in (5, 6, 7)] == [0, 1, 2]


def test_the_open_session_begins_where_it_does_and_a_closed_one_is_past() -> None:
    user, _ = user_of(*at(1, 21, 25))
    assert user.session_start == 1
    close(user)
    assert user.session_start == 3
    insert(user, at(26)[0], gap_ms=GAP, limit=9)
    assert user.session_start == 1


def test_every_change_makes_a_newer_row() -> None:
    user, versions = UserSessions(), []
    for behaviour in at(50, 20, 30, 60):
        insert(user, behaviour, gap_ms=GAP, limit=9)
        versions.append(user.row_us)
    close(user)
    assert versions == [50_000, 50_001, 50_002, 60_000]
    assert user.row_us == 60_001
