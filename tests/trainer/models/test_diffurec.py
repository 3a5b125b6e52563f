import pytest
import torch
from torch import Tensor

from tests.trainer.models.encoder_cases import FULL, LAG, SHORT, draw
from trainer.models import create, diffurec
from trainer.models.diffusion import alpha_bars


def test_diffurec_begins_near_the_target_and_ends_in_pure_noise() -> None:
    bars = alpha_bars(diffurec.truncated_linear())
    assert bars[1] > 0.98
    assert (bars.diff() < 0).all()
    assert 0 < bars[-1] < 1e-5


def test_diffurec_answers_alike_from_equal_noise_and_otherwise_from_other() -> None:
    encoder = create("diffurec", SHORT, seed=0).eval()
    x, noise = draw(2, 6, 8), draw(2, 8, seed=1)
    once, again, other = (encoder(x, FULL, LAG, z) for z in (noise, noise, -noise))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_diffurec_is_told_its_target_by_the_uncertainty_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = create("diffurec", SHORT, seed=0).eval()
    x = draw(2, 6, 8)

    def users() -> list[Tensor]:
        targets = draw(2, 8, seed=1), draw(2, 8, seed=2)
        return [encoder.training_step(x, FULL, LAG, t, torch.Generator().manual_seed(0)).user for t in targets]

    assert not torch.equal(*users())
    monkeypatch.setattr(diffurec, "UNCERTAINTY", 0.0)
    assert torch.equal(*users())
