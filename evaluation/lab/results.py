"""What weeks came to: effective view rates, what is between policies, and how sure that is. Values only.

A policy's effective view rate (EVR) is effective views / items shown, a ratio of sums over users. Policies that met the
same users are compared by pairs: their difference has the variance of the difference of two ratio estimates of one
sample of users, by the delta method (`abtest.stats.estimates`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from statsmodels.duration.survfunc import SurvfuncRight

from abtest.stats.effects import Effect, compare, quantile
from abtest.stats.estimates import Estimate, covariance, ratio_estimate
from abtest.stats.moments import Moments
from contracts.features import Ints
from contracts.runtime.clock import HOUR_MS
from world.base import Doubles

if TYPE_CHECKING:
    from evaluation.lab.policy import Published
    from evaluation.lab.shown import Shown

ALPHA = 0.05
AUDIENCE = 5  # effective views after which a new item has found its audience

# What policies are compared by, all of it over items shown: effective views, play time in seconds, follows.
Rate = Literal["evr", "play_s", "follow_rate"]
RATES: tuple[Rate, ...] = get_args(Rate)


@dataclass(frozen=True)
class Outcome:
    """One policy's week."""

    policy: str
    seed: int
    everybody: bool  # whether every user got it; else it shared them with another
    user_ids: Ints  # (U,) sorted
    views: Ints  # (U, D) items shown, by day of the experiment
    effective: Ints  # (U, D) effective views among them
    shown: "Shown"  # what that was, and what else came of it
    publications: "tuple[Published, ...]"  # in the experiment, the start's included
    learned: int  # examples
    born_ms: dict[int, int]  # when each item came that was born in the experiment
    viewed_ms: dict[int, tuple[int, ...]]  # effective views of these
    start_ms: int
    end_ms: int
    cpu_s: float  # the world's included
    world_cpu_s: float

    @property
    def evr(self) -> float:
        """Over the whole experiment."""
        return self.rate("evr")

    def rate(self, rate: Rate) -> float:
        """Over the whole experiment."""
        return float(self.earned(rate).sum() / self.views.sum())

    def earned(self, rate: Rate) -> Doubles:
        """(U,) what each user gave, which over the items shown is the rate."""
        match rate:
            case "evr":
                earned: Ints = self.effective.sum(1)
                return earned.astype(np.float64)
            case "play_s":
                return self.shown.play_ms / 1000
            case "follow_rate":
                return self.shown.follows.astype(np.float64)

    @property
    def evr_by_day(self) -> list[float | None]:
        """(D,) None for a day on which nothing was shown."""
        shown = self.views.sum(0)
        return [int(e) / int(n) if n else None for e, n in zip(self.effective.sum(0), shown, strict=True)]

    @property
    def live(self) -> int:
        """Publications after the start that went live."""
        return sum(each.passed and not each.replaced for each in self._later)

    @property
    def held(self) -> int:
        """Publications after the start that the gate held."""
        return sum(not each.passed for each in self._later)

    @property
    def _later(self) -> "Iterable[Published]":
        return (each for each in self.publications if each.time_ms > self.start_ms)


class Difference(NamedTuple):
    """What policy `of` earned more than `beside`, of the same users, with an interval over users."""

    of: str
    beside: str
    seed: int
    difference: float  # of the rate
    std_error: float
    low: float
    high: float
    relative: float  # of `beside`'s rate; not a number where that is 0
    relative_low: float
    relative_high: float


class OverSeeds(NamedTuple):
    """A mean over seeds; its standard error is None where there is but one."""

    mean: float
    std_error: float | None
    seeds: int


class Audience(NamedTuple):
    """How new items fared."""

    born: int  # in the experiment
    found: int  # of them, those with `AUDIENCE` effective views by its end
    median_h: float | None  # from birth to that view (Kaplan-Meier); None where half of them never get there


