import pytest
import torch
from torch.nn import functional

from trainer.learn import full_softmax as softmax
from trainer.learn.full_softmax import catalogue_loss


def both(precision: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Loss and gradients of (user, vectors): ours, and torch's in float64."""
    generator = torch.Generator().manual_seed(0)
    user, vectors = torch.randn(300, 8, generator=generator), torch.randn(50, 8, generator=generator)
    wanted = torch.randint(0, 50, (300,), generator=generator)
    results = []
    for dtype in (torch.float32, torch.float64):
        u, v = (t.detach().to(dtype).clone().requires_grad_() for t in (user, vectors))
        ours = dtype is torch.float32
        loss = catalogue_loss(u, v, wanted, precision) if ours else functional.cross_entropy(u @ v.T, wanted)
        results.append([loss.detach(), *torch.autograd.grad(loss, (u, v), torch.tensor(3.0).to(dtype))])
    return results[0], results[1]


@pytest.mark.parametrize(("precision", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_loss_and_gradients_are_those_of_the_plain_cross_entropy(precision: torch.dtype, bound: float) -> None:
    for got, expected in zip(*both(precision), strict=True):
        assert float((got - expected).abs().max()) <= bound * float(expected.abs().max())


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = both(torch.float32)
    monkeypatch.setattr(softmax, "PIECE_ON_CPU", 7)
    cut, _ = both(torch.float32)
    for one, other in zip(whole, cut, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_score_that_is_no_number_shows_in_the_loss() -> None:
    user = torch.ones(2, 3)
    user[1, 0] = torch.nan
    assert torch.isnan(catalogue_loss(user, torch.ones(4, 3), torch.tensor([0, 1])))
