"""The truth of the synthetic world: what users want, how that drifts within a session, and what they do with items.

A user has a few lasting interests, each a cluster of items. A session starts from one of them and then drifts:
towards what was just viewed effectively, now and then to another interest, and a little at random. An effective view
is the likelier the closer the item is to where the session stands; closeness to the lasting interests counts less.
"""

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtri

from contracts.features import Ints
from world.base import VISIT_GAP_MS, Bools, Doubles
from world.plays import threshold_ms
from world.randomness import uniforms

WIDTH = 16  # of latent vectors
INTERESTS = 3  # lasting interests of a user
_FOCUS_WEIGHT = 3.2
_LASTING_WEIGHT = 0.8
_SWITCH = 0.12  # chance that a request within a session goes to another interest
_PULL = 0.45  # how far effective views move the session
_DRIFT = 0.12
_REPEAT = -0.6  # an item seen before
_FOLLOW = 0.005  # per effective view: about 0.15 % of impressions
_EFFECTIVE_RATE = 0.33  # of the logging policy as sessions start; over all it comes to 0.3, KuaiRand's rate

_STREAM_REQUEST, _STREAM_ITEM = 2, 3  # of randomness; see world.randomness


@dataclass(frozen=True)
class Population:
    """Who and what there is; U users, N items, C clusters."""

    centers: Doubles  # (C, WIDTH) unit vectors
    item_cluster: Ints  # (N,)
    second_cluster: Ints  # (N,) another one that the item leans to, -1 where there is none
    item_vectors: Doubles  # (N, WIDTH) unit vectors
    quality: Doubles  # (N,) in logits
    popularity: Doubles  # (N,) sums to 1; what the logging policy goes by
    durations_ms: Ints  # (N,)
    interests: Ints  # (U, INTERESTS) clusters
    shares: Doubles  # (U, INTERESTS) cumulative, ends at 1
    lasting: Doubles  # (U, WIDTH) unit vectors, the mean interest
    mood: Doubles  # (U,) in logits

    @property
    def users(self) -> int:
        """U."""
        return self.mood.size

    @property
    def items(self) -> int:
        """N."""
        return self.quality.size


