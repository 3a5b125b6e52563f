"""`driftline evaluate`: models measured offline. What is asked, how far it is, and what came out."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from driftline.cli.options import takes
from driftline.errors import RunError, UsageError

if TYPE_CHECKING:
    import torch

    from contracts.config.settings import ModelSettings
    from evaluation.results import Result
    from evaluation.runs import Folders, Step
    from evaluation.tasks import Task

SAY_EVERY_S = 2.0
LEAST_WIDTH = 130  # of a table: a narrower terminal breaks lines, rather than that cells are cut


class Protocol(StrEnum):
    """How the data is split."""

    official = "official"
    leave_one_out = "leave-one-out"
    progressive = "progressive"
    backfilled = "backfilled"
    packed = "packed"


class Order(StrEnum):
    """Of MovieLens."""

    time = "time"
    file = "file"


class LearnAt(StrEnum):
    """Places that a model learns from."""

    last = "last"
    last_k = "last-k"
    every = "every"


class Device(StrEnum):
    """Where networks train."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `driftline evaluate` was asked for."""

    data: Annotated[Path, typer.Option(help="MovieLens-1M folder; with the protocols of a stream: KuaiRand-Pure.")]
    model: Annotated[
        list[str],
        typer.Option(
            help="A model or a baseline (popularity, markov, markov-window, ease, markov+ease), or `all`; repeatable."
        ),
    ]
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="leave-one-out: each user's last behaviour, what was rated before masked. official: the T2Diff "
            "authors' 1,208 test users. progressive: KuaiRand-Pure as a stream, each effective view foreseen before it "
            "is learned; the last 7 days count. backfilled: that, after learning from what users did before the log, "
            "an example a view. packed: the same, each history packed into few windows."
        ),
    ] = Protocol.leave_one_out
    order: Annotated[
        Order, typer.Option(help="Of a user's behaviours: true time, or that of ratings.dat, which is not time.")
    ] = Order.time
    official: Annotated[
        Path | None, typer.Option(help="With --protocol official: folder of the authors' test instances.")
    ] = None
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each network, with seeds 0, 1, …")] = 1
    dim: Annotated[int, typer.Option(min=1, help="Width of user and item vectors.")] = 64
    id_dim: Annotated[
        int | None, typer.Option(min=1, help="Width of the embedding of an item's id; without it: --dim.")
    ] = None
    category_dim: Annotated[int, typer.Option(min=1, help="Width of the embedding of an item's categories.")] = 16
    window: Annotated[int, typer.Option(min=1, help="Behaviours that a model sees.")] = 50
    depth: Annotated[int, typer.Option(min=1, help="Layers of the transformers of t2diff and sasrec.")] = 2
    epochs: Annotated[int, typer.Option(min=1, help="Epochs at most; validation picks one. (A stream has one.)")] = 20
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds of training at most; the epoch then running is the last.")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Windows in a step.")] = 128
    learning_rate: Annotated[float, typer.Option(help="Height of the learning rate's schedule.")] = 3e-3
    dropout: Annotated[float, typer.Option(min=0, max=0.99, help="Share of activations dropped in training.")] = 0.0
    learn_at: Annotated[
        LearnAt,
        typer.Option(
            help="Where networks learn: at the target, at the last --learn-at-last places of a window, or at every one."
        ),
    ] = LearnAt.last
    learn_at_last: Annotated[
        int | None, typer.Option(min=1, help="With --learn-at last-k: the number of places, k.")
    ] = None
    without: Annotated[
        list[str] | None,
        typer.Option(help="A part to leave out of t2diff: guess, end-to-end, mean-start or waits; repeatable."),
    ] = None
    device: Annotated[Device, typer.Option(help="auto is the GPU where there is one.")] = Device.auto
    threads: Annotated[int, typer.Option(min=1, help="Threads of the CPU.")] = 1
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results, a JSON file a run with every query's rank.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False


