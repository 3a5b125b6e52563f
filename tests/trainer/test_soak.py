"""Far more ids than are ever known at once: memory is that of the living ones, however many have been."""

import gc
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from contracts.config.settings import TrainerSettings
from trainer.data.batches import Batch
from trainer.data.catalogue import Catalogue
from trainer.learn.learner import Learner

BATCH, WINDOW = 32, 4
LIFETIME_MS = 1000
MODEL = {"dim": 16, "window": WINDOW, "session_length": 2, "category_dim": 4, "batch_size": BATCH}


class Soak:
    """Each step announces items, learns from some of the living ones, and lets the idle ones go."""

    def __init__(self, arrivals: int, alive: int) -> None:
        self._arrivals = arrivals
        self._step_ms = LIFETIME_MS * arrivals // alive
        settings: dict[str, Any] = {"model": MODEL, "softmax": "sampled", "negatives": 32}
        self.learner = Learner("two_tower", TrainerSettings.model_validate(settings), 0, torch.device("cpu"))
        self.catalogue, self._rng = Catalogue(), np.random.default_rng(0)
        self.ids, self._now_ms = 0, 0

    def step(self) -> None:
        self._now_ms += self._step_ms
        for item_id in range(self.ids + 1, self.ids + 1 + self._arrivals):
            # Every seventh brings a category that no other has: these must go as well.
            self.catalogue.put(item_id, [1 + item_id % 20] + [1000 + item_id] * (item_id % 7 == 0), self._now_ms)
        self.ids += self._arrivals
        self.catalogue.expire(self._now_ms - LIFETIME_MS)
        self.learner.follow(self.catalogue)
        rows = self._rng.integers(0, len(self.catalogue), (BATCH, WINDOW + 1))
        ones = np.ones((BATCH, WINDOW), np.float32)
        users = np.arange(1, BATCH + 1)
        batch = Batch(rows[:, :-1], ones, ones, ones, rows[:, -1], tuple(rows), users, ("",) * BATCH, rows[:, :0])
        assert self.learner.learn(batch)
        self.catalogue.touch(batch.targets[:1], np.array([self._now_ms]))

    def tensor_bytes(self) -> int:
        """Of all memory behind the tables and what the optimizers keep of them."""
        items, frequency = self.learner.model.items, self.learner._frequency
        tables = [items.ids, items.categories, items.positives, frequency._counts, items._items._serials]
        moments = [m for o in self.learner._optimizers for of in o.state.values() for m in of.values()]
        kept = tables + [moment for moment in moments if isinstance(moment, torch.Tensor)]
        return sum(tensor.untyped_storage().nbytes() for tensor in kept)

    def object_sizes(self) -> list[int]:
        """How long everything is that the catalogue keeps."""
        catalogue = self.catalogue
        kept = [getattr(of, name) for of in (catalogue.items, catalogue.categories) for name in ("_row", "_changed")]
        return [*map(len, (*kept, catalogue._uses, catalogue._heard_ms, catalogue._bags, catalogue._bags._flat))]

    def run(self, ids: int) -> None:
        while self.ids < ids:
            self.step()


def test_memory_is_that_of_the_living_items() -> None:
    soak = Soak(arrivals=100, alive=1000)
    soak.run(4000)
    tensors, sizes = soak.tensor_bytes(), soak.object_sizes()
    soak.run(20_000)
    assert 1000 <= len(soak.catalogue) <= 1250  # those of the last lifetime, and those that lived longer
    assert soak.tensor_bytes() <= 1.01 * tensors
    assert all(now <= 1.1 * then + 1024 for now, then in zip(soak.object_sizes(), sizes, strict=True))
    assert soak.learner.item_vectors(soak.catalogue).shape == (len(soak.catalogue), 16)


@pytest.mark.proof
def test_a_million_ids_pass_through_flat_memory() -> None:
    soak, process = Soak(arrivals=400, alive=20_000), psutil.Process()
    readings = []
    for ids in range(100_000, 1_100_001, 100_000):
        soak.run(ids)
        gc.collect()
        readings.append((soak.ids, len(soak.catalogue), soak.tensor_bytes(), process.memory_info().rss))
        print(*readings[-1])  # noqa: T201
    assert soak.ids >= 1_000_000
    _, rows, tensors, resident = zip(*readings, strict=True)
    assert max(rows) <= 1.2 * 20_000
    assert max(tensors) <= 1.01 * tensors[0]
    assert max(resident[1:]) <= 1.03 * resident[1]
