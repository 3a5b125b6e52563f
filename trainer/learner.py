"""One model that learns online: test a batch, then learn from it. No Kafka, no files, no clock."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from contracts.features import Floats, Ints, sampling_noise
from contracts.settings import ModelSettings
from trainer.batches import Batch
from trainer.catalogue import Catalogue
from trainer.foresight import Foresight, foresee
from trainer.model import Model
from trainer.models.base import Inputs

MAX_ITEMS = 20_000  # above, the full softmax costs more than it is worth
GRADIENT_NORM = 5.0  # a rare batch must not throw an online learner off its course


class CatalogueTooLargeError(Exception):
    """The catalogue has outgrown the full softmax."""


class Learner:
    """A user encoder and an item tower that learn together; deterministic, given the seed and the batches in order."""

    def __init__(self, name: str, settings: ModelSettings, seed: int, device: torch.device) -> None:
        self.name = name
        self.settings = settings
        self.sampling_seed = seed  # of the noise that `evaluate` gives each user, as a replica would
        self.model = Model(name, settings, seed).to(device)
        self._device = device
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.learning_rate, fused=True)
        self._counts = np.zeros(0, np.float32)
        self._catalogue_version = -1

    def follow(self, catalogue: Catalogue) -> None:
        """Take the catalogue's changes over.

        Raises:
            CatalogueTooLargeError: it has more items than a full softmax can bear.

        """
        if catalogue.version == self._catalogue_version:
            return
        if len(catalogue) > MAX_ITEMS:
            raise CatalogueTooLargeError(
                f"The catalogue has {len(catalogue)} items; the trainer's full softmax takes at most {MAX_ITEMS}."
            )
        items = self.model.items
        items.follow(catalogue)
        for table in (items.ids, items.categories):
            _grow_state(self._optimizer, table)
        self._counts = np.pad(self._counts, (0, len(catalogue) - len(self._counts)))
        self._catalogue_version = catalogue.version

    def state(self) -> dict[str, Any]:
        """Weights, the optimizer's moments, randomness and counts."""
        return {
            "model": copy.deepcopy(self.model.state_dict()),
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "generator": self._generator.get_state(),
            "counts": self._counts.copy(),
        }

    def restore(self, state: dict[str, Any], catalogue: Catalogue) -> None:
        """Go on from a state, which was made with this catalogue."""
        self.follow(catalogue)
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self._counts = state["counts"].copy()

    def evaluate(self, batch: Batch) -> Foresight:
        """What is foreseen of each example among the whole catalogue, as a replica would answer now."""
        self.model.eval()
        with torch.no_grad():
            vectors = self.model.vectors()
            users = self.model.users(self._inputs(batch), vectors, self._serving_noise(batch.user_ids))
            return foresee(users @ vectors.T, self._tensor(batch.targets), batch.seen)

    def learned(self, rows: Ints) -> Floats:
        """Positives learned from so far of each of these rows of the catalogue."""
        return self._counts[rows]

    def learn(self, batch: Batch) -> bool:
        """One step on a batch; False where its loss or gradient was no number and the step was not taken."""
        np.add.at(self._counts, batch.targets, 1)
        self.model.train()
        loss = self.model.loss(self._inputs(batch), self._tensor(batch.targets), self._generator)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        if not bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
            return False
        self._optimizer.step()
        return True

    def item_vectors(self, catalogue: Catalogue) -> Floats:
        """(N, d) in the order of `catalogue.item_ids`."""
        with torch.no_grad():
            vectors: Floats = self.model.vectors().cpu().numpy()
        return np.ascontiguousarray(vectors[catalogue.arrival])

    def item_counts(self, catalogue: Catalogue) -> Floats:
        """(N,) positives learned from so far, in the order of `catalogue.item_ids`."""
        return self._counts[catalogue.arrival]

    def _inputs(self, batch: Batch) -> Inputs:
        rows = self._tensor(np.maximum(batch.rows, 0))
        return Inputs(rows, self._tensor(batch.mask), self._tensor(batch.lag))

    def _serving_noise(self, user_ids: Ints) -> Tensor:
        shape = self.model.encoder.noise_shape
        if not shape:
            return torch.empty(len(user_ids), device=self._device)
        return self._tensor(np.stack([sampling_noise(int(user), self.sampling_seed, shape) for user in user_ids]))

    def _tensor(self, array: Ints | Floats) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _grow_state(optimizer: torch.optim.Optimizer, table: Tensor) -> None:
    """Give an optimizer's moments zero rows where a table has grown since its last step."""
    for name, moment in optimizer.state.get(table, {}).items():
        if isinstance(moment, Tensor) and moment.ndim == table.ndim:
            missing = len(table) - len(moment)
            optimizer.state[table][name] = functional.pad(moment, (0, 0, 0, missing))
