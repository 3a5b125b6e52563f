"""All runs of the reproduction, one after another or side by side; what was run before is not run again.

    python -m evaluation.grid --ml-1m DIR --official DIR --kuairand DIR --results docs/results --preset cpu --jobs 2

`docs/reproduction.md` is written from the results by `evaluation.reproduction`.
"""

import argparse
import fnmatch
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from contracts.config.settings import DiffusionSchedule, ModelSettings
from evaluation.data import DataError
from evaluation.fit import DivergedError, Plan
from evaluation.movielens import Order
from evaluation.results import ResultError, path_of, read, write
from evaluation.runs import Folders, Step, run
from evaluation.tasks import BASELINES, Protocol, Task, TaskError
from trainer.engine import choose_device
from trainer.models import REGISTRY


@dataclass(frozen=True)
class Preset:
    """What a machine has time for; seconds are of training, one run."""

    device: str
    jobs: int
    small_s: float  # at the paper's size
    wide_s: float  # at d = 64, by the official protocol
    long_s: float  # of LONG, by leave-one-out
    short_s: float  # of SHORT
    stream_s: float  # what a pass over the stream takes, a guess for the ETA


# The numbers to turn. ------------------------------------------------------------------------------------------------

PRESETS = {
    "cpu": Preset("cpu", jobs=2, small_s=120, wide_s=300, long_s=1800, short_s=400, stream_s=120),
    "gpu": Preset("cuda", jobs=6, small_s=60, wide_s=200, long_s=400, short_s=200, stream_s=60),
}
SEEDS: dict[Order, tuple[int, ...]] = {"file": (0, 1), "time": (0,)}
STREAM_SEEDS = (0, 1, 2)
ABLATION_SEEDS = (0,)

# Table 2, in the paper's order.
TABLE_2 = (
    "two_tower", "sasrec", "caser", "gru4rec", "bert4rec", "dat", "mamba4rec", "contrastvae", "stosa", "diffurec",
    "mixed-attention", "t2diff-without-drifts", "t2diff-paper", "t2diff",
)  # fmt: skip
TABLE_3: tuple[DiffusionSchedule, ...] = ("exponential", "linear", "log")  # β
TABLE_4 = (10, 50, 200)  # T
WIDE = ("t2diff", "sasrec")
LONG = ("t2diff", "t2diff-without-guess", "sasrec")
SHORT = ("mixed-attention", "two_tower", "diffurec")
BACKFILLED = ("two_tower", "t2diff", "t2diff-without-guess")
PACKED = tuple(f"{name}{where}" for where in ("", "-at-last-4") for name in BACKFILLED)
STREAM = ("two_tower", "two_tower-at-every", "t2diff", "t2diff-without-guess", "sasrec", "diffurec")
ABLATIONS = ("t2diff-at-last", "t2diff-without-end-to-end", "t2diff-without-mean-start", "t2diff-without-waits")

SMALL_SHAPE = ModelSettings(dim=8, id_dim=2, category_dim=2, window=50, learning_rate=0.01)  # the paper's: ≤ 0.2 MB
WIDE_SHAPE = ModelSettings(dim=64, window=50, learning_rate=0.003)
LONG_SHAPE = ModelSettings(dim=64, window=100, depth=4, learning_rate=0.001, dropout=0.2, batch_size=32)
SHORT_SHAPE = ModelSettings(dim=64, window=50, learning_rate=0.003, dropout=0.2)
STREAM_SHAPE = ModelSettings(dim=64)

# Settings that validation preferred to the shape's, by protocol and model.
PREFERRED: dict[tuple[Protocol, str], dict[str, Any]] = {
    (protocol, model): {"learn_at": "every"}
    for protocol in ("official", "leave-one-out", "progressive")
    for model in ("contrastvae", "gru4rec", "mamba4rec", "sasrec", "stosa", "t2diff")
}

# ---------------------------------------------------------------------------------------------------------------------

SAY_EVERY_S = 30.0  # of a run that goes on

Outcome: TypeAlias = tuple[Task, str | Exception]


def tasks(preset: Preset) -> list[Task]:
    """The whole grid; a task is in it once."""
    small, wide = Plan(epochs=1000, seconds=preset.small_s), Plan(epochs=1000, seconds=preset.wide_s)
    out: list[Task] = []
    for order, seeds in SEEDS.items():
        out += [Task("official", name, order) for name in BASELINES]
        out += [make("official", m, order, seed, SMALL_SHAPE, small) for m in TABLE_2 for seed in seeds]
    paper = make("official", "t2diff-paper", "file", 0, SMALL_SHAPE, small)
    out += [_with(paper, diffusion_schedule=kind) for kind in TABLE_3]
    out += [_with(paper, diffusion_steps=steps) for steps in TABLE_4]
    out += [replace(paper, study="cosine"), replace(paper, study="sampling")]
    out += [make("official", name, "file", 0, WIDE_SHAPE, wide) for name in WIDE]
    out += [replace(make("official", "t2diff", "file", 0, SMALL_SHAPE, small), study="sampling")]
    out += [Task("leave-one-out", name) for name in BASELINES]
    for names, shape, seconds in ((LONG, LONG_SHAPE, preset.long_s), (SHORT, SHORT_SHAPE, preset.short_s)):
        plan = Plan(epochs=1000, batch_size=shape.batch_size, seconds=seconds)
        out += [make("leave-one-out", name, "time", 0, shape, plan) for name in names]
    out += [Task("progressive", name) for name in BASELINES]
    online = partial(make, order="time", shape=STREAM_SHAPE, plan=Plan())
    out += [online("progressive", name, seed=seed) for name in STREAM for seed in STREAM_SEEDS]
    out += [online("progressive", name, seed=seed) for name in ABLATIONS for seed in ABLATION_SEEDS]
    out += [online("backfilled", name, seed=seed) for name in BACKFILLED for seed in ABLATION_SEEDS]
    out += [online("packed", name, seed=seed) for name in PACKED for seed in STREAM_SEEDS]
    return list(dict.fromkeys(out))