@takes(Options)
def evaluate(options: Options) -> None:
    """Measure models and baselines offline, on MovieLens-1M or KuaiRand-Pure.

    Networks train until their budget is spent; the epoch with the best validation NDCG@10 counts, and the test set
    never picks one. Intervals are 95 % bootstraps over users.
    """
    import torch

    torch.set_num_threads(options.threads)
    tasks, folders = tasks_of(options), folders_of(options)
    results: list[Result] = []
    try:
        for number, task in enumerate(tasks, 1):
            device = _device(options.device)
            results.append(_run(task, folders, device, options.out, f"[{number}/{len(tasks)}] "))
    except KeyboardInterrupt:
        saved = f"; {len(results)} of {len(tasks)} results are in {options.out}" if options.out else ""
        typer.echo(f"driftline: interrupted{saved}.", err=True)
        raise typer.Exit(130) from None
    if options.as_json:
        typer.echo(json.dumps(_as_json(results), indent=1))
    else:
        _table(results)


def tasks_of(options: Options) -> "list[Task]":
    """The runs that are asked for: each model once, each network with every seed.

    Raises:
        UsageError: one of them cannot be done.

    """
    from evaluation.fit import Plan
    from evaluation.tasks import BASELINES, Task, TaskError, check
    from trainer.models import REGISTRY

    given = [[*BASELINES, *sorted(REGISTRY)] if name == "all" else [name] for name in options.model]
    names = dict.fromkeys(name for each in given for name in each)
    shape = shape_of(options)
    # What is left out of T2Diff is not left out of those that stand beside it.
    whole, others = shape.model_copy(update={"ablate": ()}), {*names} - {"t2diff"} if "t2diff" in names else set()
    plan = Plan(options.epochs, options.batch_size, float("inf") if options.seconds is None else options.seconds)
    tasks = [
        Task(options.protocol.value, name, options.order.value, seed, whole if name in others else shape, plan)
        for name in names
        for seed in range(1 if name in BASELINES else options.seeds)
    ]
    try:
        for task in tasks:
            check(task)
    except TaskError as error:
        raise UsageError(str(error)) from error
    return tasks


def shape_of(options: Options) -> "ModelSettings":
    """The settings of the models.

    Raises:
        UsageError: one of them is out of its range.

    """
    from contracts.config.settings import ModelSettings

    shared = (
        "dim",
        "id_dim",
        "category_dim",
        "window",
        "depth",
        "learning_rate",
        "dropout",
        "batch_size",
        "learn_at_last",
    )
    given = {name: getattr(options, name) for name in shared}
    try:
        return ModelSettings.model_validate(
            {**given, "learn_at": options.learn_at.value, "without": tuple(options.without or ())}
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = str((*first["loc"], "learn_at")[0]).replace("_", "-")  # settings that do not go together have no place
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"--{option}: {message[0].lower()}{message[1:]}.") from error


def folders_of(options: Options) -> "Folders":
    """Where the data is.

    Raises:
        UsageError: `official` goes with its protocol, and only with that.

    """
    from evaluation.runs import Folders

    is_official = options.protocol is Protocol.official
    if is_official and options.official is None:
        raise UsageError("--protocol official needs --official, the folder of the authors' test instances.")
    if not is_official and options.official is not None:
        raise UsageError(f"--official goes with --protocol official, not with {options.protocol.value}.")
    if options.protocol in {Protocol.progressive, Protocol.backfilled, Protocol.packed}:
        return Folders(kuairand=options.data)
    return Folders(options.data, options.official)


def _run(task: "Task", folders: "Folders", device: "torch.device", out: Path | None, prefix: str) -> "Result":
    from evaluation.data import DataError
    from evaluation.fit import DivergedError
    from evaluation.results import write
    from evaluation.runs import run
    from evaluation.tasks import TaskError

    who = f"{prefix}{task.model}" + (f" seed {task.seed}" if task.trains else "")
    try:
        result = run(task, folders, device=device, report=_telling(who, time.monotonic))
        if out is not None:
            write(out, result)
    except (DataError, TaskError) as error:
        raise UsageError(str(error)) from error
    except DivergedError as error:
        raise RunError(f"{task.model}: {error} Try a smaller --learning-rate.") from error
    except OSError as error:
        raise UsageError(f"Cannot write to {out}: {error.strerror}.") from error
    return result


