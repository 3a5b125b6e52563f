"""Looking at an experiment several times before its end, at a false alarm rate that is still the one stated.

At each look the cumulative effect is judged against a bound. The bounds together let alpha through where there is no
effect, and an alpha-spending function says how much of it each look may use [LD83].

Textbook bounds take the effects to have independent increments: each look adds new users. Ours come back on several
days, and what they did on the first day says much about the third. So nothing is assumed: each bound is solved from
the joint covariance of the cumulative effects at the looks so far. With independent increments it is the textbook one.

How far along a look is, is a share of the days planned (`fractions`), [LD89]'s calendar time: it is known before the
start, so effects cannot move it, and it need not be the statistical information, since the covariance, and not the
share, sets the bound. What follows from that:
    Fewer users than planned: power is lost, the error rate is not.
    A look left out: the next one may spend what both would have.
    More days than planned: the share stays 1 and nothing is left to spend; later looks have an infinite bound.
    Ended early: what has not been spent is lost, unless the last look is declared the final one before it is looked at
        (`final`; share 1): it then spends the rest.

Sources:
    [LD83] Lan, DeMets: Discrete sequential boundaries for clinical trials. Biometrika 70(3), 1983.
    [LD89] Lan, DeMets: Group sequential procedures: calendar versus information time. Statistics in Medicine 8, 1989.
    [JT00] Jennison, Turnbull: Group Sequential Methods with Applications to Clinical Trials. Chapman & Hall 2000.
    [LA08] Liu, Anderson: On adaptive extensions of group sequential trials for clinical investigations. JASA 103, 2008.
    [MB13] Maurer, Bretz: Multiple testing in group sequential trials using graphical approaches. Statistics in
        Biopharmaceutical Research 5(4), 2013.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri

from abtest.stats.effects import ALPHA, LARGEST_LOG
from abtest.stats.moments import Floats
from abtest.stats.multinormal import SMALLEST, correlation, falling_root, rectangle

Spending = Literal["obrien-fleming", "pocock"]
GRID = 200
LARGEST_P = 0.6  # above it bounds need not fall where alpha rises (O'Brien and Fleming's up to .63); 1 is given then


@dataclass(frozen=True)
class SequentialLook:
    """One look. `log_ratio`, its `std_error` and `low` to `high` are on the log scale; `relative`, `ci_low`, `ci_high`
    are the same as fractions of the control's value.

    `spent`: the alpha that this look and those before may let through together. `critical`: |z| from which the effect
    counts; infinite where there is nothing to spend. The interval is [JT00]'s repeated confidence interval (chapter
    9), the estimate ± `critical` standard errors: all looks' intervals hold the truth at once with probability
    1 − alpha, so it excludes 0 exactly where the bound is crossed. None: unbounded.
    """

    day: int
    fraction: float
    spent: float
    critical: float
    z: float
    crossed: bool
    log_ratio: float
    std_error: float
    low: float | None
    high: float | None
    relative: float
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class GroupSequential:
    """The looks so far. `stopped_at`: the day of the first look whose bound was crossed; None where none was.

    `p_value`: at most alpha exactly where a bound was crossed. It orders outcomes by the look they ended at, earlier
    before later, and then by |z| ([JT00] section 8.4): what looks before may let through, plus the probability to pass
    them and reach this |z|. It is told where the analysis has ended, at the first crossing or at the full share of the
    way; before that there is None, and `sequential_p_value` has one. `reason` says why one is missing.
    """

    looks: tuple[SequentialLook, ...]
    stopped_at: int | None
    p_value: float | None
    alpha: float = ALPHA
    spending: Spending = "obrien-fleming"
    reason: str | None = None


def fractions(days: Sequence[int], planned: int) -> Floats:
    """How far along looks after `days` (counted from 1) are, of `planned` days; 1 from the last planned one on.

    Raises:
        ValueError: the days do not rise, or one is below 1, or nothing is planned.

    >>> fractions([1, 2, 4, 6], 4).tolist()
    [0.25, 0.5, 1.0, 1.0]

    """
    if planned < 1 or any(day < 1 for day in days):
        raise ValueError(f"days {list(days)} of {planned}: days are counted from 1")
    if any(after <= before for before, after in pairwise(days)):
        raise ValueError(f"days {list(days)} must rise")
    return np.minimum(np.array(days, np.float64) / planned, 1.0)


def spent(fraction: Floats, alpha: float | Floats = ALPHA, spending: Spending = "obrien-fleming") -> Floats:
    """The alpha that may have been let through, on both sides together, by each share of the way.

    O'Brien and Fleming's: 4 − 4 Φ(z_{α/4} / √t), so 2 − 2 Φ(z_{(α/2)/2} / √t) a side; Pocock's: α ln(1 + (e − 1) t)
    ([LD83], α₁* and α₂*, each at α/2 a side).

    Raises:
        ValueError: the spending function is not known.

    >>> spent(np.array([0.5, 1.0])).round(5).tolist()
    [0.00305, 0.05]

    """
    if spending == "pocock":
        return np.asarray(alpha * np.log1p(math.expm1(1.0) * fraction), np.float64)
    if spending != "obrien-fleming":
        raise ValueError(f"spending is '{spending}'; allowed are obrien-fleming and pocock")
    return np.asarray(4 * ndtr(ndtri(alpha / 4) / np.sqrt(fraction)), np.float64)


def boundaries(
    covariance: Floats, information: Floats, alpha: float = ALPHA, spending: Spending = "obrien-fleming"
) -> Floats:
    """Critical values c (..., L) of |z| at the looks done so far: look k counts where |z_k| ≥ c_k.

    Solves P(|Z_j| < c_j for all j < k, |Z_k| ≥ c_k) = α*(t_k) − α*(t_{k−1}) for k = 1, 2, … ([LD83], section 2), Z
    normal with the correlations given. Each depends on looks up to its own alone, so a later look moves none of them
    but by what it adds to the estimate of their covariance. A look at which nothing is left to spend has infinity.

    Args:
        covariance: (L, L) of the cumulative effects at the looks; or (A, L, L) of several, each as if it were alone.
        information: (L,) how far along each look is, in (0, 1]; it must not fall.
        alpha: two-sided.
        spending: how alpha is spread over the way.

    Raises:
        ValueError: the shapes or the values are not such.

    >>> t = np.arange(1, 6) / 5
    >>> increments = 1 / np.maximum.outer(t, t)  # of running means of independent values
    >>> boundaries(increments, t).round(2).tolist()
    [4.88, 3.36, 2.68, 2.29, 2.03]

    """
    correlations, information = _checked(covariance, information)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    looks, several = len(information), correlations.reshape(-1, *correlations.shape[-2:])
    steps = np.diff(spent(information, alpha, spending), prepend=0.0)
    return _boundaries(several, np.tile(steps[:, None], len(several))).T.reshape(*correlations.shape[:-2], looks)


def group_sequential(
    days: Sequence[int],
    effects: Floats,
    covariance: Floats,
    planned: int,
    alpha: float = ALPHA,
    spending: Spending = "obrien-fleming",
    final: bool = False,
    critical: Floats | None = None,
) -> GroupSequential:
    """The looks so far at a log ratio, judged.

    Args:
        days: (L,) after which was looked, counted from 1; those that the plan names, and no others.
        effects: (L,) cumulative log ratios of treatment over control.
        covariance: (L, L) theirs, such as `abtest.stats.novelty.course` gives for the metrics of
            `abtest.stats.cumulative.so_far`.
        planned: days that the experiment was planned to take.
        alpha: two-sided, over all looks together.
        spending: how alpha is spread over the way.
        final: the last look is the last one there will be, though the planned days are not over; this must have been
            said before it was looked at.
        critical: (L,) its `boundaries`, where they are known; several effects' are had together for little more than
            one's.

    Raises:
        ValueError: the days do not rise, or the covariance is none.

    >>> t = np.arange(1, 4) / 3
    >>> found = group_sequential([1, 2, 3], np.array([0.02, 0.03, 0.025]), 1e-4 / np.maximum.outer(t, t), 3)
    >>> found.stopped_at, [round(look.critical, 2) for look in found.looks], round(found.p_value, 3)
    (3, [3.71, 2.51, 1.99], 0.02)

    """
    if not len(days):
        return GroupSequential((), None, None, alpha, spending, "no look yet has an effect")
    information = fractions(days, planned)
    if final:
        information[-1] = 1.0
    if critical is None:
        critical = boundaries(covariance, information, alpha, spending)
    errors = np.sqrt(np.diag(covariance))
    z = np.asarray(effects, np.float64) / errors
    spending_so_far = spent(information, alpha, spending)
    looks = tuple(
        _look(*values)
        for values in zip(
            map(int, days),
            *(x.tolist() for x in (information, spending_so_far, critical, z, effects, errors)),
            strict=True,
        )
    )
    crossed = next((look.day for look in looks if look.crossed), None)
    ended = next((k for k, look in enumerate(looks) if look.crossed or look.fraction == 1), None)
    if ended is None:
        return GroupSequential(
            looks, None, None, alpha, spending, "no bound is crossed yet, and looks are still to come"
        )
    order = range(ended, -1, -1)
    others = critical[:ended][::-1]
    low, high = np.concatenate([[-np.inf], -others]), np.concatenate([[-abs(z[ended])], others])
    p_value = 2 * float(rectangle(correlation(covariance)[np.ix_(order, order)], low, high))
    p_value += looks[ended - 1].spent if ended else 0.0
    return GroupSequential(looks, crossed, p_value if crossed is None else min(p_value, alpha), alpha, spending)


def sequential_p_value(
    z: Floats, covariance: Floats, information: Floats, spending: Spending = "obrien-fleming"
) -> float:
    """The least alpha at which some look so far crosses its bound ([LA08]); it never rises from look to look.

    It holds at whatever look one stops, and Holm's correction of several metrics' holds with it ([MB13]). From .6 on it
    is 1: with more alpha to spend, bounds need not fall. To 1 % of itself or better; some three times as dear as
    `boundaries`.

    Args:
        z: (L,) the effects over their standard errors.
        covariance: (L, L) theirs.
        information: (L,) as for `boundaries`.
        spending: as for `boundaries`.

    Raises:
        ValueError: as for `boundaries`.

    >>> t = np.arange(1, 4) / 3
    >>> round(sequential_p_value(np.array([1.0, 1.5, 2.0]), 1 / np.maximum.outer(t, t), t), 3)
    0.049

    """
    correlations, information = _checked(covariance, information)
    z = np.abs(np.asarray(z, np.float64))
    own = np.maximum(2 * ndtr(-z), SMALLEST)
    # where look k touches its bound, `own` is at most spent(t_k) and at least what look k may spend
    grid = np.geomspace(*_around(own, information, np.geomspace(SMALLEST, LARGEST_P, GRID), spending), GRID)
    levels = np.geomspace(*_around(own, information, grid, spending), 4)
    for _ in range(2):
        steps = np.diff(spent(information[:, None], levels, spending), prepend=0.0, axis=0)
        short = (_boundaries(correlations, steps) - z[:, None]).min(axis=0)  # of the nearest look's bound; falls
        if short[-1] > 0:
            return 1.0
        place = int(np.argmax(short <= 0))
        if place == 0:
            break
        levels = np.geomspace(levels[place - 1], levels[place], 4)
        share = short[place - 1] / (short[place - 1] - short[place])
    else:
        return float(levels[0] ** (1 - share) * levels[-1] ** share)
    return float(levels[0])


def _boundaries(correlations: Floats, steps: Floats) -> Floats:
    """Critical values (L, A) from what each look may spend, (L, A): of one's (L, L) correlations, or of A ones'."""
    critical = np.full(steps.shape, np.inf)
    before: list[int] = []  # looks with a bound
    for k, step in enumerate(steps):
        if (step > SMALLEST).all():
            order = [k, *reversed(before)]
            critical[k] = _critical(correlations[..., order, :][..., order], critical[before[::-1]], step)
            before.append(k)
    return critical


def _critical(correlations: Floats, others: Floats, step: Floats) -> Floats:
    """The c (A,) with P(|Z_0| ≥ c, all |Z_j| < others_j) = step (A,); others (k, A), correlations as in `_boundaries`.

    By symmetry that probability is 2 P(Z_0 ≤ −c, …) = 2 Φ(−c) g(c), where g(c) = P(… | Z_0 ≤ −c) ≤ 1 falls in c: so the
    root lies below c⁺ = −Φ⁻¹(step/2) and above −Φ⁻¹(step/2 / g(c⁺)).
    """
    highest = np.asarray(-ndtri(step / 2), np.float64)
    if not len(others):
        return highest

    def log_exceeded(c: Floats) -> Floats:
        low, high = np.concatenate([np.full((1, len(c)), -np.inf), -others]), np.concatenate([-c[None], others])
        return np.asarray(np.log(np.maximum(2 * rectangle(correlations, low, high), SMALLEST) / step), np.float64)

    at_highest = np.minimum(log_exceeded(highest), 0.0)
    lowest = np.asarray(-ndtri(np.minimum(step / 2 / np.exp(at_highest), 0.5)), np.float64)
    return falling_root(log_exceeded, lowest, highest, at_highest)


def _around(own: Floats, information: Floats, levels: Floats, spending: Spending) -> tuple[float, float]:
    so_far = spent(information[:, None], levels, spending)
    may = (so_far >= own[:, None]).any(axis=0)
    must = (np.diff(so_far, prepend=0.0, axis=0) >= own[:, None]).any(axis=0)
    low = max(int(np.argmax(may)) - 1, 0) if may.any() else len(levels) - 2
    return float(levels[low]), float(levels[int(np.argmax(must))] if must.any() else levels[-1])


def _checked(covariance: Floats, information: Floats) -> tuple[Floats, Floats]:
    correlations = correlation(covariance)
    information = np.asarray(information, np.float64)
    if information.shape != correlations.shape[-1:]:
        raise ValueError(f"{correlations.shape[-1]} looks need as many shares of the way, not {information.shape}")
    if (information <= 0).any() or (information > 1).any() or (np.diff(information) < 0).any():
        raise ValueError(f"shares of the way {information.tolist()} must lie above 0, at most at 1, and not fall")
    return correlations, information


def _look(
    day: int, fraction: float, spent_so_far: float, critical: float, z: float, log_ratio: float, std_error: float
) -> SequentialLook:
    margin = critical * std_error
    crossed = abs(z) >= critical
    relative = math.expm1(min(log_ratio, LARGEST_LOG))
    if abs(log_ratio) + margin > LARGEST_LOG:
        return SequentialLook(
            day, fraction, spent_so_far, critical, z, crossed, log_ratio, std_error, None, None, relative, None, None
        )
    low, high = log_ratio - margin, log_ratio + margin
    ends = low, high, relative, math.expm1(low), math.expm1(high)
    return SequentialLook(day, fraction, spent_so_far, critical, z, crossed, log_ratio, std_error, *ends)
