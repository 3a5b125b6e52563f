"""What holds for every user encoder."""

import pytest
import torch
from torch import Tensor

from contracts.config.settings import ModelSettings
from tests.trainer.models.encoder_cases import FULL, LAG, SHORT, draw
from tests.trainer.trainer_cases import make_catalogue
from trainer.learn.model import Model
from trainer.models import REGISTRY, create
from trainer.models.base import Inputs

SETTINGS = ModelSettings(dim=8, window=6, session_length=3, diffusion_steps=6)


def inputs(lengths: list[int], window: int, noise_shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Histories at the right edge; what stands in them does not depend on the window."""
    rows = []
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(row)
        pad = window - length
        sequence = torch.nn.functional.pad(torch.randn(length, SETTINGS.dim, generator=generator), (0, 0, pad, 0))
        lag = torch.nn.functional.pad(torch.rand(length, generator=generator) * 10, (pad, 0))
        noise = torch.randn(noise_shape, generator=generator)
        rows.append((sequence, (torch.arange(window) >= pad).float(), lag, noise))
    sequences, masks, lags, noises = zip(*rows, strict=True)
    return torch.stack(sequences), torch.stack(masks), torch.stack(lags), torch.stack(noises)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_an_empty_history_gives_a_finite_vector_and_finite_gradients(name: str) -> None:
    encoder = create(name, SETTINGS, seed=0)
    sequence, mask, lag, noise = inputs([0, 0], SETTINGS.window, encoder.noise_shape)
    assert torch.isfinite(encoder(sequence, mask, lag, noise)).all()
    step = encoder.training_step(sequence, mask, lag, torch.ones(2, SETTINGS.dim), torch.Generator().manual_seed(0))
    (step.user.sum() + step.extra_loss).backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_amount_of_padding_cannot_be_told(name: str) -> None:
    encoder = create(name, SETTINGS, seed=0).eval()
    for narrow, wide in ((4, 6), (5, 6), (3, 6)):
        lengths = [0, 1, 2, 3]
        sequence, mask, lag, noise = inputs(lengths, wide, encoder.noise_shape)
        with torch.no_grad():
            full = encoder(sequence, mask, lag, noise)
            cut = encoder(sequence[:, -narrow:], mask[:, -narrow:], lag[:, -narrow:], noise)
        assert torch.allclose(full, cut, atol=1e-5)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_what_stands_under_the_padding_does_not_matter(name: str) -> None:
    encoder = create(name, SETTINGS, seed=0).eval()
    sequence, mask, lag, noise = inputs([2], SETTINGS.window, encoder.noise_shape)
    of_places = len(encoder.noise_shape) > 1  # the last two axes are (n, d)
    dirty = noise + 100 * (1 - mask[:, None, :, None]) if of_places else noise
    late = lag + 10 * (1 - mask)
    with torch.no_grad():
        assert torch.allclose(encoder(sequence, mask, lag, noise), encoder(sequence, mask, late, dirty), atol=1e-5)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_users_of_one_batch_do_not_touch_each_other(name: str) -> None:
    encoder = create(name, SETTINGS, seed=0).eval()
    together = inputs([4, 0, 6], SETTINGS.window, encoder.noise_shape)
    with torch.no_grad():
        apart = torch.cat([encoder(*(t[i : i + 1] for t in together)) for i in range(3)])
        assert torch.allclose(encoder(*together), apart, atol=1e-5)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_initial_weights_are_a_function_of_the_seed_and_leave_the_global_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (create(name, SETTINGS, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", ["bert4rec", "caser", "dat", "gru4rec"])
@pytest.mark.parametrize("dim", [2, 3])
def test_the_narrowest_vectors_work(name: str, dim: int) -> None:
    encoder = create(name, ModelSettings(dim=dim, window=3, session_length=50), seed=0)
    items = encoder.shape_items(torch.randn(4, dim, generator=torch.Generator().manual_seed(0)))
    step = encoder.training_step(
        items[:3].unsqueeze(0), torch.ones(1, 3), torch.zeros(1, 3), items[3:], torch.Generator().manual_seed(0)
    )
    assert step.user.shape[1] == dim
    assert torch.isfinite(step.user).all()


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
    encoder = create(name, SHORT, seed=0).eval()
    before = draw(1, 6, 8)
    after = before.clone()
    after[:, 3] = draw(1, 8, seed=1)
    users = [
        encoder.training_step(x, FULL[:1], LAG[:1], x[:, 0], torch.Generator().manual_seed(0), FULL[:1] > 0).user[:6]
        for x in (before, after)
    ]
    assert torch.allclose(users[0][:3], users[1][:3], atol=1e-6)
    assert ((users[0][3:] - users[1][3:]).abs().amax(1) > 1e-4).all()


def test_an_unknown_model_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no model 'mlp'; there are .*two_tower"):
        create("mlp", SETTINGS, seed=0)
