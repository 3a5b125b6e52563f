"""Team-draft interleaving: the votes, the interval, and that it keeps its level."""

import numpy as np
import pytest
from scipy.stats import norm

from abtest.stats.interleaving import preference, preference_of_votes


def test_each_user_is_one_vote_however_much_they_watch():
    found = preference(np.array([100.0, 0, 0]), np.array([0.0, 1, 1]))
    assert (found.wins, found.losses, found.ties) == (1, 2, 0)
    assert found.share == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [([], [], "no users"), ([1.0], [0.0], "fewer than 2 users"), ([1.0, 2], [1.0, 2], "all users alike"),
     ([2.0, 2], [1.0, 1], "all users alike")],
)  # fmt: skip
def test_what_cannot_be_had_has_a_reason(first, second, reason):
    found = preference(np.array(first), np.array(second))
    assert (found.low, found.reason) == (None, reason)


def test_sources_of_other_users_are_refused():
    with pytest.raises(ValueError, match="3 users of one source and 2"):
        preference(np.zeros(3), np.zeros(2))


def test_without_a_preference_five_in_a_hundred_are_significant():
    random = np.random.default_rng(1)
    replicates, users = 4000, 300
    propensity = random.gamma(0.5, 4, (replicates, users))
    first, second = random.poisson(propensity), random.poisson(propensity)
    significant = sum(
        (preference(a, b).p_value or 1) < 0.05 for a, b in zip(first.astype(float), second.astype(float), strict=True)
    )
    assert 0.041 < significant / replicates < 0.059  # 2.6 standard errors


def test_swapping_the_sources_mirrors_the_answer():
    random = np.random.default_rng(2)
    a, b = random.poisson(2, 500).astype(float), random.poisson(2.4, 500).astype(float)
    one, other = preference(a, b), preference(b, a)
    assert (one.wins, one.losses) == (other.losses, other.wins)
    assert one.low == pytest.approx(1 - other.high)
    assert one.p_value == pytest.approx(other.p_value)


def test_counts_of_votes_give_what_their_users_give():
    for wins, losses, ties in ((3, 2, 4), (0, 1, 1), (5, 5, 0), (1, 0, 0), (0, 0, 3)):
        first = np.repeat([1.0, 0.0, 0.0], [wins, losses, ties])
        second = np.repeat([0.0, 1.0, 0.0], [wins, losses, ties])
        found = preference_of_votes(wins, losses, ties)
        assert found == preference(first, second)
        if found.low is not None:
            votes = 0.5 + 0.5 * np.sign(first - second)
            error = votes.std(ddof=1) / np.sqrt(len(votes))
            assert found.low == pytest.approx(max(votes.mean() - 1.959963984540054 * error, 0), abs=1e-12)
            assert found.p_value == pytest.approx(2 * norm.sf(abs(votes.mean() - 0.5) / error), rel=1e-12)
