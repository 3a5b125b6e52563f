"""Progressive quality by sync interval: does a fresher copy answer better, and by how much?

    python -m benchmarks.trainer.sync --data KUAIRAND_PURE [--seeds 3] [--batch-sizes 16 128]

Algorithm 1 of Monolith (Liu et al., ORSUM at RecSys 2022), on the KuaiRand-Pure log in the order of its events: one
learner learns all the time, in batches as they fill, but what answers is the copy that was taken when event time last
entered another interval. Every effective view is a query, with the user's history up to then: serving has fresh
features at any interval, it is the weights alone that grow old. The last seven days count, in which all copies begin
alike: at their first midnight everything is synced, and intervals are counted from there.

The learner is the same under every interval, so one pass serves them all: a query is asked as soon as the learner has
come to where the query's copy was taken, and once for all intervals whose copies are the same.
"""

import argparse
import copy
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.options import folder
from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.features import Ints
from contracts.runtime.clock import DAY_MS, HOUR_MS, MINUTE_MS
from evaluation import costs, kuairand, pictures
from evaluation.data import Query
from evaluation.fit import trainer_catalogue
from evaluation.metrics import Interval, interval, lift, over_seeds, recall
from evaluation.progressive import batch_of
from evaluation.runs import TESTED_DAYS
from trainer.engine import choose_device
from trainer.learn.learner import Learner
from trainer.models.base import UserEncoder

CUTOFFS = (20, 100)
ASKED_AT_ONCE = 512
MODELS = {"two_tower": ModelSettings(), "t2diff": ModelSettings()}


@dataclass(frozen=True)
class Sync:
    """How often what answers is replaced by what the learner knows; in ms of event time, 0 is with every batch."""

    items_ms: int  # item vectors, which the user tower reads, too
    tower_ms: int  # weights of the user tower; a multiple of `items_ms`, so never fresher than those


REFERENCE = "1 day"
SYNCS = {
    "7 days": Sync(7 * DAY_MS, 7 * DAY_MS),
    REFERENCE: Sync(DAY_MS, DAY_MS),
    "5 h": Sync(5 * HOUR_MS, 5 * HOUR_MS),
    "1 h": Sync(HOUR_MS, HOUR_MS),
    "10 min": Sync(10 * MINUTE_MS, 10 * MINUTE_MS),
    "1 min": Sync(MINUTE_MS, MINUTE_MS),
    "every batch": Sync(0, 0),
    "items 1 min, tower 1 day": Sync(MINUTE_MS, DAY_MS),
}


def versions(times_ms: Ints, interval_ms: int, origin_ms: int, batch_size: int) -> Ints:
    """How many batches the copy had learned from that answers each query; (Q,), never falling.

    Args:
        times_ms: (Q,) never falling; query i is the learner's example i.
        interval_ms: between two copies; 0 for one with every batch.
        origin_ms: where a first interval begins.
        batch_size: of the learner, which learns from whole batches.

    >>> times_ms = np.array([0, 1, 2, 3, 10, 11])
    >>> versions(times_ms, 10, 0, 2).tolist(), versions(times_ms, 0, 0, 2).tolist()
    ([0, 0, 0, 0, 2, 2], [0, 0, 1, 1, 2, 2])

    """
    first = np.arange(times_ms.size)
    if interval_ms:
        intervals = (times_ms - origin_ms) // interval_ms
        first = np.searchsorted(intervals, intervals)
    return first // batch_size


