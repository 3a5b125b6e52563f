"""Pure parts of the serving benchmarks: schedules, percentiles, windows of swaps, the search for the largest rate."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.features import Floats

P99_LIMIT_MS = 25.0
KEEPS_UP = 0.98  # of the offered rate


class Try(NamedTuple):
    """A rate that was tried, and whether it was good."""

    rate: float
    good: bool


def schedule(rate: float, seconds: float, seed: int) -> Floats:
    """When to send, in seconds from the start: bursts are as of independent users.

    It is a Poisson process given its number of arrivals, so that the rate is the one that was asked for.

    >>> schedule(2.0, 2.0, 0).round(2).tolist()
    [0.03, 0.08, 0.54, 1.27]
    """
    times: Floats = np.sort(np.random.default_rng(seed).uniform(0, seconds, round(rate * seconds)))
    return times


def percentiles(seconds: Floats) -> dict[str, float | None]:
    """p50, p99 and the largest of latencies, in ms; None where there are none.

    >>> percentiles(np.array([0.001, 0.002, 0.009]))
    {'p50_ms': 2.0, 'p99_ms': 9.0, 'max_ms': 9.0}
    """
    if not seconds.size:
        return {"p50_ms": None, "p99_ms": None, "max_ms": None}
    quantiles = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(1000 * float(np.quantile(seconds, q, method="higher")), 2) for name, q in quantiles.items()}


def overlapping(began_s: Floats, ended_s: Floats, windows: Sequence[tuple[float, float]]) -> npt.NDArray[np.bool_]:
    """Which of the requests, from `began_s` to `ended_s`, were under way in one of the windows.

    >>> overlapping(np.array([0.0, 1.0, 3.0]), np.array([0.9, 2.1, 3.1]), [(2.0, 2.5)]).tolist()
    [False, True, False]
    """
    overlaps = np.zeros(len(began_s), np.bool_)
    for start_s, end_s in windows:
        overlaps |= (began_s <= end_s) & (ended_s >= start_s)
    return overlaps


def good(figures: Mapping[str, float | None], limit_ms: float | None = P99_LIMIT_MS) -> bool:
    """Whether a rate was served: none failed, none was left behind, and p99 within the limit, if there is one.

    >>> good({"sent": 10, "ok": 10, "offered_rate": 5, "achieved_rate": 5, "p99_ms": 30}), good({"sent": 1, "ok": 0})
    (False, False)
    """
    if not figures["sent"] or figures["ok"] != figures["sent"]:
        return False
    keeps_up = (figures["achieved_rate"] or 0) >= KEEPS_UP * (figures["offered_rate"] or 0)
    return keeps_up and (limit_ms is None or (figures["p99_ms"] or 0) <= limit_ms)


def next_rate(tried: Sequence[Try], first: float, precision: float, lowest: float = 1.0) -> float | None:
    """What to try next on the way to the largest good rate; None: it is known as well as it should be.

    Rates double or halve until the largest good one is enclosed; then the enclosure is halved until its ends differ by
    no more than `precision`. A rate that was bad once is bad, and so is all above it.

    >>> next_rate([], 100, 0.1), next_rate([Try(100, True)], 100, 0.1), next_rate([Try(100, False)], 100, 0.1)
    (100, 200, 50.0)
    >>> next_rate([Try(100, True), Try(121, False)], 100, 0.1), next_rate([Try(100, True), Try(109, False)], 100, 0.1)
    (110.0, None)
    """
    if not tried:
        return first
    bad = min((each.rate for each in tried if not each.good), default=None)
    best = largest(tried)
    if bad is None:
        return best * 2
    if best == 0:
        return bad / 2 if bad / 2 >= lowest else None
    return None if bad / best <= 1 + precision else round((bad * best) ** 0.5, 1)


def largest(tried: Sequence[Try]) -> float:
    """The largest rate that was good, and below all that were bad; 0 where none was.

    >>> largest([Try(100, True), Try(200, False), Try(300, True)]), largest([])
    (100, 0.0)
    """
    bad = min((each.rate for each in tried if not each.good), default=np.inf)
    return max((each.rate for each in tried if each.good and each.rate < bad), default=0.0)


def ratio(one: float | None, other: float | None) -> float | None:
    """One over the other, where both are there.

    >>> ratio(3.0, 2.0), ratio(None, 2.0), ratio(3.0, 0.0)
    (1.5, None, None)
    """
    return round(one / other, 3) if one is not None and other else None
