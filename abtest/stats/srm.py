"""Whether users fall into the arms as planned, asked every day: a check that may be looked at as often as one likes.

The plain χ² test of `abtest.stats.split` at p < .001 is right for one look. Looked at every day it cries wolf more
often. The sequential one does not: its p-value can be watched from the first user on.

Sources:
    [LM22] Lindon, Malek: Anytime-Valid Inference for Multinomial Count Data. NeurIPS 2022, arXiv 2011.03567.
    [F19] Fabijan et al.: Diagnosing Sample Ratio Mismatch in Online Controlled Experiments. KDD 2019.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from scipy.special import gammaln, logsumexp

from abtest.stats.moments import Floats
from abtest.stats.multiplicity import Correction, adjust
from abtest.stats.split import SRM_ALPHA, Split, split_check

CONCENTRATIONS = (10.0, 1_000.0)  # finds gross faults among a hundred users, and slight ones among many thousands

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class SequentialSplit:
    """The split day by day. `p_values` (D,): the running p-value after each day; it never rises.

    `mismatch`: the last one is below `alpha`. `since`: the first day on which it was, counted from 0.
    """

    p_values: tuple[float, ...]
    mismatch: bool
    since: int | None
    alpha: float = SRM_ALPHA

    @property
    def p_value(self) -> float:
        """After the last day; 1 before the first."""
        return self.p_values[-1] if self.p_values else 1.0


@dataclass(frozen=True)
class Splits(Generic[Key]):
    """The plain test in each of several parts, such as days or replicas.

    `adjusted`: p-values corrected for their number; None where a part cannot be tested. `mismatches`: the parts whose
    adjusted p-value is below the threshold.
    """

    parts: dict[Key, Split]
    adjusted: dict[Key, float | None]
    mismatches: tuple[Key, ...]


def sequential_split(
    new_users: Sequence[Mapping[str, int]],
    weights: Mapping[str, float],
    alpha: float = SRM_ALPHA,
    concentrations: Sequence[float] = CONCENTRATIONS,
) -> SequentialSplit:
    """The test by a mixture of multinomials, after each day.

    Args:
        new_users: for each day how many users each arm saw for the first time; a user counts once. An arm without
            users may be left out.
        weights: of the arms, as planned; they must stay the same from day to day.
        alpha: the chance that equal splits are ever called a mismatch.
        concentrations: of the mixture around the weights.

    Raises:
        ValueError: a weight or a concentration is not above 0, or a count is below 0.

    >>> even = sequential_split([{"a": 5000, "b": 5000}, {"a": 4950, "b": 5050}], {"a": 1, "b": 1})
    >>> even.mismatch, even.p_value
    (False, 1.0)
    >>> sequential_split([{"a": 5000, "b": 5500}, {"a": 5000, "b": 5500}], {"a": 1, "b": 1}).since
    0

    """
    counts = np.array([[day.get(arm, 0) for arm in weights] for day in new_users], np.float64).reshape(-1, len(weights))
    if (counts < 0).any():
        raise ValueError("users cannot be fewer than none")
    log_e = log_e_values(counts.cumsum(axis=0), np.array(list(weights.values()), np.float64), concentrations)
    p_values = np.exp(np.minimum(-np.maximum.accumulate(log_e), 0.0)) if len(log_e) else log_e
    below = p_values < alpha
    since = int(np.argmax(below)) if below.any() else None
    return SequentialSplit(tuple(p_values.tolist()), since is not None, since, alpha)


def log_e_values(counts: Floats, weights: Floats, concentrations: Sequence[float] = CONCENTRATIONS) -> Floats:
    """Logarithm of the mixture's likelihood over that of the planned split (...,), from users so far (..., arms).

    With θ the planned shares, a concentration s and a = s θ, [LM22] section 3:

        Γ(Σa) / Γ(Σ(a + x)) · Π Γ(a_i + x_i) / Γ(a_i) / Π θ_i^x_i

    Where users fall as planned it is a martingale, user by user, that starts at 1: it ever reaches 1/alpha with
    probability alpha at most. So is the mean over several concentrations: a large one has its eye on small deviations,
    which take many users to see, a small one on large. The order within a day does not matter.

    Raises:
        ValueError: a weight or a concentration is not above 0.

    >>> log_e_values(np.array([30.0, 0.0]), np.ones(2)).round(1)
    np.float64(11.7)

    """
    if not (weights > 0).all() or not all(s > 0 for s in concentrations):
        raise ValueError("weights and concentrations must be above 0")
    shares = weights / weights.sum()
    planned = (counts * np.log(shares)).sum(axis=-1)
    users = counts.sum(axis=-1)
    logs = [
        gammaln(s) - gammaln(s + users) + (gammaln(s * shares + counts) - gammaln(s * shares)).sum(axis=-1) - planned
        for s in concentrations
    ]
    return np.asarray(logsumexp(logs, axis=0) - np.log(len(logs)), np.float64)


def splits(
    users: Mapping[Key, Mapping[str, int]],
    weights: Mapping[str, float],
    correction: Correction = "holm",
    alpha: float = SRM_ALPHA,
) -> Splits[Key]:
    """The plain test ([F19]) in every part by itself: users first seen on each day, or answered by each replica.

    >>> found = splits({"replica-0": {"a": 500, "b": 510}, "replica-1": {"a": 900, "b": 500}}, {"a": 1, "b": 1})
    >>> found.mismatches
    ('replica-1',)
    """
    parts = {key: split_check(by_arm, weights) for key, by_arm in users.items()}
    adjusted = adjust({key: split.p_value for key, split in parts.items()}, correction)
    mismatches = tuple(key for key, p_value in adjusted.items() if p_value is not None and p_value < alpha)
    return Splits(parts, adjusted, mismatches)
