"""How models go on after a packed backfill: as they do, with averaged weights, or with half the learning rate.

    python -m benchmarks.trainer.after_backfill --data KUAIRAND_PURE
        [--seeds 3] [--share 1] [--ways averaged,…] [--json FILE]

The `packed` protocol of `driftline evaluate` (KuaiRand-Pure as a stream, learning at the last place, the last seven
days count), two_tower and t2diff in one regime. Recall@20 is by seed; t2diff beside the two-tower is paired by user,
with a bootstrap over users. `plain` is what the grid runs.
"""

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.features import Ints
from evaluation import kuairand, packed
from evaluation.fit import trainer_catalogue
from evaluation.metrics import lift, recall
from evaluation.progressive import batches
from trainer.learn.learner import Learner

MODELS = ("two_tower", "t2diff")
WAYS = ("plain", "averaged", "half-rate")
MEMORY = 0.99  # of a step
TESTED_DAYS = 7


def go_on(learner: Learner, source: kuairand.Stream, tested_from_ms: int) -> Ints:
    """Ranks of the views that count, each foreseen before the learner learns from its batch."""
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))
    ranks, at = [], 0
    for batch in batches(queries, learner.settings):
        counts = np.array([query.time_ms >= tested_from_ms for query in queries[at : at + len(batch)]])
        at += len(batch)
        if counts.any():
            ranks.append(learner.evaluate(batch.only(counts)).ranks)
        learner.learn(batch)
    return np.concatenate(ranks)


def measure(source: kuairand.Stream, model: str, seed: int, ways: list[str], tested_from_ms: int) -> dict[str, Ints]:
    """Ranks by way. Ways that learn alike before the stream share the backfill."""
    found: dict[str, Ints] = {}
    settings = ModelSettings()
    histories = {user_id: before.positives for user_id, before in source.before.items()}
    for average in sorted({MEMORY if way == "averaged" else 0.0 for way in ways}):
        learner = Learner(model, TrainerSettings(model=settings, average=average), seed, torch.device("cpu"))
        learner.follow(trainer_catalogue(source.catalogue))
        for batch in packed.batches(packed.packed(histories, settings.window, seed), settings.window):
            learner.learn(batch)
        for way in ways:
            if (way == "averaged") == bool(average):
                one = copy.deepcopy(learner)
                if way == "half-rate":
                    one.settings = settings.model_copy(update={"learning_rate": settings.learning_rate / 2})
                found[way] = go_on(one, source, tested_from_ms)
                line = f"{model} {way} seed {seed}: {recall(found[way], 20).mean():.4f}"
                print(line, file=sys.stderr, flush=True)  # noqa: T201
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer.after_backfill", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="KuaiRand-Pure folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=int, default=1, metavar="N", help="one of every N users")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    source = kuairand.some(kuairand.stream(options.data, histories=True), options.share)
    midnights = source.midnights_ms()
    first_ms = int(midnights[-min(TESTED_DAYS + 1, midnights.size)])
    queries = kuairand.queries(source, first_ms, int(midnights[-1]))
    users = np.array([query.user_id for query in queries], np.int64)
    ways = options.ways.split(",")
    begun = time.process_time()
    hits: dict[tuple[str, str], list[Any]] = {}
    for seed in range(options.seeds):
        for model in MODELS:
            for way, ranks in measure(source, model, seed, ways, first_ms).items():
                hits.setdefault((way, model), []).append(recall(ranks, 20))
    found = {}
    for way in ways:
        control, treated = (np.mean(hits[way, model], 0) for model in MODELS)
        between = lift(treated, control, users)
        found[way] = {
            "recall@20": {model: [round(float(each.mean()), 5) for each in hits[way, model]] for model in MODELS},
            "t2diff beside two_tower": [round(x, 5) for x in (between.value, between.low, between.high)],
        }
    spent = round(time.process_time() - begun, 1)
    shape = {"seeds": options.seeds, "share": options.share, "queries": len(users)}
    text = json.dumps(shape | {"ways": found, "cpu_s": spent}, indent=1)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
