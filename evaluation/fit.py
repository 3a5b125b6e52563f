"""Training of a model on examples that can be drawn again and again: epochs, validation, the best weights kept.

The online trainer sees each example once; this is for protocols that split users or sequences instead of time.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from contracts.config.settings import ModelSettings
from contracts.features import Floats, Ints, sampling_noise
from evaluation.data import Examples, ItemTable, Query, encode
from trainer.data.catalogue import Catalogue
from trainer.learn.model import Model
from trainer.models.base import Inputs

GRADIENT_NORM = 5.0
NOISE_SEED = 0  # of the sampling noise that users get, as a snapshot has one
ASKED_AT_ONCE = 512


class DivergedError(Exception):
    """The loss is no number any more."""


@dataclass(frozen=True)
class Plan:
    """How long to train, and how."""

    epochs: int = 20
    batch_size: int = 128
    seconds: float = math.inf  # of training, see `training_clock`; the epoch that runs is the last one
    warmup: float = 0.05  # share of the steps in which the learning rate rises to its height; then it falls to 0
    weight_decay: float = 0.0
    validate_every: int = 1  # epochs
    precision: torch.dtype = torch.bfloat16  # of the softmax's matrix products
    autocast: bool | None = None  # whether the encoder computes in bfloat16, too; None: on a GPU, where it pays


@dataclass
class Fitted:
    """A trained model with the weights of its best epoch."""

    model: Model
    settings: ModelSettings
    device: torch.device
    best_epoch: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)  # an entry an epoch

    def scores(self, queries: list[Query]) -> Floats:
        """(Q, N) inner products."""
        return np.concatenate([*_scores(self.model, self.settings, queries, self.device)])


def fit(
    name: str,
    settings: ModelSettings,
    catalogue: ItemTable,
    draw: Callable[[np.random.Generator], Examples],
    validation: list[Query],
    plan: Plan,
    *,
    seed: int,
    device: torch.device,
    report: Callable[[dict[str, float]], None] = lambda _: None,
) -> Fitted:
    """Train a model; the epoch with the best validation NDCG@10 gives the weights. The test set is never seen here.

    Args:
        name: of the model.
        settings: its shape; `learning_rate` is the height of the schedule.
        catalogue: N items.
        draw: an epoch's examples, in the order in which they are learned.
        validation: queries that pick the epoch.
        plan: how long.
        seed: of weights, examples, dropout and noise.
        device: where.
        report: is told of every epoch.

    Raises:
        DivergedError: a loss is no number.

    """
    model = Model(name, settings, seed)
    model.items.follow(trainer_catalogue(catalogue))
    model.to(device)
    model.precision = plan.precision
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=plan.weight_decay, fused=True
    )
    clock = training_clock(device)
    course = _Course(model, optimizer, plan, settings, generator, device)
    fitted = Fitted(model, settings, device)
    best, best_state = -1.0, copy.deepcopy(model.state_dict())
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout draws from the global generator
        for epoch in range(1, plan.epochs + 1):
            begun = clock()
            loss = course.epoch(draw(rng), epoch, fitted.seconds)
            fitted.seconds += clock() - begun
            entry = {"epoch": epoch, "loss": loss, "seconds": fitted.seconds}
            last = epoch == plan.epochs or fitted.seconds >= plan.seconds
            if last or epoch % plan.validate_every == 0:
                entry["ndcg@10"] = ndcg = validate(fitted, validation)
                if ndcg > best:
                    best, best_state, fitted.best_epoch = ndcg, copy.deepcopy(model.state_dict()), epoch
            fitted.history.append(entry)
            report(entry)
            if last:
                break
    model.load_state_dict(best_state)
    return fitted


def training_clock(device: torch.device) -> Callable[[], float]:
    """What seconds of training are counted by: the processor's, so that what else runs beside does not count.

    Of a GPU the processor knows nothing; there it is the time that passes.
    """
    return time.process_time if device.type == "cpu" else time.perf_counter


def validate(fitted: Fitted, queries: list[Query]) -> float:
    """NDCG@10 of the target among all items that are not masked."""
    target_ranks = ranks(fitted.scores(queries), queries)
    return float(np.where(target_ranks <= 10, 1 / np.log2(target_ranks + 1), 0).mean())


def ranks(scores: Floats, queries: list[Query]) -> Ints:
    """Rank of each target from 1, masked items out of the race; ties and scores that are no numbers count against it.

    Args:
        scores: (Q, N); masked places are overwritten.
        queries: Q.

    """
    out = np.empty(len(queries), np.int64)
    for i, query in enumerate(queries):
        wanted = scores[i, query.target]
        scores[i, query.masked] = -np.inf
        scores[i, query.target] = wanted
        out[i] = (~(scores[i] < wanted)).sum()
    return out


def asked(model: Model, settings: ModelSettings, queries: list[Query], device: torch.device) -> tuple[Inputs, Tensor]:
    """Queries as a model takes them, and the sampling noise of their users."""
    times = np.array([q.time_ms for q in queries], np.int64)
    whole = encode([q.history for q in queries], times, np.zeros_like(times), settings.window)
    noise = np.stack([sampling_noise(q.user_id, NOISE_SEED, model.encoder.noise_shape) for q in queries])
    rows, mask, lag, drawn = (torch.from_numpy(a).to(device) for a in (whole.rows, whole.mask, whole.lag, noise))
    return Inputs(rows, mask, lag), drawn


def trainer_catalogue(catalogue: ItemTable) -> Catalogue:
    """The same items as the trainer's models follow them; rows stay."""
    followed = Catalogue()
    for item_id, categories in zip(catalogue.item_ids.tolist(), catalogue.categories, strict=True):
        followed.put(item_id, categories)
    return followed


