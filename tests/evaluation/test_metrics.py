import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics import Interval, coverage, interval, lift, mrr, ndcg, over_seeds, recall, spread

RANKS = np.array([1, 2, 10, 11])


def test_the_measures_of_known_ranks() -> None:
    assert recall(RANKS, 10).tolist() == [1, 1, 1, 0]
    assert mrr(RANKS, 10).tolist() == [1, 0.5, 0.1, 0]
    assert ndcg(RANKS, 10).tolist() == pytest.approx([1, 1 / math.log2(3), 1 / math.log2(11), 0])


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 50))
def test_mrr_is_at_most_ndcg_and_ndcg_at_most_recall(ranks: list[int], k: int) -> None:
    found = np.array(ranks)
    assert (mrr(found, k) <= ndcg(found, k)).all()
    assert (ndcg(found, k) <= recall(found, k)).all()


def test_coverage_counts_an_item_once() -> None:
    assert coverage(np.array([[0, 1], [1, 0]]), 8) == 0.25


def test_the_interval_of_independent_users_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).random(2_000)
    found = interval(values, np.arange(2_000))
    half = 1.96 * values.std() / math.sqrt(2_000)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert interval(values, np.arange(2_000)) == found


def test_queries_of_one_user_are_drawn_together() -> None:
    values = np.random.default_rng(0).random(500)
    alone = interval(values, np.arange(500))
    copied = interval(np.repeat(values, 4), np.repeat(np.arange(500), 4))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


def test_users_weigh_by_their_queries() -> None:
    one_user_of_three = interval(np.array([1.0, 1.0, 1.0, 0.0]), np.array([5, 5, 5, 9]), resamples=500)
    assert one_user_of_three == Interval(0.75, 0.0, 1.0)


def test_pairing_takes_away_what_the_models_share() -> None:
    control = np.random.default_rng(0).random(300) + 0.1
    assert lift(1.07 * control, control, np.arange(300)) == Interval(*[pytest.approx(0.07)] * 3)
    shuffled = lift(1.07 * np.random.default_rng(1).permutation(control), control, np.arange(300))
    assert shuffled.low < 0
    assert shuffled.high > 0.14


def test_a_lift_over_nothing_is_infinite_and_bounds_stay_numbers() -> None:
    found = lift(np.array([1.0, 1.0]), np.array([0.0, 1.0]), np.arange(2), resamples=500)
    assert found == Interval(1.0, 0.0, math.inf)
    assert lift(np.zeros(2), np.zeros(2), np.arange(2)) == Interval(0, 0, 0)


def test_no_query_is_an_error() -> None:
    with pytest.raises(ValueError, match="no query"):
        interval(np.empty(0), np.empty(0, np.int64))


def test_the_resamples_do_not_depend_on_how_many_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(50)
    whole = interval(values, np.arange(50), resamples=400)
    monkeypatch.setattr("evaluation.metrics._DRAWN_AT_ONCE", 1_000)
    assert interval(values, np.arange(50), resamples=400) == whole


def test_seeds_are_averaged_for_each_query_and_their_spread_stands_apart() -> None:
    runs = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert over_seeds(runs).tolist() == [0.5, 0, 1]
    assert spread(runs) == pytest.approx(math.sqrt(2) / 6)
    assert math.isnan(spread(runs[:1]))
