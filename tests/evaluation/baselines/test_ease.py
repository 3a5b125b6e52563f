from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.baselines.ease import Ease
from evaluation.metrics import recall
from evaluation.movielens import official
from tests.evaluation.baselines.baseline_cases import ranks_by, sequence


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


@pytest.mark.proof
def test_ease_on_the_authors_instances_with_the_history_masked(real_movielens: Path, real_instances: Path) -> None:
    split = official(real_movielens, real_instances, "file")
    masked = [replace(q, masked=q.history.rows) for q in split.test]
    ease = ranks_by(Ease(300), split.sequences + split.held_out, split.catalogue.item_ids.size, masked)
    assert recall(ease, 2).mean() == pytest.approx(0.0422, abs=0.001)
    assert recall(ease, 20).mean() == pytest.approx(0.2177, abs=0.001)
