"""Whether users fell into the arms as planned; and the names of what the statistics are built from.

Sources:
    [F19] Fabijan et al.: Diagnosing Sample Ratio Mismatch in Online Controlled Experiments. KDD 2019.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from abtest.stats.effects import ALPHA, POWER, Effect, compare, minimum_detectable
from abtest.stats.estimates import Estimate, mean_estimate, ratio_estimate
from abtest.stats.moments import Floats, Moments

__all__ = [
    "ALPHA",
    "POWER",
    "SRM_ALPHA",
    "Effect",
    "Estimate",
    "Floats",
    "Moments",
    "Split",
    "compare",
    "mean_estimate",
    "minimum_detectable",
    "ratio_estimate",
    "split_check",
]

SRM_ALPHA = 0.001  # [F19]: a check on every report needs a threshold that rarely cries wolf


@dataclass(frozen=True)
class Split:
    """Whether users fell into the arms as the weights say. `p_value` None: not testable, `reason` says why."""

    users: dict[str, int]
    expected: dict[str, float]
    p_value: float | None
    mismatch: bool
    reason: str | None = None


def split_check(users: Mapping[str, int], weights: Mapping[str, float]) -> Split:
    """χ² test of users per arm against the arms' weights ([F19]); a mismatch at p < .001.

    >>> split_check({"a": 5000, "b": 5000}, {"a": 1, "b": 1}).p_value
    1.0
    >>> split_check({"a": 5000, "b": 5500}, {"a": 1, "b": 1}).mismatch
    True
    """
    total, weight = sum(users.values()), sum(weights.values())
    if total == 0:
        return Split(dict(users), dict.fromkeys(weights, 0.0), None, mismatch=False, reason="no users in any arm")
    expected = {arm: total * weights[arm] / weight for arm in weights}
    observed = np.array([users.get(arm, 0) for arm in weights], np.float64)
    planned = np.array(list(expected.values()))
    # as scipy.stats.chisquare, without the millisecond that its wrapper takes: reports ask for days and replicas
    p_value = float(chdtrc(len(planned) - 1, ((observed - planned) ** 2 / planned).sum()))
    return Split({arm: users.get(arm, 0) for arm in weights}, expected, p_value, mismatch=p_value < SRM_ALPHA)
