from collections.abc import Callable
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from contracts.config.settings import ModelSettings, Part, TrainerSettings
from tests.trainer.trainer_cases import make_catalogue, markov_examples
from trainer.data.batches import encode
from trainer.learn.learner import Learner
from trainer.models import create
from trainer.models.base import UserEncoder
from trainer.models.t2diff import OF_THE_GUESS, T2Diff
from trainer.models.t2diff_paper import T2DiffPaper
from trainer.publish.onnx_export import TowerTemplate

SETTINGS = ModelSettings(dim=8, window=6, session_length=3)
PAPER = ModelSettings(dim=8, window=6, session_length=3, diffusion_steps=10)


def arguments(users: int, *, seed: int = 0, window: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Full histories, one behaviour a minute."""
    sequence = torch.randn(users, window, 8, generator=torch.Generator().manual_seed(seed))
    lag = torch.log1p(60.0 * torch.arange(window, 0, -1)).expand(users, window)
    return sequence, torch.ones(users, window), lag


def walk(users: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Histories (users, 6, 8) that all drift the same way, and the vectors that come next."""
    start = 0.1 * torch.randn(users, 1, 8, generator=generator)
    steps = torch.arange(7).view(1, 7, 1) * torch.ones(8)
    path = start + 0.1 * steps
    return path[:, :6], path[:, 6]


def guess_of_t2diff(model: UserEncoder, x: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
    assert isinstance(model, T2Diff)
    return model.guess(model._states(x, mask, lag)[:, -1], x[:, -1], noise)


def guess_of_paper(model: UserEncoder, x: Tensor, mask: Tensor, lag: Tensor, noise: Tensor) -> Tensor:
    assert isinstance(model, T2DiffPaper)
    return model.guess(x, mask, noise)


@pytest.mark.parametrize(
    ("name", "guess"),
    [("t2diff", guess_of_t2diff), ("t2diff-paper", guess_of_paper)],
)
def test_the_diffusion_module_learns_to_foresee_what_comes_next(name: str, guess: Callable[..., Tensor]) -> None:
    model = create(name, PAPER, seed=0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    _, mask, lag = arguments(64)
    for _ in range(200):
        x, target = walk(64, generator)
        loss = model.training_step(x, mask, lag, target, generator).extra_loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    noise = torch.randn(64, *model.noise_shape, generator=generator)
    with torch.no_grad():
        found = guess(model.eval(), x, mask, lag, noise)
    closer = (found - target).norm(dim=1) < 0.7 * (x[:, -1] - target).norm(dim=1)
    assert closer.float().mean() > 0.9


def test_the_papers_diffusion_learns_from_its_own_loss_alone_and_moves_no_item() -> None:
    model = create("t2diff-paper", PAPER, seed=0)
    sequence, mask, lag = arguments(2)
    sequence.requires_grad_()
    target = torch.randn(2, 8, requires_grad=True)
    step = model.training_step(sequence, mask, lag, target, torch.Generator().manual_seed(0))
    step.extra_loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    assert sequence.grad is None
    assert target.grad is None
    learned = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learned
    assert all(name.startswith("unet.") for name in learned)
    model.zero_grad()
    step.user.sum().backward()  # type: ignore[no-untyped-call]
    assert not any(p.grad is not None for name, p in model.named_parameters() if name.startswith("unet."))


def test_our_drift_loss_moves_no_item_through_its_target() -> None:
    model = create("t2diff", SETTINGS, seed=0)
    target = torch.randn(2, 8, requires_grad=True)
    step = model.training_step(*arguments(2), target, torch.Generator().manual_seed(0))
    (step.user.sum() + step.extra_loss).backward()  # type: ignore[no-untyped-call]
    assert target.grad is None


def test_at_every_place_the_user_is_who_would_be_served_there() -> None:
    """What is learned at place i is what `forward` gives for the history up to i, asked when i + 1 came."""
    model = create("t2diff", SETTINGS.model_copy(update={"learn_at": "every", "ablate": ("guess",)}), seed=0).eval()
    sequence, mask, lag = arguments(1)
    step = model.training_step(sequence, mask, lag, torch.zeros(1, 8), torch.Generator(), mask > 0)
    assert step.places is not None
    assert step.places.tolist() == [1, 2, 3, 4, 5, 6]
    age = torch.expm1(lag)
    for i in range(1, 6):
        earlier = torch.log1p(age[:, :i] - age[:, i : i + 1])
        padding = (0, 0, 6 - i, 0)
        served = model(
            torch.nn.functional.pad(sequence[:, :i], padding),
            torch.nn.functional.pad(mask[:, :i], padding[2:]),
            torch.nn.functional.pad(earlier, padding[2:]),
            torch.zeros(1),
        )
        shifted = model(sequence[:, :i], mask[:, :i], earlier, torch.zeros(1))
        assert torch.allclose(served, shifted, atol=1e-5)


def test_later_behaviours_change_no_earlier_place() -> None:
    model = create("t2diff", SETTINGS.model_copy(update={"learn_at": "every", "ablate": ("guess",)}), seed=0).eval()
    sequence, mask, lag = arguments(1)
    other = sequence.clone()
    other[:, 4:] = 9.0
    states = [model.training_step(s, mask, lag, s[:, -1], torch.Generator(), mask > 0).user for s in (sequence, other)]
    assert torch.equal(states[0][:4], states[1][:4])
    assert not torch.equal(states[0][4:], states[1][4:])


def test_the_moment_of_the_request_counts_unless_waits_are_left_out() -> None:
    sequence, mask, lag = arguments(1)
    for ablate, counts in (((), True), (("waits",), False)):
        model = create("t2diff", SETTINGS.model_copy(update={"ablate": ablate}), seed=0).eval()
        now, later = (
            model(sequence, mask, moment, torch.zeros(1)) for moment in (lag, torch.log1p(torch.expm1(lag) + 86_400))
        )
        assert torch.equal(now, later) is not counts


def test_noise_is_asked_for_and_counts_only_where_the_guess_is_drawn() -> None:
    state, x = torch.ones(1, 8), torch.zeros(1, 8)
    for ablate, drawn in ((), False), (("mean-start",), True):
        model = create("t2diff", SETTINGS.model_copy(update={"ablate": ablate}), seed=0)
        assert isinstance(model, T2Diff)
        assert model.noise_shape == ((8,) if drawn else ())
        one, again, other = (model.guess(state, x, noise * torch.ones(1, 8)) for noise in (1.0, 1.0, -1.0))
        assert torch.equal(one, again)
        assert torch.equal(one, other) is not drawn


@pytest.mark.parametrize("part", ["guess", "end-to-end", "mean-start", "waits"])
def test_a_part_that_is_left_out_changes_the_training_and_breaks_nothing(part: Part) -> None:
    whole = create("t2diff", SETTINGS, seed=0)
    less = create("t2diff", SETTINGS.model_copy(update={"ablate": (part,)}), seed=0)
    gradients = []
    for model in (whole, less):
        if isinstance(model, T2Diff) and hasattr(model, "read"):
            torch.nn.init.ones_(model.gate)
        step = model.training_step(*arguments(2), torch.ones(2, 8), torch.Generator().manual_seed(0))
        (step.user.square().sum() + step.extra_loss).backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert set(gradients[0]) != set(gradients[1]) or any(
        not torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0]
    )


def test_the_running_scale_ignores_batches_it_cannot_measure() -> None:
    model = create("t2diff", SETTINGS, seed=0)
    assert isinstance(model, T2Diff)
    before = model.scale.clone()
    for useless in (torch.zeros(0, 8), torch.zeros(2, 8), torch.full((2, 8), torch.nan)):
        model._measure(useless)
        assert torch.equal(model.scale, before)
    model._measure(torch.ones(2, 8))
    assert model.scale > before


@pytest.mark.parametrize("learn_at", ["last", "every"])
def test_what_is_served_is_the_last_of_the_places_that_are_learned_from(learn_at: Literal["last", "every"]) -> None:
    """Serving leaves out the work for the other places; the vectors are the same, for an empty history too."""
    encoder = create("t2diff", ModelSettings(dim=8, window=6, learn_at=learn_at), 0)
    assert isinstance(encoder, T2Diff)
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1.0] * 6, [0.0] * 3 + [1.0] * 3, [0.0] * 6])
    sequence = torch.randn(3, 6, 8, generator=generator) * mask.unsqueeze(-1)
    lag = torch.rand(3, 6, generator=generator).cumsum(1).flip(1) * mask
    torch.testing.assert_close(encoder._state(sequence, mask, lag), encoder._states(sequence, mask, lag)[:, -1])


