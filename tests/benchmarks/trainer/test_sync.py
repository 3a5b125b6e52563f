import numpy as np
import pytest
import torch

from benchmarks.trainer.sync import Sync, behind, replay, versions
from contracts.config.settings import ModelSettings, TrainerSettings
from evaluation.data import ItemTable, Query, Sequence
from evaluation.fit import trainer_catalogue
from evaluation.progressive import batch_of, learn_online
from trainer.learn.learner import Learner

ITEMS, QUERIES, BATCH, GAP_MS = 30, 60, 8, 10
ORIGIN_MS = 200  # of query 20, in the middle of the third batch
SHAPE = ModelSettings(dim=8, category_dim=4, window=6, session_length=3, learning_rate=0.05, batch_size=BATCH)
CPU = torch.device("cpu")
CATALOGUE = ItemTable(np.arange(1, ITEMS + 1), tuple((i % 3,) for i in range(ITEMS)))
MODELS = pytest.mark.parametrize("model", ["two_tower", "t2diff"])


def stream() -> list[Query]:
    rng = np.random.default_rng(3)
    walks = [rng.permutation(ITEMS) for _ in range(4)]
    return [
        Query(
            i % 4,
            Sequence(walks[i % 4][: i // 4], np.arange(i // 4)),
            i * GAP_MS,
            int(walks[i % 4][i // 4]),
            walks[0][:0],
        )
        for i in range(QUERIES)
    ]


def new(model: str) -> Learner:
    learner = Learner(model, TrainerSettings(model=SHAPE), 0, CPU)
    learner.follow(trainer_catalogue(CATALOGUE))
    return learner


def after(model: str, batches: int) -> Learner:
    learner = new(model)
    for at in range(0, batches * BATCH, BATCH):
        learner.learn(batch_of(stream()[at : at + BATCH], SHAPE.window))
    return learner


def replayed(model: str, **syncs: Sync) -> dict[str, list[int]]:
    found = replay(new(model), stream(), syncs, origin_ms=ORIGIN_MS)
    return {name: ranks.tolist() for name, ranks in found.items()}


def test_a_copy_knows_the_whole_batches_before_the_first_event_of_its_interval() -> None:
    times_ms = np.array([3, 9, 10, 11, 12, 13, 14, 31, 32, 33])
    assert versions(times_ms, 10, 0, 2).tolist() == [0, 0, 1, 1, 1, 1, 1, 3, 3, 3]
    assert versions(times_ms, 10, 1, 2).tolist() == [0, 0, 0, 1, 1, 1, 1, 3, 3, 3]  # counted from another origin
    assert versions(times_ms, 0, 0, 2).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_age_is_counted_from_the_last_example_that_the_copy_has_learned() -> None:
    times_ms = np.arange(8) * 60_000
    assert behind(times_ms, Sync(0, 0), 240_000, 2) == {"copies": 2, "examples_behind": 0.5, "minutes_behind": 1.5}


@MODELS
def test_synced_with_every_batch_is_plain_progressive_validation(model: str) -> None:
    plain = learn_online(model, TrainerSettings(model=SHAPE), CATALOGUE, stream(), seed=0, device=CPU).ranks[
        ORIGIN_MS // GAP_MS :
    ]
    assert replayed(model, always=Sync(0, 0), each=Sync(1, 1)) == {"always": plain.tolist(), "each": plain.tolist()}


@MODELS
def test_an_interval_without_end_is_a_model_that_never_syncs(model: str) -> None:
    frozen = after(model, ORIGIN_MS // GAP_MS // BATCH).evaluate(
        batch_of(stream()[ORIGIN_MS // GAP_MS :], SHAPE.window)
    )
    found = replayed(model, never=Sync(10**9, 10**9), always=Sync(0, 0))
    assert found["never"] == frozen.ranks.tolist() != found["always"]


@MODELS
def test_items_alone_are_synced_beneath_a_tower_that_stays(model: str) -> None:
    days = Sync(items_ms=30, tower_ms=150)
    found = replayed(model, days=days, tower_too=Sync(30, 30), neither=Sync(150, 150))
    times_ms = np.array([query.time_ms for query in stream()])
    items, towers = (versions(times_ms, every, ORIGIN_MS, BATCH) for every in (days.items_ms, days.tower_ms))
    expected = np.zeros(QUERIES, int)
    pairs = set(zip(items[20:].tolist(), towers[20:].tolist(), strict=True))
    for version, tower in pairs:
        learner = after(model, version)
        learner.model.encoder = after(model, tower).model.encoder
        at = np.flatnonzero((items == version) & (towers == tower))
        expected[at] = learner.evaluate(batch_of([stream()[i] for i in at], SHAPE.window)).ranks
    assert len({tower for _, tower in pairs}) > 1
    assert found["days"] == expected[20:].tolist()
    assert found["days"] not in (found["tower_too"], found["neither"])


def test_a_tower_that_is_fresher_than_the_items_is_refused() -> None:
    with pytest.raises(ValueError, match="the tower of 'odd' would be fresher than its items"):
        replayed("two_tower", odd=Sync(items_ms=100, tower_ms=10))
