from typing import Any

import numpy as np
import pytest
import torch

import trainer.learn.learner as learner_module
from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.features import Ints
from contracts.wire.events_pb2 import Example
from tests.trainer.trainer_cases import make_catalogue, make_example, markov_examples
from trainer.data.batches import encode
from trainer.data.catalogue import Catalogue
from trainer.learn.learner import CatalogueTooLargeError, Learner
from trainer.models import REGISTRY
from trainer.models.base import TrainingStep

SETTINGS = ModelSettings(dim=16, window=6, session_length=3, learning_rate=0.01, batch_size=32, diffusion_steps=8)
CPU = torch.device("cpu")
MOMENTS = ("exp_avg", "exp_avg_sq")


def make_learner(name: str, catalogue: Catalogue, **trainer: Any) -> Learner:
    learner = Learner(name, TrainerSettings.model_validate({"model": SETTINGS} | trainer), seed=3, device=CPU)
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


def live_through(learner: Learner, catalogue: Catalogue, examples: list[Example]) -> list[Ints]:
    """Learn while items go and come between batches; the ranks, batch by batch."""
    ranks = []
    for start in range(0, len(examples), 32):
        part = examples[start : start + 32]
        gone = 1 + start // 32 % 12
        catalogue.remove(gone)
        catalogue.remove(100 + gone)
        catalogue.put(100 + start, [1 + start % 5])
        catalogue.put(1 + (gone + 5) % 12, [7])
        learner.follow(catalogue)
        known = [e for e in part if catalogue.items.get(e.item_id) >= 0]
        batch = encode(known, catalogue, SETTINGS.window)
        ranks.append(learner.evaluate(batch).ranks)
        assert learner.learn(batch)
    return ranks


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return dict(learner.model.state_dict())


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_markov_chain_is_learnt_online(name: str) -> None:
    catalogue = make_catalogue(40)
    # STOSA's Gaussians learn slowly from one place a window: it gets all of them, as in its paper.
    where = {"learn_at": "every"} if name == "stosa" else {}
    learner = make_learner(name, catalogue, model=SETTINGS.model_copy(update=where))
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
        user, extra, *_ = plain(*arguments)  # type: ignore[arg-type]
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
    with pytest.raises(CatalogueTooLargeError, match=r"11 items.*at most 10.*trainer\.softmax"):
        make_learner("two_tower", make_catalogue(11))


def test_a_catalogue_beyond_the_full_softmax_is_learnt_by_the_sampled_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_module, "MAX_ITEMS", 10)
    catalogue = make_catalogue(40)
    learner = make_learner("two_tower", catalogue, softmax="sampled", negatives=10)
    ranks = stream(learner, catalogue, [e for e in markov_examples(4800, 40) if e.history.item_ids])
    assert (ranks[-500:] <= 2).mean() > 0.8


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_model_learns_from_sampled_negatives(name: str) -> None:
    catalogue = make_catalogue(40)
    learner = make_learner(name, catalogue, softmax="sampled", negatives=4)
    before = learner.model.items.ids.detach().clone()
    batch = encode([make_example([1, 2], 3, user_id=u) for u in (1, 2)], catalogue, SETTINGS.window)
    assert learner.learn(batch)
    touched = (learner.model.items.ids.detach() != before).any(1)
    assert {0, 1, 2} <= set(touched.nonzero().flatten().tolist())
    assert int(touched.sum()) <= 3 + 4


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("two_tower", {}),
        ("t2diff", {"softmax": "sampled", "negatives": 5}),
        ("sasrec", {"model": SETTINGS.model_copy(update={"dropout": 0.3})}),
        ("stosa", {"softmax": "sampled", "negatives": 5, "vocabulary": {"admit_after": 2}}),
    ],
)
def test_a_restored_learner_goes_on_bit_for_bit_after_rows_have_moved(name: str, settings: dict[str, Any]) -> None:
    examples = markov_examples(640, 12)
    catalogue, other_catalogue = make_catalogue(12), Catalogue()
    undisturbed, other = make_learner(name, catalogue, **settings), make_learner(name, Catalogue(), **settings)
    live_through(undisturbed, catalogue, examples[:320])
    kept, kept_catalogue = undisturbed.state(), catalogue.state()
    ranks = live_through(undisturbed, catalogue, examples[320:])
    other_catalogue.restore(kept_catalogue)
    other.restore(kept)
    torch.rand(3)  # whatever else draws from torch's own generator
    again = live_through(other, other_catalogue, examples[320:])
    assert len(ranks) == 10
    assert [r.tolist() for r in again] == [r.tolist() for r in ranks]
    for key, weight in weights(undisturbed).items():
        assert torch.equal(weight, weights(other)[key]), key
    assert np.array_equal(undisturbed.item_counts(catalogue), other.item_counts(other_catalogue))


