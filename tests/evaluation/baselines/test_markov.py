from pathlib import Path

import pytest

from evaluation.baselines.base import TIE
from evaluation.baselines.markov import Markov
from evaluation.metrics import mrr, recall
from evaluation.movielens import official
from tests.evaluation.baselines.baseline_cases import ranks_by, sequence


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


def test_a_markov_chain_on_the_authors_instances(real_movielens: Path, real_instances: Path) -> None:
    split = official(real_movielens, real_instances, "file")
    learnt, items = split.sequences + split.held_out, split.catalogue.item_ids.size
    first = ranks_by(Markov(), learnt, items, split.test)
    assert recall(first, 2).mean() == pytest.approx(0.2376, abs=0.001)
    assert recall(first, 20).mean() == pytest.approx(0.6987, abs=0.001)
    assert mrr(first, 20).mean() == pytest.approx(0.2709, abs=0.001)
    fifth = ranks_by(Markov(window=5, decay=1), learnt, items, split.test)
    assert recall(fifth, 2).mean() == pytest.approx(0.2525, abs=0.002)
    assert recall(fifth, 20).mean() == pytest.approx(0.7127, abs=0.002)
    assert mrr(fifth, 20).mean() == pytest.approx(0.2896, abs=0.002)
