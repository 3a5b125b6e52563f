"""Features in time or the last known; a store that fails is left alone for a while."""

from collections.abc import Sequence

from contracts.runtime.clock import ManualClock
from feature_repo.row import FeaturesUnavailable, UserRow
from serving.features import LEFT_ALONE_S, Features, Known


class Store:
    """Users 1 to 9 with a row that says how often the store was read; away when told to."""

    def __init__(self) -> None:
        self.reads = 0
        self.away = False

    def read(self, user_ids: Sequence[int]) -> list[UserRow | None]:
        self.reads += 1
        if self.away:
            raise FeaturesUnavailable("Redis is away")
        return [row(user_id, self.reads) if user_id < 10 else None for user_id in user_ids]

    def close(self) -> None:
        self.away = True


def row(user_id: int, read: int) -> UserRow:
    return UserRow(user_id, [], [], [], [], [], [], read, 0)


def test_rows_in_time_are_the_stores() -> None:
    features = Features(Store(), 10, ManualClock())
    assert features.read([1, 99]) == [Known(row(1, 1), late=False), Known(None, late=False)]


def test_of_a_store_that_is_away_the_last_known_rows_serve_and_it_is_left_alone_for_a_while() -> None:
    store, clock = Store(), ManualClock()
    features = Features(store, 10, clock)
    features.read([1])
    store.away = True
    for _ in range(3):
        assert features.read([1, 2]) == [Known(row(1, 1), late=True), Known(None, late=True)]
    assert store.reads == 2, "one more, and then none"
    store.away = False
    clock.advance(round(1000 * LEFT_ALONE_S))
    assert features.read([1]) == [Known(row(1, 3), late=False)]


def test_only_so_many_users_are_remembered_the_newest_longest() -> None:
    store = Store()
    features = Features(store, 2, ManualClock())
    for user_id in (1, 2, 1, 3):
        features.read([user_id])
    store.away = True
    assert [known.row is not None for known in features.read([1, 2, 3])] == [True, False, True]


def test_what_was_known_of_a_user_whose_row_is_gone_serves_no_more() -> None:
    store, gone = Store(), set[int]()
    rows = store.read
    store.read = lambda user_ids: [None if user in gone else row for user, row in zip(user_ids, rows(user_ids))]  # type: ignore[method-assign] # noqa: B905
    features = Features(store, 10, ManualClock())
    features.read([1])
    gone.add(1)
    features.read([1])
    store.away = True
    assert features.read([1]) == [Known(None, late=True)]
