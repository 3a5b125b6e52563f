"""A/A replay: the experiment's own users, shuffled into arms anew many times over. No arm differs then but by chance,
so a metric that is significant much more often than it says has an analysis that cannot be trusted on this traffic.

Kohavi, Tang, Xu: Trustworthy Online Controlled Experiments, Cambridge 2020, chapter 19.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, kstest

from abtest.aggregate.user_days import Table
from abtest.format import counted
from abtest.stats.cuped import adjust
from abtest.stats.effects import compare
from abtest.stats.estimates import Estimate
from abtest.stats.metrics import Metric
from abtest.stats.moments import Floats, Moments

Progress = Callable[[int], None]
HALVES = ("A", "A'")
CONFIDENCE = 0.99  # of the interval of a rate


@dataclass(frozen=True)
class Level:
    """How often a metric was significant without a cause; `by_cuped`: after CUPED.

    `low`, `high`: the exact 99 % interval (Clopper-Pearson) of that rate; `uniform_p`: Kolmogorov-Smirnov test of the
    p-values against the uniform distribution; `trusted`: alpha lies in the interval. None where no replicate had a
    p-value, and `reason` says why; `trusted` is None too where there are fewer than `enough`, unless alpha lies outside
    of even their interval.
    """

    metric: str
    by_cuped: bool
    replicates: int
    false_positives: float | None
    low: float | None
    high: float | None
    uniform_p: float | None
    trusted: bool | None
    reason: str | None = None


def replay(
    columns: Sequence[str],
    values: Floats,
    metrics: Sequence[Metric],
    replicates: int,
    seed: int,
    alpha: float = 0.05,
    progress: Progress | None = None,
    covariates: Sequence[str] = (),
) -> list[Level]:
    """Shuffle users into two halves, `replicates` times, and test each metric each time, as a report does.

    Args:
        columns: names of the k columns.
        values: (users, k), a user's sums over the experiment.
        metrics: to be tested.
        replicates: how many times.
        seed: of the shuffles.
        alpha: significance level.
        progress: is told how many are done.
        covariates: columns from before the experiment; with them each metric is tested by CUPED as well.

    Raises:
        ValueError: there are fewer than 4 users to shuffle.

    """
    if len(values) < 4:
        raise ValueError(f"{counted(len(values), 'user is', 'users are')} too few to be shuffled into two arms")
    ways: list[Sequence[str]] = [(), covariates] if covariates else [()]
    tests = [(metric, way) for metric in metrics for way in ways]
    p_values: list[list[float]] = [[] for _ in tests]
    reasons: list[str | None] = [None] * len(tests)
    for done, halves in enumerate(_halves(tuple(columns), values, replicates, seed), start=1):
        arms = dict(zip(HALVES, halves, strict=True))
        for place, (metric, way) in enumerate(tests):
            one, other = (adjust(arms, metric, way).estimates if way else _plain(arms, metric)).values()
            effect = compare(one, other, HALVES)
            if effect.p_value is None:
                reasons[place] = effect.reason
            else:
                p_values[place].append(effect.p_value)
        if progress:
            progress(done)
    return [
        _level(metric.name, bool(way), np.array(own), alpha, reason)
        for (metric, way), own, reason in zip(tests, p_values, reasons, strict=True)
    ]


def replay_table(
    table: Table,
    metrics: Sequence[Metric],
    replicates: int,
    seed: int,
    alpha: float = 0.05,
    progress: Progress | None = None,
) -> list[Level]:
    """`replay` of a table's users over all their days, whichever arm they were in, by CUPED too where it has
    covariates that vary.
    """
    totals = np.zeros((len(table.arm), len(table.columns)))
    np.add.at(totals, table.user, table.values)
    varying = [place for place, covariate in enumerate(table.pre.T) if np.ptp(covariate) > 0] if len(table.arm) else []
    covariates = [table.covariates[place] for place in varying]
    values = np.hstack((totals, table.pre[:, varying]))
    return replay((*table.columns, *covariates), values, metrics, replicates, seed, alpha, progress, covariates)


def trusted(levels: Sequence[Level]) -> bool | None:
    """Whether every metric is significant as often as alpha says; None where that cannot be told of one, or of any.

    >>> trusted([])
    """
    answers = {level.trusted for level in levels if level.replicates}
    return next((answer for answer in (False, None, True) if answer in answers), None)


def _plain(arms: Mapping[str, Moments], metric: Metric) -> dict[str, Estimate]:
    return {arm: metric.estimate(moments) for arm, moments in arms.items()}


def _halves(columns: tuple[str, ...], values: Floats, replicates: int, seed: int) -> Iterator[tuple[Moments, Moments]]:
    random = np.random.default_rng(seed)
    for _ in range(replicates):
        first = random.random(len(values)) < 0.5
        yield Moments.of(columns, values[first]), Moments.of(columns, values[~first])


def _level(name: str, by_cuped: bool, p_values: Floats, alpha: float, reason: str | None) -> Level:
    if not p_values.size:
        return Level(name, by_cuped, 0, None, None, None, None, None, reason)
    positives = int((p_values < alpha).sum())
    interval = binomtest(positives, p_values.size, alpha).proportion_ci(CONFIDENCE)
    holds, wanted = bool(interval.low <= alpha <= interval.high), enough(alpha)
    few = counted(int(p_values.size), "replicate is", "replicates are")
    conclusive = not holds or p_values.size >= wanted
    return Level(
        name,
        by_cuped,
        int(p_values.size),
        positives / p_values.size,
        float(interval.low),
        float(interval.high),
        float(kstest(p_values, "uniform").pvalue),
        holds if conclusive else None,
        None if conclusive else f"{few} too few to tell, at least {wanted} are needed",
    )


def enough(alpha: float) -> int:
    """Replicates from which on a metric that is never significant can be told from one that is as often as `alpha`.

    With fewer, the interval of a rate of 0 holds alpha, so that no metric would be found significant too rarely.

    >>> enough(0.05), [bool(binomtest(0, n, 0.05).proportion_ci(0.99).high < 0.05) for n in (103, 104)]
    (104, [False, True])
    """
    return math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log1p(-alpha))
