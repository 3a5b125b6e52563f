import numpy as np
import pytest
import torch

import trainer.learner as learner_module
from contracts.features import Ints
from contracts.settings import ModelSettings
from contracts.wire.events_pb2 import Example
from tests.trainer.trainer_cases import make_catalogue, make_example, markov_examples
from trainer.batches import encode
from trainer.catalogue import Catalogue
from trainer.learner import CatalogueTooLargeError, Learner
from trainer.models import REGISTRY
from trainer.models.base import TrainingStep

SETTINGS = ModelSettings(dim=16, window=6, session_length=3, learning_rate=0.01, batch_size=32, diffusion_steps=8)
CPU = torch.device("cpu")


def make_learner(name: str, catalogue: Catalogue) -> Learner:
    learner = Learner(name, SETTINGS, seed=3, device=CPU)
    learner.follow(catalogue)
    return learner


def stream(learner: Learner, catalogue: Catalogue, examples: list[Example], size: int = 32) -> Ints:
    """Test, then learn, batch by batch; the ranks."""
    ranks = []
    for start in range(0, len(examples), size):
        batch = encode(examples[start : start + size], catalogue, SETTINGS.window)
        ranks.append(learner.evaluate(batch).ranks)
        assert learner.learn(batch)
    return np.concatenate(ranks)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return dict(learner.model.state_dict())


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_markov_chain_is_learnt_online(name: str) -> None:
    catalogue = make_catalogue(40)
    learner = make_learner(name, catalogue)
    ranks = stream(learner, catalogue, [e for e in markov_examples(4800, 40) if e.history.item_ids])
    assert (ranks[:32] <= 2).mean() < 0.2  # the first batch is ranked before anything is learnt: chance is .05
    assert (ranks[-500:] <= 2).mean() > 0.8


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_same_seed_and_examples_give_the_same_bits(name: str) -> None:
    catalogue = make_catalogue(12)
    once, again = make_learner(name, catalogue), make_learner(name, catalogue)
    ranks = [stream(learner, catalogue, markov_examples(150, 12)) for learner in (once, again)]
    assert np.array_equal(*ranks)
    for key, weight in weights(once).items():
        assert torch.equal(weight, weights(again)[key]), key


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_testing_changes_nothing(name: str) -> None:
    catalogue = make_catalogue(12)
    tested, untested = make_learner(name, catalogue), make_learner(name, catalogue)
    batch = encode(markov_examples(16, 12), catalogue, SETTINGS.window)
    tested.evaluate(batch)
    tested.learn(batch)
    untested.learn(batch)
    for key, weight in weights(tested).items():
        assert torch.equal(weight, weights(untested)[key]), key


def test_seen_items_do_not_compete_but_a_seen_target_does() -> None:
    catalogue = make_catalogue(5)
    learner = make_learner("two_tower", catalogue)
    everything_else = make_example([1, 2, 4, 5], target=3)
    again = make_example([1, 2, 3, 4, 5], target=3)
    nothing_seen = make_example([], target=3)
    ranks = learner.evaluate(encode([everything_else, again, nothing_seen], catalogue, SETTINGS.window)).ranks
    assert ranks[:2].tolist() == [1, 1]
    assert 1 <= ranks[2] <= 5


def test_items_seen_without_an_effective_view_do_not_compete_either() -> None:
    catalogue = make_catalogue(5)
    learner = make_learner("two_tower", catalogue)
    example = make_example([1, 2, 4, 5], target=3)
    example.history.effective_views[:] = [False] * 4
    batch = encode([example], catalogue, SETTINGS.window)
    assert batch.mask.sum() == 0
    assert learner.evaluate(batch).ranks.tolist() == [1]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_no_number_is_not_taken(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = make_catalogue(12)
    learner = make_learner("two_tower", catalogue)
    batch = encode(markov_examples(16, 12), catalogue, SETTINGS.window)
    learner.learn(batch)
    before = {key: weight.clone() for key, weight in weights(learner).items()}
    plain = learner.model.encoder.training_step

    def broken(*arguments: torch.Tensor) -> TrainingStep:
        user, extra, _ = plain(*arguments)  # type: ignore[arg-type]
        if where == "loss":
            return TrainingStep(user, extra + torch.nan)
        return TrainingStep(user, extra + (user.sum() * 0).sqrt())  # 0 itself, but its slope is 0/0

    monkeypatch.setattr(learner.model.encoder, "training_step", broken)
    assert not learner.learn(batch)
    for key, weight in weights(learner).items():
        assert torch.equal(weight, before[key]), key
    monkeypatch.undo()
    assert learner.learn(batch)


def test_scores_that_are_no_numbers_are_never_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = make_catalogue(30)
    learner = make_learner("two_tower", catalogue)
    with torch.no_grad():
        learner.model.items.mix.bias.fill_(torch.nan)
    ranks = learner.evaluate(encode([make_example([1], target=2)], catalogue, SETTINGS.window)).ranks
    assert ranks[0] > 20


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_learning_goes_on_when_items_arrive(name: str) -> None:
    catalogue = make_catalogue(10)
    learner = make_learner(name, catalogue)
    stream(learner, catalogue, markov_examples(40, 10))
    before = learner.item_vectors(catalogue)
    catalogue.put(95, [1])
    catalogue.put(50, [9])
    learner.follow(catalogue)
    after = learner.item_vectors(catalogue)
    assert catalogue.item_ids.tolist() == [*range(1, 11), 50, 95]
    assert np.allclose(after[:10], before, atol=1e-6)
    assert learner.learn(encode([make_example([50], target=95)], catalogue, SETTINGS.window))
    assert learner.item_counts(catalogue)[-1] == 1


def test_a_catalogue_beyond_the_full_softmax_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_module, "MAX_ITEMS", 10)
    with pytest.raises(CatalogueTooLargeError, match=r"11 items.*at most 10"):
        make_learner("two_tower", make_catalogue(11))
