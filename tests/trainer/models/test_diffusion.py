import pytest
import torch

from contracts.config.settings import DiffusionSchedule
from trainer.models.diffusion import GROWTH, SCALE, Schedule, alpha_bars, betas, diffuse

STEPS = 50


def test_schedule_is_the_exponential_one_and_ends_in_pure_noise() -> None:
    schedule = betas(STEPS)
    r = torch.arange(1, STEPS + 1, dtype=torch.float64)
    assert torch.allclose(schedule.log(), torch.log(torch.tensor(SCALE)).double() + GROWTH * r / STEPS)
    assert ((schedule > 0) & (schedule < 1)).all()
    bars = alpha_bars(schedule)
    assert bars[0] == 1
    assert (bars.diff() < 0).all()
    assert bars[-1] < 1e-4


def test_forward_process_has_the_stated_mean_and_variance() -> None:
    alpha_bar = alpha_bars(betas(STEPS))[20]
    z_0 = torch.full((200_000,), 3.0)
    z = diffuse(z_0, torch.randn(200_000, generator=torch.Generator().manual_seed(0)), alpha_bar)
    assert float(z.mean()) == pytest.approx(3 * float(alpha_bar) ** 0.5, abs=0.01)
    assert float(z.var()) == pytest.approx(1 - float(alpha_bar), rel=0.02)


def test_one_step_of_the_forward_process_composes_to_the_closed_form() -> None:
    """Eq. 13 step by step has the mean and variance of Eq. 14 in one go."""
    mean, variance = 1.0, 0.0
    for beta in betas(STEPS)[:20].tolist():
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
    alpha_bar = float(alpha_bars(betas(STEPS))[20])
    assert mean == pytest.approx(alpha_bar**0.5)
    assert variance == pytest.approx(1 - alpha_bar)


@pytest.mark.parametrize("kind", ["exponential", "linear", "log"])
def test_every_schedule_rises_to_the_same_height_and_ends_in_pure_noise(kind: DiffusionSchedule) -> None:
    schedule = betas(STEPS, kind)
    assert (schedule.diff() > 0).all()
    assert float(schedule[-1]) == pytest.approx(float(betas(STEPS)[-1]))
    assert alpha_bars(schedule)[-1] < 1e-4


def test_a_straight_step_with_the_true_drift_lands_on_the_forward_process() -> None:
    generator = torch.Generator().manual_seed(0)
    z_0, noise = torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    bars = alpha_bars(betas(STEPS))
    z_10 = Schedule(STEPS).straight_step(diffuse(z_0, noise, bars[30]), z_0, 30, 10)
    assert torch.allclose(z_10, diffuse(z_0, noise, bars[10]).to(z_10), atol=1e-5)


@pytest.mark.parametrize("r", [1, 2, 25, 50])
def test_the_posterior_step_keeps_the_forward_process(r: int) -> None:
    """From z_r at its mean and variance, Eq. 16–18 lead to those of z_{r−1} (Eq. 14)."""
    schedule = Schedule(STEPS)
    bar, before = schedule.alpha_bars[r], schedule.alpha_bars[r - 1]
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    mean = schedule.posterior_step(bar**0.5 * one, one, zero, r)
    from_z = float(schedule.posterior_step(one, zero, zero, r))
    from_noise = float(schedule.posterior_step(zero, zero, one, r))
    assert float(mean) == pytest.approx(before**0.5)
    assert from_z**2 * (1 - bar) + from_noise**2 == pytest.approx(1 - before, abs=1e-12)


def test_the_last_step_of_either_kind_gives_the_predicted_drift_itself() -> None:
    schedule = Schedule(STEPS)
    z_0 = torch.randn(5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(schedule.straight_step(torch.ones(5), z_0, 12, 0), z_0)
    assert torch.allclose(schedule.posterior_step(torch.ones(5), z_0, torch.ones(5), 1), z_0)


@pytest.mark.parametrize("evaluations", [1, 2, 4, 10, 50])
def test_the_ladder_starts_at_the_end_never_repeats_and_ends_at_nothing(evaluations: int) -> None:
    steps = Schedule(STEPS).ladder(evaluations)
    asked, after = [r for r, _ in steps], [r for _, r in steps]
    assert len(steps) == evaluations
    assert (asked[0], after[-1]) == (STEPS, 0)
    assert asked[1:] == after[:-1]
    assert asked == sorted(set(asked), reverse=True)
