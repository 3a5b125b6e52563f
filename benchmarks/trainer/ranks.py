"""Examples per second by the number of processes: what sharing a batch gains, and what it costs.

    python -m benchmarks.trainer.ranks [--processes 1 2] [--batches 128 512] [--seconds 8]

Every process holds the models, tests and derives gradients of its part of each batch, and averages them with the others
(`trainer.distributed.ranks`), over the loopback interface. All of it is timed from the messages (`encode`) to the
optimizer's step; no broker. `speedup` is by wall time, so it means something only where each process has a core to
itself; `cpu_speedup` is what it would be there: by CPU time of the process that took the most.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from benchmarks.trainer.speed import examples
from benchmarks.trainer.windows import Shape, Stopwatch
from contracts.config.settings import ModelSettings, TrainerSettings
from evaluation import costs
from trainer.data.batches import encode
from trainer.data.catalogue import Catalogue
from trainer.distributed.ranks import Ranks, TorchRanks
from trainer.learn.learner import Learner

MODELS = ("two_tower", "t2diff")
SOFTMAXES = ("full", "sampled")


def measure(ranks: Ranks, shape: Shape, model: str, softmax: str, seconds: float) -> dict[str, float]:
    """Windows a second of all ranks together."""
    catalogue = Catalogue()
    for item_id in range(1, shape.items + 1):
        catalogue.put(item_id, [1 + item_id % 40])
    loaded = examples(shape)
    parts = [loaded[at : at + shape.batch] for at in range(0, len(loaded), shape.batch)]
    settings = ModelSettings(dim=shape.dim, window=shape.window, depth=shape.depth, batch_size=shape.batch)
    trainer = TrainerSettings.model_validate({"model": settings, "softmax": softmax})
    learner = Learner(model, trainer, shape.seed, torch.device("cpu"), ranks)
    learner.follow(catalogue)
    watch = Stopwatch(seconds, 3)
    while True:
        batch = encode(parts[(watch.seen + 1) % len(parts)], catalogue, shape.window)
        learner.evaluate(batch)
        learner.learn(batch)
        if any(ranks.gather(watch.enough())):
            break
    return {
        "windows_per_s": watch.seen * shape.batch / max(ranks.gather(watch.wall_s)),
        "windows_per_cpu_s": watch.seen * shape.batch / max(ranks.gather(watch.cpu_s)),
    }


def work(rank: int, size: int, folder: Path, shapes: list[Shape], seconds: float) -> None:
    """One process: all that is to be measured, in order; the leader writes it down."""
    torch.set_num_threads(1)
    ranks = (
        TorchRanks(init_method=f"file://{folder / f'store-{size}'}", rank=rank, world_size=size)
        if size > 1
        else Ranks()
    )
    measured = [
        {"model": model, "softmax": softmax, "batch": shape.batch, **measure(ranks, shape, model, softmax, seconds)}
        for shape in shapes
        for softmax in SOFTMAXES
        for model in MODELS
    ]
    if ranks.leads:
        (folder / f"{size}.json").write_text(json.dumps(measured))
    ranks.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512], help="examples in a batch")
    parser.add_argument("--seconds", type=float, default=8.0, help="of CPU time, for each figure")
    options = parser.parse_args(arguments)
    shapes = [replace(Shape(window=32), batch=batch) for batch in options.batches]
    rows: dict[int, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in options.processes:
            print(f"… {size} processes", file=sys.stderr, flush=True)  # noqa: T201
            multiprocessing.spawn(work, args=(size, Path(name), shapes, options.seconds), nprocs=size)
            rows[size] = json.loads((Path(name) / f"{size}.json").read_text())
    first = rows[options.processes[0]]
    for measured in rows.values():
        for row, base in zip(measured, first, strict=True):
            row["speedup"] = round(row["windows_per_s"] / base["windows_per_s"], 3)
            row["cpu_speedup"] = round(row["windows_per_cpu_s"] / base["windows_per_cpu_s"], 3)
    figures = {"device": costs.device_name(torch.device("cpu")), "versions": costs.versions(), "processes": rows}
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
