"""What a snapshot would earn, from places that were filled at random while others were served.

A place is explored where its item came by chance, with a logged propensity (`serving/explore.py`). Of the policy that
is to be valued only the chance with which it would put that item there is needed. Two estimates, both self-normalised,
so that a constant factor of the propensities, such as the share of explored places, does not count:

ips  Σ w r / Σ w, w = chance / propensity (Swaminathan and Joachims, The Self-Normalized Estimator for Counterfactual
     Learning, NeurIPS 2015)
dr   mean of Σ_a chance(a) q(a) over the places + Σ w (r − q) / Σ w, with a guess q of the outcome (Dudík, Langford and
     Li, Doubly Robust Policy Evaluation and Learning, ICML 2011; weighted as in Thomas and Brunskill, Data-Efficient
     Off-Policy Policy Evaluation for Reinforcement Learning, ICML 2016). It is right where the propensities are,
     whatever the guess, and the better the guess, the less it varies.

Intervals are over users, whose places are not independent: by the linearised estimate's sum of each user.

Places must come from all exposures. Pages of training examples won't do: a page that earned nothing makes no example.
"""

from collections.abc import Collection
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from contracts.features import Ints
from contracts.wire.events_pb2 import Exposure

Doubles: TypeAlias = npt.NDArray[np.float64]


class Explored(NamedTuple):
    """Places that were filled at random, n of them."""

    user_ids: Ints  # (n,)
    item_ids: Ints  # (n,)
    rewards: Doubles  # (n,) such as 1 for an effective view
    propensities: Doubles  # (n,) of the item at its place


class Guess(NamedTuple):
    """What a model takes the outcomes for."""

    shown: Doubles  # (n,) of the item that was shown
    wanted: Doubles  # (n,) of what the policy would put there: Σ_a chance(a) q(a)


class Value(NamedTuple):
    """An estimate of a policy's mean reward at a place; None in all three where there is nothing to tell it by."""

    mean: float | None
    low: float | None
    high: float | None
    places: int  # that were used
    effective: float  # places that so many equal weights would make: (Σ w)² / Σ w²
    users: int
    skipped: int  # places without a propensity in (0, 1], or whose other figures are no numbers


def explored_places(exposure: Exposure, rewards: dict[int, float]) -> Explored:
    """The places of an exposure that were filled at random; `rewards` by item, 0 where an item is not among them.

    >>> exposure = Exposure(user_id=7)
    >>> _, _ = exposure.items.add(item_id=1), exposure.items.add(item_id=2, propensity=0.25)
    >>> [part.tolist() for part in explored_places(exposure, {1: 1.0, 2: 1.0})]
    [[7], [2], [1.0], [0.25]]
    """
    shown = [item for item in exposure.items if item.HasField("propensity")]
    item_ids = np.array([item.item_id for item in shown], np.int64)
    return Explored(
        np.full(len(shown), exposure.user_id, np.int64),
        item_ids,
        np.array([rewards.get(item.item_id, 0.0) for item in shown], np.float64),
        np.array([item.propensity for item in shown], np.float64),
    )


def value_of(places: Explored, chances: Doubles, guess: Guess | None = None, confidence: float = 0.95) -> Value:
    """The value of a policy that puts the item of each place there with these chances (n,).

    Args:
        places: all that were filled at random in some period, whoever was served.
        chances: of the policy, each in [0, 1]. Of one that shows its best k items, 1/k for these and 0 for others:
            then the value is the mean of the k.
        guess: what outcomes are taken for, independent of them; None: `ips`, else `dr`.
        confidence: of the interval.

    Raises:
        ValueError: the arrays are not of one length.

    """
    columns = [places.rewards, places.propensities, chances, *(guess or ())]
    if any(len(column) != len(places.user_ids) for column in columns):
        raise ValueError(f"{len(places.user_ids)} places, and columns of {[len(column) for column in columns]}")
    usable = np.isfinite(columns).all(0) & (places.propensities > 0) & (places.propensities <= 1)
    usable &= (chances >= 0) & (chances <= 1)
    rewards, propensities, chances, *guessed = (column[usable] for column in columns)
    weights = chances / propensities
    total, users = float(weights.sum()), np.unique(places.user_ids[usable], return_inverse=True)
    count, skipped = len(users[0]), int((~usable).sum())
    if not total:
        return Value(None, None, None, len(weights), 0.0, count, skipped)
    surprise, base = rewards, np.zeros_like(rewards)
    if guess is not None:
        surprise, base = rewards - guessed[0], guessed[1]
    correction = float((weights * surprise).sum()) / total
    mean = float(base.mean()) + correction
    effective = total**2 / float((weights**2).sum())
    influence = (base - base.mean()) / len(base) + weights * (surprise - correction) / total
    by_user = np.bincount(users[1], influence)
    if count < 2:
        return Value(mean, None, None, len(weights), effective, count, skipped)
    error = np.sqrt(count / (count - 1) * (by_user**2).sum())  # the sums of all users are 0
    reach = float(stats.t.ppf((1 + confidence) / 2, count - 1) * error)
    return Value(mean, mean - reach, mean + reach, len(weights), effective, count, skipped)


def best_k(item_ids: Ints, best: Collection[int]) -> Doubles:
    """Chances (n,) of a policy that shows one of its best items, all alike; see `value_of`.

    >>> best_k(np.array([4, 5, 6]), {5, 9}).tolist()
    [0.0, 0.5, 0.0]
    """
    return np.isin(item_ids, np.fromiter(best, np.int64, len(best))) / len(best)
