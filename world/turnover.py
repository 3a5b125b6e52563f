"""How the synthetic world changes while it is used: items are born and fade, and tastes shift. Off unless asked for.

One number rules it, the share of the catalogue that is born on each day. Its inverse is a lifetime in days: in that
time an item goes from fresh to stale, births replace the catalogue once, and a user swaps an interest once on average.
"""

from dataclasses import dataclass, replace

import numpy as np

from contracts.features import Ints
from contracts.runtime.clock import DAY_MS
from world.base import Doubles, WorldError
from world.latent import INTERESTS, Population, item_vectors, mean_interests

FRESH = 1.0  # an item's appeal when it is born, in logits beside one half-way through its lifetime
STALEST = -3.0  # an item never sinks below


@dataclass(frozen=True)
class Turnover:
    """What changes when; D days from `start_ms` on, U users, N items."""

    start_ms: int
    lifetime_ms: float
    born_ms: Ints  # (N,)
    interests: Ints  # (D, U, INTERESTS) clusters, by day
    lasting: Doubles  # (D, U, WIDTH) unit vectors, by day

    def appeal(self, items: Ints, times_ms: Ints) -> Doubles:
        """In logits, of items at times; the two broadcast. It falls in a straight line, from `FRESH` to `STALEST`."""
        age = (times_ms - self.born_ms[items]) / self.lifetime_ms
        return np.clip(FRESH * (1 - 2 * age), STALEST, FRESH)

    def born(self, items: Ints, times_ms: Ints) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Whether items are there at times."""
        return self.born_ms[items] <= times_ms

    def day(self, times_ms: Ints) -> Ints:
        """The day of times; the first or the last one for times before or after all."""
        days: Ints = np.clip((times_ms - self.start_ms) // DAY_MS, 0, len(self.interests) - 1)
        return days


def turn_over(
    rng: np.random.Generator, people: Population, share: float, start_ms: int, days: int
) -> tuple[Population, Turnover]:
    """A population with the items that are to be born, and what will change.

    Args:
        rng: of nothing else, so that a world without births is what it was.
        people: of the start.
        share: of the items at the start, born on each day.
        start_ms: when the world starts.
        days: that it lasts.

    Raises:
        WorldError: no item would be born.

    """
    a_day = round(share * people.items)
    if a_day < 1:
        raise WorldError(f"Of {people.items} items a share of {share:g} a day is not one; choose more of either.")
    lifetime_ms = DAY_MS / share
    before = start_ms - (rng.random(people.items) * lifetime_ms).astype(np.int64)
    births = np.sort(start_ms + rng.integers(0, days * DAY_MS, a_day * days))
    born_ms = np.concatenate([before, births])
    interests = np.empty((days, people.users, INTERESTS), np.int64)
    interests[0] = people.interests
    for day in range(1, days):
        interests[day] = _shifted(rng, interests[day - 1], len(people.centers), share)
    weights = np.diff(people.shares, axis=1, prepend=0.0)
    lasting = np.stack([mean_interests(people.centers, weights, of_day) for of_day in interests])
    return _with_items(rng, people, births.size), Turnover(start_ms, lifetime_ms, born_ms, interests, lasting)


def _shifted(rng: np.random.Generator, interests: Ints, clusters: int, share: float) -> Ints:
    """Interests of the next day: a `share` of the users swap one for a cluster that is none of theirs."""
    users = len(interests)
    swaps, place = rng.random(users) < share, rng.integers(0, INTERESTS, users)
    wish = np.argsort(rng.random((users, clusters)), axis=1)
    own = (wish[:, :, None] == interests[:, None, :]).any(2)
    fresh = np.take_along_axis(wish, np.argmin(own, axis=1)[:, None], 1)[:, 0]
    shifted = interests.copy()
    shifted[np.flatnonzero(swaps), place[swaps]] = fresh[swaps]
    return shifted


def _with_items(rng: np.random.Generator, people: Population, count: int) -> Population:
    """`count` more items, like those that are there."""
    cluster = rng.integers(0, len(people.centers), count)
    second = np.where(rng.random(count) < 0.3, rng.integers(0, len(people.centers), count), -1)
    second = np.where(second == cluster, -1, second)
    like = rng.integers(0, people.items, count)  # quality, popularity and duration of one that is there
    vectors = item_vectors(rng, people.centers, cluster, second)
    return replace(
        people,
        item_cluster=np.concatenate([people.item_cluster, cluster]),
        second_cluster=np.concatenate([people.second_cluster, second]),
        item_vectors=np.concatenate([people.item_vectors, vectors]),
        quality=np.concatenate([people.quality, people.quality[like]]),
        popularity=np.concatenate([people.popularity, people.popularity[like]]),
        durations_ms=np.concatenate([people.durations_ms, people.durations_ms[like]]),
    )
