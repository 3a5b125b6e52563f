import pytest
import torch

from contracts.settings import ModelSettings
from trainer.models.t2diff import DriftDiffusion, T2Diff

SETTINGS = ModelSettings(dim=8, window=6, session_length=3)


def walk(users: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Histories (users, 6, 8) whose drift is the same at each step, and the vectors that come next."""
    drift = torch.randn(1, 8, generator=generator)
    start = 0.1 * torch.randn(users, 8, generator=generator)
    steps = torch.arange(7).view(1, 7, 1)
    path = 0.1 * (start.unsqueeze(1) + steps * drift)
    return path[:, :6], path[:, 6]


def test_the_diffusion_module_learns_to_foresee_a_drift() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    module = DriftDiffusion(8, channels=16)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    mask = torch.ones(64, 6)
    losses = []
    for _ in range(150):
        x, target = walk(64, torch.Generator().manual_seed(1))
        loss = module.loss(x, target, mask, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    with torch.no_grad():
        guess = module.sample(x, mask, torch.randn(64, 6, 8, generator=generator))
    closer = (guess - target).norm(dim=1) < (x[:, -1] - target).norm(dim=1)
    assert closer.float().mean() > 0.95


def test_no_gradient_reaches_the_diffusion_modules_inputs() -> None:
    torch.manual_seed(0)
    model = T2Diff(SETTINGS)
    sequence = torch.randn(2, 6, 8, requires_grad=True)
    target = torch.randn(2, 8, requires_grad=True)
    step = model.training_step(sequence, torch.ones(2, 6), torch.zeros(2, 6), target, torch.Generator().manual_seed(0))
    step.extra_loss.backward()
    assert sequence.grad is None
    assert target.grad is None
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("diffusion."))


def test_the_running_scale_ignores_batches_it_cannot_measure() -> None:
    module = DriftDiffusion(8, channels=16)
    before = module.scale.clone()
    generator = torch.Generator().manual_seed(0)
    module.loss(torch.zeros(2, 6, 8), torch.ones(2, 8), torch.zeros(2, 6), generator)
    assert torch.equal(module.scale, before)
    module.loss(torch.full((2, 6, 8), torch.nan), torch.ones(2, 8), torch.ones(2, 6), generator)
    assert torch.equal(module.scale, before)
    module.loss(torch.ones(2, 6, 8), torch.ones(2, 8), torch.ones(2, 6), generator)
    assert module.scale > before


def test_without_a_history_there_is_no_guess() -> None:
    module = DriftDiffusion(8, channels=16)
    guess = module.sample(torch.zeros(1, 6, 8), torch.zeros(1, 6), torch.ones(1, 6, 8))
    assert guess.abs().max() == 0


def test_a_longer_window_than_is_diffused_is_cut_to_the_last_behaviours() -> None:
    model = T2Diff(ModelSettings(dim=8, window=40, session_length=3)).eval()
    assert model.noise_shape == (16, 8)
    user = model(torch.randn(2, 40, 8), torch.ones(2, 40), torch.zeros(2, 40), torch.randn(2, 16, 8))
    assert user.shape == (2, 8)


@pytest.mark.parametrize("session_length", [1, 6, 50])
def test_any_session_length_works(session_length: int) -> None:
    model = T2Diff(ModelSettings(dim=8, window=6, session_length=session_length)).eval()
    user = model(torch.randn(2, 6, 8), torch.ones(2, 6), torch.zeros(2, 6), torch.randn(2, 6, 8))
    assert torch.isfinite(user).all()