def make(protocol: Protocol, label: str, order: Order, seed: int, shape: ModelSettings, plan: Plan) -> Task:
    """A task of the grid; a label may leave a part of T2Diff out, or say where its model learns.

    >>> make("official", "t2diff-without-guess", "time", 0, SMALL_SHAPE, Plan()).settings.ablate
    ('guess',)
    >>> make("official", "t2diff-at-last", "time", 0, SMALL_SHAPE, Plan()).settings.learn_at
    'last'
    >>> make("backfilled", "two_tower-at-last-4", "time", 0, SMALL_SHAPE, Plan()).settings.learn_at_last
    4
    """
    label, _, where = label.partition("-at-")
    if where:
        kind, _, count = where.partition("-")
        places = {"learn_at": "last-k", "learn_at_last": int(count)} if count else {"learn_at": kind}
        return _with(make(protocol, label, order, seed, shape, plan), **places)
    model, *ablate = [label] if label in (*BASELINES, *REGISTRY) else label.split("-without-")
    if model in BASELINES:
        return Task(protocol, model, order)
    task = Task(protocol, model, order, seed, shape, plan)
    return _with(task, **PREFERRED.get((protocol, model), {}), ablate=tuple(ablate))


def _with(task: Task, **settings: Any) -> Task:
    return replace(task, settings=ModelSettings.model_validate(dict(task.settings) | settings))


def is_done(folder: Path, wanted: Task) -> bool:
    """Whether the folder holds the result of just this task, budgets and all."""
    try:
        return read(path_of(folder, wanted)).task == wanted
    except ResultError:
        return False


def expected_s(task: Task, preset: Preset) -> float:
    """How long a task may take, roughly."""
    if not task.trains:
        return preset.stream_s if task.streams else 10
    if task.streams:
        return preset.stream_s * {"backfilled": 5, "packed": 2}.get(task.protocol, 1)
    return 1.2 * task.plan.seconds + 10


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing; the exit code is 1 where a run failed."""
    options = _parser().parse_args(arguments)
    preset = PRESETS[options.preset]
    folders = Folders(options.ml_1m, options.official, options.kuairand)
    wanted = [task for task in tasks(preset) if fnmatch.fnmatch(task.name, options.only)]
    missing = [task for task in wanted if not is_done(options.results, task)]
    _say(f"{len(wanted)} runs, {len(wanted) - len(missing)} of them done before")
    if options.list:
        for task in missing:
            print(task.name)  # noqa: T201 -- the answer to --list
        return 0
    jobs = options.jobs or preset.jobs
    left, failed = sum(expected_s(task, preset) for task in missing), 0
    one = partial(_one, folders=folders, results=options.results, device=preset.device)
    try:
        for gone, (task, outcome) in enumerate(_done(one, missing, jobs), 1):
            left -= expected_s(task, preset)
            failed += isinstance(outcome, Exception)
            message = f"failed: {outcome}" if isinstance(outcome, Exception) else outcome
            _say(f"[{gone}/{len(missing)}, about {left / jobs / 60:.0f} min left] {task.name}: {message}")
    except KeyboardInterrupt:
        _say("interrupted; what was done is kept, and the same command goes on from there")
        return 130
    if failed:
        _say(f"{failed} runs failed")
    return 1 if failed else 0


def _done(one: Callable[[Task], Outcome], missing: list[Task], jobs: int) -> Iterator[Outcome]:
    """Do tasks side by side, each as it is done; alone, in this process."""
    if jobs == 1:
        torch.set_num_threads(1)
        yield from map(one, missing)
        return
    # Leaving the block ends the processes, whatever they are at.
    with multiprocessing.get_context("spawn").Pool(jobs, _begin) as pool:
        yield from pool.imap_unordered(one, missing)


def _begin() -> None:
    """Prepare a process: one thread each, so that side by side is fair; Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _one(task: Task, folders: Folders, results: Path, device: str) -> Outcome:
    """A run: what it found, or why it failed."""
    begun = reported_s = time.monotonic()

    def report(step: Step) -> None:
        nonlocal reported_s
        if time.monotonic() - reported_s >= SAY_EVERY_S:
            reported_s = time.monotonic()
            _say(f"  {task.name}: {step.share:.0%}, {step.text}")

    try:
        result = run(task, folders, device=choose_device(device), report=report)
        write(results, result)
    except (TaskError, DataError, DivergedError, RuntimeError) as error:  # torch's own are RuntimeErrors
        return task, error
    figures = ", ".join(f"{m} {result.values(m).mean():.4f}" for m in ("recall@2", "recall@20", "ndcg@10"))
    return task, f"{figures} in {time.monotonic() - begun:.0f} s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 -- what a person watches


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation.grid", description="Run the reproduction.")
    parser.add_argument("--ml-1m", type=Path, required=True, help="MovieLens-1M folder")
    parser.add_argument("--official", type=Path, required=True, help="folder of the T2Diff authors' test instances")
    parser.add_argument("--kuairand", type=Path, required=True, help="KuaiRand-Pure folder")
    parser.add_argument("--results", type=Path, required=True, help="where results are kept, a JSON file each")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu", help="budgets and device")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="runs by name, such as 'official-file/*'")
    parser.add_argument("--jobs", type=int, default=0, help="runs side by side, one thread each")
    parser.add_argument("--list", action="store_true", help="print the names of the runs that are missing, and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
