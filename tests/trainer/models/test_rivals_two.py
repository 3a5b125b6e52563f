"""What is each one's own of DiffuRec, STOSA, ContrastVAE and Mamba4Rec."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from contracts.config.settings import ModelSettings
from tests.trainer.trainer_cases import make_catalogue
from trainer.learn.model import Model
from trainer.models import contrastvae, create, diffurec
from trainer.models.base import Inputs
from trainer.models.contrastvae import contrast, divergence
from trainer.models.diffusion import alpha_bars
from trainer.models.mamba4rec import LONGEST, SHORTEST, Mamba, scan
from trainer.models.stosa import STOSA, StochasticLayer, positive

SETTINGS = ModelSettings(dim=8, window=6, session_length=3)
FULL, LAG = torch.ones(2, 6), torch.zeros(2, 6)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["contrastvae", "diffurec", "mamba4rec", "stosa"])
@pytest.mark.parametrize("dim", [3, 8, 9])
def test_narrow_vectors_learn_under_dropout(name: str, dim: int) -> None:
    settings = ModelSettings(dim=dim, id_dim=2, category_dim=2, window=6, dropout=0.2)
    model = Model(name, settings, seed=0).train()
    model.items.follow(make_catalogue(5))
    mask = torch.tensor([[0.0] * 6, [0.0] * 4 + [1.0] * 2])
    inputs = Inputs(torch.tensor([[0] * 6, [0, 0, 0, 0, 1, 2]]), mask, LAG)
    model.loss(inputs, torch.tensor([3, 4]), torch.Generator().manual_seed(0)).mean.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in gradients)
    assert model.items.ids.grad is not None
    assert model.items.ids.grad[[1, 2, 3, 4]].abs().sum(1).min() > 0


@pytest.mark.parametrize("name", ["contrastvae", "mamba4rec", "stosa"])
def test_what_comes_later_changes_nothing_before_it(name: str) -> None:
    encoder = create(name, SETTINGS, seed=0).eval()
    before = draw(1, 6, 8)
    after = before.clone()
    after[:, 3] = draw(1, 8, seed=1)
    users = [
        encoder.training_step(x, FULL[:1], LAG[:1], x[:, 0], torch.Generator().manual_seed(0)).user[:6]
        for x in (before, after)
    ]
    assert torch.allclose(users[0][:3], users[1][:3], atol=1e-6)
    assert ((users[0][3:] - users[1][3:]).abs().amax(1) > 1e-4).all()


def test_diffurec_begins_near_the_target_and_ends_in_pure_noise() -> None:
    bars = alpha_bars(diffurec.truncated_linear())
    assert bars[1] > 0.98
    assert (bars.diff() < 0).all()
    assert 0 < bars[-1] < 1e-5


def test_diffurec_answers_alike_from_equal_noise_and_otherwise_from_other() -> None:
    encoder = create("diffurec", SETTINGS, seed=0).eval()
    x, noise = draw(2, 6, 8), draw(2, 8, seed=1)
    once, again, other = (encoder(x, FULL, LAG, z) for z in (noise, noise, -noise))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_diffurec_is_told_its_target_by_the_uncertainty_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = create("diffurec", SETTINGS, seed=0).eval()
    x = draw(2, 6, 8)

    def users() -> list[Tensor]:
        targets = draw(2, 8, seed=1), draw(2, 8, seed=2)
        return [encoder.training_step(x, FULL, LAG, t, torch.Generator().manual_seed(0)).user for t in targets]

    assert not torch.equal(*users())
    monkeypatch.setattr(diffurec, "UNCERTAINTY", 0.0)
    assert torch.equal(*users())


@pytest.mark.parametrize("dim", [3, 8, 9])
def test_stosas_inner_product_orders_items_by_wasserstein_distance(dim: int) -> None:
    encoder = create("stosa", ModelSettings(dim=dim, window=6), seed=0).eval()
    items = encoder.shape_items(3 * draw(50, dim))
    users = encoder(items[:12].view(2, 6, dim), FULL, LAG, LAG)
    h = (dim - 1) // 2
    assert items.shape == (50, dim)
    assert (items[:, h : 2 * h] > 0).all()
    (mean_u, spread_u), (mean_i, spread_i) = ((x[:, :h], x[:, h : 2 * h]) for x in (users, items))
    distance = sum((u[:, None] - i[None]).square().sum(2) for u, i in ((mean_u, mean_i), (spread_u, spread_i)))
    own = users[:, : 2 * h].square().sum(1, keepdim=True)
    assert torch.allclose(users @ items.T, (own - distance) / 2, rtol=1e-4, atol=1e-4)


def test_stosas_attention_adds_gaussians_by_their_distance() -> None:
    torch.manual_seed(0)
    layer = StochasticLayer(dim=4, heads=1, dropout=0.0).requires_grad_(requires_grad=False)
    mean, spread, bias = draw(1, 3, 4), draw(1, 3, 4, seed=1), torch.zeros(1, 1, 3, 3)
    seen: list[Tensor] = []
    for mix in layer.mixes:
        mix.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    layer(mean, spread, bias)
    q, k, v = layer.means(layer.norms[0](mean))[0].chunk(3, dim=1)
    q_s, k_s, v_s = positive(layer.spreads(layer.norms[1](spread)))[0].chunk(3, dim=1)
    scores = [
        [-float((q[i] - k[j]).square().sum() + (q_s[i] - k_s[j]).square().sum()) / 2 for j in range(3)]
        for i in range(3)
    ]
    weight = torch.tensor(scores).softmax(1)
    assert torch.allclose(seen[0][0], weight @ v, atol=1e-5)
    assert torch.allclose(seen[1][0], weight**2 @ v_s, atol=1e-5)


def test_two_dimensions_are_too_few_for_a_gaussian_and_its_norm() -> None:
    with pytest.raises(ValueError, match="at least 3 dimensions"):
        STOSA(ModelSettings(dim=2))


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
    encoder = create("contrastvae", SETTINGS, seed=0).eval()
    x = draw(2, 6, 8)
    step = encoder.training_step(x, FULL, LAG, x[:, 0], torch.Generator().manual_seed(0))
    one, other = step.user.chunk(2)
    assert step.places is not None
    assert torch.equal(*step.places.chunk(2))
    assert not torch.allclose(one, other, atol=1e-2)
    assert torch.equal(encoder(x, FULL, LAG, LAG), encoder(x, FULL, LAG, LAG + 1))


def test_contrastvaes_divergence_is_not_of_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastvae, "CONTRAST_WEIGHT", 0.0)
    encoder = create("contrastvae", SETTINGS, seed=0).eval()
    x, mask = draw(2, 6, 8), torch.tensor([[0.0] * 4 + [1.0] * 2, [0.0] * 3 + [1.0] * 3])
    losses = [
        encoder.training_step(
            x[:, -n:], mask[:, -n:], LAG[:, -n:], x[:, 0], torch.Generator().manual_seed(0)
        ).extra_loss
        for n in (6, 3)
    ]
    assert losses[0] > 0
    assert torch.allclose(*losses)


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
