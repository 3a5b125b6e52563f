"""A/A replay: the experiment's own users, shuffled into arms anew many times over. No arm differs then but by chance,
so a metric that is significant much more often than it says has an analysis that cannot be trusted on this traffic.

Kohavi, Tang, Xu: Trustworthy Online Controlled Experiments, Cambridge 2020, chapter 19.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, kstest

from abtest.metrics import Metric
from abtest.moments import Floats, Moments
from abtest.stats import compare

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Level:
    """How often a metric was significant without a cause.

    `low`, `high`: the exact 99 % interval (Clopper-Pearson) of that rate; `uniform_p`: Kolmogorov-Smirnov test of the
    p-values against the uniform distribution; `trusted`: alpha lies in the interval. None where no replicate had a
    p-value, and `reason` says why.
    """

    metric: str
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
) -> list[Level]:
    """Shuffle users into two halves, `replicates` times, and test each metric each time.

    Args:
        columns: names of the k columns.
        values: (users, k), a user's sums over the experiment.
        metrics: to be tested.
        replicates: how many times.
        seed: of the shuffles.
        alpha: significance level.
        progress: is told how many are done.

    Raises:
        ValueError: there are fewer than 4 users to shuffle.

    """
    if len(values) < 4:
        raise ValueError(f"{len(values)} users are too few to be shuffled into two arms")
    found: list[list[float]] = [[] for _ in metrics]
    reasons: list[str | None] = [None] * len(metrics)
    for done, (one, other) in enumerate(_halves(tuple(columns), values, replicates, seed), start=1):
        for place, metric in enumerate(metrics):
            effect = compare(metric.estimate(one), metric.estimate(other), ("A", "A'"))
            if effect.p_value is None:
                reasons[place] = effect.reason
            else:
                found[place].append(effect.p_value)
        if progress:
            progress(done)
    return [
        _level(metric.name, np.array(p_values), alpha, reason)
        for metric, p_values, reason in zip(metrics, found, reasons, strict=True)
    ]


def _halves(columns: tuple[str, ...], values: Floats, replicates: int, seed: int) -> Iterator[tuple[Moments, Moments]]:
    random = np.random.default_rng(seed)
    for _ in range(replicates):
        first = random.random(len(values)) < 0.5
        yield Moments.of(columns, values[first]), Moments.of(columns, values[~first])


def _level(name: str, p_values: Floats, alpha: float, reason: str | None) -> Level:
    if not p_values.size:
        return Level(name, 0, None, None, None, None, None, reason)
    positives = int((p_values < alpha).sum())
    interval = binomtest(positives, p_values.size, alpha).proportion_ci(0.99)
    return Level(
        name,
        int(p_values.size),
        positives / p_values.size,
        float(interval.low),
        float(interval.high),
        float(kstest(p_values, "uniform").pvalue),
        bool(interval.low <= alpha <= interval.high),
    )
