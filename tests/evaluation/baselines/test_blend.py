import pytest

from evaluation.baselines.blend import Blend
from evaluation.baselines.ease import Ease
from evaluation.baselines.markov import Markov
from tests.evaluation.baselines.baseline_cases import sequence


def test_a_blend_is_the_weighted_sum() -> None:
    learnt, asked = [sequence(0, 1, 2), sequence(0, 2)], [sequence(0), sequence(1, 2)]
    both = Blend(((0.5, Markov()), (2.0, Ease(1)))).fit(learnt, 4).scores(asked)
    assert both == pytest.approx(0.5 * Markov().fit(learnt, 4).scores(asked) + 2 * Ease(1).fit(learnt, 4).scores(asked))
