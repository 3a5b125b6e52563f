"""Quantiles over users from histograms: coverage of their intervals, and time, beside a bootstrap.

    python -m benchmarks.abtest.quantiles [--replicates 4000] [--users 4000] [--seed 1] [--lift 0.1] [--values 20000000]

Prints one JSON object. Each replicate draws an arm's users (half of --users each), plants a lift by multiplying all of
the treatment's values by 1 + the lift, and goes the report's own way: `Histogram`, `quantile_estimate`, `compare`. The
quantile of the treatment is then known exactly. Populations: lognormal (σ = 1.5), the same with 30 % zeros, and
`play_s` and `views` of the made-up population of `benchmarks.abtest.aa`; `views` are counts, the hard case. The same
draw without the lift gives the false positives.

`woodruff` is the coverage that the order-statistic interval's implied error would give in place of the estimate's own.
`bootstrap` compares standard errors (of the log) with 1,000 resamples of all users, and the times of both: a histogram
of the raw values and three quantiles of each arm, against a thousand times the three quantiles by numpy's partition.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import binomtest

from abtest.stats.effects import ALPHA, Effect, compare, quantile
from abtest.stats.estimates import Estimate
from abtest.stats.histogram import Histogram
from abtest.stats.moments import Floats
from abtest.stats.quantiles import quantile_estimate
from benchmarks.abtest.aa import synthetic

QS = (0.5, 0.9, 0.99)
POPULATIONS = ("lognormal", "zero_inflated", "play_s", "views")
RESAMPLES = 1000
LOCATION, SIGMA, ZERO_SHARE = 3.0, 1.5, 0.3
Draw = Callable[[np.random.Generator, int], Floats]


def populations() -> dict[str, tuple[Draw, Floats]]:
    """By name: what draws users, and the true quantiles at `QS`."""
    made_up = synthetic()
    lognormal = np.random.default_rng(7).lognormal(LOCATION, SIGMA, 200_000)  # finite, so that its quantiles are exact
    parts = {
        "lognormal": lognormal,
        "zero_inflated": np.where(np.arange(lognormal.size) < ZERO_SHARE * lognormal.size, 0.0, lognormal),
        "play_s": made_up.values[:, made_up.columns.index("play_s")],
        "views": made_up.values[:, made_up.columns.index("views")],
    }
    return {name: (_drawing(values), np.quantile(values, QS, method="inverted_cdf")) for name, values in parts.items()}


def woodruff(histogram: Histogram, q: float, estimate: Estimate, alpha: float = ALPHA) -> Estimate:
    """The quantile `estimate`, with the error that its order-statistic interval implies: the log's length over 2 z."""
    if estimate.value is None:
        return estimate
    z = quantile(alpha / 2)
    margin = z * math.sqrt(q * (1 - q) / histogram.n)
    low, high = histogram.quantiles(np.clip([q - margin, q + margin], 0, 1))
    if not 0 < low <= high < math.inf:
        return replace(estimate, variance=None, reason="no interval")
    return replace(estimate, variance=(estimate.value * math.log(high / low) / (2 * z)) ** 2)


