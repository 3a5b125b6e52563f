"""What the sampled softmax costs and what it loses: `python -m benchmarks.trainer.negatives --kuairand FOLDER`.

Prints one JSON object: progressive recall on KuaiRand-Pure of the full softmax, of the sampled one, and of the sampled
one without its correction; and what a training step and a test take, by the size of the catalogue.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch

from contracts.config.settings import ModelSettings, TrainerSettings
from evaluation import kuairand
from evaluation.progressive import learn_online
from trainer.data.batches import Batch
from trainer.data.catalogue import Catalogue
from trainer.learn import learner as learning
from trainer.learn.learner import Learner
from trainer.learn.sampled_softmax import Negatives, draw

CUTOFFS = (20, 100)
SIZES = (10_000, 100_000, 1_000_000)
CPU = torch.device("cpu")


def uncorrected(*arguments: Any) -> Negatives:
    """The same draws, every one as good as another."""
    drawn = draw(*arguments)
    return drawn._replace(expected=torch.ones_like(drawn.expected))


def recalls(folder: Path, model: str, negatives: Sequence[int], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Progressive recall of each way to learn, an entry a way and seed."""
    source = kuairand.stream(folder, histories=True)
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))
    ways: list[tuple[str, dict[str, Any], Callable[..., Negatives]]] = [("full", {"softmax": "full"}, draw)]
    for count in negatives:
        sampled = {"softmax": "sampled", "negatives": count}
        ways += [("sampled", sampled, draw), ("sampled, no correction", sampled, uncorrected)]
    out = []
    for name, settings, way in ways:
        for seed in seeds:
            begun = time.process_time()
            chosen = TrainerSettings.model_validate(settings)
            with mock.patch.object(learning, "draw", way):
                ranks = learn_online(model, chosen, source.catalogue, queries, seed=seed, device=CPU).ranks
            at_cutoffs = {f"recall@{k}": round(float((ranks <= k).mean()), 5) for k in CUTOFFS}
            about = {"way": name, "negatives": settings.get("negatives"), "seed": seed, "examples": len(ranks)}
            out.append(about | at_cutoffs | {"cpu_s": round(time.process_time() - begun, 1)})
    return out


def batch_among(rng: np.random.Generator, items: int, settings: ModelSettings) -> Batch:
    """A batch of full windows, popular items more often than others."""
    shape = (settings.batch_size, settings.window)
    rows = (items * rng.random(shape) ** 3).astype(np.int64)
    return Batch(
        rows=rows,
        mask=np.ones(shape, np.float32),
        lag=np.ones(shape, np.float32),
        served_lag=np.ones(shape, np.float32),
        targets=(items * rng.random(len(rows)) ** 3).astype(np.int64),
        seen=tuple(rows),
        user_ids=np.arange(1, len(rows) + 1),
        arms=("",) * len(rows),
        passed=np.empty((len(rows), 0), np.int64),
    )


def costs(model: str, softmax: str, items: int, rounds: int) -> dict[str, Any]:
    """CPU milliseconds of a step, of a test, and of following one item's going and another's coming."""
    settings = TrainerSettings.model_validate({"softmax": softmax})
    catalogue = Catalogue()
    for item_id in range(1, items + 1):
        catalogue.put(item_id, [1 + item_id % 50, 51 + item_id % 7])
    learner = Learner(model, settings, 0, CPU)
    learner.follow(catalogue)
    rng = np.random.default_rng(0)
    taken: dict[str, list[float]] = {"step": [], "test": [], "follow": []}

    def timed(name: str, once: Callable[[], object]) -> None:
        begun = time.process_time()
        once()
        taken[name].append(1000 * (time.process_time() - begun))

    for count in range(rounds):
        batch = batch_among(rng, items, settings.model)
        timed("step", lambda: learner.learn(batch))  # noqa: B023
        if count < 3:
            timed("test", lambda: learner.evaluate(batch))  # noqa: B023
        catalogue.remove(1 + count)
        catalogue.put(items + 1 + count, [1])
        timed("follow", lambda: learner.follow(catalogue))
    return {"softmax": softmax, "items": items} | {f"{name}_ms": round(median(ms), 2) for name, ms in taken.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer.negatives", description=__doc__)
    parser.add_argument("--kuairand", type=Path, help="the folder of KuaiRand-Pure; without it, only costs")
    parser.add_argument("--model", default="two_tower")
    parser.add_argument("--negatives", type=int, nargs="*", default=[1000])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"model": options.model}
    if options.kuairand:
        figures["recall"] = recalls(options.kuairand, options.model, options.negatives, options.seeds)
    ways = [("full", SIZES[0])] + [("sampled", size) for size in options.sizes]
    figures["costs"] = (
        [costs(options.model, softmax, size, options.rounds) for softmax, size in ways] if options.sizes else []
    )
    print(json.dumps(figures, indent=2))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
