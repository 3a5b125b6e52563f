from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.config.settings import ModelSettings
from contracts.config.trainer import ONE_VECTOR
from evaluation import fit as fit_module
from evaluation.data import Examples, ItemTable, Query, Sequence, encode
from evaluation.fit import DivergedError, Fitted, Plan, fit, ranks, validate
from trainer.learn.model import Loss, Model
from trainer.models import REGISTRY

ITEMS = 12
SETTINGS = ModelSettings(dim=8, window=4, session_length=2, learning_rate=0.03, diffusion_steps=5, learn_at="every")
CATALOGUE = ItemTable(np.arange(100, 100 + ITEMS), tuple((1 + i % 3,) for i in range(ITEMS)))
CPU = torch.device("cpu")
PLAN = Plan(epochs=3, batch_size=16)


def query(user: int) -> Query:
    """Three items of a circle, and the one that follows."""
    rows = (np.arange(4) + user) % ITEMS
    return Query(user, Sequence(rows[:3], np.arange(3)), 3, int(rows[3]), rows[:3])


QUERIES = [query(user) for user in range(ITEMS)]


def draw(rng: np.random.Generator) -> Examples:
    drawn = [QUERIES[i] for i in rng.integers(ITEMS, size=64)]
    targets = np.array([q.target for q in drawn])
    return encode([q.history for q in drawn], np.full(64, 3), targets, SETTINGS.window)


def trained(name: str = "t2diff", plan: Plan = PLAN, seed: int = 0) -> Fitted:
    settings = SETTINGS.model_copy(update={"learn_at": "last"}) if name in ONE_VECTOR else SETTINGS
    return fit(name, settings, CATALOGUE, draw, QUERIES, plan, seed=seed, device=CPU)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_model_learns_the_way_round_a_circle(name: str) -> None:
    fitted = trained(name, replace(PLAN, epochs=40, validate_every=40))
    assert validate(fitted, QUERIES) > 0.75  # chance is .47


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    one, again, other = (trained(seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_the_weights_are_those_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    told, weights = iter([0.2, 0.5, 0.3]), []

    def judge(fitted: Fitted, _: list[Query]) -> float:
        weights.append({key: value.clone() for key, value in fitted.model.state_dict().items()})
        return next(told)

    monkeypatch.setattr(fit_module, "validate", judge)
    fitted = trained()
    assert fitted.best_epoch == 2
    assert [entry["ndcg@10"] for entry in fitted.history] == [0.2, 0.5, 0.3]
    assert all(torch.equal(value, weights[1][key]) for key, value in fitted.model.state_dict().items())


def test_training_ends_when_its_seconds_are_spent_and_still_validates() -> None:
    fitted = trained(plan=Plan(epochs=100, batch_size=16, seconds=1e-9, validate_every=7))
    assert (len(fitted.history), fitted.best_epoch) == (1, 1)


def test_a_loss_that_is_no_number_ends_the_training_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "loss", lambda self, *_: Loss(self.items.mix.bias.sum() * torch.nan, 1))
    with pytest.raises(DivergedError, match=r"The loss is nan in epoch 1, step 1\."):
        trained()


def test_half_precision_learns_as_well() -> None:
    plan = replace(PLAN, epochs=40, validate_every=40)
    assert validate(trained("t2diff", replace(plan, autocast=True)), QUERIES) > 0.9


def test_a_rank_counts_who_is_at_least_as_good_and_not_masked() -> None:
    one = Query(1, Sequence(np.empty(0, np.int64), np.empty(0, np.int64)), 0, 2, np.array([0, 2]))
    scores = np.array([[9.0, 5.0, 4.0, 4.0, 1.0]], np.float32)
    assert ranks(scores, [one]).tolist() == [3]  # 1 is better, 3 is as good, 0 is masked, and the target never is
    assert ranks(np.full((1, 5), np.nan, np.float32), [one]).tolist() == [5]
