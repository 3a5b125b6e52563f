"""Blending, by properties: no item twice, k filled, shares kept, drafts fair."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.blend import quota, team_draft

ranked = st.lists(st.integers(1, 30), unique=True, max_size=20).map(lambda ids: [(i, 1.0 / i) for i in ids])
found = st.dictionaries(st.sampled_from("abc"), ranked, min_size=1)


@given(found, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_each_item_once_k_filled_and_sources_keep_their_order(
    lists: dict[str, list[tuple[int, float]]], k: int, seed: int
) -> None:
    everything = {item for each in lists.values() for item, _ in each}
    for picks in (quota(lists, dict.fromkeys(lists, 1.0), k), team_draft(lists, k, np.random.default_rng(seed))):
        ids = [item for item, _, _ in picks]
        assert len(set(ids)) == len(ids) == min(k, len(everything))
        for source, each in lists.items():
            own = [item for item, _, picker in picks if picker == source]
            assert own == [item for item, _ in each if item in own]


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=4), st.integers(1, 60))
def test_at_every_place_sources_have_their_shares_up_to_rounding(shares: list[float], k: int) -> None:
    lists = {str(s): [(100 * s + i, 1.0) for i in range(60)] for s in range(len(shares))}
    picks = quota(lists, {str(s): share for s, share in enumerate(shares)}, k)
    for place in range(1, k + 1):
        taken = Counter(source for _, _, source in picks[:place])
        for s, share in enumerate(shares):
            # Webster's sequence can be off by more than one place where there are many sources, but not by two.
            assert abs(taken[str(s)] - place * share / sum(shares)) < 2


def test_in_a_draft_each_team_is_first_half_of_the_time() -> None:
    lists = {"a": [(1, 1.0), (2, 0.9)], "b": [(1, 1.0), (3, 0.9)]}
    coin = np.random.default_rng(7)
    first = Counter(team_draft(lists, 3, coin)[0][2] for _ in range(4000))
    assert abs(first["a"] - 2000) < 4 * 32  # four standard deviations
