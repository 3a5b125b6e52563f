"""What logQ promises: learning from a few drawn items as if from all."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.trainer.learn.test_frequency import following
from trainer.learn.frequency import Frequency
from trainer.learn.full_softmax import catalogue_loss
from trainer.learn.sampled_softmax import Negatives, draw, sampled_loss

N, B, DRAWN = 40, 64, 16
POPULARITY = torch.arange(1, N + 1, dtype=torch.float64).reciprocal()
POPULARITY /= POPULARITY.sum()  # row 0 is a quarter of all


def told(popularity: torch.Tensor) -> Frequency:
    """One that has seen each row as often as it is popular."""
    frequency = following(N, half_life=10**9)
    frequency.add(torch.multinomial(popularity, 200_000, replacement=True, generator=torch.Generator().manual_seed(1)))
    return frequency


def draws(count: int) -> Iterator[tuple[torch.Tensor, Negatives]]:
    """Batches of targets, and what they compete with."""
    generator, frequency = torch.Generator().manual_seed(0), told(POPULARITY)
    for _ in range(count):
        targets = torch.multinomial(POPULARITY, B, replacement=True, generator=generator)
        yield targets, draw(targets, frequency, N, DRAWN, generator)


def test_the_estimated_sum_over_all_items_is_right_on_average() -> None:
    scores = torch.randn(N, generator=torch.Generator().manual_seed(2), dtype=torch.float64).exp()
    ratios = []
    for targets, drawn in draws(2000):
        others = drawn.rows != targets[0]
        estimate = scores[targets[0]] + (scores[drawn.rows] * drawn.log_weight.exp())[others].sum()
        ratios.append(float(estimate / scores.sum()))
    assert np.std(ratios) > 0.1  # it is an estimate
    assert np.mean(ratios) == pytest.approx(1, abs=0.02)


def test_gradients_are_on_average_nearly_those_of_the_full_softmax_and_without_the_weights_far_from_it() -> None:
    generator = torch.Generator().manual_seed(3)
    user, vectors = torch.randn(B, 4, generator=generator), torch.randn(N, 4, generator=generator, requires_grad=True)
    sums = torch.zeros(3, N, 4)
    for targets, drawn in draws(300):
        losses = (
            catalogue_loss(user, vectors, targets),
            sampled_loss(user, vectors, targets, drawn.rows, drawn.log_weight),
            sampled_loss(user, vectors, targets, drawn.rows, drawn.times.log().float()),
        )
        sums += torch.stack([torch.autograd.grad(loss, vectors)[0] for loss in losses])
    full, corrected, uncorrected = sums
    assert float((corrected - full).norm() / full.norm()) < 0.2
    assert float((uncorrected - full).norm() / full.norm()) > 0.4


@pytest.mark.parametrize("corrected", [True, False])
def test_scores_come_out_as_popular_as_items_are_only_with_the_correction(corrected: bool) -> None:
    """All users want items as often as they are popular, and the full softmax would learn the log of that."""
    vectors = torch.zeros(N, 1, requires_grad=True)
    optimizer = torch.optim.Adam([vectors], lr=0.1)
    learned = torch.zeros(N)
    for step, (targets, drawn) in enumerate(draws(400)):
        weight = drawn.log_weight if corrected else drawn.times.log().float()
        loss = sampled_loss(torch.ones(B, 1), vectors, targets, drawn.rows, weight)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        learned += vectors.detach().flatten() * (step >= 200)
    slope = np.polyfit(POPULARITY.log().numpy(), learned.numpy() / 200, 1)[0]
    if corrected:
        assert slope == pytest.approx(1, abs=0.1)
    else:
        assert slope < 0.7  # popular items are negatives too often, and pushed down


def test_a_target_does_not_compete_with_itself_nor_is_an_item_there_twice() -> None:
    targets = torch.tensor([3, 3, 5])
    frequency = following(6, half_life=100)
    drawn = draw(targets, frequency, 6, 50, torch.Generator().manual_seed(0))
    assert drawn.rows.tolist() == [0, 1, 2, 3, 4, 5]
    vectors = torch.tensor([[0.0]] * 3 + [[50.0]] + [[0.0]] * 2)
    loss = sampled_loss(torch.ones(1, 1), vectors, torch.tensor([3]), drawn.rows, drawn.log_weight)
    assert float(loss) == pytest.approx(0, abs=1e-6)