def replay(
    learner: Learner,
    queries: Sequence[Query],
    syncs: Mapping[str, Sync],
    *,
    origin_ms: int,
    report: Callable[[int], None] = lambda _: None,
) -> dict[str, Ints]:
    """Rank of each target asked for at or after `origin_ms`, by sync; (T,) each, in event order.

    Args:
        learner: at its start, with the catalogue; it learns from all queries.
        queries: Q, in event order.
        syncs: by name.
        origin_ms: of the intervals, too.
        report: is told how many queries are learned from.

    Raises:
        ValueError: a tower would be fresher than the items.

    """
    size = learner.settings.batch_size
    times_ms = np.array([query.time_ms for query in queries], np.int64)
    tested = int(np.searchsorted(times_ms, origin_ms))
    plans = {
        name: tuple(versions(times_ms, each, origin_ms, size)[tested:] for each in (sync.items_ms, sync.tower_ms))
        for name, sync in syncs.items()
    }
    for name, (items, towers) in plans.items():
        if (towers > items).any():
            raise ValueError(f"the tower of '{name}' would be fresher than its items")
    ranks = {name: np.zeros(len(queries) - tested, np.int64) for name in plans}
    outlived = _outlived(plans.values())
    tower_of: dict[int, UserEncoder] = {}
    for version, start in enumerate(range(0, len(queries), size)):
        tower_of = {number: tower for number, tower in tower_of.items() if outlived[number] >= version}
        wanted: dict[int, set[int]] = {}  # tower's version -> queries
        for items, towers in plans.values():
            here = slice(*np.searchsorted(items, (version, version + 1)))
            for i, tower in enumerate(towers[here].tolist(), here.start):
                wanted.setdefault(tower, set()).add(i)
        for tower, places in wanted.items():
            at = np.array(sorted(places))
            answered = _ask(learner, tower_of.get(tower), [queries[tested + i] for i in at])
            for name, (items, towers) in plans.items():
                same = (items[at] == version) & (towers[at] == tower)
                ranks[name][at[same]] = answered[same]
        if version in outlived:
            tower_of[version] = copy.deepcopy(learner.model.encoder)
        batch = queries[start : start + size]
        learner.learn(batch_of(batch, learner.settings.window))
        report(start + len(batch))
    return ranks


def _outlived(plans: Iterable[tuple[Ints, ...]]) -> dict[int, int]:
    """Versions whose tower is asked with fresher items, and the last version of the items that it is asked with."""
    last: dict[int, int] = {}
    for items, towers in plans:
        for tower, version in zip(towers.tolist(), items.tolist(), strict=True):
            if tower != version:
                last[tower] = max(last.get(tower, 0), version)
    return last


def _ask(learner: Learner, tower: UserEncoder | None, queries: Sequence[Query]) -> Ints:
    """Ranks of the targets by what the learner knows now, or by its items and an older tower; (Q,)."""
    now = learner.model.encoder
    learner.model.encoder = tower or now
    try:
        parts = [queries[at : at + ASKED_AT_ONCE] for at in range(0, len(queries), ASKED_AT_ONCE)]
        return np.concatenate([learner.evaluate(batch_of(part, learner.settings.window)).ranks for part in parts])
    finally:
        learner.model.encoder = now


def behind(times_ms: Ints, sync: Sync, origin_ms: int, batch_size: int) -> dict[str, float]:
    """How old the items are that answer the queries from `origin_ms` on, and how many copies of them there are."""
    copied = versions(times_ms, sync.items_ms, origin_ms, batch_size)
    counts = times_ms >= origin_ms
    unlearned = np.arange(times_ms.size) - batch_size * copied
    learned_ms = times_ms[np.maximum(batch_size * copied - 1, 0)]
    return {
        "copies": int(np.unique(copied[counts]).size),
        "examples_behind": round(float(unlearned[counts].mean()), 1),
        "minutes_behind": round(float((times_ms - learned_ms)[counts].mean()) / MINUTE_MS, 1),
    }


def measured(runs: Mapping[str, Sequence[Ints]], user_ids: Ints) -> dict[str, dict[str, Any]]:
    """Recalls by sync with their intervals over users, and their paired relative difference to the daily copy's.

    Args:
        runs: ranks (T,) of each seed, by sync.
        user_ids: (T,).

    """
    figures: dict[str, dict[str, Any]] = {}
    for k in CUTOFFS:
        values = {name: over_seeds([recall(ranks, k).tolist() for ranks in seeds]) for name, seeds in runs.items()}
        for name, own in values.items():
            entry = figures.setdefault(name, {})
            entry[f"recall@{k}"] = _rounded(interval(own, user_ids))
            if name != REFERENCE:
                entry[f"lift@{k}"] = _rounded(lift(own, values[REFERENCE], user_ids))
    return figures


