import torch
from torch import Tensor
from torch.nn import functional

from tests.trainer.models.encoder_cases import draw
from trainer.models.mamba4rec import LONGEST, SHORTEST, Mamba, scan


def selective(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Δ, u, A, B, C of 2 users, 7 places, 3 channels and 4 states, float64."""
    delta, u, a, b, c = (
        draw(*shape, seed=seed + i).double()
        for i, shape in enumerate(((2, 7, 3), (2, 7, 3), (3, 4), (2, 7, 4), (2, 7, 4)))
    )
    return functional.softplus(delta), u, -a.exp(), b, c


def test_mambas_scan_is_the_sum_of_what_was_taken_in_and_not_yet_forgotten() -> None:
    delta, u, a, b, c = selective(seed=0)
    passed = delta.cumsum(1)
    expected = torch.zeros(2, 7, 3, dtype=torch.float64)
    for t in range(7):
        for s in range(t + 1):
            left = torch.exp((passed[:, t] - passed[:, s]).unsqueeze(2) * a)
            expected[:, t] += (left * (delta[:, s] * u[:, s]).unsqueeze(2) * (b[:, s] * c[:, t]).unsqueeze(1)).sum(2)
    assert torch.allclose(scan(delta, u, a, b, c), expected)


def test_mambas_state_stands_still_where_no_time_passes() -> None:
    delta, u, a, b, c = selective(seed=5)
    delta[:, 3] = 0
    kept = [0, 1, 2, 4, 5, 6]
    without = scan(delta[:, kept], u[:, kept], a, b[:, kept], c[:, kept])
    assert torch.allclose(scan(delta, u, a, b, c)[:, kept], without)


def test_mambas_time_steps_begin_in_their_range() -> None:
    torch.manual_seed(0)
    start = functional.softplus(Mamba(64).step.bias.detach())
    assert 0.99 * SHORTEST < float(start.min()) < 2 * SHORTEST
    assert LONGEST / 2 < float(start.max()) < 1.01 * LONGEST
