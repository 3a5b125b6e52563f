import pytest
import torch
from torch import Tensor

from contracts.config.settings import ModelSettings
from tests.trainer.models.encoder_cases import FULL, LAG, draw
from trainer.models import create
from trainer.models.stosa import STOSA, StochasticLayer, positive


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
