from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.baselines.base import Baseline
from evaluation.baselines.blend import Blend
from evaluation.baselines.ease import Ease
from evaluation.baselines.markov import Markov
from evaluation.baselines.popularity import Popularity
from evaluation.metrics import ndcg, recall
from evaluation.movielens import leave_one_out
from tests.evaluation.baselines.baseline_cases import ranks_by, sequence

ALL: list[Baseline] = [
    Popularity(),
    Popularity(days=1),
    Markov(),
    Markov(lags=3, window=2),
    Ease(),
    Blend(((1, Markov()), (2, Ease()))),
]
rows_of_items = st.lists(st.integers(0, 5), max_size=8)


def test_what_a_baseline_cannot_tell_apart_stands_by_popularity() -> None:
    learnt = [sequence(0, 1), sequence(2), sequence(2), sequence(2), sequence(3), sequence(3)]
    for baseline in (Markov(), Ease()):
        assert np.argsort(-baseline.fit(learnt, 5).scores([sequence(4)])[0]).tolist()[:2] == [2, 3]
    assert np.argsort(-Markov().fit(learnt, 5).scores([sequence(0)])[0]).tolist()[:3] == [1, 2, 3]


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
    test = ranks_by(baseline, all_but_the_last, split.catalogue.item_ids.size, split.test)
    assert recall(test, 10).mean() == pytest.approx(hr, abs=within)
    assert ndcg(test, 10).mean() == pytest.approx(gain, abs=within)
