"""A week of three million users from Parquet to a whole report, beside tea-tasting doing the part of it that it can.

    python -m benchmarks.abtest.scale [--users 3000000] [--folder DIR] [--seed 0]

Prints JSON. Each side runs in a process of its own, one after the other, imports included: `seconds` on the wall and
`peak_mb` of resident memory. tea-tasting gets the same files by DuckDB through Ibis, which is its recommended way:
users' sums by one group-by per day and one per days so far, five metrics plain and by CUPED and the split at once. Ours
also has the joint covariance of all days, hence group-sequential bounds and simultaneous bands, the jackknife, five
covariates at once and segments.

`cpu_s` is processor time, which other work on the machine disturbs less. `one_more_day_s` is for the last day where the
others are kept (`abtest.incremental.add_day`): opening what is kept, reading the day's file, adding the day, keeping
it. `max_relative_error` is over everything that both report: differences, their intervals, relative differences and
p-values, by day and so far; CUPED so far, by the one covariate that tea-tasting takes; and the split.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.abtest.scale_world import COLUMNS, DAYS, FIRST, experiment, write

BY_CUPED = {  # a metric's covariate, or numerator and denominator of it
    "evr": ("pre.effective_views", "pre.views"),
    "follow_rate": ("pre.follows", "pre.views"),
    "play_duration": ("pre.play_s",),
    "app_usage": ("pre.play_s",),
    "recalls": ("pre.recalls",),
}
Figures = dict[str, list[float | None]]


def ours(folder: Path) -> Figures:
    """The whole report; the aggregate is saved beside the data."""
    from abtest.aggregate.archive import save
    from abtest.analyse.analysis import report
    from abtest.read.engines import opened
    from abtest.read.rows import read
    from abtest.report.files import ReportContext
    from abtest.report.files import write as written

    design = experiment()
    counted = read(opened(folder / "rows"), design, opened(folder / "pre.parquet"))
    whole = report(counted.aggregate, design)
    written(whole, ReportContext(), folder / "report")
    save(counted, design, folder / "state.npz")
    figures = {"split": [whole.split.p_value]}
    for day in whole.days:
        for name, results in (("on", day.daily), ("through", day.cumulative)):
            for result in results:
                figures[f"{result.metric} {name} {day.day}"] = _figures(result.effects[0].effect)
    return figures


def ours_by_one_covariate(folder: Path) -> Figures:
    """CUPED by what tea-tasting adjusts by, from the saved aggregate."""
    from abtest.aggregate.archive import load
    from abtest.stats.cuped import adjust
    from abtest.stats.effects import compare
    from abtest.stats.metrics import Metric, Quantile, Ratio, of_experiment

    design = experiment()
    whole = load(folder / "state.npz", design).aggregate
    figures = {}
    for metric in of_experiment(design):
        if isinstance(metric, Quantile):
            continue
        names = BY_CUPED[metric.name]
        by: str | Metric = names[0] if len(names) == 1 else Ratio("before", "", "", "", *names)
        for day in range(whole.days):
            adjusted = adjust(whole.through(day), metric, [by]).estimates
            effect = compare(adjusted["treatment"], adjusted["control"])
            figures[f"{metric.name} by cuped through {day}"] = _figures(effect)
    return figures


def tea_tasting(folder: Path) -> Figures:
    """What tea-tasting reports of the same."""
    from datetime import timedelta

    import ibis
    import tea_tasting as tt

    connection = ibis.duckdb.connect()
    rows = connection.read_parquet(str(folder / "rows" / "**" / "*.parquet"), hive_partitioning=True)
    pre = connection.read_parquet(str(folder / "pre.parquet"))
    metrics: dict[str, Any] = {"split": tt.SampleRatio(method="norm", correction=False)}
    for metric in experiment().metrics:
        kind = tt.RatioOfMeans if metric.kind == "ratio" else tt.Mean
        metrics[metric.name] = kind(*metric.columns, use_t=False)
        metrics[f"{metric.name} by cuped"] = kind(*metric.columns, *BY_CUPED[metric.name], use_t=False)
    test = tt.Experiment(metrics, variant="arm")
    figures: Figures = {}
    for day in range(DAYS):
        on = FIRST + timedelta(days=day)
        for name, part in (("on", rows.filter(rows.day == on)), ("through", rows.filter(rows.day <= on))):
            users = part.group_by("user_id", "arm").agg(**{column: part[column].sum() for column in COLUMNS})
            users = users.left_join(pre, "user_id").drop("user_id_right")
            users = users.fill_null(dict.fromkeys((column for column in pre.columns if column != "user_id"), 0))
            found = test.analyze(users)
            for metric, result in found.items():
                if metric == "split":
                    figures["split"] = [result.pvalue]
                elif name == "through" or not metric.endswith("by cuped"):  # ours by day goes by all users seen so far
                    figures[f"{metric} {name} {day}"] = [
                        result.effect_size,
                        result.effect_size_ci_lower,
                        result.effect_size_ci_upper,
                        result.rel_effect_size,
                        result.pvalue,
                    ]
    return figures


def from_state(folder: Path) -> Figures:
    """Milliseconds of reports from the saved aggregate, reading it included, in a process that has made one before."""
    from abtest.aggregate.archive import load
    from abtest.analyse.analysis import report
    from contracts.config.experiment import AnalysisPlan

    planned = experiment()
    fixed = planned.model_copy(update={"analysis": AnalysisPlan()})
    figures: Figures = {}
    for name, design in (("group_sequential", planned), ("fixed", fixed)):
        times = []
        for _ in range(31):
            began_s = time.perf_counter()
            report(load(folder / "state.npz", design).aggregate, design)
            times.append(1000 * (time.perf_counter() - began_s))
        figures[name] = [statistics.median(times[1:]), min(times)]
    return figures


def one_more_day(folder: Path) -> Figures:
    """Seconds for the week's last day, the others being kept: opening, reading its file, adding and keeping it.

    And the largest difference of the week's moments to those read at once, in standard deviations' products.
    """
    import numpy as np

    from abtest.aggregate.aggregate import without_covariate
    from abtest.aggregate.archive import load
    from abtest.aggregate.user_days import UNKNOWN
    from abtest.incremental import store
    from abtest.incremental.add_day import add_day
    from abtest.read.engines import opened
    from abtest.read.rows import before, one_day, wanted

    design, at = experiment(), folder / "kept"
    parts = sorted((folder / "rows").glob("day=*"))
    columns, spread, _ = wanted(opened(parts[0]), design)
    covariates, ids, pre = before(opened(parts[0]), opened(folder / "pre.parquet"), design)
    store.create(at, design, columns, covariates, (ids, pre), spread)
    del ids, pre
    times = []
    for part in parts:
        began_s = time.perf_counter()
        kept = store.load(at, design)
        opened_s = time.perf_counter()
        table, _ = one_day(opened(part), design, columns, ())
        read_s = time.perf_counter()
        kept = add_day(kept, table)
        ended_s = time.perf_counter()
        times.append([ended_s - began_s, opened_s - began_s, read_s - opened_s, ended_s - read_s])
    expected, worst = load(folder / "state.npz", design).aggregate, 0.0
    whole = kept.aggregate
    if UNKNOWN not in expected.covariates:  # who is known from before is told once all have come
        whole = without_covariate(whole, UNKNOWN)
    for arm, moments in whole.moments.items():
        products = expected.moments[arm].products
        deviations = np.sqrt(products.diagonal())
        scale = np.maximum(np.outer(deviations, deviations), 1e-300)
        worst = max(worst, float((abs(moments.products - products) / scale).max()))
    size_mb = sum(path.stat().st_size for path in at.iterdir()) / 1e6
    return {"seconds": times[-1], "difference": [worst], "kept_mb": [size_mb]}


SIDES = {side.__name__: side for side in (ours, ours_by_one_covariate, tea_tasting, from_state, one_more_day)}


def max_relative_error(figures: Figures, oracle: Figures) -> float:
    """The largest relative difference of two numbers that both have.

    Raises:
        KeyError: the oracle has a number that is not found.

    """
    return max(
        abs(a / b - 1)
        for name, numbers in oracle.items()
        for a, b in zip(figures[name], numbers, strict=True)
        if a is not None and b is not None
    )


def _figures(effect: Any) -> list[float | None]:
    return [
        effect.difference,
        effect.difference_low,
        effect.difference_high,
        effect.relative,
        effect.difference_p_value,
    ]


def _round(numbers: list[float | None]) -> list[float]:
    return [round(number, 3) for number in numbers if number is not None]


def _child(side: str, folder: Path) -> dict[str, Any]:
    began_s = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.abtest.scale", "--side", side, "--folder", str(folder)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return {"seconds": round(time.perf_counter() - began_s, 2), **json.loads(printed)}


def _run(users: int, folder: Path, seed: int) -> dict[str, Any]:
    # Elsewhere, for a child's peak memory begins with its parent's; and on disk, lest the first side waits for that.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        rows = pool.submit(write, folder, users, seed).result()
    os.sync()
    mine, theirs = _child("ours", folder), _child("tea_tasting", folder)
    cuped, state = _child("ours_by_one_covariate", folder), _child("from_state", folder)["figures"]
    day = _child("one_more_day", folder)
    return {
        "users": users,
        "rows": rows,
        "time_ratio_to_tea_tasting": round(mine["seconds"] / theirs["seconds"], 3),
        "cpu_ratio_to_tea_tasting": round(mine["cpu_s"] / theirs["cpu_s"], 3),
        "memory_ratio_to_tea_tasting": round(mine["peak_mb"] / theirs["peak_mb"], 3),
        "report_from_state_ms": round(state["group_sequential"][0], 1),
        "report_from_state_fixed_horizon_ms": round(state["fixed"][0], 1),
        **dict(
            zip(
                ("one_more_day_s", "opening_s", "reading_s", "adding_s"), _round(day["figures"]["seconds"]), strict=True
            )
        ),
        "one_more_day_difference": day["figures"]["difference"][0],
        "kept_mb": round(day["figures"]["kept_mb"][0], 1),
        "state_kb": round((folder / "state.npz").stat().st_size / 1000, 1),
        "max_relative_error": max_relative_error({**mine["figures"], **cuped["figures"]}, theirs["figures"]),
        "compared": sum(len(numbers) for numbers in theirs["figures"].values()),
        **{
            name: {what: side[what] for what in ("seconds", "cpu_s", "peak_mb")}
            for name, side in (("ours", mine), ("tea_tasting", theirs), ("one_more_day", day))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=3_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the data go; default: a temporary folder")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        figures = SIDES[asked.side](asked.folder)
        used = resource.getrusage(resource.RUSAGE_SELF)
        usage = {
            "cpu_s": round(used.ru_utime + used.ru_stime, 2),
            "peak_mb": round(used.ru_maxrss / 1000, 1),
        }  # from KB
        print(json.dumps({**usage, "figures": figures}))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as temporary:
        measured = _run(asked.users, asked.folder or Path(temporary), asked.seed)
    print(json.dumps(measured, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
