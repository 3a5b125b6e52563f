"""Test, then train: every positive of a stream is foreseen before anything learns from it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.features import Ints
from evaluation.data import ItemTable, Query, encode
from evaluation.fit import trainer_catalogue, training_clock
from trainer.data.batches import Batch
from trainer.learn.learner import Learner


class Foreseen(NamedTuple):
    """What came of a stream."""

    ranks: Ints  # (Q,) of the queries' targets
    backfill_s: float  # seconds of learning what was before, see `training_clock`


def learn_online(
    name: str,
    settings: TrainerSettings,
    catalogue: ItemTable,
    queries: Sequence[Query],
    *,
    before: Iterable[Batch] = (),
    seed: int,
    device: torch.device,
    report: Callable[[int], None] = lambda _: None,
) -> Foreseen:
    """Rank of each query's target, as the online trainer foresees it before it learns from that query's batch.

    Args:
        name: of the model.
        settings: its shape, learning rate, batch and softmax.
        catalogue: N items, all known from the start.
        queries: Q, in event order.
        before: batches that are learned from first, untested.
        seed: of weights and noise.
        device: where.
        report: is told how many views are learned from, those before among them, batch by batch.

    """
    followed = trainer_catalogue(catalogue)
    learner = Learner(name, settings, seed, device)
    learner.follow(followed)
    model = settings.model
    ranks, done = [np.empty(0, np.int64)], 0
    clock = training_clock(device)
    begun = clock()
    for batch in before:
        learner.learn(batch)
        done += len(batch) if batch.last is None else int(batch.last.sum())
        report(done)
    spent = clock() - begun
    for batch in batches(queries, model):
        ranks.append(learner.evaluate(batch).ranks)
        learner.learn(batch)
        done += len(batch)
        report(done)
    return Foreseen(np.concatenate(ranks), spent)


def batches(queries: Sequence[Query], model: ModelSettings) -> Iterator[Batch]:
    """Queries in their order, a batch at a time."""
    for start in range(0, len(queries), model.batch_size):
        yield batch_of(queries[start : start + model.batch_size], model.window)


def batch_of(queries: Sequence[Query], window: int) -> Batch:
    """Queries as the online trainer takes its examples."""
    targets = np.array([query.target for query in queries], np.int64)
    examples = encode([q.history for q in queries], np.array([q.time_ms for q in queries], np.int64), targets, window)
    return Batch(
        rows=np.where(examples.mask > 0, examples.rows, -1),
        mask=examples.mask,
        lag=examples.lag,
        served_lag=examples.lag,
        targets=targets,
        seen=tuple(query.masked for query in queries),
        user_ids=np.array([query.user_id for query in queries], np.int64),
        arms=("",) * len(queries),
        passed=np.empty((len(queries), 0), np.int64),
    )