def _telling(who: str, now: Callable[[], float]) -> "Callable[[Step], None]":
    """Says how far a run is, now and then, on standard error."""
    begun = now()
    last_report = begun - SAY_EVERY_S

    def report(step: "Step") -> None:
        nonlocal last_report
        if now() - last_report < SAY_EVERY_S:
            return
        last_report = now()
        left = (last_report - begun) * (1 - step.share) / step.share if step.share > 0 else None
        typer.echo(f"{who}: {step.text}" + (f", {left:.0f} s left" if left is not None else ""), err=True)

    return report


def _device(wanted: Device) -> "torch.device":
    import torch

    from trainer.engine import choose_device

    if wanted is Device.cuda and not torch.cuda.is_available():
        raise UsageError("--device cuda: there is no GPU that torch can use here.")
    return choose_device(wanted.value)


def _of_a_model(results: "list[Result]") -> "Iterator[tuple[str, list[Result]]]":
    for label in dict.fromkeys(r.task.label for r in results):
        yield label, [r for r in results if r.task.label == label]


def _as_json(results: "list[Result]") -> list[dict[str, Any]]:
    """An object a model: what was asked, and what came of it with intervals."""
    from evaluation.results import METRICS
    from evaluation.tables import estimate
    from evaluation.tasks import to_json

    out = []
    for name, seeds in _of_a_model(results):
        first = seeds[0]
        estimates = {metric: estimate(seeds, metric) for metric in METRICS}
        out.append(
            {
                "model": name,
                "task": {k: v for k, v in to_json(first.task).items() if k not in {"seed", "model"}},
                "seeds": len(seeds),
                "queries": first.ranks.size,
                "metrics": {k: {"value": i.value, "low": i.low, "high": i.high} for k, i in estimates.items()},
                "coverage@20": _mean([r.coverage for r in seeds]),
                "parameter_bytes": first.parameter_bytes,
                "training_s": [r.training_s for r in seeds],
                "epochs": [r.epochs for r in seeds],
                "best_epoch": [r.best_epoch for r in seeds],
                "inference_ms": first.inference_ms,
                "device": first.device,
                "threads": first.threads,
                "versions": first.versions,
            }
        )
    return out


def _table(results: "list[Result]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from evaluation.tables import JUDGED_BY, estimate, short, with_bounds

    task = results[0].task
    metrics = JUDGED_BY[task.protocol]
    quality, cost = (Table(box=box.SIMPLE_HEAD, pad_edge=False) for _ in range(2))
    for name in ("model", *metrics):
        quality.add_column(name, no_wrap=True)
    quality.add_column("coverage@20", justify="right", no_wrap=True)
    cost.add_column("model", no_wrap=True)
    for name in ("parameters KB", "ms a user, alone", "in 64", "trained s", "best epoch"):
        cost.add_column(name, justify="right", no_wrap=True)
    for name, seeds in _of_a_model(results):
        covered = _mean([r.coverage for r in seeds])
        estimates = [with_bounds(estimate(seeds, metric)) for metric in metrics]
        quality.add_row(name, *estimates, "-" if covered is None else short(covered))
        cost.add_row(
            name,
            f"{seeds[0].parameter_bytes / 1000:,.0f}",
            *(f"{seeds[0].inference_ms[batch]:.3f}" for batch in sorted(seeds[0].inference_ms)),
            f"{sum(r.training_s for r in seeds) / len(seeds):,.1f}",
            ", ".join(f"{r.best_epoch} of {r.epochs}" if r.best_epoch else "-" for r in seeds),
        )
    console = Console(file=sys.stdout, highlight=False)
    console.width = max(console.width, LEAST_WIDTH)
    console.print(quality, cost)
    most = max(len(seeds) for _, seeds in _of_a_model(results))
    typer.echo(
        f"{task.protocol}, {task.order} order, {results[0].ranks.size:,} queries among {results[0].items:,} items; "
        f"means over {most} seed{'s' * (most > 1)} of each network, with 95 % bootstrap intervals over users. "
        f"Run on {results[-1].device}, {results[-1].threads} thread{'s' * (results[-1].threads > 1)}."
    )


def _mean(shares: list[float | None]) -> float | None:
    present = [share for share in shares if share is not None]
    return sum(present) / len(present) if present else None
