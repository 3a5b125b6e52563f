"""Where a window is learned from: of every encoder that has a vector at each place, and in the losses."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from contracts.config.settings import LearnAt, ModelSettings
from contracts.config.trainer import ONE_VECTOR
from tests.trainer.trainer_cases import make_catalogue
from trainer.learn.full_softmax import catalogue_loss
from trainer.learn.model import Model
from trainer.models import REGISTRY, contrastvae, create
from trainer.models.base import Inputs, TrainingStep, UserEncoder
from trainer.models.places import learned_places, next_places
from trainer.models.t2diff import T2Diff

EVERYWHERE = sorted(set(REGISTRY) - set(ONE_VECTOR))
BY_PLACE = ("sasrec", "stosa", "contrastvae", "t2diff")  # know how far from the window's end a place is
N, D, ITEMS = 6, 8, 12
MASK = torch.tensor([[1.0] * 6, [0.0] * 4 + [1.0] * 2, [0.0] * 6])
LAG = torch.log1p(60.0 * torch.arange(N, 0, -1)).expand(3, N) * MASK


def settings(learn_at: LearnAt, k: int | None = None, window: int = N) -> ModelSettings:
    return ModelSettings(
        dim=D, id_dim=D, window=window, session_length=3, diffusion_steps=6, learn_at=learn_at, learn_at_last=k
    )


def histories() -> tuple[Tensor, Tensor, Tensor]:
    """Of 6, 2 and no behaviours."""
    sequence = torch.randn(3, N, D, generator=torch.Generator().manual_seed(0)) * MASK.unsqueeze(-1)
    return sequence, MASK, LAG


def learned(name: str, shape: ModelSettings, learn: Tensor | None) -> tuple[UserEncoder, TrainingStep]:
    """A training step of an encoder whose guess, where it makes one, is read."""
    encoder = create(name, shape, seed=0)
    if isinstance(encoder, T2Diff):
        torch.nn.init.ones_(encoder.gate)
    step = encoder.training_step(*histories(), torch.ones(3, D), torch.Generator().manual_seed(0), learn)
    return encoder, step


def of_places(step: TrainingStep, wanted: list[int]) -> Tensor:
    """User vectors of places in the flattened (B, n + 1); a model that looks twice says the same twice."""
    assert step.places is not None
    return torch.stack([step.user[step.places == place][0] for place in wanted])


@pytest.mark.parametrize("where", [("last", None), ("last-k", 1), ("last-k", 4), ("every", None)])
@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_vector_at_the_last_place_is_the_one_that_is_served(
    name: str, where: tuple[LearnAt, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastvae, "normal", lambda shape, *_: torch.zeros(shape))  # it serves the mean
    shape = settings(*where)
    encoder, step = learned(name, shape, learned_places(MASK, shape))
    served = encoder(*histories(), torch.empty(3, 0))
    at_targets = step.user if step.places is None else of_places(step, [6, 13, 20])
    torch.testing.assert_close(at_targets, served)
    assert served.abs().sum(1).min() > 0


@pytest.mark.parametrize("name", [name for name in EVERYWHERE if name not in BY_PLACE])
def test_at_each_place_one_learns_what_would_be_served_there(name: str) -> None:
    sequence, mask, lag = histories()
    encoder, step = learned(name, settings("every"), learned_places(MASK, settings("every")))
    age = torch.expm1(lag)
    for i in range(N - 1):
        earlier = torch.log1p(age[:1, : i + 1] - age[:1, i + 1 : i + 2])
        served = encoder(sequence[:1, : i + 1], mask[:1, : i + 1], earlier, torch.empty(1, 0))
        torch.testing.assert_close(of_places(step, [i + 1]), served)


@pytest.mark.parametrize("name", [name for name in EVERYWHERE if name not in BY_PLACE])
def test_the_place_before_the_first_behaviour_is_a_user_without_one(name: str) -> None:
    """A packed history begins there."""
    learn = torch.zeros(3, N, dtype=torch.bool)
    learn[1, 3:] = True
    encoder, step = learned(name, settings("last"), learn)
    nobody = torch.zeros(1, N)
    served = encoder(torch.zeros(1, N, D), nobody, nobody, torch.empty(1, 0))
    torch.testing.assert_close(of_places(step, [7 + 4]), served)


@pytest.mark.parametrize("name", EVERYWHERE)
def test_what_comes_later_changes_no_earlier_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastvae, "normal", lambda shape, *_: torch.zeros(shape))
    encoder = create(name, settings("last"), seed=0).eval()
    sequence, mask, lag = histories()
    other = sequence.clone()
    other[0, 4:] = 9.0
    steps = [
        encoder.training_step(x, mask, lag, torch.ones(3, D), torch.Generator().manual_seed(0), mask > 0)
        for x in (sequence, other)
    ]
    early = [of_places(step, [1, 2, 3, 4]) for step in steps]
    late = [of_places(step, [5, 6]) for step in steps]
    torch.testing.assert_close(early[0], early[1])
    assert (late[0] - late[1]).abs().amax(1).min() > 1e-4


@pytest.mark.parametrize(
    ("where", "mask", "learns"),
    [
        (("last-k", 2), [1, 1, 1, 1], [0, 0, 1, 1]),
        (("last-k", 1), [1, 1, 1, 1], [0, 0, 0, 1]),
        (("last-k", 4), [1, 1, 1, 1], [1, 1, 1, 1]),  # the whole window, whose history may have been longer
        (("last-k", 3), [0, 0, 0, 1], [0, 0, 0, 1]),  # a history shorter than k
        (("last-k", 3), [0, 0, 0, 0], [0, 0, 0, 1]),  # none at all
        (("every", None), [0, 0, 1, 1], [0, 0, 1, 1]),
        (("every", None), [0, 0, 0, 0], [0, 0, 0, 1]),
    ],
)
def test_last_k_is_what_there_is_of_it_and_always_the_end(
    where: tuple[LearnAt, int | None], mask: list[int], learns: list[int]
) -> None:
    learn = learned_places(torch.tensor([mask], dtype=torch.float32), settings(*where, window=4))
    assert learn is not None
    assert learn.int().tolist() == [learns]


def test_learning_at_the_end_alone_needs_no_places() -> None:
    assert learned_places(MASK, settings("last")) is None


@pytest.mark.parametrize("name", EVERYWHERE)
def test_repeated_items_are_learned_from_each_time(name: str) -> None:
    """Of a user who watched one item again and again, each place wants that item; the last one wants the target."""
    model = Model(name, settings("last-k", 3), seed=0)
    model.items.follow(make_catalogue(ITEMS))
    wanted: list[Tensor] = []

    def spied(user: Tensor, vectors: Tensor, rows: Tensor, *rest: Tensor) -> Tensor:
        wanted.append(rows)
        return catalogue_loss(user, vectors, rows, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.learn.model.catalogue_loss", spied)
        inputs = Inputs(torch.full((1, N), 5), torch.ones(1, N), torch.zeros(1, N))
        loss = model.loss(inputs, torch.tensor([7]), torch.Generator().manual_seed(0))
    times = 2 if name == "contrastvae" else 1  # of which it makes two views
    assert wanted[0].tolist() == [5, 5, 7] * times
    assert loss.places == 3 * times
    torch.autograd.backward(loss.mean)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_batch_may_say_itself_at_how_many_places_each_window_is_learned_from() -> None:
    model = Model("two_tower", settings("last"), seed=0)
    model.items.follow(make_catalogue(ITEMS))
    rows = torch.arange(12).view(2, N)
    inputs, targets = Inputs(rows, torch.ones(2, N), torch.zeros(2, N)), torch.tensor([3, 4])
    generator = torch.Generator()
    both = model.loss(inputs, targets, generator, last=torch.tensor([1, 3]))
    assert both.places == 4
    vectors = model.vectors()
    sequence = functional.embedding(rows, vectors)
    learn = torch.tensor([[False] * 5 + [True], [False] * 3 + [True] * 3])
    step = model.encoder.training_step(sequence, inputs.mask, inputs.lag, vectors[targets], generator, learn)
    expected = functional.cross_entropy(step.user @ vectors.T, torch.tensor([3, 10, 11, 4]))
    assert float(both.mean.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_page_is_learned_at_the_target_wherever_else_one_learns(name: str) -> None:
    """A page's loss is that of the vector that looks for its target: the same at any `learn_at`."""
    pages = []
    for where in (("last", None), ("last-k", 3)):
        model = Model(name, settings(*where).model_copy(update={"page_loss": 1.0}), seed=0)  # type: ignore[arg-type]
        model.items.follow(make_catalogue(ITEMS))
        inputs = Inputs(torch.arange(18).view(3, N) % ITEMS, MASK, LAG)
        passed = torch.tensor([[1, 2], [3, -1], [-1, -1]])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(contrastvae, "normal", lambda shape, *_: torch.zeros(shape))
            losses = [
                copy.deepcopy(model).loss(inputs, torch.tensor([7, 8, 9]), torch.Generator().manual_seed(0), passed=p)
                for p in (passed, None)
            ]
        pages.append(float(losses[0].mean.detach() - losses[1].mean.detach()))
    assert pages[0] == pytest.approx(pages[1], rel=1e-4)
    assert pages[0] > 0


@pytest.mark.parametrize("name", ONE_VECTOR)
def test_a_model_of_one_vector_a_window_says_that_it_has_no_other(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} makes one vector of a window, so learn_at: every does not go with"):
        create(name, settings("every"), seed=0)


def test_places_and_what_follows_them_are_those_of_the_flattened_windows() -> None:
    at, places = next_places(torch.tensor([[False, False, True], [True, False, True]]))
    assert at.tolist() == [2, 3, 5]
    assert places.tolist() == [3, 5, 7]
