import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from contracts.config.settings import ModelSettings
from trainer.models import REGISTRY, create
from trainer.models.base import UserEncoder
from trainer.publish.onnx_export import INPUTS, ExportError, TowerTemplate

SETTINGS = ModelSettings(dim=8, window=6, session_length=3, diffusion_steps=6)


@pytest.fixture(scope="module", params=sorted(REGISTRY))
def exported(request: pytest.FixtureRequest) -> tuple[UserEncoder, TowerTemplate]:
    encoder = create(request.param, SETTINGS, seed=0)
    return encoder, TowerTemplate(encoder, SETTINGS.dim, SETTINGS.window)


def shake(encoder: UserEncoder, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in encoder.state_dict().values():
            weight.add_(0.1 * torch.rand(weight.shape, generator=generator))


def worst_difference(encoder: UserEncoder, tower: bytes, batch: int) -> float:
    """Between torch and onnxruntime, over random histories of which the first is empty."""
    generator = torch.Generator().manual_seed(batch)
    n, d = SETTINGS.window, SETTINGS.dim
    lengths = torch.randint(0, n + 1, (batch, 1), generator=generator)
    lengths[0] = 0
    mask = (torch.arange(n) >= n - lengths).float()
    arguments = (
        torch.randn(batch, n, d, generator=generator) * mask.unsqueeze(-1),
        mask,
        10 * torch.rand(batch, n, generator=generator) * mask,
        torch.randn(batch, *encoder.noise_shape, generator=generator),
    )
    with torch.no_grad():
        expected = encoder.eval()(*arguments).numpy()
    session = onnxruntime.InferenceSession(tower)
    offered = dict(zip(INPUTS, (a.numpy() for a in arguments), strict=True))
    feed = {wanted.name: offered[wanted.name] for wanted in session.get_inputs()}
    (got,) = session.run(["user"], feed)
    assert got.shape == (batch, d)
    return float(np.abs(got - expected).max())


def test_graph_and_module_agree_at_every_batch_size(exported: tuple[UserEncoder, TowerTemplate]) -> None:
    encoder, template = exported
    tower = template.fill(encoder)
    assert max(worst_difference(encoder, tower, batch) for batch in (1, 2, 7, 64)) <= 1e-5


def test_graph_and_module_agree_after_the_weights_changed(exported: tuple[UserEncoder, TowerTemplate]) -> None:
    encoder, template = exported
    before = template.fill(encoder)
    shake(encoder, seed=1)
    after = template.fill(encoder)
    assert before != after
    assert max(worst_difference(encoder, after, batch) for batch in (1, 5)) <= 1e-5


def test_equal_weights_give_equal_bytes(exported: tuple[UserEncoder, TowerTemplate]) -> None:
    encoder, template = exported
    first = template.fill(encoder)
    state = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    shake(encoder, seed=2)
    template.fill(encoder)
    encoder.load_state_dict(state)
    assert template.fill(encoder) == first


def test_the_graph_asks_for_noise_only_where_it_uses_it_and_names_no_path(
    exported: tuple[UserEncoder, TowerTemplate],
) -> None:
    encoder, template = exported
    tower = template.fill(encoder)
    names = [value.name for value in onnx.load_from_string(tower).graph.input]
    assert ("noise" in names) == bool(encoder.noise_shape)
    assert [name for name in INPUTS if name in names] == names
    assert b".py" not in tower
    onnx.checker.check_model(onnx.load_from_string(tower))


def test_a_weight_that_the_graph_does_not_carry_is_an_error() -> None:
    encoder = create("two_tower", SETTINGS, seed=0)
    encoder.register_parameter("idle", torch.nn.Parameter(torch.ones(1)))
    with pytest.raises(ExportError, match="no initializer idle"):
        TowerTemplate(encoder, SETTINGS.dim, SETTINGS.window)
