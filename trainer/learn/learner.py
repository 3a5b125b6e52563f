"""One model that learns online: test a batch, then learn from it. No Kafka, no files, no clock."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contracts.config.settings import TrainerSettings
from contracts.features import Floats, Ints, sampling_noise
from trainer.data.batches import Batch
from trainer.data.catalogue import Catalogue
from trainer.data.row_tables import moved
from trainer.distributed.ranks import ALONE, Ranks
from trainer.evaluation.ranking import Foresight, foresee
from trainer.learn.frequency import Frequency
from trainer.learn.model import Model
from trainer.learn.page_softmax import page_losses
from trainer.learn.sampled_softmax import Negatives, draw
from trainer.models.base import Inputs

MAX_ITEMS = 20_000  # above, the full softmax costs more than it is worth
AVERAGED_EVERY = 8  # steps: the mean of a large table costs as much as a step
GRADIENT_NORM = 5.0  # a rare batch must not throw an online learner off its course


class CatalogueTooLargeError(Exception):
    """The catalogue has outgrown the full softmax."""


class Learner:
    """A user encoder and an item tower that learn together; deterministic, given the seed and the batches in order."""

    def __init__(
        self, name: str, settings: TrainerSettings, seed: int, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self.name = name
        self.settings = settings.model
        self.sampling_seed = seed  # of the noise that `evaluate` gives each user, as a replica would
        self.model = Model(name, settings.model, seed, settings.vocabulary.admit_after).to(device)
        self.served = copy.deepcopy(self.model) if settings.average else self.model  # what is tested and published
        self._average = settings.average
        self._steps = 0
        self._device = device
        self._ranks = ranks
        self._generator = torch.Generator().manual_seed(seed)
        self._sampled = settings.softmax == "sampled"
        self._negatives = settings.negatives
        self._frequency = Frequency(settings.frequency_half_life)
        rate, ids = settings.model.learning_rate, self.model.items.ids
        dense = [weight for weight in self.model.parameters() if not (self._sampled and weight is ids)]
        self._dense, self._sparse = dense, [ids] if self._sampled else []
        encoder_state = self.model.encoder.state_dict(keep_vars=True).values()
        self._running = [t for t in encoder_state if not isinstance(t, torch.nn.Parameter) and t.is_floating_point()]
        self._optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(dense, lr=rate, fused=True)]
        if self._sparse:
            self._optimizers.append(torch.optim.SparseAdam(self._sparse, lr=rate))

    def follow(self, catalogue: Catalogue) -> None:
        """Take the catalogue's changes over.

        Raises:
            CatalogueTooLargeError: it has more items than a full softmax can bear.

        """
        if len(catalogue) > MAX_ITEMS and not self._sampled:
            raise CatalogueTooLargeError(
                f"The catalogue has {len(catalogue)} items; the full softmax takes at most {MAX_ITEMS}: "
                "set trainer.softmax to sampled."
            )
        if self.served is not self.model:
            self.served.items.follow(catalogue)
        items = self.model.items
        followed = items.follow(catalogue)
        if followed is None:
            return
        for table, changes in ((items.ids, followed.items), (items.categories, followed.categories)):
            for optimizer in self._optimizers:
                state = optimizer.state.get(table, {})
                for name, moment in state.items():
                    if isinstance(moment, Tensor) and moment.ndim == table.ndim:
                        state[name] = moved(moment, changes)
        self._frequency.follow(followed.items)

    def evaluate(self, batch: Batch) -> Foresight:
        """What is foreseen of each example among the whole catalogue, as a replica would answer now."""
        return self._ranks.spread(batch, self._evaluate)

    def _evaluate(self, batch: Batch) -> Foresight:
        self.served.eval()
        with torch.no_grad():
            vectors = self.served.vectors()
            users = self.served.users(self._inputs(batch), vectors, self._serving_noise(batch.user_ids))
            return foresee(users @ vectors.T, self._tensor(batch.targets), batch.seen)

    def ranks_both_ways(self, batch: Batch, foresight: Foresight) -> tuple[Ints, Ints]:
        """Ranks (B,) of the targets with the encoder's optional part and without; `foresight` is what was served."""
        encoder = self.served.encoder
        encoder.left_out = not encoder.left_out
        try:
            other = self.evaluate(batch).ranks
        finally:
            encoder.left_out = not encoder.left_out
        return (other, foresight.ranks) if encoder.left_out else (foresight.ranks, other)

    def page_losses(self, batch: Batch) -> Floats:
        """How well the choice within each page is foreseen: −log softmax of the target over its page, nats, (B,).

        As a replica would rank now. A page of which nothing was passed has 0.
        """
        self.served.eval()
        with torch.no_grad():
            vectors = self.served.vectors()
            users = self.served.users(self._inputs(batch), vectors, self._serving_noise(batch.user_ids))
            losses: Floats = (
                page_losses(users, vectors, self._tensor(batch.targets), self._tensor(batch.passed)).cpu().numpy()
            )
        return losses

    def learned(self, rows: Ints) -> Floats:
        """Positives learned from so far of each of these rows of the catalogue."""
        counts: Floats = self.model.items.positives.cpu().numpy()[rows]
        return counts

    def learn(self, batch: Batch, *, again: bool = False) -> bool:
        """One step on a batch; False where its loss or gradient was no number and the step was not taken.

        `again`: its examples have been learned from before, so their positives are not counted twice.
        """
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss, weight = self._derive(self._ranks.part(batch), self._drawn(batch))
        self._pace(batch)
        if not again:
            self.model.items.count(self._tensor(batch.taught))
        loss = self._ranks.average(self._dense, self._sparse, self._running, loss, weight)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        if not bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
            return False
        for optimizer in self._optimizers:
            optimizer.step()
        self._steps += 1
        if self.served is not self.model and self._steps % AVERAGED_EVERY == 0:
            follow_weights(self.served, self.model, self._average, self._steps)
        return True

    def _pace(self, batch: Batch) -> None:
        """Set the learning rate of a step: that of the settings, of a batch whose windows say where they are new more.

        A step takes the place of as many as there would be of single examples, and goes as far as the root of their
        number (Malladi et al., On the SDEs and Scaling Rules for Adaptive Gradient Algorithms, NeurIPS 2022).
        """
        steps = 1.0 if batch.last is None else float(batch.last.sum()) / self.settings.batch_size
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * steps**0.5

    def item_vectors(self, catalogue: Catalogue) -> Floats:
        """(N, d) in the order of `catalogue.item_ids`."""
        with torch.no_grad():
            vectors: Floats = self.served.vectors().cpu().numpy()
        return np.ascontiguousarray(vectors[catalogue.arrival])

    def item_counts(self, catalogue: Catalogue) -> Floats:
        """(N,) positives learned from so far, in the order of `catalogue.item_ids`."""
        counts: Floats = self.model.items.positives.cpu().numpy()[catalogue.arrival]
        return counts

    def state(self) -> dict[str, Any]:
        """All of it, to go on from bit for bit: weights, moments, counts, randomness."""
        return {
            **_weights(self.model),
            "optimizers": [copy.deepcopy(optimizer.state_dict()) for optimizer in self._optimizers],
            "generator": self._generator.get_state(),
            "frequency": self._frequency.state(),
            "sampling_seed": self.sampling_seed,
            "steps": self._steps,
            "served": _weights(self.served) if self.served is not self.model else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` described, given the same settings; then follow the catalogue of that moment."""
        self.model.encoder.load_state_dict(state["encoder"])
        self.model.items.restore(state["items"])
        for optimizer, optimizer_state in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(copy.deepcopy(optimizer_state))
        self._generator.set_state(state["generator"])
        self._frequency.restore(state["frequency"])
        self.sampling_seed = state["sampling_seed"]
        self._steps = state["steps"]
        if self.served is not self.model:
            self.served.encoder.load_state_dict(state["served"]["encoder"])
            self.served.items.restore(state["served"]["items"])

    def _drawn(self, batch: Batch) -> Negatives | None:
        if not self._sampled:
            return None
        targets = torch.from_numpy(batch.taught)
        size = len(self.model.items.ids)
        drawn = draw(targets, self._frequency, size, self._negatives, self._generator)
        self._frequency.add(targets)
        return drawn

    def _derive(self, part: Batch, drawn: Negatives | None) -> tuple[Tensor, int]:
        """Gradients of this rank's part; its mean loss, and over how many places."""
        generator = self._ranks.own(self._generator)
        if not len(part):
            return torch.zeros((), device=self._device), 0
        self.model.train()
        with self._dropout(generator):
            passed = self._tensor(part.passed) if self.model.page_weight else None
            weight = None if part.weights is None else self._tensor(part.weights)
            last = None if part.last is None else self._tensor(part.last)
            loss, places = self.model.loss(
                self._inputs(part), self._tensor(part.targets), generator, drawn, passed, weight, last
            )
        torch.autograd.backward(loss)
        return loss, places

    @contextmanager
    def _dropout(self, generator: torch.Generator) -> Iterator[None]:
        """Dropout draws from torch's own generators; within this their seed is drawn from the learner's."""
        if not self.settings.dropout:
            yield
            return
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            yield

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


def follow_weights(served: Model, model: Model, average: float, steps: int) -> None:
    """Move averaged weights towards the present ones, as is due every `AVERAGED_EVERY` steps.

    Args:
        served: the average.
        model: the present weights, after `steps` steps.
        average: the memory of a step; in the first steps it is shorter, for these know little.
        steps: at least 1.

    """
    memory = min(average, (1 + steps) / (10 + steps)) ** AVERAGED_EVERY
    with torch.no_grad():
        for averaged, weight in zip(served.parameters(), model.parameters(), strict=True):
            averaged.lerp_(weight, 1 - memory)
        for buffer, value in zip(served.buffers(), model.buffers(), strict=True):
            buffer.copy_(value)


def _weights(model: Model) -> dict[str, Any]:
    return {"encoder": copy.deepcopy(model.encoder.state_dict()), "items": model.items.state()}
