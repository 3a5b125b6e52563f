"""What a backfill costs, an example a view and in packed windows, on the histories of some of KuaiRand-Pure's users.

    python -m benchmarks.trainer.backfill --data KUAIRAND_PURE [--users 3000] [--rounds 3]

Both ways learn from the same views, each once, with the default settings; CPU seconds of one thread, in turns, the
median of the rounds. Models are new at each round. What the two ways find is in `docs/reproduction.md`.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import torch

from contracts.config.settings import ModelSettings, TrainerSettings
from evaluation import kuairand, packed
from evaluation.data import ItemTable
from evaluation.fit import trainer_catalogue
from evaluation.progressive import batches
from trainer.data.batches import Batch
from trainer.learn.learner import Learner

MODELS = ("two_tower", "t2diff", "t2diff-without-guess")


def learn(model: str, catalogue: ItemTable, examples: Iterable[Batch]) -> float:
    """CPU seconds of a new model that learns from all of these, encoding them included."""
    name, _, part = model.partition("-without-")
    settings = ModelSettings.model_validate({"without": [part] if part else []})
    learner = Learner(name, TrainerSettings(model=settings), 0, torch.device("cpu"))
    learner.follow(trainer_catalogue(catalogue))
    begun = time.process_time()
    for batch in examples:
        learner.learn(batch)
    return time.process_time() - begun


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer.backfill", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="KuaiRand-Pure folder")
    parser.add_argument("--users", type=int, default=3000, help="whose histories are learned from, the first by id")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    source = kuairand.stream(options.data, histories=True)
    before = dict(sorted(source.before.items())[: options.users])
    source = kuairand.Stream(source.catalogue, source.user_ids, source.rows, source.times_ms, source.effective, before)
    single = kuairand.earlier(source)
    settings = ModelSettings()
    windows = packed.packed({user: each.positives for user, each in before.items()}, settings.window, seed=0)
    figures: dict[str, dict[str, float]] = {}
    for model in MODELS:
        taken: dict[str, list[float]] = {"one_by_one_s": [], "packed_s": []}
        for _ in range(options.rounds):
            taken["one_by_one_s"].append(learn(model, source.catalogue, batches(single, settings)))
            taken["packed_s"].append(learn(model, source.catalogue, packed.batches(windows, settings.window)))
        seconds = {way: round(median(each), 4) for way, each in taken.items()}
        figures[model] = seconds | {"ratio": round(seconds["one_by_one_s"] / seconds["packed_s"], 2)}
    shape = {
        "users": len(before),
        "views": len(single),
        "windows": len(windows),
        "items": source.catalogue.item_ids.size,
    }
    print(json.dumps({"shape": shape, "cpu": figures, "torch": torch.__version__}, indent=1))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
