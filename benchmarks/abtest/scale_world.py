"""A week of user-day rows for the scale benchmark: the same for the same seed, as a warehouse would keep it.

Three million users come on 3.83 of 7 days: 11.5 million rows, by day in hive-partitioned Parquet, users in no order,
and a second file with what they did before.
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.config.experiment import AnalysisPlan, Arm, Experiment, MetricPlan
from contracts.runtime.clock import DAY_MS

DAYS = 7
FIRST = date(2026, 3, 1)
COMES = 0.5476  # on a day: 11.5 million rows of 3 million users
ROW_GROUP = 122_880
COLUMNS = ("recalls", "views", "effective_views", "follows", "play_s", "usage_s")
COVARIATES = ("pre.recalls", "pre.views", "pre.effective_views", "pre.follows", "pre.play_s")


def experiment() -> Experiment:
    """Five metrics, as a deployment has them."""
    start_ms = (FIRST - date(1970, 1, 1)).days * DAY_MS
    metrics = (
        MetricPlan(name="evr", kind="ratio", columns=("effective_views", "views"), role="primary"),
        MetricPlan(name="follow_rate", kind="ratio", columns=("follows", "views"), role="guardrail"),
        MetricPlan(name="play_duration", kind="mean", columns=("play_s",), role="guardrail"),
        MetricPlan(name="app_usage", kind="mean", columns=("usage_s",), role="guardrail"),
        MetricPlan(name="recalls", kind="mean", columns=("recalls",)),
    )
    arms = {"control": Arm(weight=1, model="two_tower"), "treatment": Arm(weight=1, model="t2diff")}
    return Experiment(
        name="scale",
        salt="scale",
        start_ms=start_ms,
        end_ms=start_ms + DAYS * DAY_MS,
        arms=arms,
        control="control",
        metrics=metrics,
        analysis=AnalysisPlan(kind="group-sequential"),
    )


def write(folder: Path, users: int, seed: int = 0) -> int:
    """Write ``folder/rows/day=…/part.parquet`` and ``folder/pre.parquet``; how many rows there are."""
    random = np.random.default_rng(seed)
    ids = random.permutation(np.arange(users, dtype=np.int64) * 7919 + 100_003)
    treated = random.random(users) < 0.5
    activity = random.gamma(2.0, 1.0, users).astype(np.float32)
    taste = random.beta(2.0, 4.0, users).astype(np.float32)
    arms = pa.DictionaryArray.from_arrays(pa.array(treated.astype(np.int8)), ["control", "treatment"])
    before = _behaviour(random, 7 * activity, taste)
    names = COVARIATES
    _write(folder / "pre.parquet", {"user_id": ids, **dict(zip(names, before[:-1], strict=True))})
    rows = 0
    for day in range(DAYS):
        place = np.flatnonzero(random.random(users) < COMES)
        random.shuffle(place)
        lift = np.where(treated[place], np.float32(1.01), np.float32(1.0))
        columns = _behaviour(random, activity[place], lift * taste[place])
        at = folder / "rows" / f"day={FIRST + timedelta(days=day)}" / "part.parquet"
        _write(
            at, {"user_id": ids[place], "arm": arms.take(pa.array(place)), **dict(zip(COLUMNS, columns, strict=True))}
        )
        rows += len(place)
    return rows


def _behaviour(random: np.random.Generator, activity: np.ndarray, taste: np.ndarray) -> tuple[np.ndarray, ...]:
    """Counts as 32-bit integers, seconds to the millisecond as doubles."""
    recalls = 1 + random.poisson(3 * activity)
    views = recalls + random.poisson(9 * activity)
    effective = random.binomial(views, np.minimum(taste, 1))
    follows = random.binomial(effective, 0.02)
    play = np.round(effective * 20 * random.exponential(1.0, len(views)) + views * 1.5, 3)
    usage = np.round(play * 1.3 + recalls * 4.0, 3)
    counts = tuple(column.astype(np.int32) for column in (recalls, views, effective, follows))
    return (*counts, play, usage)


def _write(path: Path, columns: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP, compression="zstd")
