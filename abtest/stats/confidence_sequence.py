"""Intervals that hold however often one looks: for a live view, where nobody says beforehand when they will.

With z = effect / standard error after N units of data, e = (1 + Nρ²)^(−1/2) exp(z² Nρ² / (2 (1 + Nρ²))) is a mixture of
likelihood ratios [R70]. Where there is no effect it ever reaches 1/alpha with probability alpha at most. The interval
holds every effect whose e stays below 1/alpha, which is [WS24] Theorem 2.2.

What is claimed, and what it rests on. The theorem is for the running mean of independent values, whose number is N:
two peeks at N₁ < N₂ then have a correlation of √(N₁/N₂). It is asymptotic: for large samples, in which the estimate is
normal and its standard error known. Two things break the simple picture:
    Users come back. From one peek to the next the users known grow in number, and what is known of them grows as well.
    With N the number of users, N stands still once all have come, while the effect moves on: nothing is claimed then.
    N has to be a count that grows at least as fast as the effect's memory fades: the correlation of two peeks must be
    √(N₁/N₂) or more. Then the effect strays on each side at most as often as the theorem's process does, by Slepian's
    inequality [S62]. Visits (recalls) are such a count wherever users stay as they are, since a lasting taste only
    makes peeks more alike; users are one only where each comes but once. `fits` says whether a joint covariance bears
    it out.
    Few users. Below some hundreds an arm, with heavy tails, the estimate is not normal yet. Do not look before.
How often it is wrong on longitudinal users, measured: `python -m benchmarks.abtest.peeking`.

Sources:
    [WS24] Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: Time-uniform central limit theory and asymptotic confidence
        sequences. Annals of Statistics 52(6), 2024, arXiv 2103.06476.
    [R70] Robbins: Statistical methods related to the law of the iterated logarithm. Annals of Mathematical Statistics
        41(5), 1970.
    [S62] Slepian: The one-sided barrier problem for Gaussian noise. Bell System Technical Journal 41, 1962.
"""

import math
from dataclasses import dataclass

import numpy as np

from abtest.stats.effects import ALPHA, LARGEST_LOG
from abtest.stats.moments import Floats
from abtest.stats.multinormal import correlation


@dataclass(frozen=True)
class AlwaysValid:
    """An effect, with an interval and a p-value that hold at any time one looks.

    `log_ratio` and `low` to `high` are on the log scale; `relative`, `ci_low`, `ci_high` are the same as fractions of
    the control's value. `critical`: the interval is so many standard errors wide on each side. `p_value`: p ≤ alpha
    exactly where the interval excludes 0. It is that of this moment; the least one so far holds as well. None where it
    cannot be had, and `reason` says why.
    """

    log_ratio: float | None = None
    std_error: float | None = None
    critical: float | None = None
    low: float | None = None
    high: float | None = None
    relative: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    reason: str | None = None
    alpha: float = ALPHA


def always_valid(effect_log: float, std_error: float, units: float, alpha: float, tuned_at: float) -> AlwaysValid:
    """The interval of a log ratio; of any other difference too, only that its relative numbers mean nothing then.

    Args:
        effect_log: the estimate so far.
        std_error: its standard error.
        units: N, the visits (recalls) so far in both arms together; users only where each comes once.
        alpha: the chance ever to miss the truth.
        tuned_at: the N at which the interval is to be narrowest, such as that expected at the planned end; it must not
            depend on effects, nor change from look to look.

    Raises:
        ValueError: units or tuned_at are not above 0, or alpha is not between 0 and 1.

    >>> found = always_valid(0.05, 0.015, 40_000, 0.05, tuned_at=100_000)
    >>> round(found.critical, 3), round(found.low, 4), round(found.high, 4), round(found.p_value, 4)
    (3.124, 0.0031, 0.0969, 0.0299)

    """
    if not std_error > 0 or not math.isfinite(effect_log) or not math.isfinite(std_error):
        return AlwaysValid(reason="no standard error above 0", alpha=alpha)
    pace = units * tuning(tuned_at, alpha)
    if not pace > 0:
        raise ValueError(f"{units} units: there must be some")
    critical = float(critical_values(np.array([units]), alpha, tuned_at)[0])
    z = effect_log / std_error
    p_value = math.exp(min(0.0, 0.5 * math.log1p(pace) - z * z * pace / (2 * (1 + pace))))
    margin = critical * std_error
    low, high = effect_log - margin, effect_log + margin
    if abs(effect_log) + margin > LARGEST_LOG:
        return AlwaysValid(
            effect_log,
            std_error,
            critical,
            low,
            high,
            p_value=p_value,
            reason="too wide to tell as a relative difference",
            alpha=alpha,
        )
    ends = math.expm1(effect_log), math.expm1(low), math.expm1(high)
    return AlwaysValid(effect_log, std_error, critical, low, high, *ends, p_value, alpha=alpha)


def critical_values(units: Floats, alpha: float, tuned_at: float) -> Floats:
    """How many standard errors the interval reaches to each side after `units` (L,): √((Nρ²+1)/(Nρ²) ln((Nρ²+1)/α²)).

    That is [WS24] Theorem 2.2, divided by σ̂/√N.

    >>> critical_values(np.array([1e3, 1e4, 1e5]), 0.05, 1e4).round(2).tolist()
    [3.86, 3.04, 3.24]
    """
    pace = np.asarray(units, np.float64) * tuning(tuned_at, alpha)
    return np.asarray(np.sqrt((pace + 1) / pace * (np.log1p(pace) - 2 * math.log(alpha))), np.float64)


def tuning(tuned_at: float, alpha: float = ALPHA) -> float:
    """The ρ² that makes the interval narrowest after `tuned_at` units: (−2 ln α + ln(1 − 2 ln α)) / N.

    [WS24], appendix on the choice of ρ; the approximation of Lambert's function there.

    Raises:
        ValueError: tuned_at is not above 0, or alpha is not between 0 and 1.

    >>> round(tuning(1.0), 3)
    7.936

    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    if not 0 < tuned_at < math.inf:
        raise ValueError(f"tuned at {tuned_at} units; there must be some")
    return (-2 * math.log(alpha) + math.log1p(-2 * math.log(alpha))) / tuned_at


def fits(covariance: Floats, units: Floats) -> float:
    """The least of corr(effect_j, effect_k) − √(N_j/N_k) over the peeks j < k; what is claimed needs it not below 0.

    Args:
        covariance: (L, L) of the cumulative effects at the peeks.
        units: (L,) N at them, rising.

    Raises:
        ValueError: the covariance is none.

    >>> round(fits(np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([1.0, 2.0])), 9) + 0.0  # independent values, once each
    0.0

    """
    units = np.asarray(units, np.float64)
    expected = np.sqrt(np.minimum.outer(units, units) / np.maximum.outer(units, units))
    return float((correlation(covariance) - expected)[np.triu_indices(len(units), 1)].min(initial=1.0))
