"""How much an example of a shared experiment counts for a model: as often as it would come if all arms were its own.

Weighted training (Si, Tackling Interference Induced by Data Training Loops in A/B Tests: A Weighted Training Approach,
arXiv 2310.17496): a model learns from the examples of all arms, each weighted by P(own arm | example) / p, where p is
the traffic share of its arms. With the intensities λ_own and λ_other at which the arms make such an example, that is
λ_own / (p λ_own + (1 − p) λ_other): in sum what the stream would be if everybody had the model. A weight is 1 / p at
most.

The probability is a logistic regression on what the example's item is to the model (the rank that it foresaw of it, in
powers of 4) and to the arms (the log odds of the item's decayed counts). It is learned online, by a Newton step a batch
under exponential forgetting, and each batch is weighted before it is learned from. The history is no feature: it is
the user's, who has one arm for good, so it would tell the arm and leave nothing of the others' examples.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from contracts.config.settings import Arm
from contracts.features import Floats, Ints

Doubles: TypeAlias = npt.NDArray[np.float64]

HALF_LIFE = 10_000  # examples of the experiment after which one counts half: models and what they show go on changing
BUCKETS = 1 << 16  # that item ids are hashed into: memory is bounded, whatever comes and goes
PSEUDO = 2.0  # examples, dealt by the traffic, that an item's counts begin with
LEVELS = 8  # of ranks: 1, to 4, to 16, … above 4⁶
RIDGE = 1.0  # curvature that the regression begins with, its coefficients being 0
FARTHEST = 10.0  # logits beyond it are cut


class ArmPropensity:
    """Of one model: weights of examples, and what they are estimated from; a function of the examples in order.

    >>> arms = {"a": Arm(weight=1, model="t2diff"), "b": Arm(weight=3, model="two_tower")}
    >>> propensity = ArmPropensity("t2diff", arms)
    >>> for _ in range(50):  # the arms show different items, and item 3 is shown by both as they have traffic
    ...     _ = propensity.weigh(["a", "b", "a", "b", "b", "b"], np.array([1, 2, 3, 3, 3, 3]), np.ones(6, np.int64))
    >>> propensity.weigh(["", "?", "a", "a", "a"], np.array([1, 1, 1, 2, 3]), np.ones(5, np.int64)).round(1).tolist()
    [1.0, 0.0, 4.0, 0.0, 1.0]
    """

    def __init__(self, model: str, arms: Mapping[str, Arm]) -> None:
        """Begin with P(own arm | example) = p; `arms` are the experiment's, one at least is the model's."""
        self._own = {arm: model in definition.models for arm, definition in arms.items()}
        traffic = sum(definition.weight for definition in arms.values())
        self._share = sum(definition.weight for arm, definition in arms.items() if self._own[arm]) / traffic
        self._counts = np.zeros((2, BUCKETS))  # of the others' examples and of the own, by bucket of the item
        self._coefficients = np.zeros(LEVELS + 1)
        self._curvature = RIDGE * np.eye(LEVELS + 1)

    def weigh(self, arms: Sequence[str], item_ids: Ints, ranks: Ints) -> Floats:
        """Weights (B,) of a batch, and then learn from it which arm shows what.

        Outside any experiment a weight is 1; in an arm that the experiment does not have, 0, as that is another one's.

        Args:
            arms: (B,) that showed each item.
            item_ids: (B,) of the positives.
            ranks: (B,) of them as the model foresaw them, from 1.

        """
        inside = np.array([arm in self._own for arm in arms], bool)
        weights = np.array([not arm for arm in arms], np.float32)
        if self._share == 1:
            weights[inside] = 1
        elif inside.any():
            features = self._features(item_ids[inside], ranks[inside])
            chances = self._chances(features)
            weights[inside] = chances / self._share
            is_own = np.array([self._own[arm] for arm in arms if arm in self._own], np.int64)
            self._learn(features, chances, is_own, item_ids[inside])
        return weights

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {
            "counts": self._counts.copy(),
            "coefficients": self._coefficients.copy(),
            "curvature": self._curvature.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._counts = state["counts"].copy()
        self._coefficients, self._curvature = state["coefficients"].copy(), state["curvature"].copy()

    def _features(self, item_ids: Ints, ranks: Ints) -> Doubles:
        """(B, LEVELS + 1): the level of the rank, one of them 1, and the item's log odds beside the traffic's."""
        others, own = self._counts[:, buckets_of(item_ids)]
        odds: Doubles = (own + PSEUDO * self._share) / (others + PSEUDO * (1 - self._share))
        levels: Ints = np.clip(np.ceil(np.log2(np.maximum(ranks, 1)) / 2).astype(np.int64), 0, LEVELS - 1)
        return np.column_stack((np.eye(LEVELS)[levels], np.log(odds) - logit(self._share)))

    def _chances(self, features: Doubles) -> Doubles:
        """P(own arm | example), (B,)."""
        steps = np.clip(logit(self._share) + features @ self._coefficients, -FARTHEST, FARTHEST)
        chances: Doubles = expit(steps)
        return chances

    def _learn(self, features: Doubles, chances: Doubles, is_own: Ints, item_ids: Ints) -> None:
        """One Newton step, with a curvature that forgets down to the ridge; then count the items."""
        memory = 2.0 ** (-len(is_own) / HALF_LIFE)
        curvature = (features * (chances * (1 - chances))[:, np.newaxis]).T @ features
        self._curvature = memory * self._curvature + (1 - memory) * RIDGE * np.eye(LEVELS + 1) + curvature
        self._coefficients += np.linalg.solve(self._curvature, features.T @ (is_own - chances))
        self._counts *= memory
        np.add.at(self._counts, (is_own, buckets_of(item_ids)), 1)


def buckets_of(item_ids: Ints) -> Ints:
    """The bucket of each id, by multiplicative hashing (Knuth, TAOCP 3, 6.4).

    >>> buckets_of(np.array([0, 1, 2, -1])).tolist()
    [0, 40503, 15470, 25032]
    """
    product = item_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (product >> np.uint64(48)).astype(np.int64)
