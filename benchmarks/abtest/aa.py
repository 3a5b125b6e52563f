"""How often the statistics cry wolf, and how often their intervals hold the truth: replicates of real-shaped users.

    python -m benchmarks.abtest.aa [--replicates 20000] [--users 4000] [--seed 1] [--lifts 0 …] [--data FOLDER]
        [--metrics app_usage …]

Prints one JSON object. Each replicate draws users with replacement from a population, deals them into two arms of half
the users each, and goes the report's own way: `Moments`, `Metric.estimate`, `adjust`, `compare`. A lift is planted by
multiplying what treated users did (effective views, follows, seconds, recalls; not views): half of them, by chance, by
1 + twice the lift. The mean lift is then known exactly, and the treated differ in shape from the control. CUPED adjusts
by the metric's own columns from before the experiment.

The population is made up: each of 50,000 users has an activity (gamma), a taste (beta) and an appetite (lognormal) of
their own, which hold in both periods, so views are negative binomial and seconds lognormal, with a heavy tail. With
--data it is KuaiRand-Pure's: what each user did on 2022-05-02 to 05-08, and on the seven days before.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import binomtest, kstest

from abtest.stats.cuped import adjust
from abtest.stats.effects import ALPHA, Effect, compare
from abtest.stats.estimates import Estimate
from abtest.stats.metrics import COLUMNS, DEFAULTS, Metric
from abtest.stats.moments import Floats, Moments
from benchmarks.options import folder

LIFTS = (0.0, 0.05, 0.2, 0.5)
LIFTED = ("recalls", "effective_views", "follows", "play_s", "usage_s")
Way = Literal["raw", "cuped"]
WAYS: tuple[Way, ...] = ("raw", "cuped")
TESTS = ("relative", "difference")
SPLIT_DATE = 20220502  # KuaiRand-Pure's second week
SESSION_GAP_MS = 30 * 60_000


@dataclass(frozen=True)
class Population:
    """Users to draw from: `values` (users, k) of `columns`, pre-period ones included, and the `metrics` they have."""

    columns: tuple[str, ...]
    values: Floats
    metrics: tuple[Metric, ...]


def synthetic(users: int = 50_000, seed: int = 11) -> Population:
    """A made-up population; see the module."""
    random = np.random.default_rng(seed)
    activity, taste, follow, appetite = traits(users, random)

    def period() -> Floats:
        views = random.poisson(30 * activity + 1)
        play_s = views * 15 * appetite * random.lognormal(0, 0.5, users)
        recalls = 1 + random.poisson(views / 8)
        usage_s = 1.2 * play_s + 20 * recalls * random.lognormal(0, 0.5, users)
        parts = [recalls, views, random.binomial(views, taste), random.binomial(views, follow), play_s, usage_s]
        return np.stack(parts, axis=1).astype(np.float64)

    before, after = period(), period()
    return Population(_columns(COLUMNS), np.concatenate([after, before], axis=1), _having(COLUMNS))


def traits(users: int, random: np.random.Generator) -> tuple[Floats, Floats, Floats, Floats]:
    """Each made-up user's activity, taste (for views), readiness to follow, and appetite (for seconds)."""
    activity = random.gamma(0.8, 1 / 0.8, users)
    taste, follow = random.beta(2, 4, users), random.beta(0.5, 50, users)
    return activity, taste, follow, random.lognormal(0, 0.7, users)


def kuairand(folder: Path) -> Population:
    """KuaiRand-Pure's users of the second week. Its log has no recalls, so it has no metric of them.

    A session ends where a user does nothing for half an hour; it counts to the end of its last view.
    """
    log = pd.read_parquet(folder / "log_standard_4_25_to_5_08_pure.parquet").drop_duplicates()
    log = log.sort_values(["user_id", "time_ms"])
    log["week"] = np.where(log["date"] >= SPLIT_DATE, "", "pre.")
    log["play_s"] = log["play_time_ms"] / 1000
    key = ["user_id", "week"]
    gap = log.groupby(key)["time_ms"].diff()
    log["usage_s"] = np.where(gap <= SESSION_GAP_MS, gap, 0) / 1000
    log["usage_s"] += np.where((gap.shift(-1) <= SESSION_GAP_MS).to_numpy(), 0, log["play_s"])
    sums = log.groupby(key).agg(
        views=("video_id", "size"),
        effective_views=("long_view", "sum"),
        follows=("is_follow", "sum"),
        play_s=("play_s", "sum"),
        usage_s=("usage_s", "sum"),
    )
    wide = sums.unstack("week")
    after = wide.xs("", axis=1, level="week").dropna()
    before = wide.xs("pre.", axis=1, level="week").loc[after.index].fillna(0)
    columns = tuple(str(column) for column in after.columns)
    values = np.concatenate([after.to_numpy(np.float64), before.to_numpy(np.float64)], axis=1)
    return Population(_columns(columns), values, _having(columns))


def only(population: Population, names: Sequence[str]) -> Population:
    """With those metrics alone, and the columns that they need."""
    metrics = tuple(metric for metric in population.metrics if metric.name in names)
    needed = {column for metric in metrics for column in metric.columns}
    places = [i for i, column in enumerate(population.columns) if column.removeprefix("pre.") in needed]
    return Population(tuple(population.columns[i] for i in places), population.values[:, places], metrics)