def _rounded(interval: Interval) -> list[float]:
    return [round(value, 5) for value in (interval.value, interval.low, interval.high)]


@dataclass(frozen=True)
class Pass:
    """One learner's way through the log."""

    data: Path
    model: str
    batch_size: int
    seed: int
    device: str
    threads: int


def walk(one: Pass) -> dict[str, Ints]:
    """Ranks by sync, see `replay`."""
    torch.set_num_threads(one.threads)
    source, queries, origin_ms = _asked(one.data)
    settings = MODELS[one.model].model_copy(update={"batch_size": one.batch_size})
    learner = Learner(one.model, TrainerSettings(model=settings), one.seed, choose_device(one.device))
    learner.follow(trainer_catalogue(source.catalogue))
    return replay(learner, queries, SYNCS, origin_ms=origin_ms)


@lru_cache(maxsize=1)
def _asked(data: Path) -> tuple[kuairand.Stream, list[Query], int]:
    """The log, its queries, and the midnight from which they count."""
    source = kuairand.stream(data, histories=True)
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))
    return source, queries, int(midnights[-TESTED_DAYS - 1])


def run(passes: Sequence[Pass], workers: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, by batch size, model and sync; what comes out does not depend on the number of workers."""
    _, queries, origin_ms = _asked(passes[0].data)
    times_ms = np.array([query.time_ms for query in queries], np.int64)
    user_ids = np.array([query.user_id for query in queries if query.time_ms >= origin_ms], np.int64)
    runs: dict[tuple[int, str], dict[str, list[Ints]]] = {}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for one, ranks_by_sync in zip(passes, pool.map(walk, passes), strict=True):
            say(f"{one.model}, batches of {one.batch_size}, seed {one.seed}")
            for name, ranks in ranks_by_sync.items():
                runs.setdefault((one.batch_size, one.model), {}).setdefault(name, []).append(ranks)
    figures: dict[str, Any] = {
        "queries": user_ids.size,
        "users": int(np.unique(user_ids).size),
        "learned_before": len(queries) - user_ids.size,
        "views_per_minute": round(MINUTE_MS * user_ids.size / int(times_ms[-1] - origin_ms), 2),
        "seeds": len({one.seed for one in passes}),
        "syncs": {},
        "found": {},
    }
    for (size, model), of_model in runs.items():
        figures["syncs"][str(size)] = {n: behind(times_ms, sync, origin_ms, size) for n, sync in SYNCS.items()}
        figures["found"].setdefault(str(size), {})[model] = measured(of_model, user_ids)
    return figures


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """The lifts over the daily copy, by sync, of the smallest batches."""
    size = min(figures["found"], key=int)
    lifts = {
        model: {
            name: [Interval(*entry[f"lift@{k}"]) if name != REFERENCE else Interval(0, 0, 0) for k in CUTOFFS]
            for name, entry in by_sync.items()
        }
        for model, by_sync in figures["found"][size].items()
    }
    pictures.syncs(lifts, [f"R@{k}" for k in CUTOFFS], f"% against a copy synced every {REFERENCE}", path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=folder, required=True, help="the KuaiRand-Pure folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=sorted(MODELS, reverse=True))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="passes at a time")
    parser.add_argument("--out", type=Path, help="where to keep the JSON object, which is printed as well")
    parser.add_argument("--picture", type=Path, help="where to draw it")
    options = parser.parse_args()
    passes = [
        Pass(options.data, model, size, seed, options.device, options.threads)
        for size in options.batch_sizes
        for model in options.models
        for seed in range(options.seeds)
    ]
    figures = run(passes, options.workers, lambda what: print(f"… {what}", file=sys.stderr, flush=True))  # noqa: T201
    figures |= {"device": costs.device_name(choose_device(options.device)), "threads": options.threads}
    figures["versions"] = costs.versions()
    text = json.dumps(figures, indent=1)
    sys.stdout.write(text + "\n")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    if options.picture:
        draw(figures, options.picture)


if __name__ == "__main__":
    main()
