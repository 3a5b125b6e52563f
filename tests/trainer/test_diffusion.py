import pytest
import torch

from trainer.models.diffusion import GROWTH, SCALE, STEPS, alpha_bars, betas, diffuse, ladder, reverse_step


def test_schedule_is_the_exponential_one_and_ends_in_pure_noise() -> None:
    schedule = betas()
    r = torch.arange(1, STEPS + 1, dtype=torch.float64)
    assert torch.allclose(schedule.log(), torch.log(torch.tensor(SCALE)).double() + GROWTH * r / STEPS)
    assert ((schedule > 0) & (schedule < 1)).all()
    bars = alpha_bars(schedule)
    assert bars[0] == 1
    assert (bars.diff() < 0).all()
    assert bars[-1] < 1e-4


def test_forward_process_has_the_stated_mean_and_variance() -> None:
    alpha_bar = alpha_bars(betas())[20]
    z_0 = torch.full((200_000,), 3.0)
    z = diffuse(z_0, torch.randn(200_000, generator=torch.Generator().manual_seed(0)), alpha_bar)
    assert float(z.mean()) == pytest.approx(3 * float(alpha_bar) ** 0.5, abs=0.01)
    assert float(z.var()) == pytest.approx(1 - float(alpha_bar), rel=0.02)


def test_one_step_of_the_forward_process_composes_to_the_closed_form() -> None:
    """Eq. 13 step by step has the mean and variance of Eq. 14 in one go."""
    mean, variance = 1.0, 0.0
    for beta in betas()[:20].tolist():
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
    alpha_bar = float(alpha_bars(betas())[20])
    assert mean == pytest.approx(alpha_bar**0.5)
    assert variance == pytest.approx(1 - alpha_bar)


def test_reverse_step_with_the_true_drift_lands_on_the_forward_process() -> None:
    generator = torch.Generator().manual_seed(0)
    z_0, noise = torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    bars = alpha_bars(betas())
    z_30 = diffuse(z_0, noise, bars[30])
    z_10 = reverse_step(z_30, z_0, float(bars[30]), float(bars[10]))
    assert torch.allclose(z_10, diffuse(z_0, noise, bars[10]).to(z_10), atol=1e-5)


def test_reverse_step_agrees_with_the_posterior_mean_up_to_the_noise_it_keeps() -> None:
    """The posterior of Eq. 17–18 and the deterministic step have the same second moment about √ᾱ z_0."""
    bars, schedule = alpha_bars(betas()), betas()
    t = 25
    now, after, beta = bars[t], bars[t - 1], schedule[t - 1]
    from_z = (1 - beta).sqrt() * (1 - after) / (1 - now)
    from_z_0 = after.sqrt() * beta / (1 - now)
    variance = (1 - after) / (1 - now) * beta
    assert float(from_z * now.sqrt() + from_z_0) == pytest.approx(float(after.sqrt()))
    assert float(from_z**2 * (1 - now) + variance) == pytest.approx(float(1 - after))
    kept = reverse_step(torch.ones(1), torch.zeros(1), float(now), float(after))
    assert float(kept) ** 2 * float(1 - now) == pytest.approx(float(1 - after), rel=1e-6)


def test_last_reverse_step_gives_the_predicted_drift_itself() -> None:
    bars = alpha_bars(betas())
    z_0 = torch.randn(5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(reverse_step(torch.ones(5), z_0, float(bars[12]), 1.0), z_0)


@pytest.mark.parametrize("evaluations", [1, 2, 4, 10, 50])
def test_ladder_starts_at_the_end_and_never_repeats(evaluations: int) -> None:
    steps = ladder(STEPS, evaluations)
    assert steps[0] == STEPS
    assert len(steps) == evaluations
    assert steps == sorted(set(steps), reverse=True)
    assert steps[-1] >= 1