def replicate(
    population: Population, users: int, lifts: Sequence[float], random: np.random.Generator
) -> dict[tuple[str, Way, float], Effect]:
    """One experiment with `users` users, analysed at each planted lift: the effect of each metric, raw and CUPED."""
    drawn = population.values[random.integers(0, len(population.values), users)]
    treated, untreated = np.split(drawn, 2)
    responds = random.random(len(treated)) < 0.5
    control, responders, others = (
        Moments.of(population.columns, values) for values in (untreated, treated[responds], treated[~responds])
    )
    moved = np.array([column in LIFTED for column in population.columns])
    effects: dict[tuple[str, Way, float], Effect] = {}
    for lift in lifts:
        lifted = responders.linear(population.columns, np.diag(1 + 2 * lift * moved))
        arms = {"treatment": lifted + others, "control": control}
        for metric in population.metrics:
            plain = {arm: metric.estimate(values) for arm, values in arms.items()}
            adjusted = adjust(arms, metric, [f"pre.{column}" for column in metric.columns])
            effects[metric.name, "raw", lift] = _compare(plain)
            effects[metric.name, "cuped", lift] = _compare(adjusted.estimates)
    return effects


def measure(
    population: Population, replicates: int, users: int, seed: int, lifts: Sequence[float] = LIFTS
) -> dict[str, Any]:
    """False positives, uniformity of p-values, and coverage at each lift, over all replicates; the first lift is 0.

    `aa_false_positive`: by metric, way and test (relative: of the log ratio; difference: of the plain one) the
    share of p-values below 5 % where there is no effect, with its exact 99 % interval, and `uniform_p`, the p-value of
    Kolmogorov and Smirnov's test of uniformity. `coverage`: by metric, way and lift, of both relative intervals at
    95 %. An effect that could not be estimated is neither significant nor covered.
    """
    random = np.random.default_rng(seed)
    keys = [(metric.name, way, lift) for metric in population.metrics for way in WAYS for lift in lifts]
    p_values = {(metric.name, way): np.ones((2, replicates)) for metric in population.metrics for way in WAYS}
    covered = dict.fromkeys(keys, np.zeros(2))
    began = time.perf_counter()
    for i in range(replicates):
        effects = replicate(population, users, lifts, random)
        for (metric, way), p in p_values.items():
            effect = effects[metric, way, 0.0]
            p[:, i] = _number(effect.p_value), _number(effect.difference_p_value)
        for key in keys:
            covered[key] = covered[key] + _covers(effects[key], key[2])
    seconds = time.perf_counter() - began
    return {
        "replicates": replicates,
        "users": users,
        "seed": seed,
        "seconds": round(seconds, 1),
        "ms_per_replicate": round(1000 * seconds / replicates, 3),
        "aa_false_positive": _nested(
            {
                (*key, test): _level(p)
                for key, by_test in p_values.items()
                for test, p in zip(TESTS, by_test, strict=True)
            }
        ),
        "coverage": _nested(
            {
                key: dict(zip(("log_delta", "fieller"), (count / replicates).tolist(), strict=True))
                for key, count in covered.items()
            }
        ),
    }


def main() -> None:
    """Measure, and print the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicates", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=4_000, help="users in both arms together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lifts", type=float, nargs="+", default=LIFTS, help="planted lifts; 0 is always there")
    parser.add_argument("--data", type=folder, help="folder of KuaiRand-Pure")
    parser.add_argument("--metrics", nargs="+", choices=[metric.name for metric in DEFAULTS], help="these alone")
    given = parser.parse_args()
    if given.replicates < 1 or given.users < 4 or given.users % 2:
        parser.error("--replicates must be 1 or more, --users an even number from 4")
    population = kuairand(given.data) if given.data else synthetic()
    if given.metrics:
        population = only(population, given.metrics)
    measured = {
        "population": "kuairand-pure" if given.data else "synthetic",
        "population_users": len(population.values),
    }
    lifts = sorted({0.0, *given.lifts}, key=abs)
    measured |= measure(population, given.replicates, given.users, given.seed, lifts)
    print(json.dumps(measured, indent=2))  # noqa: T201


def _having(columns: Sequence[str]) -> tuple[Metric, ...]:
    return tuple(metric for metric in DEFAULTS if set(metric.columns) <= set(columns))


def _columns(columns: Sequence[str]) -> tuple[str, ...]:
    return (*columns, *(f"pre.{column}" for column in columns))


def _compare(estimates: Mapping[str, Estimate]) -> Effect:
    return compare(estimates["treatment"], estimates["control"], ("treatment", "control"))


def _covers(effect: Effect, lift: float) -> Floats:
    bounds = ((effect.ci_low, effect.ci_high), (effect.fieller_low, effect.fieller_high))
    return np.array([low is not None and high is not None and low <= lift <= high for low, high in bounds], np.float64)


def _level(p_values: Floats) -> dict[str, float]:
    positives = int((p_values < ALPHA).sum())
    interval = binomtest(positives, p_values.size, ALPHA).proportion_ci(0.99)
    return {
        "rate": positives / p_values.size,
        "low": float(interval.low),
        "high": float(interval.high),
        "uniform_p": float(kstest(p_values, "uniform").pvalue),
    }


def _nested(flat: Mapping[tuple[Any, ...], Any]) -> dict[str, Any]:
    """Keys (a, b, c) → {a: {b: {c: …}}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        branch = tree
        for part in key[:-1]:
            branch = branch.setdefault(str(part), {})
        branch[str(key[-1])] = value
    return tree


def _number(p_value: float | None) -> float:
    return 1.0 if p_value is None else p_value


if __name__ == "__main__":
    main()