def difference(of: Outcome, beside: Outcome, rate: Rate = "evr") -> Difference:
    """Two policies on the same users, by one rate.

    Raises:
        ValueError: they met other users.

    """
    if of.seed != beside.seed or not np.array_equal(of.user_ids, beside.user_ids):
        raise ValueError("only policies that met the same users are compared by pairs")
    columns = ("of_earned", "of_views", "beside_earned", "beside_views")
    sums = [of.earned(rate), of.views.sum(1), beside.earned(rate), beside.views.sum(1)]
    moments = Moments.of(columns, np.stack(sums, axis=1).astype(np.float64))
    ours, theirs = ratio_estimate(moments, *columns[:2]), ratio_estimate(moments, *columns[2:])
    if ours.value is None or theirs.value is None or ours.influence is None or theirs.influence is None:
        raise ValueError("a policy that has shown nothing cannot be compared")
    reach = quantile(ALPHA / 2, moments.n - 1)
    apart = ours.value - theirs.value
    error = _error(moments, ours, theirs, 1.0)
    ratio = ours.value / theirs.value if theirs.value else float("nan")
    relative_error = _error(moments, ours, theirs, ratio) / theirs.value if theirs.value else float("nan")
    return Difference(
        of.policy, beside.policy, of.seed, apart, error, apart - reach * error, apart + reach * error,
        ratio - 1, ratio - 1 - reach * relative_error, ratio - 1 + reach * relative_error,
    )  # fmt: skip


def _error(moments: Moments, ours: Estimate, theirs: Estimate, weight: float) -> float:
    """Standard error of ours - weight · theirs."""
    pairs = (covariance(moments, ours, ours), covariance(moments, theirs, theirs), covariance(moments, ours, theirs))
    variance = pairs[0] + weight**2 * pairs[1] - 2 * weight * pairs[2]
    return float(np.sqrt(max(variance, 0.0)))  # rounding may fall below zero


def differences(outcomes: Sequence[Outcome], rate: Rate = "evr") -> list[Difference]:
    """Of all pairs of policies that everybody got, the later one beside the earlier, seed by seed."""
    found = []
    for seed in dict.fromkeys(each.seed for each in outcomes):
        alike = [each for each in outcomes if each.seed == seed and each.everybody]
        found += [difference(later, earlier, rate) for earlier, later in combinations(alike, 2)]
    return found


def shared_effect(control: Outcome, treatment: Outcome) -> Effect:
    """What an A/B test says of two policies that shared the users, by the report's own statistics."""
    return compare(_own(treatment), _own(control), (treatment.policy, control.policy))


def _own(outcome: Outcome) -> Estimate:
    """A policy's estimate over the users that it served."""
    served = outcome.views.sum(1) > 0
    sums = np.stack([outcome.effective.sum(1), outcome.views.sum(1)], axis=1)[served].astype(np.float64)
    return ratio_estimate(Moments.of(("effective_views", "views"), sums), "effective_views", "views")


def over_seeds(values: Sequence[float]) -> OverSeeds:
    """Mean and standard error.

    >>> over_seeds([1.0, 3.0]), over_seeds([2.0])
    (OverSeeds(mean=2.0, std_error=1.0, seeds=2), OverSeeds(mean=2.0, std_error=None, seeds=1))
    """
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return OverSeeds(float(np.mean(values)), error, len(values))


def audience(outcome: Outcome) -> Audience:
    """How long the items that were born in the experiment took to find their audience."""
    if not outcome.born_ms:
        return Audience(0, 0, None)
    waits, found = [], []
    for item, born_ms in outcome.born_ms.items():
        views = sorted(outcome.viewed_ms.get(item, ()))
        reached = len(views) >= AUDIENCE
        # Plays that a last visit began go on for a while after the end.
        until_ms = views[AUDIENCE - 1] if reached else max(outcome.end_ms, born_ms)
        waits.append((until_ms - born_ms) / HOUR_MS)
        found.append(reached)
    median = float(SurvfuncRight(waits, np.array(found, np.int64)).quantile(0.5)) if any(found) else float("nan")
    return Audience(len(found), sum(found), median if np.isfinite(median) else None)
