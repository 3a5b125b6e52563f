"""Candidate sources of one arm beside each other, such as T2Diff, DiffuRec and the two-tower model: Table 5 of [W25].

One accumulator, over all users of the arm: moments of what each source earned from each user, zeros where it showed
nothing, and counts of whose items a user gave more. The sources share their users, and a choosy user is choosy with all
of them: the difference between two is told by their joint covariance, which makes it sharp.

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

from abtest.effects import ALPHA, LARGEST_LOG, Effect, minimum_detectable, quantile, two_sided
from abtest.estimates import Estimate, covariance, ratio_estimate
from abtest.interleaving import Preference, preference_of_votes
from abtest.moments import Floats, Moments
from abtest.records import Tally

Ints: TypeAlias = npt.NDArray[np.int64]

MEASURES = ("shown", "views", "effective_views", "follows", "play_s")
RATIOS = {"evr": "effective_views", "follow_rate": "follows", "play_per_view_s": "play_s"}  # each over views
VOTE = MEASURES.index("effective_views")  # what a user's vote goes by
MS = 1000


@dataclass(frozen=True)
class BySource:
    """What S sources earned from the users of one arm. `a + b` is as if all users had been in one.

    `moments`: of columns such as "views@t2diff", by source and then by `MEASURES`.
    `ahead` (S + 1, S + 1): users who gave the row's source more effective views than the column's.
    `met` (S + 1, S + 1): users to whom the row's or the column's source showed something.
    The last row and column of both are of a source that shows nothing; others that come later began like it.
    """

    sources: tuple[str, ...]
    moments: Moments
    ahead: Ints
    met: Ints

    @classmethod
    def of(cls, sources: Sequence[str], values: Floats) -> "BySource":
        """From `values` (users, S, measures) of every user of the arm.

        >>> BySource.of(["a"], np.array([[[9.0, 4, 2, 0, 60]], [[0.0, 0, 0, 0, 0]]])).moments.total("views@a")
        4.0
        """
        votes = np.pad(values[:, :, VOTE], ((0, 0), (0, 1)))
        seen = np.pad(values[:, :, 0] > 0, ((0, 0), (0, 1)))
        return cls(
            tuple(sources),
            Moments.of(_columns(sources), values.reshape(len(values), len(sources) * len(MEASURES))),
            np.array([(one[:, None] > votes).sum(axis=0) for one in votes.T], np.int64),
            np.array([(one[:, None] | seen).sum(axis=0) for one in seen.T], np.int64),
        )

    @classmethod
    def of_rows(cls, sources: Sequence[str], users: int, user: Ints, source: Ints, tallies: Floats) -> "BySource":
        """From rows by user and source, as `abtest.table` has them.

        Args:
            sources: their names.
            users: of the arm, those to whom no source showed anything included.
            user: (rows,) 0 to `users` − 1.
            source: (rows,) index into `sources`.
            tallies: (rows, fields of a tally).

        """
        take = [Tally._fields.index("play_ms" if measure == "play_s" else measure) for measure in MEASURES]
        values = np.zeros((users, len(sources), len(MEASURES)))
        np.add.at(values, (user, source), tallies[:, take] / np.where(np.array(MEASURES) == "play_s", MS, 1))
        return cls.of(sources, values)

    @classmethod
    def of_tallies(cls, users: Sequence[Mapping[str, Tally]]) -> "BySource":
        """From each user's tallies by source, as a state's users have them.

        >>> both = BySource.of_tallies([{"a": Tally(1, 9, 4, 2)}, {"b": Tally(1, 9, 3, 1)}, {}])
        >>> both.sources, both.moments.n, both.votes("a", "b")
        (('a', 'b'), 3, (1, 1, 0))
        """
        sources = sorted({source for user in users for source in user})
        rows = [(i, sources.index(name), *tally) for i, user in enumerate(users) for name, tally in user.items()]
        table = np.array(rows, np.float64).reshape(-1, 2 + len(Tally._fields))
        user, source = table[:, :2].astype(np.int64).T
        return cls.of_rows(sources, len(users), user, source, table[:, 2:])

    def __add__(self, other: "BySource") -> "BySource":
        """As if all users had been in one; a source that one of the two does not know showed nothing there."""
        names = tuple(sorted({*self.sources, *other.sources}))
        a, b = self._widened(names), other._widened(names)
        return BySource(names, a.moments + b.moments, a.ahead + b.ahead, a.met + b.met)

    def votes(self, first: str, second: str) -> tuple[int, int, int]:
        """Users who gave `first` more effective views than `second`, fewer, and as many; of those who saw any."""
        i, j = self.sources.index(first), self.sources.index(second)
        wins, losses = int(self.ahead[i, j]), int(self.ahead[j, i])
        return wins, losses, int(self.met[i, j]) - wins - losses

    def _widened(self, names: tuple[str, ...]) -> "BySource":
        known, nothing = set(self.moments.columns), len(self.sources)
        places = [self.sources.index(name) if name in self.sources else nothing for name in names] + [nothing]
        widened = self.moments.sums((column, [column] if column in known else []) for column in _columns(names))
        return BySource(names, widened, self.ahead[np.ix_(places, places)], self.met[np.ix_(places, places)])


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
    """One source. `users`: to whom it showed something. Sums are over all of them.

    `values`: by name of `RATIOS`: effective view rate, follow rate, seconds played per view.
    `preference`: of users, for this source against the reference, by effective views. It is team-draft interleaving's
    only if the two sources took turns in filling the list; a source with more places wins more users. None at the
    reference itself.
    """

    source: str
    users: int
    totals: Mapping[str, float]
    values: Mapping[str, SourceValue]
    preference: Preference | None


def compare_sources(by_source: BySource, reference: str, alpha: float = ALPHA) -> tuple[SourceResult, ...]:
    """Every source of an arm, and its difference to the `reference`, with intervals clustered on the user.

    Raises:
        ValueError: no source has the reference's name.

    >>> earned = [[[9.0, 4, 2, 0, 60], [9, 5, 1, 1, 40]], [[9.0, 6, 3, 1, 70], [9, 4, 1, 0, 50]]]
    >>> new, _ = compare_sources(BySource.of(["new", "old"], np.array(earned)), "old")
    >>> new.values["evr"].estimate.value, round(new.values["evr"].against.relative, 2), new.preference.wins
    (0.5, 1.25, 2)

    """
    if reference not in by_source.sources:
        raise ValueError(f"there is no source {reference!r}; there are {', '.join(by_source.sources) or 'none'}")
    moments = by_source.moments
    z = quantile(alpha / 2)
    base = {name: _ratio(moments, name, reference) for name in RATIOS}
    results = []
    for i, source in enumerate(by_source.sources):
        other = source != reference
        values = {}
        for name in RATIOS:
            found = _ratio(moments, name, source)
            low, high = _interval(found, z)
            against = compare_paired(moments, found, base[name], (source, reference), alpha) if other else None
            values[name] = SourceValue(found, low, high, against)
        totals = {measure: moments.total(f"{measure}@{source}") for measure in MEASURES}
        votes = preference_of_votes(*by_source.votes(source, reference), alpha) if other else None
        results.append(SourceResult(source, int(by_source.met[i, i]), totals, values, votes))
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
    found = Effect(a - b, relative=a / b - 1 if b > 0 else None, fieller_reason="two of the same users", alpha=alpha)
    if first.variance is None or second.variance is None:
        return replace(found, reason=f"not estimable: {first.reason or second.reason}")
    joint = covariance(moments, first, second)
    z = quantile(alpha / 2)
    error = math.sqrt(max(first.variance + second.variance - 2 * joint, 0.0))
    found = replace(found, difference_std_error=error)
    if error:
        p_value, log10_p = two_sided((a - b) / error)
        found = replace(
            found,
            difference_low=a - b - z * error,
            difference_high=a - b + z * error,
            difference_p_value=p_value,
            difference_log10_p=log10_p,
        )
    if min(a, b) <= 0:
        return replace(found, reason=f"not estimable: the value is 0 of source {names[0] if a <= 0 else names[1]}")
    log_error = math.sqrt(max(first.variance / a**2 + second.variance / b**2 - 2 * joint / (a * b), 0.0))
    ratio = math.log(a / b)
    if not log_error:
        return replace(found, reason="not estimable: all users alike, no variance")
    if abs(ratio) + (z + 1) * log_error > LARGEST_LOG:
        return replace(found, reason="not estimable: the values are too near 0 for their errors")
    p_value, log10_p = two_sided(ratio / log_error)
    return replace(
        found,
        ci_low=math.expm1(ratio - z * log_error),
        ci_high=math.expm1(ratio + z * log_error),
        p_value=p_value,
        log10_p=log10_p,
        minimum_detectable=minimum_detectable(log_error, alpha=alpha),
    )


def _ratio(moments: Moments, name: str, source: str) -> Estimate:
    found = ratio_estimate(moments, f"{RATIOS[name]}@{source}", f"views@{source}")
    return replace(found, reason="no views") if found.value is None and found.users else found


def _interval(estimate: Estimate, z: float) -> tuple[float | None, float | None]:
    if estimate.value is None or estimate.std_error is None:
        return None, None
    return estimate.value - z * estimate.std_error, estimate.value + z * estimate.std_error


def _columns(sources: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{measure}@{source}" for source in sources for measure in MEASURES)
