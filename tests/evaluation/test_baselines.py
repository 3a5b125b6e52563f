from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.features import Ints
from evaluation.baselines.base import TIE, Baseline
from evaluation.baselines.blend import Blend
from evaluation.baselines.ease import Ease
from evaluation.baselines.markov import Markov
from evaluation.baselines.popularity import Popularity
from evaluation.data import Query, Sequence
from evaluation.fit import ranks
from evaluation.metrics import mrr, ndcg, recall
from evaluation.movielens import leave_one_out, official

ALL: list[Baseline] = [
    Popularity(),
    Popularity(days=1),
    Markov(),
    Markov(lags=3, window=2),
    Ease(),
    Blend(((1, Markov()), (2, Ease()))),
]


def sequence(*rows: int) -> Sequence:
    """Behaviours a day apart."""
    return Sequence(np.array(rows, np.int64), np.arange(len(rows)) * 86_400_000)


def test_popularity_of_the_last_days_counts_from_the_newest_behaviour() -> None:
    learnt = [sequence(0, 0, 1, 2), sequence(0)]
    assert Popularity().fit(learnt, 4).scores([sequence()]).tolist() == [[3, 1, 1, 0]]
    assert Popularity(days=2).fit(learnt, 4).scores([sequence(), sequence(1)]).tolist() == [[0, 1, 1, 0]] * 2


def test_a_first_order_chain_gives_the_shares_of_what_followed() -> None:
    fitted = Markov().fit([sequence(0, 1), sequence(0, 1), sequence(0, 2), sequence(2, 0)], 4)
    assert fitted.scores([sequence(2, 0)])[0] == pytest.approx([0, 2 / 3, 1 / 3, 0], abs=2 * TIE)
    assert fitted.scores([sequence(0, 2)])[0] == pytest.approx([1, 0, 0, 0], abs=2 * TIE)


def test_lags_and_skips_weigh_by_their_distance() -> None:
    # 0 is followed by 1 and, two places on, by 2; 1 is followed by 2.
    fitted = Markov(lags=2, window=2, decay=1).fit([sequence(0, 1, 2)], 4)
    assert fitted.scores([sequence(0)])[0] == pytest.approx([0, 1, 1 / 2, 0], abs=2 * TIE)
    assert fitted.scores([sequence(0, 1)])[0] == pytest.approx([0, 1 / 2, 1 + 1 / 4, 0], abs=2 * TIE)
    assert fitted.scores([sequence(0, 3, 3)])[0] == pytest.approx([0, 0, 0, 0], abs=2 * TIE)


def test_what_a_baseline_cannot_tell_apart_stands_by_popularity() -> None:
    learnt = [sequence(0, 1), sequence(2), sequence(2), sequence(2), sequence(3), sequence(3)]
    for baseline in (Markov(), Ease()):
        assert np.argsort(-baseline.fit(learnt, 5).scores([sequence(4)])[0]).tolist()[:2] == [2, 3]
    assert np.argsort(-Markov().fit(learnt, 5).scores([sequence(0)])[0]).tolist()[:3] == [1, 2, 3]


def test_ease_is_the_ridge_regression_of_each_item_on_the_others() -> None:
    x = (np.random.default_rng(0).random((40, 6)) < 0.4).astype(np.float64)
    fitted = Ease(l2=3).fit([sequence(*np.flatnonzero(row).tolist()) for row in x], 8)
    scores = fitted.scores([sequence(i) for i in range(6)])
    for item in range(6):
        others = np.delete(np.arange(6), item)
        a = x[:, others]
        weights = np.linalg.solve(a.T @ a + 3 * np.eye(5), a.T @ x[:, item])
        assert scores[others, item] == pytest.approx(weights, abs=1e-5)
        assert scores[item, item] == pytest.approx(0, abs=1e-5)
    assert not scores[:, 6:].any()


