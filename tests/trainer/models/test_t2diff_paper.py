import pytest
import torch
from torch import Tensor

from contracts.config.settings import ModelSettings
from trainer.models import create
from trainer.models.t2diff_paper import T2DiffPaper, WithoutDrifts

PAPER = ModelSettings(dim=8, window=6, session_length=3, diffusion_steps=10)


def arguments(users: int, *, seed: int = 0, window: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Full histories, one behaviour a minute."""
    sequence = torch.randn(users, window, 8, generator=torch.Generator().manual_seed(seed))
    lag = torch.log1p(60.0 * torch.arange(window, 0, -1)).expand(users, window)
    return sequence, torch.ones(users, window), lag


def test_the_paper_model_guesses_nothing_without_a_history() -> None:
    for kind in (T2DiffPaper, WithoutDrifts):
        model = kind(PAPER)
        guess = model.guess(torch.zeros(1, 6, 8), torch.zeros(1, 6), torch.ones(1, *model.noise_shape))
        assert guess.abs().max() == 0


@pytest.mark.parametrize("session_length", [1, 6, 50])
def test_any_session_length_works(session_length: int) -> None:
    model = create("t2diff-paper", PAPER.model_copy(update={"session_length": session_length}), seed=0).eval()
    user = model(*arguments(2), torch.randn(2, *model.noise_shape))
    assert torch.isfinite(user).all()