def test_a_guess_that_has_not_learned_changes_no_user_and_learning_opens_its_gate() -> None:
    whole = create("t2diff", SETTINGS, seed=0)
    blind = create("t2diff", SETTINGS.model_copy(update={"ablate": ("guess",)}), seed=0)
    blind.load_state_dict(whole.state_dict(), strict=False)
    assert isinstance(whole, T2Diff)
    sequence, mask, lag = arguments(4)
    assert torch.equal(whole(sequence, mask, lag, torch.zeros(4)), blind(sequence, mask, lag, torch.zeros(4)))
    step = whole.training_step(sequence, mask, lag, torch.ones(4, 8), torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(step.user.square().sum(), (whole.gate, whole.read.weight))
    assert gradients[0].abs().sum() > 0
    assert gradients[1].abs().sum() == 0
    torch.nn.init.constant_(whole.gate, 0.5)
    assert not torch.equal(whole(sequence, mask, lag, torch.zeros(4)), blind(sequence, mask, lag, torch.zeros(4)))


def test_a_guess_that_diverges_is_no_step() -> None:
    """Its gate is closed, and all the same nothing is learned from numbers that are none."""
    learner = Learner("t2diff", TrainerSettings(model=SETTINGS), seed=0, device=torch.device("cpu"))
    catalogue = make_catalogue(12)
    learner.follow(catalogue)
    encoder = learner.model.encoder
    assert isinstance(encoder, T2Diff)
    batch = encode(markov_examples(16, 12), catalogue, SETTINGS.window)
    with torch.no_grad():
        encoder.denoiser.leave.weight.fill_(torch.inf)
    before = {name: weight.clone() for name, weight in learner.model.state_dict().items() if "scale" not in name}
    assert not learner.learn(batch)
    after = learner.model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items() if not name.startswith("items."))