def population(rng: np.random.Generator, users: int, items: int) -> Population:
    """Draw who and what there is: popularity is Zipf-Mandelbrot's, and only loosely tied to quality."""
    clusters = int(np.clip(items // 40, 6, 30))
    centers = _unit(rng.standard_normal((clusters, WIDTH)))
    cluster = rng.integers(0, clusters, items)
    second = np.where(rng.random(items) < 0.3, rng.integers(0, clusters, items), -1)
    second = np.where(second == cluster, -1, second)
    vectors = item_vectors(rng, centers, cluster, second)
    quality = rng.normal(0, 0.5, items)
    rank = np.argsort(np.argsort(-(quality + rng.normal(0, 1, items))))
    popularity = 1 / (rank + 5.0)
    interests = np.argsort(rng.random((users, clusters)), axis=1)[:, :INTERESTS]
    weights = rng.dirichlet([3.0, 1.5, 1.0], users)
    return Population(
        centers=centers,
        item_cluster=cluster,
        second_cluster=second,
        item_vectors=vectors,
        quality=quality,
        popularity=popularity / popularity.sum(),
        durations_ms=np.clip(rng.lognormal(np.log(30_000), 0.9, items), 5_000, 600_000).astype(np.int64),
        interests=interests,
        shares=np.cumsum(weights, axis=1),
        lasting=mean_interests(centers, weights, interests),
        mood=rng.normal(0, 0.5, users),
    )


def item_vectors(rng: np.random.Generator, centers: Doubles, cluster: Ints, second: Ints) -> Doubles:
    """Unit vectors (n, WIDTH) of items by their clusters; `second` is -1 where an item leans to no other."""
    leaning = centers[np.maximum(second, 0)] * (second >= 0)[:, None]
    noise = rng.standard_normal((cluster.size, WIDTH)) / np.sqrt(WIDTH)
    return _unit(centers[cluster] + 0.4 * leaning + 0.6 * noise)


def mean_interests(centers: Doubles, weights: Doubles, interests: Ints) -> Doubles:
    """Unit vectors (U, WIDTH): the mean of each user's interests (U, INTERESTS) by their weights."""
    return _unit(np.einsum("uk,ukd->ud", weights, centers[interests]))


class Change(Protocol):
    """How a population changes in time; see `world.turnover`."""

    @property
    def interests(self) -> Ints:
        """(D, U, INTERESTS) by day."""

    @property
    def lasting(self) -> Doubles:
        """(D, U, WIDTH) by day."""

    def appeal(self, items: Ints, times_ms: Ints) -> Doubles: ...
    def born(self, items: Ints, times_ms: Ints) -> Bools: ...
    def day(self, times_ms: Ints) -> Ints: ...


@dataclass
class Users:
    """Where each user stands. `intercept` sets the rate of effective views under the logging policy."""

    population: Population
    seed: int
    intercept: float
    change: Change | None = None
    focus: Doubles = field(init=False)  # (U, WIDTH) unit vectors: where the session stands
    active_ms: Ints = field(init=False)  # (U,) time of the last request
    seen: set[int] = field(init=False, default_factory=set)  # user * N + item

    def __post_init__(self) -> None:
        self.focus = self.population.lasting.copy()
        self.active_ms = np.full(self.population.users, -(2**62), np.int64)

    def respond(
        self, requests: Ints, users: Ints, times_ms: Ints, items: Ints, sizes: Ints
    ) -> tuple[Ints, Bools, Bools]:
        """What users do with what they are shown.

        Args:
            requests: (B,) number of each request; keys its randomness.
            users: (B,) rows, each once.
            times_ms: (B,) of the requests; per user not before those of earlier calls.
            items: (m,) rows, those of the first request first.
            sizes: (B,) how many of the items belong to each request.

        Returns:
            play_time_ms, effective_view and follow, each (m,).

        """
        world = self.population
        self._arrive(requests, users, times_ms)
        request_of = np.repeat(np.arange(users.size), sizes)
        who = users[request_of]
        position = np.arange(items.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        pairs = (who * world.items + items).tolist()
        again = np.fromiter((pair in self.seen for pair in pairs), bool, len(pairs))
        chance = uniforms(self.seed, _STREAM_ITEM, requests[request_of][:, None], position[:, None] * 4 + np.arange(4))
        wish = self._affinity(self.focus[who], who, items, times_ms[request_of])
        logits = wish + self.intercept + _REPEAT * again - 0.03 * position
        effective = chance[:, 0] < expit(logits)
        plays = play_times(world.durations_ms[items], effective, chance[:, 1], chance[:, 2])
        self.seen.update(pairs)
        self._move(requests, users, request_of[effective], items[effective])
        return plays, effective, effective & (chance[:, 3] < _FOLLOW)

    def affinities(self, requests: Ints, users: Ints, times_ms: Ints) -> Doubles:
        """Of every item to users who arrive now, (B, N), before anything is shown; the arguments are `respond`'s."""
        world = self.population
        focus = np.repeat(self._arrived(requests, users, times_ms), world.items, axis=0)
        items = np.tile(np.arange(world.items), users.size)
        when = np.repeat(times_ms, world.items)
        found = self._affinity(focus, np.repeat(users, world.items), items, when)
        if self.change is not None:
            found = np.where(self.change.born(items, when), found, -np.inf)
        return found.reshape(users.size, world.items)

    def recommend(self, rng: np.random.Generator, users: Ints, slate: int, time_ms: int) -> Ints:
        """What the logging policy shows at a time, (B, slate)."""
        if self.change is None:
            return recommend(rng, self.population, users, slate)
        items, when = np.arange(self.population.items), np.array(time_ms)
        popularity = self.population.popularity * np.exp(self.change.appeal(items, when))
        popularity *= self.change.born(items, when)
        now = replace(
            self.population,
            popularity=popularity / popularity.sum(),
            interests=self.change.interests[self.change.day(when)],
        )
        return recommend(rng, now, users, slate)

    def _affinity(self, focus: Doubles, users: Ints, items: Ints, times_ms: Ints) -> Doubles:
        """`affinity` as it is at these times, (n,)."""
        steady = affinity(self.population, focus, users, items)
        if self.change is None:
            return steady
        moved = self.change.lasting[self.change.day(times_ms), users] - self.population.lasting[users]
        shift = np.einsum("nd,nd->n", moved, self.population.item_vectors[items])
        changed: Doubles = steady + _LASTING_WEIGHT * shift + self.change.appeal(items, times_ms)
        return changed

    def _arrive(self, requests: Ints, users: Ints, times_ms: Ints) -> None:
        self.focus[users] = self._arrived(requests, users, times_ms)
        self.active_ms[users] = times_ms

    def _arrived(self, requests: Ints, users: Ints, times_ms: Ints) -> Doubles:
        """Where sessions stand, (B, WIDTH): they start from a lasting interest, or switch to another on the way."""
        chance = uniforms(self.seed, _STREAM_REQUEST, requests[:, None], np.arange(2))
        fresh = times_ms - self.active_ms[users] > VISIT_GAP_MS
        moves = fresh | (chance[:, 0] < _SWITCH)
        pick = (chance[:, 1:] > self.population.shares[users]).sum(axis=1).clip(max=INTERESTS - 1)
        if self.change is None:
            cluster = self.population.interests[users, pick]
        else:
            cluster = self.change.interests[self.change.day(times_ms), users, pick]
        return np.where(moves[:, None], self.population.centers[cluster], self.focus[users])

    def _move(self, requests: Ints, users: Ints, request_of: Ints, viewed: Ints) -> None:
        """Drift, and follow what was viewed effectively: item viewed[j] by users[of[j]]."""
        pull = np.zeros((users.size, WIDTH))
        np.add.at(pull, request_of, self.population.item_vectors[viewed])
        pull /= np.maximum(np.bincount(request_of, minlength=users.size), 1)[:, None]
        noise = ndtri(uniforms(self.seed, _STREAM_REQUEST, requests[:, None], 2 + np.arange(WIDTH)))
        self.focus[users] = _unit(self.focus[users] + _PULL * pull + _DRIFT * noise)


def affinity(world: Population, focus: Doubles, users: Ints, items: Ints) -> Doubles:
    """Logit of an effective view before the intercept, of n (user, item) pairs with the sessions at `focus` (n, WIDTH).

    Long items are a little harder to view effectively. einsum sums each row by itself, so batching changes nothing.
    """
    vectors = world.item_vectors[items]
    now = np.einsum("nd,nd->n", focus, vectors)
    lasting = np.einsum("nd,nd->n", world.lasting[users], vectors)
    length = -0.15 * np.log(world.durations_ms[items] / 30_000)
    logits: Doubles = (
        _FOCUS_WEIGHT * now + _LASTING_WEIGHT * lasting + world.quality[items] + world.mood[users] + length
    )
    return logits


def play_times(durations_ms: Ints, effective: Bools, chance: Doubles, tail: Doubles) -> Ints:
    """Play times by KuaiRand's rule (`threshold_ms`), heavy-tailed after it; `chance` and `tail` in (0, 1), all (n,).

    An effective view plays on for a lognormal while after the threshold (median 12 s, sigma 1.1), at most three times
    through; another one stops before the threshold, mostly early.
    """
    limit = threshold_ms(durations_ms)
    on = 12_000 * np.exp(1.1 * ndtri(tail))
    long = np.minimum(limit + on, np.maximum(3 * durations_ms, limit))
    return np.where(effective, long, (limit - 1) * chance**2.5).astype(np.int64)


def recommend(rng: np.random.Generator, world: Population, users: Ints, slate: int) -> Ints:
    """The logging policy, (B, slate): half by popularity, half by popularity within one of the lasting interests."""
    count = users.size * slate
    popular = rng.choice(world.items, count, p=world.popularity)
    pick = (rng.random((count, 1)) > world.shares[np.repeat(users, slate)]).sum(axis=1).clip(max=INTERESTS - 1)
    cluster = world.interests[np.repeat(users, slate), pick]
    order = np.argsort(world.item_cluster, kind="stable")
    total = np.cumsum(world.popularity[order])
    bounds = np.searchsorted(world.item_cluster[order], np.stack([cluster, cluster + 1]))
    edges = np.concatenate([[0.0], total])
    low, high = edges[bounds]
    at = np.searchsorted(total, low + rng.random(count) * (high - low), side="right")
    wanted = order[np.clip(at, bounds[0], np.maximum(bounds[1] - 1, bounds[0])).clip(max=world.items - 1)]
    wanted = np.where(world.popularity[wanted] > 0, wanted, popular)  # a cluster of which nothing is born yet
    chosen: Ints = np.where(rng.random(count) < 0.5, popular, wanted)
    return chosen.reshape(users.size, slate)


def base_intercept(rng: np.random.Generator, world: Population) -> float:
    """The intercept at which the logging policy earns `_EFFECTIVE_RATE` at the start of sessions."""
    users = rng.integers(0, world.users, 4000)
    items = recommend(rng, world, users, 1)[:, 0]
    pick = (rng.random((users.size, 1)) > world.shares[users]).sum(axis=1).clip(max=INTERESTS - 1)
    logits = affinity(world, world.centers[world.interests[users, pick]], users, items)
    low, high = -10.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(logits + middle).mean() < _EFFECTIVE_RATE else (low, middle)
    return low


def _unit(vectors: npt.NDArray[np.float64]) -> Doubles:
    scaled: Doubles = vectors / np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return scaled
