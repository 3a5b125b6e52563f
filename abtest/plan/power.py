"""How many users and days an experiment needs, and what it could find: planned before it starts.

What is planned is a relative effect, on the log scale on which the report tests it. With spread s² (the relative
variance of the metric from one user), n users and shares w_t, w_c of the two arms, a log ratio has the variance

    σ² = s² (1 − variance removed by CUPED) (1/w_t + 1/w_c) / n

and an effect is found with the probability wanted where log(1 + effect) = δ σ. For one look, δ = z_{α/2} + z_{power},
the far tail left out ([CSW08] section 3.2). For several, δ is solved from the bounds and the looks' covariance, and
(δ / δ of one look)² is the inflation: so many more users are the price of being allowed to look ([JT00] section 2.2).

Sources:
    [CSW08] Chow, Shao, Wang: Sample Size Calculations in Clinical Research. Chapman & Hall 2008.
    [JT00] Jennison, Turnbull: Group Sequential Methods with Applications to Clinical Trials. Chapman & Hall 2000.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import gammainccinv, gammaincinv

from abtest.format import counted
from abtest.stats.columns import Column
from abtest.stats.confidence_sequence import critical_values
from abtest.stats.cumulative import FIRST, so_far, sums_so_far
from abtest.stats.effects import ALPHA, POWER, quantile
from abtest.stats.estimates import SMALLEST
from abtest.stats.group_sequential import boundaries, fractions
from abtest.stats.metrics import FEW, LARGEST_SHARE, Mean, Ratio
from abtest.stats.moments import Floats, Moments
from abtest.stats.multinormal import correlation, falling_root, rectangle
from contracts.config.metric_plan import LARGEST_EFFECT

Kind = Literal["fixed", "group-sequential", "confidence-sequence"]
POINTS = 1024
STEPS, LARGEST = 60, 20.0  # of a fixed point; the largest log ratio it may pass through
MOST_USERS = 10**15  # of an arm; more are no plan


@dataclass(frozen=True)
class Baseline:
    """What is known of a metric beforehand, as it would stand after each of D days, users of all arms together.

    `users` (D,): distinct users so far. `visits` (D,): visits so far (recalls, or user-days). `spread` (D,): variance
    of the metric's logarithm, times users. `correlations` (D, D): of the metric's values so far.
    """

    users: Floats
    visits: Floats
    spread: Floats
    correlations: Floats

    @property
    def days(self) -> int:
        """How many days are known."""
        return len(self.users)


@dataclass(frozen=True)
class Plan:
    """An experiment planned. `by_day` (D,): the smallest relative effect found, had it been planned to take d + 1 days.

    None of `by_day` where only one beyond `LARGEST_EFFECT` would be. `days`: the fewest that find `effect` and bring
    `least_users`; None where none of the days known does. `users`: per arm, as many as would be needed if it took all
    the days known: more traffic in the same rhythm; empty where that is more than `MOST_USERS`. `least_users`: of an
    arm, below which the verdict's rule (docs/verdict.md) ships nothing, see `least_users`; `by_rule`: whether that, and
    not the effect, asks for `users`. `inflation`: users over those that one look at the end needs, for all the days.
    `reason`: why `days` is missing.
    """

    kind: Kind
    effect: float
    alpha: float
    power: float
    days: int | None
    users: dict[str, int]
    inflation: float
    by_day: tuple[float | None, ...]
    users_by_day: tuple[int, ...]
    reason: str | None = None
    least_users: int = FEW
    by_rule: bool = False


def measured(
    metric: Mean | Ratio, moments: Moments, days: int, traffic: float = 1.0, visits: str = "recalls"
) -> Baseline:
    """The baseline from moments of a past period's columns by day (views@0, …, first@0), such as a week.

    Args:
        metric: what is planned for.
        moments: over the users of that period, however many.
        days: of that period.
        traffic: users of the experiment over those of the period.
        visits: the column that counts visits.

    Raises:
        ValueError: on some day there is no value above 0, or no variance.
        KeyError: a column is not there.

    >>> values = np.array([[1, 0, 2, 0, 1, 0], [1, 0, 4, 5, 2, 1], [0, 1, 0, 3, 0, 2.0]])
    >>> columns = [Column(name, day) for name in ("first", "x", "recalls") for day in range(2)]
    >>> past = Moments.of(columns, values)
    >>> measured(Mean("x", "x", "", "", "x"), past, 2, traffic=1000).users.round().tolist()
    [2000.0, 3000.0]

    """
    looks = [so_far(metric, day) for day in range(days)]
    counted = Mean("visits", "", "", "", visits)
    so_far_by_day = moments.sums(dict(sums_so_far([metric, counted], range(days))).items())
    estimates = [look.estimate(so_far_by_day) for look in looks]
    if any(e.value is None or e.value < SMALLEST or not e.variance or e.influence is None for e in estimates):
        raise ValueError(f"{metric.name} has no value above 0 with a variance after each of {days} days")
    W = np.stack([e.influence / e.value for e in estimates if e.influence is not None and e.value is not None])
    covariance = W @ so_far_by_day.covariances @ W.T / so_far_by_day.n
    users, seen = (
        np.array([so_far_by_day.total(Column(column, through=day)) for day in range(days)])
        for column in (FIRST, visits)
    )
    spread: Floats = np.diag(covariance) * users
    return Baseline(traffic * users, traffic * seen, spread, correlation(covariance))


def steady(
    mean: float, variance: float, users_per_day: float, days: int, returning: float = 0.0, within: float = 0.0
) -> Baseline:
    """The baseline from a few numbers, where there is no past period at hand.

    A user who has come on a days by day d has a mean over these with the variance variance · (1 + (a − 1) within) / a;
    a is taken as the same for all, the mean over users.

    Args:
        mean: of a user's value on a day.
        variance: of a user's value on a day, over users.
        users_per_day: who come on a day.
        days: for how many to plan.
        returning: share of a day's users who had come on a day before, from the second day on.
        within: correlation of one user's values on two days.

    Raises:
        ValueError: a number is out of its range.

    >>> steady(10.0, 400.0, 1000, 3, returning=0.8).users.round().tolist()
    [1000.0, 1200.0, 1400.0]

    """
    if not (mean > 0 and variance > 0 and users_per_day > 0 and days >= 1):
        raise ValueError("mean, variance, users_per_day and days must be above 0")
    if not (0 <= returning <= 1 and 0 <= within < 1):
        raise ValueError("returning must lie between 0 and 1, and within from 0 to below 1")
    day = np.arange(1, days + 1)
    users: Floats = np.asarray(users_per_day * (1 + (day - 1) * (1 - returning)), np.float64)
    visits: Floats = users_per_day * day.astype(np.float64)
    active = visits / users
    spread: Floats = variance / mean**2 * (1 + (active - 1) * within) / active
    information = users / spread
    correlations = np.sqrt(np.minimum.outer(information, information) / np.maximum.outer(information, information))
    return Baseline(users, visits, spread, correlations)


def plan(
    baseline: Baseline,
    weights: Mapping[str, float],
    control: str,
    effect: float,
    alpha: float = ALPHA,
    power: float = POWER,
    kind: Kind = "fixed",
    looks: Sequence[int] = (),
    variance_removed: float = 0.0,
    comparisons: int = 1,
    rate: float | None = None,
) -> Plan:
    """The plan that finds a relative `effect`, in the treatment arm with the least weight.

    Args:
        baseline: what is known of the metric.
        weights: of the arms.
        control: the arm that the others are judged against.
        effect: 0.01 is +1 % of the control; below 0 for a decrease.
        alpha: two-sided.
        power: probability to find the effect.
        kind: of the analysis.
        looks: days after which a group-sequential analysis looks, counted from 1; () is every day. The last day is
            always one.
        variance_removed: by CUPED, from 0 to below 1.
        comparisons: how many tests share alpha (Bonferroni; Holm's first step).
        rate: where the metric is a share of users who do something, that of the control: a treatment's spread is then
            that of its own share, (1 − p) / p ([CSW08] section 4.2, unpooled), and not the control's.

    Raises:
        ValueError: an argument is out of its range.

    >>> week = steady(mean=60.0, variance=8100.0, users_per_day=20_000, days=14, returning=0.7, within=0.4)
    >>> found = plan(week, {"control": 1, "t2diff": 1}, "control", 0.03)
    >>> found.days, found.users, round(found.by_day[0], 3)
    (7, {'control': 24660, 't2diff': 24660}, 0.061)

    """
    _check(weights, control, effect, alpha, power, variance_removed, comparisons)
    if rate is not None and not 0 < rate * max(1.0, 1 + effect) < 1:
        raise ValueError(f"a share of {rate:g} cannot change by {effect:+.0%}: both shares must lie between 0 and 1")
    alpha = alpha / comparisons
    whole = sum(weights.values())
    least = min(weight for arm, weight in weights.items() if arm != control)
    noise = baseline.spread * (1 - variance_removed) / baseline.users

    def errors_at(log_ratio: Floats) -> Floats:
        spread = 1.0 if rate is None else _relative_spread(rate, log_ratio)
        return np.asarray(np.sqrt(noise * (whole / least * spread + whole / weights[control])))

    errors = errors_at(np.full(baseline.days, math.log1p(effect)))
    drifts = [_drift(baseline, errors, day, alpha, power, kind, looks) for day in range(1, baseline.days + 1)]
    smallest = np.array(drifts) * errors
    for _ in range(0 if rate is None else STEPS):  # the error depends on the effect, and so the smallest on itself
        smallest = np.minimum(np.array(drifts) * errors_at(math.copysign(1.0, effect) * smallest), LARGEST)
    by_day = np.expm1(np.minimum(smallest, LARGEST))
    wanted = abs(math.log1p(effect))
    rule = [least_users(float(spread), effect, power, rate) for spread in baseline.spread]
    rarest = min(weights.values()) / whole
    days = next(
        (
            day
            for day, d in enumerate(drifts, 1)
            if d * errors[day - 1] <= wanted and baseline.users[day - 1] * rarest >= rule[day - 1]
        ),
        None,
    )
    with np.errstate(over="ignore"):
        for_effect = float(baseline.users[-1] * np.square(drifts[-1] * errors[-1] / wanted))
    needed = max(for_effect, rule[-1] / rarest)
    users = {arm: needed * weight / whole for arm, weight in weights.items()}
    too_many = not max(users.values()) <= MOST_USERS
    return Plan(
        kind,
        effect,
        alpha,
        power,
        days,
        {} if too_many else {arm: math.ceil(n * (1 - 1e-12)) for arm, n in users.items()},
        (drifts[-1] / one_look(alpha, power)) ** 2,
        tuple(each if each <= LARGEST_EFFECT else None for each in by_day.tolist()),
        tuple(int(n) for n in np.round(baseline.users)),
        None if days else f"{counted(baseline.days, 'day is', 'days are')} too few to find {effect:+.2%}",
        rule[-1],
        by_rule=rule[-1] / rarest > for_effect,
    )


def least_users(spread: float, effect: float, power: float, rate: float | None = None) -> int:
    """Users of an arm below which the verdict's rule (docs/verdict.md) ships too seldom, whatever the effect.

    An arm needs `FEW` users and `FEW` effective events, of which n / spread are expected, and no user may have more
    than `LARGEST_SHARE` of its sum. Events are taken to vary as Poisson's do: P(N >= k) = P(k, expected), the
    incomplete gamma function. Where the metric is a share of users, 1 / `LARGEST_SHARE` of them have to do it; else
    users are taken to be gamma distributed, with that mean and that variance, and the largest of n in two arms is at
    most their quantile at power^(1 / 2n).

    Args:
        spread: relative variance of the metric from one user.
        effect: relative; the treatment's share is that of the control changed by it.
        power: probability that an arm has enough of each.
        rate: the control's share, where the metric is a share of users.

    >>> least_users(0.36, 5.0, 0.8), least_users(100.0, 0.5, 0.8), least_users(99.0, 5.0, 0.8, rate=0.01)
    (34, 4338, 2340)

    """
    events = float(gammaincinv(FEW, power))
    if rate is not None:
        rarer = min(rate, rate * (1 + effect))
        doing = float(gammaincinv(1 / LARGEST_SHARE, power))
        return math.ceil(max(FEW, events * (1 - rarer) / rarer, doing / rarer))
    fewest = math.ceil(max(FEW, events * spread))

    def is_enough(users: int) -> bool:
        largest = spread * float(gammainccinv(1 / spread, -math.expm1(math.log(power) / (2 * users))))
        return largest <= LARGEST_SHARE * users

    most = fewest
    while not is_enough(most):
        most *= 2
    return bisect_left(range(fewest, most), True, key=is_enough) + fewest  # the more users, the less one can have


def _relative_spread(rate: float, log_ratio: Floats) -> Floats:
    """(1 − q) / q over (1 − p) / p for the share q that is `log_ratio` above p; 0 where that is 1 or more.

    >>> _relative_spread(0.05, np.log([1.0, 0.9])).round(3).tolist()
    [1.0, 1.117]
    """
    changed = np.minimum(rate * np.exp(log_ratio), 1.0)
    return np.asarray((1 - changed) / changed * rate / (1 - rate))


def one_look(alpha: float = ALPHA, power: float = POWER) -> float:
    """δ for one look: how many standard errors an effect must be worth.

    >>> round(one_look(), 3)
    2.802
    """
    return quantile(alpha / 2) + quantile(1 - power)


def drift(correlations: Floats, critical: Floats, errors: Floats, power: float = POWER) -> float:
    """δ for several looks: P(some |z_k| ≥ c_k) = power, z normal with means δ σ_L / σ_k and `correlations`.

    Args:
        correlations: (L, L) of the looks.
        critical: (L,) the c_k; infinite where nothing is judged.
        errors: (L,) the standard errors σ_k of the effects at the looks.
        power: to be reached by the last look.

    >>> t = np.arange(1, 6) / 5
    >>> independent = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    >>> pocock = drift(independent, np.full(5, 2.413), 1 / np.sqrt(t))
    >>> round((pocock / one_look()) ** 2, 2)  # five looks by Pocock's test: [JT00] table 2.2
    1.23

    """
    judged = np.flatnonzero(np.isfinite(critical))[::-1]
    correlations, c, pace = correlations[np.ix_(judged, judged)], critical[judged], errors[-1] / errors[judged]

    def missed(delta: Floats) -> Floats:
        means = pace[:, None] * delta
        inside = rectangle(correlations, -c[:, None] - means, c[:, None] - means, POINTS)
        return np.log(np.maximum(inside, 1e-12) / (1 - power))

    highest = np.array([float((c / pace).min()) + quantile(1 - power)])  # that look alone has the power
    lowest = np.array([quantile(1 - power)])
    return float(falling_root(missed, lowest, highest + 1e-9, missed(highest + 1e-9))[0])


def _drift(
    baseline: Baseline, errors: Floats, day: int, alpha: float, power: float, kind: Kind, looks: Sequence[int]
) -> float:
    if kind == "fixed":
        return one_look(alpha, power)
    days = [look for look in looks if look < day] + [day] if looks else list(range(1, day + 1))
    places = np.array(days) - 1
    correlations = baseline.correlations[np.ix_(places, places)]
    if kind == "group-sequential":
        critical = boundaries(correlations, fractions(days, day), alpha)
    elif kind == "confidence-sequence":
        critical = critical_values(baseline.visits[places], alpha, float(baseline.visits[day - 1]))
    else:
        raise ValueError(f"kind is '{kind}'; allowed are fixed, group-sequential and confidence-sequence")
    return drift(correlations, critical, errors[places], power)


def _check(
    weights: Mapping[str, float],
    control: str,
    effect: float,
    alpha: float,
    power: float,
    variance_removed: float,
    comparisons: int,
) -> None:
    if control not in weights or len(weights) < 2:
        raise ValueError(f"the arms {sorted(weights)} need the control '{control}' and another one")
    if min(weights.values()) <= 0:
        raise ValueError("every arm needs a weight above 0")
    if not -1 < effect < math.inf or effect == 0:
        raise ValueError(f"an effect of {effect} cannot be planned for; it must be above -1, and not 0")
    if not 0 < alpha < power < 1:
        raise ValueError(f"alpha {alpha} and power {power} must lie between 0 and 1, power above alpha")
    if not 0 <= variance_removed < 1:
        raise ValueError(f"variance_removed is {variance_removed}; it must lie from 0 to below 1")
    if comparisons < 1:
        raise ValueError("there must be a comparison")
