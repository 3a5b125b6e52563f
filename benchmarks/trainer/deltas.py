"""Deltas beside full snapshots: bytes on the disk, over the last day of a log.

    python -m benchmarks.trainer.deltas --data KUAIRAND_PURE [--beats 1 10 60] [--batch-sizes 128]

A learner takes the effective views of KuaiRand-Pure in the order of their events. On the last day a delta is due
whenever event time enters another minute, ten minutes or hour, and is made where anything was learned since the last
one; a full snapshot would be made at the same moments. Both are written to the disk, as the trainer writes them, and
weighed with their manifests. Each beat has its own line of deltas on the full snapshot of that day's midnight; nothing
is held back by a gate.

What a delta leaves out are vectors that have moved by no more than `trainer.delta_tolerance` since they were last sent.
So the share that it holds depends on how much a step moves: beside the log's, `crowd` tells it of a larger catalogue,
by the number of steps between deltas.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from benchmarks.crowd import Crowd, examples
from benchmarks.crowd import catalogue as crowd_catalogue
from benchmarks.disk import directory_bytes
from benchmarks.options import folder
from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.features import Ints
from contracts.runtime.clock import DAY_MS, HOUR_MS, MINUTE_MS
from contracts.snapshots import delta, snapshot
from contracts.snapshots.delta import Delta, difference
from contracts.snapshots.snapshot import Manifest, Snapshot, version_name
from evaluation import costs, kuairand
from evaluation.fit import trainer_catalogue
from evaluation.progressive import batch_of
from trainer.data.batches import Batch, encode
from trainer.data.catalogue import Catalogue
from trainer.engine import choose_device
from trainer.evaluation.progressive import Progress
from trainer.learn.learner import MAX_ITEMS, Learner
from trainer.publish.onnx_export import TowerTemplate
from trainer.publish.snapshots import manifest_of, snapshot_of

MODELS = ("two_tower", "t2diff")
Softmax: TypeAlias = Literal["full", "sampled"]
SOFTMAXES: tuple[Softmax, ...] = ("full", "sampled")
STEPS = (1, 10)  # of the crowd's learner, between two deltas


@dataclass
class Line:
    """The deltas of one beat, on one full snapshot."""

    root: Path
    served: Snapshot
    bytes: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)  # of the catalogue

    def add(self, snapshot: Snapshot, tolerance: float) -> None:
        """Write what has moved since the last delta."""
        served = (self.served.item_ids, self.served.item_vectors, self.served.item_counts)
        changes = difference(*served, snapshot.item_ids, snapshot.item_vectors, snapshot.item_counts, tolerance)
        if not changes.item_ids.size:
            return
        manifest = replace(snapshot.manifest, version=version_name(1, len(self.bytes) + 1))
        self.bytes.append(directory_bytes(delta.write(self.root, Delta(manifest, changes))))
        self.shares.append(changes.item_ids.size / snapshot.item_ids.size)
        self.served = delta.apply(self.served, Delta(manifest, changes))


class Student:
    """A learner, and snapshots of it with manifests as large as the trainer's."""

    def __init__(self, name: str, settings: TrainerSettings, catalogue: Catalogue, device: torch.device) -> None:
        self.learner = Learner(name, settings, 0, device)
        self.learner.follow(catalogue)
        self._catalogue = catalogue
        self._template = TowerTemplate(self.learner.model.encoder, settings.model.dim, settings.model.window)
        self._progress = Progress()

    def learn(self, batch: Batch, *, tested: bool) -> None:
        """Learn, and where figures are wanted be tested before."""
        if tested:
            foresight = self.learner.evaluate(batch)
            self._progress.add(foresight, batch.arms, self.learner.learned(batch.targets))
        self.learner.learn(batch)

    def snapshot(self) -> Snapshot:
        """What it knows now."""
        manifest: Manifest = replace(
            manifest_of(self.learner, 1),
            metrics=self._progress.metrics(),
            offsets={"driftline.examples:0": 0, "driftline.examples:1": 0},
            sent_at_ms=tuple([MINUTE_MS * 10**7] * self.learner.settings.batch_size),
        )
        return snapshot_of(self.learner, self._catalogue, self._template, manifest)


