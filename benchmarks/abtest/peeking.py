"""How often one is fooled by looking at an experiment every day, or every hour, of a week in which nothing differs.

    python -m benchmarks.abtest.peeking [--replicates 20000] [--users 4000] [--seed 1] [--processes 2]

Prints one JSON object. Each replicate draws users with replacement from a population with a week of hours, and deals
them into two arms of half the users each. Users come back: a user is in the experiment from their first visit on, and
what they did grows from look to look. Daily looks go the report's own way: `Moments` of columns by day, `sums_so_far`,
`course`, `group_sequential`. Peeks at every hour are vectorised over replicates, with the confidence sequence's
`critical_values`. Split tests deal each user by a coin, and look after every day, and after every single user.

The population is made up, with the traits of `benchmarks.abtest.aa`: activity (gamma), taste (beta) and appetite
(lognormal) last for the week; a day's mood (gamma) makes visits clump, its taste strays from the user's own, and hours
have a day's rhythm. Most users come on several days, and new ones up to the end.
"""

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

from abtest.stats.columns import Column
from abtest.stats.confidence_sequence import critical_values, fits
from abtest.stats.cumulative import FIRST, so_far, sums_so_far
from abtest.stats.effects import ALPHA, quantile
from abtest.stats.group_sequential import group_sequential
from abtest.stats.metrics import DEFAULTS, Mean, Ratio
from abtest.stats.moments import Floats, Moments
from abtest.stats.novelty import Course, course
from abtest.stats.split import SRM_ALPHA
from abtest.stats.srm import log_e_values
from benchmarks.abtest.aa import traits

