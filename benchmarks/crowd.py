"""A crowd whose next views can be foreseen: the examples that `benchmarks.trainer.latency` sends.

Items lie in categories on a ring. A user's next view is mostly of the category of the last one, now and then of the
next category, and seldom of any; within a category few items are popular. Nothing of this changes in time, so whatever
a snapshot knows stays true, and every user makes as many examples as any other: a gate has no reason to hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from contracts.features import Ints
from contracts.messages.events import SCHEMA_VERSION
from contracts.runtime.clock import MINUTE_MS
from contracts.wire.events_pb2 import Example, History, Item

CATEGORY = 100  # items of one
STAYS, MOVES_ON = 0.75, 0.2  # the rest jumps
SKEW = 0.8  # of popularity within a category: p ~ rank^-SKEW
ROUNDS = 16  # examples of each user before the walks are drawn anew


@dataclass(frozen=True)
class Crowd:
    """Who views what, and how long histories are."""

    users: int = 20_000
    items: int = 10_000
    behaviours: int = 32
    seed: int = 0


def catalogue(crowd: Crowd) -> Iterator[Item]:
    """Items 1 to `items`, each with its category."""
    for item_id in range(1, crowd.items + 1):
        yield Item(schema_version=SCHEMA_VERSION, item_id=item_id, category_ids=[1 + (item_id - 1) // CATEGORY])


def walks(crowd: Crowd, length: int, rng: np.random.Generator) -> Ints:
    """Item ids (users, length) in the order in which they are viewed."""
    categories = -(-crowd.items // CATEGORY)
    shape = (crowd.users, length)
    chance = rng.random(shape)
    steps = np.where(chance < STAYS, 0, np.where(chance < STAYS + MOVES_ON, 1, rng.integers(categories, size=shape)))
    steps[:, 0] = rng.integers(categories, size=crowd.users)
    at = np.cumsum(steps, axis=1) % categories
    popularity = np.arange(1, CATEGORY + 1) ** -SKEW
    within = rng.choice(CATEGORY, shape, p=popularity / popularity.sum())
    return np.minimum(1 + at * CATEGORY + within, crowd.items)


def examples(crowd: Crowd) -> Iterator[Example]:
    """Examples without end, all users in turn; `dated` gives them their times."""
    rng = np.random.default_rng(crowd.seed)
    for generation in count():
        drawn = walks(crowd, crowd.behaviours + ROUNDS, rng)
        liked, nothing = [True] * crowd.behaviours, [0] * crowd.behaviours
        for step in range(ROUNDS):
            for user in rng.permutation(crowd.users).tolist():
                row = drawn[user, step : step + crowd.behaviours + 1].tolist()
                yield Example(
                    schema_version=SCHEMA_VERSION,
                    event_id=f"{generation}-{step}-{user}",
                    user_id=user + 1,
                    item_id=row[-1],
                    history=History(
                        item_ids=row[:-1], effective_views=liked, play_times_ms=nothing, follows=liked, sessions=nothing
                    ),
                )


def dated(example: Example, now_ms: int) -> Example:
    """The example as of now: its behaviours a minute apart, the newest a minute ago."""
    size = len(example.history.item_ids)
    example.time_ms = example.sent_at_ms = now_ms
    example.history.times_ms[:] = range(now_ms - size * MINUTE_MS, now_ms, MINUTE_MS)
    return example
