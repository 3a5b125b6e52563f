"""Candidate sources of one arm beside each other, such as T2Diff, DiffuRec and the two-tower model: Table 5 of [W25].

Made of moments of columns by source, such as views@t2diff, over all users of the arm, 0 where a source showed a user
nothing (an aggregate's part "source"), and of counts of whose items a user gave more (`Votes`). The sources share their
users, and a choosy user is choosy with all of them: the difference between two is told by their joint covariance.

No chance decided which item came from which source. A difference says how the items that a source contributed did, not
what the arm would be without it.

Sources:
    [W25] Wang et al.: T2Diff. WWW 2025, doi 10.1145/3696410.3714829, Table 5.
    [D18] Deng, Knoblich, Lu: Applying the Delta Method in Metric Analytics. KDD 2018, arXiv 1803.06336.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from abtest.stats.columns import Column, parts_of
from abtest.stats.effects import ALPHA, LARGEST_LOG, Effect, minimum_detectable, quantile, two_sided
from abtest.stats.estimates import Estimate, covariance, ratio_estimate
from abtest.stats.interleaving import Preference, preference_of_votes
from abtest.stats.moments import Floats, Moments

Ints: TypeAlias = npt.NDArray[np.int64]

VIEWS = "views"
RATIOS = {"evr": ("effective_views", 1.0), "follow_rate": ("follows", 1.0), "play_s_per_view": ("play_ms", 1e-3)}


@dataclass(frozen=True)
class Votes:
    """Users of one arm by whose items they gave more, for each two of S sources. `a + b`: of the users of both.

    `ahead` (S + 1, S + 1): users who gave the row's source more than the column's.
    `met` (S + 1, S + 1): users to whom the row's or the column's source showed something.
    The last row and column of both are of a source that shows nothing; those that come later began like it.
    """

    sources: tuple[str, ...]
    ahead: Ints
    met: Ints

    @classmethod
    def of(cls, sources: Sequence[str], earned: Floats, seen: npt.NDArray[np.bool_]) -> "Votes":
        """Votes of users.

        Args:
            sources: their names.
            earned: (users, S) what a source's items earned from a user, such as effective views.
            seen: (users, S) whether a source showed the user something.

        >>> Votes.of(["a", "b"], np.array([[2.0, 1.0], [0.0, 3.0]]), np.ones((2, 2), bool)).between("a", "b")
        (1, 1, 0)

        """
        votes, met = (np.pad(matrix, ((0, 0), (0, 1))) for matrix in (earned, seen))
        return cls(
            tuple(sources),
            np.array([(one[:, None] > votes).sum(axis=0) for one in votes.T], np.int64),
            np.array([(one[:, None] | met).sum(axis=0) for one in met.T], np.int64),
        )

    def __add__(self, other: "Votes") -> "Votes":
        """As if all users had been in one; a source that one of the two does not know showed nothing there."""
        names = tuple(sorted({*self.sources, *other.sources}))
        a, b = (
            np.array([votes.sources.index(n) if n in votes.sources else -1 for n in (*names, "")])
            for votes in (self, other)
        )
        return Votes(
            names,
            self.ahead[np.ix_(a, a)] + other.ahead[np.ix_(b, b)],
            self.met[np.ix_(a, a)] + other.met[np.ix_(b, b)],
        )

    def between(self, first: str, second: str) -> tuple[int, int, int]:
        """Users who gave `first` more than `second`, less, and as much; of those who were shown something of either."""
        i, j = self.sources.index(first), self.sources.index(second)
        wins, losses = int(self.ahead[i, j]), int(self.ahead[j, i])
        return wins, losses, int(self.met[i, j]) - wins - losses


@dataclass(frozen=True)
class SourceValue:
    """A measure of one source, its interval at 1 − alpha (None where it cannot be had: `estimate.reason` says why), and
    its difference to the reference, over the same users; None at the reference itself.
    """

    estimate: Estimate
    low: float | None
    high: float | None
    against: Effect | None


@dataclass(frozen=True)
class SourceResult:
    """One source. `values`: by name of `RATIOS`: effective view rate, follow rate, seconds played per view.

    `preference`: of users, for this source against the reference. It is team-draft interleaving's only if the two took
    turns in filling the list; a source with more places wins more users. None at the reference and without votes.
    """

    source: str
    values: Mapping[str, SourceValue]
    preference: Preference | None


def compare_sources(
    moments: Moments, reference: str, votes: Votes | None = None, alpha: float = ALPHA
) -> tuple[SourceResult, ...]:
    """Every source of an arm, and its difference to the `reference`, with intervals clustered on the user.

    Args:
        moments: over the arm's users, of views and the like, as a `Column` for every source.
        reference: name of the source that the others are compared with.
        votes: of the same users.
        alpha: the intervals miss the truth with this probability.

    Raises:
        ValueError: no source has the reference's name.

    >>> earned = ("views", "effective_views", "follows", "play_ms")
    >>> columns = [Column(column, part=source) for source in ("new", "old") for column in earned]
    >>> of = Moments.of(columns, np.array([[4.0, 2, 0, 60, 5, 1, 1, 40], [6.0, 3, 1, 70, 4, 1, 0, 50]]))
    >>> new, _ = compare_sources(of, "old")
    >>> new.values["evr"].estimate.value, round(new.values["evr"].against.relative, 2)
    (0.5, 1.25)

    """
    sources = parts_of(moments.columns)
    if reference not in sources:
        raise ValueError(f"there is no source {reference!r}; there are {', '.join(sources) or 'none'}")
    base = {name: _ratio(moments, name, reference) for name in RATIOS}
    results = []
    for source in sources:
        values = {}
        for name in RATIOS:
            estimate = base[name] if source == reference else _ratio(moments, name, source)
            low, high = _interval(estimate, quantile(alpha / 2))
            paired = source != reference
            names = (source, reference)
            against = compare_paired(moments, estimate, base[name], names, alpha) if paired else None
            values[name] = SourceValue(estimate, low, high, against)
        have_votes = votes is not None and source != reference and {source, reference} <= {*votes.sources}
        preference = preference_of_votes(*votes.between(source, reference), alpha) if votes and have_votes else None
        results.append(SourceResult(source, values, preference))
    return tuple(results)


def compare_paired(
    moments: Moments, first: Estimate, second: Estimate, names: tuple[str, str], alpha: float = ALPHA
) -> Effect:
    """Difference of two estimates over the same users, made from the same `moments`; normal, as `effects.compare`.

    Var(A − B) = V_A + V_B − 2 C and Var(log A/B) ≈ V_A/A² + V_B/B² − 2 C/(A B), C their covariance ([D18]).
    Fieller's interval is left out.
    """
    for estimate, name in ((first, names[0]), (second, names[1])):
        if estimate.value is None:
            return Effect(reason=f"{estimate.reason} of source {name}", alpha=alpha)
    a, b = first.value or 0.0, second.value or 0.0
    effect = Effect(a - b, relative=a / b - 1 if b > 0 else None, fieller_reason="two of the same users", alpha=alpha)
    if first.variance is None or second.variance is None:
        return replace(effect, reason=f"not estimable: {first.reason or second.reason}")
    joint = covariance(moments, first, second)
    z = quantile(alpha / 2)
    error = math.sqrt(max(first.variance + second.variance - 2 * joint, 0.0))
    effect = replace(effect, difference_std_error=error)
    if error:
        p_value, log10_p = two_sided((a - b) / error)
        effect = replace(
            effect,
            difference_low=a - b - z * error,
            difference_high=a - b + z * error,
            difference_p_value=p_value,
            difference_log10_p=log10_p,
        )
    if min(a, b) <= 0:
        return replace(effect, reason=f"not estimable: the value is 0 of source {names[0] if a <= 0 else names[1]}")
    log_error = math.sqrt(max(first.variance / a**2 + second.variance / b**2 - 2 * joint / (a * b), 0.0))
    ratio = math.log(a / b)
    if not log_error:
        return replace(effect, reason="not estimable: all users alike, no variance")
    if abs(ratio) + (z + 1) * log_error > LARGEST_LOG:
        return replace(effect, reason="not estimable: the values are too near 0 for their errors")
    p_value, log10_p = two_sided(ratio / log_error)
    return replace(
        effect,
        ci_low=math.expm1(ratio - z * log_error),
        ci_high=math.expm1(ratio + z * log_error),
        p_value=p_value,
        log10_p=log10_p,
        minimum_detectable=minimum_detectable(log_error, alpha=alpha),
    )


def _ratio(moments: Moments, name: str, source: str) -> Estimate:
    above, unit = RATIOS[name]
    estimate = ratio_estimate(moments, Column(above, part=source), Column(VIEWS, part=source))
    if estimate.value is None or estimate.influence is None:
        return replace(estimate, reason="no views" if estimate.users else estimate.reason)
    variance = None if estimate.variance is None else unit**2 * estimate.variance
    return replace(estimate, value=unit * estimate.value, variance=variance, influence=unit * estimate.influence)


def _interval(estimate: Estimate, z: float) -> tuple[float | None, float | None]:
    if estimate.value is None or estimate.std_error is None:
        return None, None
    return estimate.value - z * estimate.std_error, estimate.value + z * estimate.std_error