def test_without_its_guess_it_is_served_as_its_state_and_learns_as_before() -> None:
    whole, bare = (create("t2diff", SETTINGS, seed=0) for _ in range(2))
    with torch.no_grad():
        for model in (whole, bare):
            model.gate.fill_(0.5)  # type: ignore[operator, union-attr]
    bare.left_out = True
    sequence, mask, lag = arguments(3)
    noise = torch.empty(3)
    with torch.no_grad():
        assert not torch.allclose(whole.eval()(sequence, mask, lag, noise), bare.eval()(sequence, mask, lag, noise))
        assert torch.equal(bare(sequence, mask, lag, noise), bare._state(sequence, mask, lag))  # type: ignore[operator]
    steps = [
        model.train().training_step(sequence, mask, lag, sequence[:, 0], torch.Generator().manual_seed(0))
        for model in (whole, bare)
    ]
    assert torch.equal(steps[0].user, steps[1].user)
    assert torch.equal(steps[0].extra_loss, steps[1].extra_loss)


def test_a_tower_without_the_guess_has_none_of_its_weights_and_answers_alike() -> None:
    model = create("t2diff", SETTINGS, seed=0).eval()
    with torch.no_grad():
        model.gate.fill_(0.5)  # type: ignore[operator, union-attr]
    model.left_out = True
    tower = TowerTemplate(model, 8, 6).fill(model)
    names = {weight.name for weight in onnx.load_from_string(tower).graph.initializer}
    assert not any(name.startswith(OF_THE_GUESS) for name in names)
    assert model.weights().keys() <= names
    sequence, mask, lag = arguments(3)
    found = onnxruntime.InferenceSession(tower).run(
        None, {"sequence": sequence.numpy(), "mask": mask.numpy(), "lag": lag.numpy()}
    )[0]
    with torch.no_grad():
        expected = model(sequence, mask, lag, torch.empty(3))
    assert np.allclose(found, expected.numpy(), atol=1e-5)
