import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.trainer.models.encoder_cases import FULL, LAG, SHORT, draw
from trainer.models import contrastvae, create
from trainer.models.contrastvae import contrast, divergence


def test_contrastvaes_divergence_is_that_from_the_standard_normal() -> None:
    assert float(divergence(torch.zeros(5), torch.zeros(5))) == 0
    mean, log_variance = draw(7, 5), draw(7, 5, seed=1)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence(mean, log_variance), expected, atol=1e-5)


def test_contrast_is_least_where_each_view_meets_its_own() -> None:
    views = torch.eye(4)
    assert contrast(views, views) < contrast(views, views.roll(1, 0))
    assert contrast(views, 5 * views) == pytest.approx(float(contrast(views, views)))  # cosines know no length
    assert float(contrast(views[:0], views[:0])) == 0


def test_contrastvae_learns_from_two_draws_and_serves_the_mean() -> None:
    encoder = create("contrastvae", SHORT, seed=0).eval()
    x = draw(2, 6, 8)
    step = encoder.training_step(x, FULL, LAG, x[:, 0], torch.Generator().manual_seed(0))
    one, other = step.user.chunk(2)
    assert step.places is not None
    assert torch.equal(*step.places.chunk(2))
    assert not torch.allclose(one, other, atol=1e-2)
    assert torch.equal(encoder(x, FULL, LAG, LAG), encoder(x, FULL, LAG, LAG + 1))


def test_contrastvaes_divergence_is_not_of_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastvae, "CONTRAST_WEIGHT", 0.0)
    encoder = create("contrastvae", SHORT, seed=0).eval()
    x, mask = draw(2, 6, 8), torch.tensor([[0.0] * 4 + [1.0] * 2, [0.0] * 3 + [1.0] * 3])
    losses = [
        encoder.training_step(
            x[:, -n:], mask[:, -n:], LAG[:, -n:], x[:, 0], torch.Generator().manual_seed(0)
        ).extra_loss
        for n in (6, 3)
    ]
    assert losses[0] > 0
    assert torch.allclose(*losses)
