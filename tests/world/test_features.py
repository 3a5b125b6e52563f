import numpy as np

from world.features import COLUMNS, RECENT, Moment, Profiles, matrix, moments, statistics
from world.logs import Observations


def seen_of(users, items, effective):
    n = len(users)
    times = np.arange(n) * 60_000
    ones = np.ones(n, np.int64)
    shown = (np.array(users), np.array(items), times)
    return Observations(*shown, ones, ones, np.array(effective, bool), np.zeros(n, bool))


def profiles(users=4, items=6):
    unknown = np.full(users, np.nan, np.float32)
    return Profiles(unknown, unknown, np.arange(items) % 2, 3, np.full(items, 9000))


def test_a_moment_is_what_came_before_and_nothing_else():
    seen = seen_of([0, 1, 0, 0, 1, 0], [5, 4, 3, 2, 1, 0], [1, 1, 0, 1, 0, 1])
    moment = moments(seen)
    assert moment.recent[:, 0].tolist() == [-1, -1, 5, 5, 4, 2]
    assert moment.recent[5].tolist() == [2, 5] + [-1] * (RECENT - 2)
    np.testing.assert_array_equal(moment.minutes, [np.nan, np.nan, 2, 3, 3, 2])


def test_items_viewed_by_the_same_users_are_close():
    seen = seen_of([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 2, 3, 2, 3], [1] * 8)
    known = statistics(seen, profiles())
    assert known.vectors[0] @ known.vectors[1] > 0.9
    assert abs(known.vectors[0] @ known.vectors[2]) < 0.1
    assert known.tastes[0] @ known.vectors[1] > known.tastes[0] @ known.vectors[3]


def test_rates_are_pulled_towards_the_overall_rate():
    known = statistics(seen_of([0, 0, 1, 1], [0, 1, 2, 3], [1, 1, 0, 0]), profiles())
    assert 0.5 < known.user_rate[0] < 1
    assert known.user_rate[3] == 0.5
    assert known.user_views.tolist() == [2, 2, 0, 0]


def test_a_row_does_not_depend_on_what_else_is_described():
    rng = np.random.default_rng(0)
    seen = seen_of(rng.integers(0, 4, 200), rng.integers(0, 6, 200), rng.random(200) < 0.4)
    known, moment = statistics(seen, profiles()), moments(seen)
    whole = matrix(seen.users, seen.items, seen.times_ms, seen.tabs, moment, known, profiles())
    assert whole.shape == (200, len(COLUMNS))
    for at in (0, 63, 199):
        one = slice(at, at + 1)
        here = Moment(moment.recent[one], moment.minutes[one])
        alone = matrix(seen.users[one], seen.items[one], seen.times_ms[one], seen.tabs[one], here, known, profiles())
        np.testing.assert_array_equal(alone[0], whole[at])


def test_nothing_viewed_is_no_obstacle():
    known = statistics(seen_of([0, 1], [0, 1], [0, 0]), profiles())
    assert not known.tastes.any()
