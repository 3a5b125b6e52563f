"""Features in time or the last known: a real thread, and a store that answers when the test lets it."""

import threading
from collections.abc import Sequence

from feature_repo.row import FeaturesUnavailable, UserRow
from serving.features import Features, Known

BRIEFLY_S = 0.01
LONG_S = 30.0


class Store:
    """Users 1 to 9 with a row that says how often the store was read; hangs or fails when told to."""

    def __init__(self) -> None:
        self.reads = 0
        self.answers = threading.Event()
        self.answers.set()
        self.away = False

    def read(self, user_ids: Sequence[int]) -> list[UserRow | None]:
        self.reads += 1
        self.answers.wait(LONG_S)
        if self.away:
            raise FeaturesUnavailable("Redis is away")
        return [row(user_id, self.reads) if user_id < 10 else None for user_id in user_ids]

    def close(self) -> None:
        self.closed = True


def row(user_id: int, read: int) -> UserRow:
    return UserRow(user_id, [], [], [], [], [], [], read, 0)


def test_rows_in_time_are_the_stores() -> None:
    features = Features(Store(), LONG_S, 10)
    assert features.read([1, 99]) == [Known(row(1, 1), late=False), Known(None, late=False)]
    features.close()


def test_late_rows_are_the_last_known_and_nothing_piles_up_behind_a_read_that_hangs() -> None:
    store = Store()
    features = Features(store, LONG_S, 10)
    features.read([1])
    features._timeout_s = BRIEFLY_S
    store.answers.clear()
    for _ in range(3):
        assert features.read([1, 2]) == [Known(row(1, 1), late=True), Known(None, late=True)]
    assert store.reads == 2, "the one that hangs, and none behind it"
    store.answers.set()
    assert features._reading is not None
    features._reading.result(LONG_S)
    features._timeout_s = LONG_S
    assert features.read([1]) == [Known(row(1, 3), late=False)]
    features.close()


def test_a_store_that_fails_is_a_store_that_is_late() -> None:
    store = Store()
    features = Features(store, LONG_S, 10)
    features.read([1])
    store.away = True
    assert features.read([1]) == [Known(row(1, 1), late=True)]
    features.close()


def test_only_so_many_users_are_remembered_the_newest_longest() -> None:
    store = Store()
    features = Features(store, LONG_S, 2)
    for user_id in (1, 2, 1, 3):
        features.read([user_id])
    store.away = True
    assert [known.row is not None for known in features.read([1, 2, 3])] == [True, False, True]
    features.close()
