from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from world.base import PAUSE_MS, Visit, begin_times, waves

arrivals = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 500)), max_size=60).map(
    lambda pairs: [Visit(i, user, at, 4) for i, (at, user) in enumerate(sorted((at, user) for user, at in pairs))]
)


@given(arrivals, st.integers(0, 200))
def test_waves_keep_everyone_in_order_and_no_user_twice(come, span):
    cut = list(waves(come, span))
    assert [visit for wave in cut for visit in wave] == come
    for wave in cut:
        users = [visit.user_id for visit in wave]
        assert len(set(users)) == len(users) > 0
        assert wave[-1].time_ms - wave[0].time_ms <= span
    for wave, later in pairwise(cut):
        head = later[0]
        assert head.user_id in {visit.user_id for visit in wave} or head.time_ms - wave[0].time_ms > span


plays = st.lists(st.integers(0, 900_000), min_size=1, max_size=20).map(lambda times: np.array(times, np.int64))


@given(plays, st.integers(100, 3_000_000))
def test_plays_begin_in_order_and_before_the_next_visit(times, room):
    begins = begin_times(1000, times, 1000 + room)
    assert (np.diff(begins) >= 0).all()
    assert begins[0] >= 1000
    assert begins[-1] < 1000 + room


@given(plays)
def test_where_there_is_room_plays_follow_each_other(times):
    begins = begin_times(0, times, 10**9)
    assert (np.diff(begins) == times[:-1] + PAUSE_MS).all()
