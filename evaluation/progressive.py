"""Test, then train: every positive of a stream is foreseen before anything learns from it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from contracts.config.settings import TrainerSettings
from contracts.features import Ints
from evaluation.data import ItemTable, Query, encode
from evaluation.fit import trainer_catalogue
from trainer.data.batches import Batch
from trainer.learn.learner import Learner


def learn_online(
    name: str,
    settings: TrainerSettings,
    catalogue: ItemTable,
    queries: Sequence[Query],
    *,
    before: Sequence[Query] = (),
    seed: int,
    device: torch.device,
    report: Callable[[int], None] = lambda _: None,
) -> Ints:
    """Rank of each query's target, (Q,), as the online trainer foresees it before it learns from that query's batch.

    Args:
        name: of the model.
        settings: its shape, learning rate, batch and softmax.
        catalogue: N items, all known from the start.
        queries: Q, in event order.
        before: what is learned from first, untested.
        seed: of weights and noise.
        device: where.
        report: is told how many queries are done, those before among them, batch by batch.

    """
    followed = trainer_catalogue(catalogue)
    learner = Learner(name, settings, seed, device)
    learner.follow(followed)
    model = settings.model
    ranks, done = [np.empty(0, np.int64)], 0
    for part, tests in ((before, False), (queries, True)):
        for start in range(0, len(part), model.batch_size):
            batch = batch_of(part[start : start + model.batch_size], model.window)
            if tests:
                ranks.append(learner.evaluate(batch).ranks)
            learner.learn(batch)
            done += len(batch)
            report(done)
    return np.concatenate(ranks)


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