def test_a_blend_is_the_weighted_sum() -> None:
    learnt, asked = [sequence(0, 1, 2), sequence(0, 2)], [sequence(0), sequence(1, 2)]
    both = Blend(((0.5, Markov()), (2.0, Ease(1)))).fit(learnt, 4).scores(asked)
    assert both == pytest.approx(0.5 * Markov().fit(learnt, 4).scores(asked) + 2 * Ease(1).fit(learnt, 4).scores(asked))


rows_of_items = st.lists(st.integers(0, 5), max_size=8)


@pytest.mark.parametrize("baseline", ALL, ids=str)
@given(learnt=st.lists(rows_of_items, max_size=6), asked=st.lists(rows_of_items, max_size=4))
def test_any_history_gets_finite_scores(baseline: Baseline, learnt: list[list[int]], asked: list[list[int]]) -> None:
    scores = baseline.fit([sequence(*s) for s in learnt], 6).scores([sequence(*s) for s in asked])
    assert scores.shape == (len(asked), 6)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("baseline", ALL, ids=str)
@pytest.mark.parametrize("row", [-1, 6])
def test_an_item_outside_the_catalogue_is_an_error(baseline: Baseline, row: int) -> None:
    with pytest.raises(ValueError, match="outside the catalogue of 6 items"):
        baseline.fit([sequence(0, row)], 6)


def found(baseline: Baseline, learnt: list[Sequence], items: int, asked: list[Query]) -> Ints:
    return ranks(baseline.fit(learnt, items).scores([q.history for q in asked]), asked)


def test_a_markov_chain_on_the_authors_instances(real_movielens: Path, real_instances: Path) -> None:
    split = official(real_movielens, real_instances, "file")
    learnt, items = split.sequences + split.held_out, split.catalogue.item_ids.size
    first = found(Markov(), learnt, items, split.test)
    assert recall(first, 2).mean() == pytest.approx(0.2376, abs=0.001)
    assert recall(first, 20).mean() == pytest.approx(0.6987, abs=0.001)
    assert mrr(first, 20).mean() == pytest.approx(0.2709, abs=0.001)
    fifth = found(Markov(window=5, decay=1), learnt, items, split.test)
    assert recall(fifth, 2).mean() == pytest.approx(0.2525, abs=0.002)
    assert recall(fifth, 20).mean() == pytest.approx(0.7127, abs=0.002)
    assert mrr(fifth, 20).mean() == pytest.approx(0.2896, abs=0.002)


@pytest.mark.proof
def test_ease_on_the_authors_instances_with_the_history_masked(real_movielens: Path, real_instances: Path) -> None:
    split = official(real_movielens, real_instances, "file")
    masked = [replace(q, masked=q.history.rows) for q in split.test]
    ease = found(Ease(300), split.sequences + split.held_out, split.catalogue.item_ids.size, masked)
    assert recall(ease, 2).mean() == pytest.approx(0.0422, abs=0.001)
    assert recall(ease, 20).mean() == pytest.approx(0.2177, abs=0.001)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("baseline", "hr", "gain", "within"),
    [
        (Popularity(), 0.0392, 0.0193, 0.0002),
        (Ease(300), 0.1091, 0.0541, 0.0005),
        (Markov(lags=5, window=5), 0.2591, 0.1507, 0.001),
        (Blend(((1, Markov(lags=5, window=5)), (0.05, Ease(300)))), 0.2704, 0.1599, 0.003),
    ],
    ids=str,
)
def test_leave_one_out_in_time_order(
    real_movielens: Path, baseline: Baseline, hr: float, gain: float, within: float
) -> None:
    split = leave_one_out(real_movielens, "time")
    all_but_the_last = [q.history for q in split.test]
    test = found(baseline, all_but_the_last, split.catalogue.item_ids.size, split.test)
    assert recall(test, 10).mean() == pytest.approx(hr, abs=within)
    assert ndcg(test, 10).mean() == pytest.approx(gain, abs=within)