@pytest.mark.parametrize("softmax", ["full", "sampled"])
def test_what_is_known_of_an_item_moves_with_it_and_a_re_added_one_starts_anew(softmax: str) -> None:
    catalogue = make_catalogue(10)
    learner = make_learner("two_tower", catalogue, softmax=softmax, negatives=10)
    stream(learner, catalogue, markov_examples(64, 10))

    def known(item_id: int) -> list[Any]:
        row, ids = catalogue.items.get(item_id), learner.model.items.ids
        moments = [o.state[ids][m][row].tolist() for o in learner._optimizers if ids in o.state for m in MOMENTS]
        return [ids[row].tolist(), *moments, float(learner.item_counts(catalogue)[catalogue.arrival == row][0])]

    before = {item_id: known(item_id) for item_id in range(1, 11)}
    assert all(np.any(before[10][at]) for at in range(4))
    catalogue.remove(3)
    catalogue.remove(1)
    catalogue.put(3, [1])
    learner.follow(catalogue)
    assert catalogue.items.get(10) == 2  # the last one filled the first hole
    for item_id in (2, *range(4, 11)):
        assert known(item_id) == before[item_id]
    fresh = make_learner("two_tower", make_catalogue(10)).model.items.ids[2].tolist()
    assert known(3) == [fresh, [0.0] * 16, [0.0] * 16, 0.0]


def test_an_item_is_its_categories_alone_until_it_is_admitted() -> None:
    catalogue = make_catalogue(6)  # 3 and 6 share their category
    learner = make_learner("two_tower", catalogue, vocabulary={"admit_after": 2})
    first = learner.model.items.ids.detach().clone()
    for positives in (1, 2):
        vectors = learner.item_vectors(catalogue)
        assert np.array_equal(vectors[2], vectors[5]), positives
        assert torch.equal(learner.model.items.ids, first)
        learner.learn(encode([make_example([1], target=3)], catalogue, SETTINGS.window))
    vectors = learner.item_vectors(catalogue)
    assert not np.array_equal(vectors[2], vectors[5])
    learner.learn(encode([make_example([1], target=3)], catalogue, SETTINGS.window))
    moved = (learner.model.items.ids.detach() != first).any(1)
    assert moved.tolist() == [False, False, True, False, False, False]


def test_a_catalogue_that_went_on_is_not_used_before_it_is_followed() -> None:
    catalogue = make_catalogue(5)
    learner = make_learner("two_tower", catalogue)
    catalogue.remove(2)
    with pytest.raises(RuntimeError, match="follow"):
        learner.item_vectors(catalogue)


@pytest.mark.parametrize("softmax", ["full", "sampled"])
@pytest.mark.parametrize("name", ["two_tower", "t2diff"])
def test_a_page_teaches_what_is_passed_over(name: str, softmax: str) -> None:
    """What stands on the page and is not watched falls behind what is, sooner than by the catalogue's softmax alone."""
    catalogue = make_catalogue(12)
    beside = []
    for example in markov_examples(256, 12):
        example.ClearField("page")
        example.page.item_ids.extend(sorted({example.item_id, 1 + example.item_id % 12}))
        example.page.effective_views.extend(item == example.item_id for item in example.page.item_ids)
        beside.append(example)
    margins = []
    for page_loss in (0.0, 3.0):
        model = SETTINGS.model_copy(update={"page_loss": page_loss})
        learner = Learner(name, TrainerSettings(model=model, softmax=softmax, negatives=6), seed=3, device=CPU)
        learner.follow(catalogue)
        stream(learner, catalogue, beside)
        batch = encode(beside[-64:], catalogue, SETTINGS.window)
        vectors = learner.model.vectors().detach().numpy()
        with torch.no_grad():
            noise = torch.zeros(64, *learner.model.encoder.noise_shape)
            users = learner.model.users(learner._inputs(batch), learner.model.vectors(), noise).numpy()
        margins.append(float((users * (vectors[batch.targets] - vectors[batch.passed[:, 0]])).sum(1).mean()))
    assert margins[1] > 1.2 * margins[0], margins


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_model_learns_from_pages(name: str) -> None:
    catalogue = make_catalogue(12)
    model = SETTINGS.model_copy(update={"page_loss": 1.0})
    learner = Learner(name, TrainerSettings(model=model), seed=3, device=CPU)
    learner.follow(catalogue)
    stream(learner, catalogue, markov_examples(96, 12))


@pytest.mark.parametrize("softmax", ["full", "sampled"])
def test_averaged_weights_lag_behind_and_go_on_from_a_state(softmax: str) -> None:
    def begun() -> tuple[Learner, Catalogue]:
        catalogue = make_catalogue(12)
        return make_learner("t2diff", catalogue, softmax=softmax, negatives=6, average=0.95), catalogue

    calm, catalogue = begun()
    examples = markov_examples(960, 12)
    live_through(calm, catalogue, examples[:480])
    assert not torch.equal(calm.served.vectors(), calm.model.vectors())
    assert calm.served.items.ids.shape == calm.model.items.ids.shape
    again, _ = begun()
    again.restore(calm.state())
    again.follow(catalogue)
    for learner in (calm, again):
        stream(learner, catalogue, [e for e in examples[480:] if e.item_id in catalogue])
    for name, weight in calm.served.state_dict().items():
        assert torch.equal(weight, again.served.state_dict()[name]), name


def test_learning_again_counts_no_positive_twice() -> None:
    catalogue = make_catalogue(12)
    learner = make_learner("two_tower", catalogue)
    batch = encode(markov_examples(32, 12), catalogue, SETTINGS.window)
    learner.learn(batch)
    counts, vectors = learner.learned(batch.targets), learner.item_vectors(catalogue)
    learner.learn(batch, again=True)
    np.testing.assert_array_equal(learner.learned(batch.targets), counts)
    assert not np.array_equal(learner.item_vectors(catalogue), vectors)
