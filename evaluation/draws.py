"""What an epoch learns from: examples drawn from sequences, as many as are worth the same time to every model."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from contracts.config.settings import ModelSettings
from contracts.features import Ints
from contracts.runtime.clock import SECOND_MS
from evaluation.data import Examples, Query, Sequence, encode
from trainer.models import create
from trainer.models.places import learned_places

Draw = Callable[[np.random.Generator], Examples]

TARGETS_PER_USER = 10  # as many as the T2Diff authors draw


def learns_everywhere(name: str, settings: ModelSettings) -> bool:
    """Whether a model learns at all places of a window, or at such as it draws: it is asked once."""
    if settings.learn_at == "last-k":
        return False
    user, mask = torch.zeros(1, settings.window, settings.dim), torch.ones(1, settings.window)
    step = create(name, settings, 0).training_step(
        user, mask, mask, user[:, -1], torch.Generator(), learned_places(mask, settings)
    )
    return step.places is not None and step.places.tolist() != [settings.window]


def drawing(name: str, settings: ModelSettings, sequences: list[Sequence]) -> Draw:
    """How a model learns from whole sequences.

    A model that learns at every place reads each sequence as windows side by side, cut anew each epoch, in which every
    behaviour but the first is a target. To one that learns from its last target alone a behaviour costs a whole
    window; it gets `TARGETS_PER_USER` targets of each user at random. On MovieLens-1M that is 2.5 times the windows but
    an eighteenth of the targets, and what an epoch costs, windows (encoder) and targets (softmax), is much the same.
    """
    if learns_everywhere(name, settings):
        return lambda rng: side_by_side(sequences, settings.window, rng)
    return lambda rng: some_targets(sequences, settings.window, TARGETS_PER_USER, rng)


def shuffled(queries: list[Query], window: int) -> Draw:
    """The same windows each epoch, in another order."""
    targets = np.array([q.target for q in queries], np.int64)
    times = np.array([q.time_ms for q in queries], np.int64)
    whole = encode([q.history for q in queries], times, targets, window)

    def draw(rng: np.random.Generator) -> Examples:
        at = rng.permutation(len(whole))
        return Examples(whole.rows[at], whole.mask[at], whole.lag[at], whole.targets[at])

    return draw


def side_by_side(sequences: list[Sequence], window: int, rng: np.random.Generator) -> Examples:
    """Windows whose targets and inner behaviours are together all behaviours but the first.

    Of a sequence longer than a window the places where it is cut are random. The last window is whole all the same, as
    a request will see it, so that some of its behaviours are in the one before it, too.
    """
    ends = []
    for s in sequences:
        last = len(s) - 1
        offset = int(rng.integers(window)) if last > window else 0
        ends.append(np.union1d(np.arange(last - offset, 0, -window), [last] if last > 0 else []).astype(np.int64))
    return _cut(sequences, ends, window, rng)


def some_targets(sequences: list[Sequence], window: int, count: int, rng: np.random.Generator) -> Examples:
    """Up to `count` different targets of each user, each after up to `window` behaviours."""
    ends = [1 + rng.choice(len(s) - 1, min(count, len(s) - 1), replace=False) for s in sequences if len(s) > 1]
    return _cut([s for s in sequences if len(s) > 1], ends, window, rng)


@dataclass(frozen=True)
class _Joined:
    """Sequences one after the other."""

    rows: Ints
    times_ms: Ints
    starts: Ints  # (U,)


def _cut(sequences: list[Sequence], ends: list[Ints], window: int, rng: np.random.Generator) -> Examples:
    """An example for each place in `ends` (one array a sequence), shuffled; `encode` for many windows at once."""
    sizes = np.array([len(s) for s in sequences], np.int64)
    joined = _Joined(
        np.concatenate([np.empty(0, np.int64), *(s.rows for s in sequences)]),
        np.concatenate([np.empty(0, np.int64), *(s.times_ms for s in sequences)]),
        np.cumsum(sizes) - sizes,
    )
    whose = np.repeat(np.arange(len(sequences)), [len(e) for e in ends])
    order = rng.permutation(whose.size)
    start = joined.starts[whose][order]
    target = start + np.concatenate([np.empty(0, np.int64), *ends])[order]
    places = target[:, None] + np.arange(-window, 0)
    within = places >= start[:, None]
    places = np.where(within, places, 0)
    age_s = np.maximum(joined.times_ms[target][:, None] - joined.times_ms[places], 0) / SECOND_MS
    return Examples(
        rows=np.where(within, joined.rows[places], 0),
        mask=within.astype(np.float32),
        lag=np.where(within, np.log1p(age_s), 0).astype(np.float32),
        targets=joined.rows[target],
    )