def measure(replicates: int, users: int, seed: int, lift: float, names: Sequence[str] = POPULATIONS) -> dict[str, Any]:
    """Coverage and false positives, by population and quantile. An effect without an interval covers nothing."""
    random = np.random.default_rng(seed)
    coverage: dict[str, Any] = {}
    by_name = populations()
    for name in names:
        draw, truth = by_name[name]
        held = np.zeros((len(QS), 4))
        false = np.zeros((len(QS), 2))
        for _ in range(replicates):
            raw, control = draw(random, users // 2), Histogram.of(draw(random, users // 2))
            equal, treated = Histogram.of(raw), Histogram.of(raw * (1 + lift))
            for i, q in enumerate(QS):
                with_lift, without, same = (quantile_estimate(histogram, q) for histogram in (treated, control, equal))
                effect, none = compare(with_lift, without), compare(same, without)
                rough = compare(woodruff(treated, q, with_lift), woodruff(control, q, without))
                held[i] += (*_covers(effect, lift, lift * truth[i]), *_covers(rough, lift, lift * truth[i]))
                false[i] += (_below(none.p_value), _below(none.difference_p_value))
        coverage[name] = {
            str(q): {
                "relative": held[i, 0] / replicates,
                "difference": held[i, 1] / replicates,
                "woodruff_relative": held[i, 2] / replicates,
                "woodruff_difference": held[i, 3] / replicates,
                "false_positive_relative": _rate(false[i, 0], replicates),
                "false_positive_difference": _rate(false[i, 1], replicates),
            }
            for i, q in enumerate(QS)
        }
    return coverage


def bootstrap(users: int, seed: int) -> dict[str, Any]:
    """Standard error of the log against a bootstrap's, and both times, on one data set of each population."""
    random = np.random.default_rng(seed)
    comparisons: dict[str, Any] = {}
    for name, (draw, _) in populations().items():
        values = draw(random, users)
        began = time.perf_counter()
        histogram = Histogram.of(values)
        estimates = [quantile_estimate(histogram, q) for q in QS]
        ours = time.perf_counter() - began
        began = time.perf_counter()
        resampled = np.array(
            [np.quantile(values[random.integers(0, users, users)], QS, method="inverted_cdf") for _ in range(RESAMPLES)]
        )
        theirs = time.perf_counter() - began
        errors = np.std(np.log(resampled), axis=0, ddof=1)
        comparisons[name] = {
            "users": users,
            "std_error_ratio": {
                str(q): (estimate.std_error or math.nan) / (estimate.value or math.nan) / error
                for q, estimate, error in zip(QS, estimates, errors.tolist(), strict=True)
            },
            "ms": 1000 * ours,
            "bootstrap_ms": 1000 * theirs,
            "time_ratio": theirs / ours,
        }
    return comparisons


def speed(values: int, seed: int) -> dict[str, float]:
    """Millions of values that a histogram takes in per second, and microseconds of one estimate and of one merge."""
    random = np.random.default_rng(seed)
    drawn = random.lognormal(LOCATION, SIGMA, values)
    began = time.perf_counter()
    histogram = Histogram.of(drawn)
    into = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(100):
        quantile_estimate(histogram, 0.9)
    estimate = (time.perf_counter() - began) / 100
    began = time.perf_counter()
    for _ in range(100):
        histogram + histogram
    merge = (time.perf_counter() - began) / 100
    return {
        "million_values_per_second": values / into / 1e6,
        "estimate_us": 1e6 * estimate,
        "merge_us": 1e6 * merge,
        "bytes": float(histogram.counts.nbytes),
    }


def main() -> None:
    """Measure, and print the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicates", type=int, default=4_000)
    parser.add_argument("--users", type=int, default=4_000, help="users in both arms together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lift", type=float, default=0.1)
    parser.add_argument("--values", type=int, default=20_000_000, help="values whose intake is timed")
    given = parser.parse_args()
    if given.replicates < 1 or given.users < 4 or given.users % 2 or given.values < 1:
        parser.error("--replicates and --values must be 1 or more, --users an even number from 4")
    measured = {"replicates": given.replicates, "users": given.users, "seed": given.seed, "lift": given.lift}
    measured |= {
        "coverage": measure(given.replicates, given.users, given.seed, given.lift),
        "bootstrap": bootstrap(given.users // 2, given.seed),
        "speed": speed(given.values, given.seed),
    }
    print(json.dumps(measured, indent=2))  # noqa: T201


def _drawing(values: Floats) -> Draw:
    return lambda random, users: values[random.integers(0, values.size, users)]


def _covers(effect: Effect, relative: float, difference: float) -> tuple[bool, bool]:
    bounds = (
        (effect.ci_low, effect.ci_high, relative),
        (effect.difference_low, effect.difference_high, difference),
    )
    first, second = (low is not None and high is not None and low <= true <= high for low, high, true in bounds)
    return first, second


def _below(p_value: float | None) -> bool:
    return p_value is not None and p_value < ALPHA


def _rate(positives: float, replicates: int) -> dict[str, float]:
    interval = binomtest(round(positives), replicates, ALPHA).proportion_ci(0.99)
    return {"rate": positives / replicates, "low": float(interval.low), "high": float(interval.high)}


if __name__ == "__main__":
    main()
