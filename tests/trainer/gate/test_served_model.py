from collections.abc import Callable

import numpy as np
import pytest
import torch

from contracts.config.settings import ModelSettings, TrainerSettings
from tests.trainer.trainer_cases import make_catalogue, make_example, markov_examples
from trainer.data.batches import encode
from trainer.gate.served_model import NEVER, Served
from trainer.learn.learner import Learner
from trainer.publish.onnx_export import TowerTemplate
from trainer.publish.snapshots import manifest_of, snapshot_of

ITEMS, WINDOW = 12, 6
CPU = torch.device("cpu")


Publish = Callable[..., Served]


@pytest.fixture
def publish(_traced: dict[tuple[type, int, int], TowerTemplate]) -> Publish:
    def incumbent_of(learner: Learner, items: int = ITEMS) -> Served:
        encoder = learner.model.encoder
        key = (type(encoder), 8, WINDOW)
        if key not in _traced:
            _traced[key] = TowerTemplate(encoder, 8, WINDOW)
        return Served.of(snapshot_of(learner, make_catalogue(items), _traced[key], manifest_of(learner, 1)), CPU)

    return incumbent_of


def make_learner(name: str) -> Learner:
    learner = Learner(
        name, TrainerSettings(model=ModelSettings(dim=8, window=WINDOW, session_length=3, batch_size=8)), 7, CPU
    )
    learner.follow(make_catalogue(ITEMS))
    return learner


@pytest.mark.parametrize("name", ["two_tower", "t2diff", "diffurec"])
def test_an_incumbent_answers_as_the_learner_did_when_it_was_published(name: str, publish: Publish) -> None:
    learner, catalogue = make_learner(name), make_catalogue(ITEMS)
    batch = encode(markov_examples(40, ITEMS), catalogue, WINDOW)
    then, incumbent = learner.evaluate(batch), publish(learner)
    learner.learn(batch)
    catalogue.put(5000, [1])
    catalogue.put(0, [2])  # sorts before all others
    learner.follow(catalogue)
    now = incumbent.ranks(encode(markov_examples(40, ITEMS), catalogue, WINDOW), catalogue)
    assert np.abs(now - then.ranks).max() <= 1  # the graph agrees to 1e-5: near ties may fall otherwise
    assert (learner.evaluate(batch).ranks != then.ranks).sum() > 5


def test_an_item_that_it_does_not_have_is_not_found_and_does_not_count_as_a_behaviour(publish: Publish) -> None:
    learner, catalogue = make_learner("two_tower"), make_catalogue(ITEMS)
    incumbent = publish(learner)
    catalogue.put(5000, [1])
    examples = [make_example([1, 2], 5000), make_example([1, 2], 3), make_example([1, 5000, 2], 3)]
    for n, example in enumerate(examples):
        example.history.times_ms[:] = [example.time_ms - 1000] * len(example.history.item_ids)
        example.user_id = n
    found = incumbent.ranks(encode(examples, catalogue, WINDOW), catalogue)
    assert found[0] == NEVER
    assert found[1] == found[2] < ITEMS


def test_an_incumbent_without_items_finds_nothing(publish: Publish) -> None:
    settings = TrainerSettings(model=ModelSettings(dim=8, window=WINDOW, session_length=3))
    incumbent = publish(Learner("two_tower", settings, 7, CPU), items=0)
    catalogue = make_catalogue(3)
    assert incumbent.ranks(encode([make_example([1], 2)], catalogue, WINDOW), catalogue).tolist() == [NEVER]