@dataclass
class _Course:
    """What stays the same over the epochs of one training."""

    model: Model
    optimizer: torch.optim.Optimizer
    plan: Plan
    settings: ModelSettings
    generator: torch.Generator
    device: torch.device

    def epoch(self, examples: Examples, number: int, seconds: float) -> float:
        """Learn from all examples once; the mean loss. `seconds` were trained before."""
        clock = training_clock(self.device)
        begun = clock()
        self.model.train()
        total, steps = 0.0, math.ceil(len(examples) / self.plan.batch_size)
        for step in range(steps):
            spent = (seconds + clock() - begun) / self.plan.seconds
            progress = max(((number - 1) * steps + step) / (self.plan.epochs * steps), spent)
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * schedule(progress, self.plan.warmup)
            loss = self._learn(examples, slice(step * self.plan.batch_size, (step + 1) * self.plan.batch_size))
            if not math.isfinite(loss):
                raise DivergedError(f"The loss is {loss} in epoch {number}, step {step + 1}.")
            total += loss
        return total / steps

    def _learn(self, examples: Examples, part: slice) -> float:
        arrays = (examples.rows, examples.mask, examples.lag, examples.targets)
        rows, mask, lag, targets = (torch.from_numpy(a[part]).to(self.device) for a in arrays)
        autocast = self.device.type == "cuda" if self.plan.autocast is None else self.plan.autocast
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            loss = self.model.loss(Inputs(rows, mask, lag), targets, self.generator).mean
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        return float(loss.detach())


def schedule(progress: float, warmup: float) -> float:
    """The learning rate's share of its height: a straight rise, then half a cosine down.

    >>> [round(schedule(p, 0.1), 2) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    [0.02, 0.5, 1.0, 0.5, 0.02]
    """
    if progress < warmup:
        return max(progress / warmup, 0.02)
    return max(0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))), 0.02)


def _scores(model: Model, settings: ModelSettings, queries: list[Query], device: torch.device) -> Iterator[Floats]:
    model.eval()
    with torch.inference_mode():
        vectors = model.vectors()
        for start in range(0, len(queries), ASKED_AT_ONCE):
            inputs, noise = asked(model, settings, queries[start : start + ASKED_AT_ONCE], device)
            yield (model.users(inputs, vectors, noise) @ vectors.T).float().cpu().numpy()