DAYS, HOURS = 7, 24
COLUMNS = ("recalls", "views", "effective_views", "usage_s")
WATCHED: tuple[Mean | Ratio, ...] = tuple(metric for metric in DEFAULTS if metric.name in {"evr", "app_usage"})
EARLIEST = 200  # users an arm before the first peek
BATCH = 500  # replicates of hourly peeks at once

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Week:
    """A population's week. `hours` (users, 168, k) of COLUMNS; `first` (users,) the hour of the first visit."""

    hours: Floats
    first: Ints

    def by_day(self) -> tuple[tuple[str, ...], Floats]:
        """Columns views@0 … first@6 and their values (users, ·)."""
        days = self.hours.reshape(len(self.hours), DAYS, HOURS, -1).sum(axis=2)
        first = np.eye(DAYS)[self.first // HOURS][..., None]
        values = np.concatenate([days, first], axis=2).transpose(0, 2, 1)  # (users, k + 1, days)
        names = tuple(Column(column, day) for column in (*COLUMNS, FIRST) for day in range(DAYS))
        return names, values.reshape(len(values), -1)


def week(users: int = 20_000, seed: int = 11) -> Week:
    """A made-up population; see the module. Those who never came are left out."""
    random = np.random.default_rng(seed)
    activity, taste, _, appetite = traits(users, random)
    rhythm = 1 + 0.9 * np.sin((np.arange(HOURS) - 8) * 2 * np.pi / HOURS)
    mood = random.gamma(0.5, 2.0, (users, DAYS))
    rate = (2.5 * activity[:, None] * mood)[..., None] * rhythm / rhythm.sum()
    recalls = random.poisson(rate)
    views = random.poisson(8 * recalls)
    on_day = np.clip(taste[:, None] + random.normal(0, 0.06, (users, DAYS)), 0, 1)
    effective = random.binomial(views, on_day[..., None])
    played = views * 15 * appetite[:, None, None] * random.lognormal(0, 0.5, recalls.shape)
    usage = 1.2 * played + 20 * recalls
    hours = np.stack([recalls, views, effective, usage], axis=-1).astype(np.float64).reshape(users, -1, len(COLUMNS))
    came = hours[..., 0].any(axis=1)
    return Week(hours[came], np.argmax(hours[came, :, 0] > 0, axis=1))


def daily(population: Week, users: int, random: np.random.Generator, replicates: int) -> Iterator[dict[str, Course]]:
    """Per replicate each metric's effects as they stood after each day, by the report's own way."""
    names, values = population.by_day()
    days = range(DAYS)
    for _ in range(replicates):
        arms = [
            Moments.of(names, values[half]).sums(sums_so_far(WATCHED, days))
            for half in _deal(population, users, random)
        ]
        yield {metric.name: course([so_far(metric, day) for day in days], *arms) for metric in WATCHED}


def looks(population: Week, users: int, seed: tuple[int, int], replicates: int) -> dict[str, dict[str, int]]:
    """False alarms in daily looks: by kind of analysis and metric how many replicates had one.

    On one BLAS thread: the matrices are small, and threads that wait for each other take far longer.
    """
    random = np.random.default_rng(seed)
    z_fixed = quantile(ALPHA / 2)
    units = _visits(population)[HOURS - 1 :: HOURS] * users
    critical = critical_values(units, ALPHA, units[-1])
    alarms_by_kind = {
        kind: dict.fromkeys((m.name for m in WATCHED), 0) for kind in ("group_sequential", "always_valid", "naive")
    }
    with threadpool_limits(1):
        for name, effects in (
            of_metric for courses in daily(population, users, random, replicates) for of_metric in courses.items()
        ):
            z = np.abs(effects.effects) / np.sqrt(np.diag(effects.covariance))
            days = effects.days.astype(int)
            alarms_by_kind["naive"][name] += bool((z >= z_fixed).any())
            alarms_by_kind["always_valid"][name] += bool((z >= critical[days]).any())
            if (z >= z_fixed).any():  # no bound lies below the pointwise one, so no other replicate has an alarm
                judged = group_sequential((days + 1).tolist(), effects.effects, effects.covariance, DAYS)
                alarms_by_kind["group_sequential"][name] += judged.stopped_at is not None
    return alarms_by_kind


def hourly(population: Week, users: int, seed: int, replicates: int) -> dict[str, dict[str, int]]:
    """False alarms in hourly peeks, as `looks`. `users_as_clock`: the confidence sequence, had N been users."""
    random = np.random.default_rng(seed)
    so_far_by_hour = population.hours.cumsum(axis=1)
    came = (np.arange(DAYS * HOURS) >= population.first[:, None]).astype(np.float64)
    columns = {
        "evr": (so_far_by_hour[..., COLUMNS.index("effective_views")], so_far_by_hour[..., COLUMNS.index("views")]),
        "app_usage": (so_far_by_hour[..., COLUMNS.index("usage_s")], came),
    }
    visits, present = _visits(population) * users, came.mean(axis=0) * users
    clocks = {"always_valid": visits, "users_as_clock": present}
    critical = {kind: critical_values(units, ALPHA, units[-1]) for kind, units in clocks.items()}
    critical["naive"] = np.full(len(visits), quantile(ALPHA / 2))
    late = present >= 2 * EARLIEST
    alarms_by_kind = {kind: dict.fromkeys(columns, 0) for kind in critical}
    sums = {
        name: np.concatenate([above, below, above**2, above * below, below**2], axis=1)
        for name, (above, below) in columns.items()
    }
    for begin in range(0, replicates, BATCH):
        size = min(BATCH, replicates - begin)
        halves = zip(*(_deal(population, users, random) for _ in range(size)), strict=True)
        arms = [_drawn(np.stack(half), len(population.first)) for half in halves]
        for name in columns:
            (t, v_t), (c, v_c) = (_log_ratio(arm @ sums[name], users // 2) for arm in arms)
            z = np.abs(t - c) / np.sqrt(v_t + v_c)
            for kind, bound in critical.items():
                alarms_by_kind[kind][name] += int((z >= bound)[:, late].any(axis=1).sum())
    return alarms_by_kind


def splits(population: Week, users: int, seed: int, replicates: int, weights: Floats) -> dict[str, int]:
    """False alarms of the sequential split test, looked at after every day and after every user."""
    random = np.random.default_rng(seed)
    day = population.first // HOURS
    alarms_by_kind = {"daily": 0, "every_user": 0}
    batch = 200
    for begin in range(0, replicates, batch):
        size = min(batch, replicates - begin)
        arm = np.searchsorted(np.cumsum(weights / weights.sum())[:-1], random.random((size, users)), side="right")
        counts = np.stack([arm == i for i in range(len(weights))], axis=-1).cumsum(axis=1)
        alarms = log_e_values(counts.astype(np.float64), weights) >= -np.log(SRM_ALPHA)
        arrived = np.sort(day[random.integers(0, len(day), (size, users))], axis=1)
        ends = np.stack([(arrived <= d).sum(axis=1) - 1 for d in range(DAYS)], axis=1)
        alarms_by_kind["every_user"] += int(alarms.any(axis=1).sum())
        alarms_by_kind["daily"] += int(np.take_along_axis(alarms, ends, axis=1).any(axis=1).sum())
    return alarms_by_kind


def measure(replicates: int, users: int, seed: int, processes: int = 1, population: int = 20_000) -> dict[str, Any]:
    """All of it; see the module."""
    began = time.perf_counter()
    crowd = week(population)
    shares = [replicates // processes + (i < replicates % processes) for i in range(processes)]
    if processes == 1:
        parts = [looks(crowd, users, (seed, 0), replicates)]
    else:
        with ProcessPoolExecutor(processes) as pool:
            parts = list(pool.map(partial(looks, crowd, users), [(seed, i) for i in range(processes)], shares))
    by_day = {
        kind: {name: sum(part[kind][name] for part in parts) for name in of_kind} for kind, of_kind in parts[0].items()
    }
    by_hour = hourly(crowd, users, seed, replicates)
    by_split = splits(crowd, users, seed, replicates, np.ones(2))
    rate = partial(_rate, replicates)
    return {
        "replicates": replicates,
        "users": users,
        "seed": seed,
        "population_users": len(crowd.first),
        "days_per_user": float(np.mean((crowd.hours.reshape(len(crowd.first), DAYS, -1) > 0).any(axis=2).sum(axis=1))),
        "seconds": round(time.perf_counter() - began, 1),
        "peeking_false_positive": {
            "group_sequential": rate(by_day["group_sequential"]),
            "confidence_sequence": {"daily": rate(by_day["always_valid"]), "hourly": rate(by_hour["always_valid"])},
            "fixed_horizon_peeked_naively": {"daily": rate(by_day["naive"]), "hourly": rate(by_hour["naive"])},
            "sequential_srm": rate(by_split),
        },
        "confidence_sequence_by_users": {"hourly": rate(by_hour["users_as_clock"])},
        "correlation_above_clock": _fits(crowd),
    }


def main() -> None:
    """Measure, and print the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicates", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=4_000, help="users in both arms together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    if given.replicates < 1 or given.users < 4 or given.users % 2 or given.processes < 1:
        parser.error("--replicates and --processes must be 1 or more, --users an even number from 4")
    print(json.dumps(measure(given.replicates, given.users, given.seed, given.processes), indent=2))  # noqa: T201


def _deal(population: Week, users: int, random: np.random.Generator) -> list[Ints]:
    return np.split(random.integers(0, len(population.first), users), 2)


def _drawn(users: Ints, population: int) -> csr_array:
    """How often each user of the population was drawn (replicates, population), from draws (replicates, n)."""
    rows = np.repeat(np.arange(len(users)), users.shape[1])
    return csr_array((np.ones(users.size), (rows, users.ravel())), shape=(len(users), population))


def _log_ratio(sums: Floats, users: int) -> tuple[Floats, Floats]:
    """Logarithm of Σ above / Σ below and its variance by the delta method, from five sums (replicates, 5 · hours)."""
    above, below, above_2, both, below_2 = np.split(sums, 5, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above / below
        variance = (above_2 - 2 * ratio * both + ratio**2 * below_2) / above**2 * users / (users - 1)
        return np.log(ratio), variance


def _visits(population: Week) -> Floats:
    """Mean recalls of a user up to each hour (168,)."""
    return np.asarray(population.hours[..., 0].cumsum(axis=1).mean(axis=0), np.float64)


def _fits(population: Week) -> dict[str, dict[str, float]]:
    """`fits` of the whole population's daily looks, by metric, for visits and for users as the clock."""
    names, values = population.by_day()
    arms = [Moments.of(names, half).sums(sums_so_far(WATCHED, range(DAYS))) for half in (values[::2], values[1::2])]
    visits = _visits(population)[HOURS - 1 :: HOURS]
    present = np.bincount(population.first // HOURS, minlength=DAYS).cumsum().astype(np.float64)
    fits_by_metric = {}
    for metric in WATCHED:
        covariance = course([so_far(metric, day) for day in range(DAYS)], *arms).covariance
        fits_by_metric[metric.name] = {"visits": fits(covariance, visits), "users": fits(covariance, present)}
    return fits_by_metric


def _rate(replicates: int, alarms: dict[str, int]) -> dict[str, dict[str, float]]:
    rates = {}
    for name, count in alarms.items():
        interval = binomtest(count, replicates).proportion_ci(0.99)
        rates[name] = {"rate": count / replicates, "low": float(interval.low), "high": float(interval.high)}
    return rates


if __name__ == "__main__":
    main()
