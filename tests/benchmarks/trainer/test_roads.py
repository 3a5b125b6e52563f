import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks.trainer import roads
from benchmarks.trainer.roads_encoders import (
    Guided,
    GuidedBeside,
    GuidedBesideWithoutDiffusion,
    GuidedWithoutDiffusion,
    Sphere,
    SphereWithoutDiffusion,
    along,
)
from contracts.config.settings import ModelSettings, TrainerSettings
from evaluation import kuairand
from evaluation.data import ItemTable
from evaluation.fit import trainer_catalogue
from evaluation.progressive import batches
from tests.evaluation import toys
from trainer.learn.learner import Learner
from trainer.models import REGISTRY
from trainer.models.base import UserEncoder

USERS, WINDOW = 3, 6
SHAPE = ModelSettings(dim=8, window=WINDOW)
PAIRS = [
    (Guided, GuidedWithoutDiffusion),
    (GuidedBeside, GuidedBesideWithoutDiffusion),
    (Sphere, SphereWithoutDiffusion),
]


def made(kind: type[UserEncoder]) -> UserEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return kind(SHAPE)


def windows(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Users with six, three and no behaviours: vectors, mask, lag and targets."""
    draw = torch.Generator().manual_seed(seed)
    mask = (torch.arange(WINDOW) >= torch.tensor([[0], [3], [6]])).float()
    vectors = functional.normalize(torch.randn(USERS, WINDOW, 8, generator=draw), dim=2) * mask.unsqueeze(2)
    target = functional.normalize(torch.randn(USERS, 8, generator=draw), dim=1)
    return vectors, mask, mask * torch.arange(WINDOW, 0, -1.0), target


@pytest.mark.parametrize("road", ["average", "guidance", "sphere"])
def test_every_row_is_measured_beside_its_ablation(
    road: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = toys.kuairand(tmp_path / "kuairand")
    out = tmp_path / "roads.json"
    arguments = [road, "--data", str(folder), "--seeds", "2", "--share", "1", "--json", str(out)]
    assert roads.main(arguments) == 0
    found = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == found
    trained, pairs = roads.variants(road)
    assert set(found["rows"]) == {row for each in trained for row in each.rows}
    assert all(len(seeds) == 2 for row in found["rows"].values() for seeds in row.values())
    assert list(found["beside"]) == [f"{one}, {other}" for one, other in pairs]
    assert found["queries"] > 0


def test_the_encoders_are_models_only_while_they_are_measured() -> None:
    before = dict(REGISTRY)
    with roads.registered():
        assert set(roads.OWN) <= set(REGISTRY)
    assert before == REGISTRY


@pytest.mark.parametrize(("kind", "ablation"), PAIRS)
def test_an_ablation_has_the_same_weights_and_no_denoising_loss(
    kind: type[UserEncoder], ablation: type[UserEncoder]
) -> None:
    whole, less = made(kind), made(ablation)
    assert {name: w.tolist() for name, w in whole.state_dict().items()} == {
        name: w.tolist() for name, w in less.state_dict().items()
    }
    vectors, mask, lag, target = windows()
    learn = mask > 0
    learn[:, -1] = True
    steps = [each.training_step(vectors, mask, lag, target, torch.Generator(), learn) for each in (whole, less)]
    assert float(steps[0].extra_loss.detach()) > 0
    assert float(steps[1].extra_loss.detach()) == 0


@pytest.mark.parametrize("kind", [kind for pair in PAIRS for kind in pair])
def test_a_user_depends_neither_on_padding_nor_on_what_comes_later(kind: type[UserEncoder]) -> None:
    encoder = made(kind)
    vectors, mask, lag, _ = windows()
    noise = torch.ones(USERS, *encoder.noise_shape)
    served = encoder(vectors, mask, lag, noise)
    assert torch.isfinite(served).all()
    cut = encoder(vectors[1:2, 3:], mask[1:2, 3:], lag[1:2, 3:], noise[1:2])
    assert torch.allclose(served[1], cut[0], atol=1e-5)


def test_interests_at_a_place_know_what_was_there_by_then() -> None:
    encoder = made(Sphere)
    assert isinstance(encoder, Sphere)
    vectors, mask, _, _ = windows()
    here = encoder._guidance(vectors, mask, torch.tensor([3]))
    there = encoder._guidance(vectors[:1, :4], mask[:1, :4], torch.tensor([3]))
    assert torch.allclose(here, there, atol=1e-6)
    assert torch.equal(here[0, -1], vectors[0, 3])


@pytest.mark.parametrize("kind", [Guided, GuidedWithoutDiffusion])
def test_guidance_moves_a_user_away_from_what_is_guessed_of_nobody(kind: type[Guided]) -> None:
    encoder = made(kind)
    assert isinstance(encoder, Guided)
    vectors, mask, lag, _ = windows()
    noise = torch.empty(USERS)
    plain = encoder(vectors, mask, lag, noise)
    nobody = encoder._user(encoder.nobody.unsqueeze(0), torch.zeros(1, 8), noise)
    encoder.guidance = 0.5
    assert torch.allclose(encoder(vectors, mask, lag, noise), 1.5 * plain - 0.5 * nobody, atol=1e-4)


def test_an_arc_stays_on_the_sphere_and_is_as_long_as_it_says() -> None:
    draw = torch.Generator().manual_seed(0)
    x = functional.normalize(torch.randn(5, 8, generator=draw), dim=1)
    arc = torch.linspace(0, 1.5, 5).unsqueeze(1)
    there = along(x, torch.randn(5, 8, generator=draw), arc)
    assert torch.allclose(there.norm(dim=1), torch.ones(5))
    assert torch.allclose((x * there).sum(1, keepdim=True), arc.cos(), atol=1e-6)


def test_averaged_weights_are_those_that_the_trainer_publishes(tmp_path: Path) -> None:
    source = kuairand.stream(toys.kuairand(tmp_path / "kuairand"), histories=True)
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))
    catalogue = trainer_catalogue(source.catalogue)
    settings = ModelSettings(dim=8, window=WINDOW, batch_size=4)
    learning = roads.Learning(roads.Variant("two_tower", TrainerSettings(model=settings), (), (0.9,)), catalogue, 0)
    learner = Learner("two_tower", TrainerSettings(model=settings, average=0.9), 0, torch.device("cpu"))
    learner.follow(catalogue)
    for batch in batches(queries, settings):
        learning.learn(batch)
        learner.learn(batch)
    published, averaged = learner.served.state_dict(), dict(learning.ways())["two_tower averaged 0.9"].state_dict()
    assert {name: w.tolist() for name, w in published.items()} == {name: w.tolist() for name, w in averaged.items()}
    assert published["encoder.out.weight"].tolist() != learner.model.encoder.state_dict()["out.weight"].tolist()


def test_what_lists_show_is_counted() -> None:
    catalogue = ItemTable(np.arange(4), ((0,), (0, 2), (), (1,)))
    lists = np.array([[0, 1], [2, 2], [1, 3]])
    assert roads.categories(lists, catalogue).tolist() == [2, 0, 3]
    assert roads.effective(np.array([[0, 1], [0, 1]])) == pytest.approx(2)
