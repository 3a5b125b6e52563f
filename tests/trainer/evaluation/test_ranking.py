import numpy as np
import pytest
import torch

from trainer.evaluation.ranking import WORST_LOSS, foresee

NONE_SEEN = (np.empty(0, np.int64),)


def test_rank_and_loss_and_chance_are_of_the_same_scores() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.2, 0.2, 0.1]])).repeat(2, 1) + 7  # a softmax does not see the 7
    found = foresee(scores, torch.tensor([0, 1]), NONE_SEEN * 2)
    assert found.ranks.tolist() == [1, 3]  # the tie counts against the target
    assert found.losses == pytest.approx(-np.log([0.5, 0.2]), rel=1e-5)
    assert found.chances == pytest.approx([1, 1])


def test_what_was_seen_takes_no_part_of_the_softmax() -> None:
    found = foresee(torch.zeros(1, 4), torch.tensor([3]), (np.array([0, 1]),))
    assert found.ranks.tolist() == [2]
    assert found.losses == pytest.approx([np.log(2)])


def test_the_chance_is_the_mass_of_the_best_twenty() -> None:
    found = foresee(torch.zeros(1, 80), torch.tensor([3]), NONE_SEEN)
    assert found.chances == pytest.approx([0.25])


def test_scores_that_are_no_numbers_are_the_worst_in_everything() -> None:
    found = foresee(torch.full((1, 4), torch.nan), torch.tensor([0]), NONE_SEEN)
    assert found.ranks.tolist() == [4]
    assert found.losses.tolist() == [WORST_LOSS]
    assert found.chances.tolist() == [1]  # surest of all, and wrong
