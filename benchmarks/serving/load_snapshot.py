"""From a pointer that moves to a snapshot that serves: full ones and deltas, by size of the catalogue.

    python -m benchmarks.serving.load_snapshot [--items 10000 100000] [--touched 0.05] [--dim 64] [--repeats 9]

The swapper is a replica's own, in this process, and looks all the time instead of ten times a second; the tower is a
freshly initialised T2Diff. `wall_s` is the median from the pointer's replacement to the assignment of the
reference, on a warm page cache; `chain` is a replica's start on a base with so many deltas. Writing is not timed.
"""

import argparse
import asyncio
import json
import logging
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch

from benchmarks.disk import directory_bytes
from benchmarks.serving.index import clustered
from contracts.config.settings import Arm, Experiment, KafkaSettings, ModelSettings, Settings
from contracts.runtime.clock import SystemClock
from contracts.snapshots import delta, index, snapshot
from contracts.snapshots.delta import Delta
from contracts.snapshots.snapshot import Manifest, Snapshot, version_name
from serving.metrics import ServingMetrics
from serving.swapper import Swapper
from trainer.learn.model import Model
from trainer.publish.onnx_export import TowerTemplate


def full(items: int, dim: int) -> Snapshot:
    """A snapshot of random item vectors with a real tower, indexed as the trainer would."""
    torch.set_num_threads(1)
    settings = ModelSettings(dim=dim)
    encoder = Model("t2diff", settings, 0).encoder
    tower = TowerTemplate(encoder, dim, settings.window).fill(encoder)
    vectors = clustered(items, dim)
    manifest = Manifest(
        model="t2diff",
        version=version_name(1),
        dim=dim,
        window=settings.window,
        sampling_seed=1,
        noise_shape=encoder.noise_shape,
        examples=0,
        shares={},
        offsets={},
        event_time_ms=0,
        metrics={},
    )
    return Snapshot(
        manifest,
        tower,
        np.arange(1, items + 1),
        vectors.items,
        np.ones(items, np.float32),
        index.build(vectors.items, vectors.users, seed=0),
    )


def moved(base: Snapshot, touched: float, sequence: int) -> Delta:
    """A delta in which a share of the items has moved by half its length."""
    rng = np.random.default_rng(sequence)
    vectors = base.item_vectors.copy()
    rows = rng.choice(len(vectors), round(touched * len(vectors)), replace=False)
    vectors[rows] *= np.float32(1.5)
    served = (base.item_ids, base.item_vectors, base.item_counts)
    changes = delta.difference(*served, base.item_ids, vectors, base.item_counts, 0.01)
    return Delta(replace(base.manifest, version=version_name(1, sequence)), changes)


def timed(root: Path, versions: list[str]) -> list[float]:
    """Seconds from each move of the pointer to serving what it names."""
    arms = {name: Arm(weight=1, model="t2diff") for name in ("a", "b")}
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers="nowhere:1"),
        feature_repo=root,
        snapshots=root,
        state=root,
        experiment=Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="a"),
    )
    clock = SystemClock()
    swapper = Swapper(settings, list, ServingMetrics(), clock)

    async def swap(version: str) -> float:
        snapshot.publish(root, "t2diff", version)
        began = clock.elapsed_s()
        await swapper.check()
        if swapper.models["t2diff"].manifest.version != version:
            raise SystemExit(f"{version} was not swapped in")
        return clock.elapsed_s() - began

    async def all_of_them() -> list[float]:
        return [await swap(version) for version in versions]

    return asyncio.run(all_of_them())


def measure(items: int, dim: int, touched: float, repeats: int) -> dict[str, Any]:
    """Both kinds, each `repeats` times."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = full(items, dim)
        first = snapshot.write(root, base)
        small = [delta.write(root, moved(base, touched, sequence)) for sequence in range(1, repeats + 1)]
        again = [
            snapshot.write(root, replace(base, manifest=replace(base.manifest, version=version_name(number))))
            for number in range(2, repeats + 2)
        ]
        of_delta = timed(root, [first.name, *(path.name for path in small)])[1:]
        of_full = timed(root, [first.name, *(path.name for path in again)])[1:]
        (of_chain,) = timed(root, [small[-1].name])
        return {
            "items": items,
            "touched": touched,
            "full": {"wall_s": statistics.median(of_full), "max_s": max(of_full), "bytes": directory_bytes(first)},
            "delta": {
                "wall_s": statistics.median(of_delta),
                "max_s": max(of_delta),
                "bytes": directory_bytes(small[0]),
            },
            "chain": {"wall_s": of_chain, "deltas": repeats},
        }


def main() -> None:
    """Measure and print one JSON object a catalogue size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--touched", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    for items in options.items:
        print(json.dumps(measure(items, options.dim, options.touched, options.repeats)))  # noqa: T201


if __name__ == "__main__":
    main()
