"""An example's weight multiplies all that its losses teach, of every model."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from contracts.config.settings import LearnAt, ModelSettings
from contracts.config.trainer import NOT_BY_EXAMPLE, ONE_VECTOR
from tests.trainer.trainer_cases import make_catalogue
from trainer.learn.full_softmax import catalogue_loss
from trainer.learn.model import Model
from trainer.learn.page_softmax import page_loss
from trainer.learn.sampled_softmax import Negatives, sampled_loss
from trainer.models import REGISTRY
from trainer.models.base import Inputs

ITEMS, B, N = 12, 6, 5
WEIGHT = torch.tensor([0.0, 2.0, 1.0, 0.5, 3.0, 1.0])


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def assert_same(ours, theirs, of):
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(torch.autograd.grad(ours, of), torch.autograd.grad(theirs, of), strict=True):
        torch.testing.assert_close(a, b)


def test_the_softmax_over_the_catalogue():
    user, vectors, wanted = drawn(B, 4), drawn(ITEMS, 4, seed=1), torch.arange(B)
    losses = functional.cross_entropy(user @ vectors.T, wanted, reduction="none")
    assert_same(catalogue_loss(user, vectors, wanted, weight=WEIGHT), (WEIGHT * losses).mean(), (user, vectors))


def test_the_sampled_softmax():
    user, vectors, wanted = drawn(B, 4), drawn(ITEMS, 4, seed=1), torch.arange(B)
    rows, log_weight = torch.arange(4, ITEMS), torch.linspace(-1, 1, ITEMS - 4)
    each = [sampled_loss(user[i : i + 1], vectors, wanted[i : i + 1], rows, log_weight) for i in range(B)]
    ours = sampled_loss(user, vectors, wanted, rows, log_weight, WEIGHT)
    assert_same(ours, (WEIGHT * torch.stack(each)).mean(), (user, vectors))


def test_the_softmax_within_the_page():
    user, vectors, wanted = drawn(B, 4), drawn(ITEMS, 4, seed=1), torch.arange(B)
    passed = torch.tensor([[7, 8], [9, -1], [-1, -1], [10, 11], [7, -1], [8, 9]])
    each = [page_loss(user[i : i + 1], vectors, wanted[i : i + 1], passed[i : i + 1]) for i in range(B)]
    ours = page_loss(user, vectors, wanted, passed, WEIGHT)
    assert_same(ours, (WEIGHT * torch.stack(each)).mean(), (user, vectors))


def loss_of(model, weight, *, sampled):
    """Of one batch, with the same noise and the same running means each time."""
    model = copy.deepcopy(model)
    rows = torch.arange(B * N).view(B, N) % ITEMS
    mask = (torch.arange(N) >= torch.arange(B).unsqueeze(1)).float()
    inputs = Inputs(rows, mask, torch.ones(B, N))
    targets, passed = torch.arange(B), torch.arange(B, 2 * B).unsqueeze(1)
    negatives = Negatives(torch.arange(ITEMS), torch.ones(ITEMS).double(), torch.ones(ITEMS).double())
    generator = torch.Generator().manual_seed(0)
    return model.loss(inputs, targets, generator, negatives if sampled else None, passed, weight).mean


WHERE: list[tuple[LearnAt, int | None]] = [("last", None), ("last-k", 2), ("every", None)]


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(
    ("name", "where"),
    [
        (name, where)
        for name in sorted(set(REGISTRY) - set(NOT_BY_EXAMPLE))
        for where in (WHERE[:1] if name in ONE_VECTOR else WHERE)
    ],
)
def test_of_every_model_all_losses_are_multiplied(name, where, sampled):
    learn_at, last = where
    settings = ModelSettings(dim=8, window=N, session_length=3, page_loss=0.5, learn_at=learn_at, learn_at_last=last)
    model = Model(name, settings, seed=0)
    model.items.follow(make_catalogue(ITEMS))
    plain, alike, double, nothing = (
        loss_of(model, weight, sampled=sampled)
        for weight in (None, torch.ones(B), torch.full((B,), 2.0), torch.zeros(B))
    )
    assert float(alike.detach()) == pytest.approx(float(plain.detach()), rel=1e-4)
    assert float(double.detach()) == pytest.approx(2 * float(plain.detach()), rel=1e-4)
    assert float(nothing.detach()) == 0
    one = [loss_of(model, torch.eye(B)[i], sampled=sampled) for i in range(B)]
    assert float(sum(one).detach()) == pytest.approx(float(plain.detach()), rel=1e-4)
    assert all(np.isfinite(float(each.detach())) for each in one)
