from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from abtest.collect.activity import join

intervals = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20)).map(lambda t: (t[0], t[0] + t[1])), max_size=30)


@given(intervals, intervals)
def test_joining_parts_and_then_all_is_joining_all(a, b):
    assert join([*join(a, 5), *join(b, 5)], 5) == join([*b, *a], 5)


@given(intervals)
def test_what_is_joined_covers_every_interval_and_leaves_gaps_wider_than_the_limit(of):
    joined = join(of, 5)
    assert all(any(s <= start and end <= e for s, e in joined) for start, end in of)
    assert all(later[0] - earlier[1] > 5 for earlier, later in pairwise(joined))


def test_a_gap_of_exactly_the_limit_joins():
    assert join([(0, 1), (6, 7)], 5) == [(0, 7)]
    assert join([(0, 1), (7, 8)], 5) == [(0, 1), (7, 8)]