def due(times_ms: Ints, beat_ms: int) -> Ints:
    """After which batches a delta is made; times (B,) are those at which the batches were learned.

    >>> due(np.array([1, 3, 12, 13, 47]), 10).tolist()
    [1, 3, 4]
    """
    beats = times_ms // beat_ms
    return np.flatnonzero(np.append(beats[1:] > beats[:-1], values=True))


def day(
    student: Student, batches: Sequence[tuple[int, Batch]], since_ms: int, beats: Sequence[int], tolerance: float
) -> dict[str, Any]:
    """Learn everything; what was published from `since_ms` on, by beat.

    Args:
        student: at its start.
        batches: event time and content of each, in order.
        since_ms: from when on deltas are made.
        beats: minutes between deltas.
        tolerance: `trainer.delta_tolerance`.

    """
    times_ms = np.array([time_ms for time_ms, _ in batches], np.int64)
    first = int(np.searchsorted(times_ms, since_ms))
    plans = {beat: set((first + due(times_ms[first:], beat * MINUTE_MS)).tolist()) for beat in beats}
    minutes = DAY_MS * -(-(int(times_ms[-1]) - since_ms) // DAY_MS) / MINUTE_MS
    with tempfile.TemporaryDirectory(prefix="deltas-bench-") as scratch:
        lines: dict[int, Line] = {}
        full_bytes = 0
        for number, (_, batch) in enumerate(batches):
            if number == first:
                lines, full_bytes = begun(student, beats, Path(scratch))
            student.learn(batch, tested=number >= first - 1)
            wanting = [beat for beat, plan in plans.items() if number in plan]
            if wanting:
                snapshot = student.snapshot()
                for beat in wanting:
                    lines[beat].add(snapshot, tolerance)
    out = {str(beat): weighed(line, full_bytes) for beat, line in lines.items()}
    for figures in out.values():
        figures["bytes_per_min"] = round(figures["bytes_per_delta"] * figures["deltas"] / minutes)
        figures["full_bytes_per_min"] = round(full_bytes * figures["deltas"] / minutes)
    return {"full_bytes": full_bytes, "steps": len(batches) - first, "beats": out}


def begun(student: Student, beats: Sequence[int], scratch: Path) -> tuple[dict[int, Line], int]:
    """The full snapshot that every line begins with, and its bytes."""
    base = student.snapshot()
    roots = {beat: scratch / str(beat) for beat in beats}
    weights = [directory_bytes(snapshot.write(root, base)) for root in roots.values()]
    return {beat: Line(root, base) for beat, root in roots.items()}, weights[0]


def weighed(line: Line, full_bytes: int) -> dict[str, Any]:
    """Means over the deltas of one line."""
    mean = float(np.mean(line.bytes)) if line.bytes else 0.0
    return {
        "deltas": len(line.bytes),
        "share_of_items": round(float(np.mean(line.shares)), 4) if line.shares else 0.0,
        "bytes_per_delta": round(mean),
        "ratio_to_full": round(mean / full_bytes, 4),
    }


def crowd(
    name: str, settings: TrainerSettings, items: int, steps: tuple[int, int], device: torch.device
) -> dict[str, Any]:
    """The same of a made-up crowd's catalogue, by steps between deltas.

    Args:
        name: of the model.
        settings: of the learner.
        items: of the catalogue.
        steps: how many before the first delta, and how many in which deltas are made.
        device: where.

    """
    many = Crowd(items=items)
    catalogue = Catalogue()
    for item in crowd_catalogue(many):
        catalogue.put(item.item_id, item.category_ids)
    student = Student(name, settings, catalogue, device)
    batches = _encoded(many, catalogue, settings.model)
    for batch in islice(batches, steps[0]):
        student.learn(batch, tested=False)
    with tempfile.TemporaryDirectory(prefix="deltas-bench-") as scratch:
        lines, full_bytes = begun(student, STEPS, Path(scratch))
        for number, batch in enumerate(islice(batches, steps[1]), 1):
            student.learn(batch, tested=False)
            snapshot = student.snapshot()
            for each, line in lines.items():
                if number % each == 0:
                    line.add(snapshot, settings.delta_tolerance)
    return {"full_bytes": full_bytes, "steps": {str(each): weighed(line, full_bytes) for each, line in lines.items()}}


def _encoded(crowd: Crowd, catalogue: Catalogue, model: ModelSettings) -> Iterator[Batch]:
    rows = examples(crowd)
    while True:
        part = list(islice(rows, model.batch_size))
        for example in part:
            example.time_ms = (len(example.history.item_ids) + 1) * MINUTE_MS
            example.history.times_ms[:] = range(0, example.time_ms - MINUTE_MS, MINUTE_MS)
        yield encode(part, catalogue, model.window)


def run(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, by softmax, batch size, model and beat."""
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    source = kuairand.stream(options.data, histories=True)
    midnights = source.midnights_ms()
    queries = kuairand.queries(source, int(midnights[0]), int(midnights[-1]))[-(options.last or 0) :]
    catalogue = trainer_catalogue(source.catalogue)
    log: dict[str, Any] = {}
    for softmax in SOFTMAXES:
        for batch_size in options.batch_sizes:
            model = ModelSettings(batch_size=batch_size)
            settings = TrainerSettings(model=model, softmax=softmax, delta_tolerance=options.tolerance)
            starts = [*range(0, len(queries) + 1, batch_size)]  # what does not fill a batch is not learned
            parts = [queries[start:end] for start, end in pairwise(starts)]
            batches = [(part[-1].time_ms, batch_of(part, model.window)) for part in parts]
            for name in MODELS:
                say(f"{name}, {softmax} softmax, batches of {batch_size}")
                student = Student(name, settings, catalogue, device)
                figures = day(student, batches, int(midnights[-2]), options.beats, settings.delta_tolerance)
                log.setdefault(softmax, {}).setdefault(str(batch_size), {})[name] = figures
    crowds: dict[str, Any] = {}
    for softmax in SOFTMAXES:
        for items in (each for each in options.items if softmax == "sampled" or each <= MAX_ITEMS):
            for name in MODELS:
                say(f"{name}, {softmax} softmax, {items:,} items")
                settings = TrainerSettings(softmax=softmax, delta_tolerance=options.tolerance)
                figures = crowd(name, settings, items, (options.begun, options.followed), device)
                crowds.setdefault(softmax, {}).setdefault(str(items), {})[name] = figures
    default = log["full"][str(options.batch_sizes[-1])]
    beats = [default[name]["beats"][str(options.beats[0])] for name in MODELS]
    return {
        # Both models', as the trainer is set by default, at the shortest beat.
        "delta_bytes_per_min": sum(figures_of_beat["bytes_per_min"] for figures_of_beat in beats),
        "full_bytes_per_min": sum(figures_of_beat["full_bytes_per_min"] for figures_of_beat in beats),
        "delta_tolerance": options.tolerance,
        "full_every_h": TrainerSettings().publish_every_ms / HOUR_MS,
        "items": len(catalogue),
        "views_learned": len(queries),
        "log": log,
        "crowd": crowds,
        "device": costs.device_name(device),
        "versions": costs.versions(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=folder, required=True, help="the KuaiRand-Pure folder")
    parser.add_argument("--beats", type=int, nargs="+", default=[1, 10, 60], help="minutes between deltas")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128], help="the last is told above")
    parser.add_argument(
        "--tolerance", type=float, default=TrainerSettings().delta_tolerance, help="`trainer.delta_tolerance`"
    )
    parser.add_argument("--last", type=int, help="views of the log to learn from, its last; by default all")
    parser.add_argument("--items", type=int, nargs="*", default=[10_000, 100_000], help="catalogues of the crowd")
    parser.add_argument("--begun", type=int, default=300, help="steps of the crowd's learner before its first delta")
    parser.add_argument("--followed", type=int, default=40, help="steps in which it makes deltas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--out", type=Path, help="where to keep the JSON object, which is printed as well")
    options = parser.parse_args(arguments)
    figures = run(options, lambda what: print(f"… {what}", file=sys.stderr, flush=True))  # noqa: T201
    text = json.dumps(figures, indent=1)
    sys.stdout.write(text + "\n")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
