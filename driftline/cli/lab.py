"""`driftline lab`: policies side by side in a simulated week. What is asked, how far it is, and what came out."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftline.cli.options import takes
from driftline.errors import RunError, UsageError
from driftline.tables import show, table

if TYPE_CHECKING:
    from evaluation.lab.plan import PolicyPlan, Run, WorldPlan
    from evaluation.lab.report import Table
    from evaluation.lab.results import Outcome
    from evaluation.lab.runs import Progress

SYNTHETIC = "synthetic"
ENDINGS = (".svg", ".png")


class LearnFromOption(StrEnum):
    """Whose examples a policy of an A/B test learns from."""

    own = "own"
    diverted = "diverted"
    pooled = "pooled"
    weighted = "weighted"


@dataclass(frozen=True, kw_only=True)
class LabOptions:
    """What `driftline lab` was asked for."""

    policies: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,…",
            help="frozen (learns in the warm-up alone), online, online-no-gate, plain (one pass over positives, no "
            "gate, its own settings), popularity, logging (what made the log), omniscient (knows what users want; "
            "synthetic world only). The first four take a model and a settings file of their own: "
            "online:sasrec@FILE. The others are compared with the first one named.",
        ),
    ] = "frozen,online,plain,popularity"
    world: Annotated[
        str, typer.Option(metavar="synthetic|PATH", help="The synthetic world, or a KuaiRand-Pure folder.")
    ] = SYNTHETIC
    days: Annotated[int, typer.Option(min=1, max=60, help="Days of the experiment.")] = 7
    warmup_days: Annotated[
        int | None, typer.Option(min=1, max=60, help="Days of log before it. \\[default: 7 with a folder, else 2]")
    ] = None
    users: Annotated[
        int | None, typer.Option(min=10, help="Users. \\[default: 1000; with a folder, all of its log]")
    ] = None
    items: Annotated[int | None, typer.Option(min=50, help="Items of the synthetic world. \\[default: 1500]")] = None
    slate: Annotated[
        int, typer.Option(min=1, max=20, help="Items that a visit asks for (with a folder: at least).")
    ] = 4
    births: Annotated[
        float,
        typer.Option(
            min=0, max=0.5,
            help="Share of the synthetic world's items that is born anew on each day; old ones fade and tastes shift "
            "as fast. 0: nothing does.",
        ),
    ] = 0.0  # fmt: skip
    explore: Annotated[
        float,
        typer.Option(min=0, max=0.49, help="Share of the places of models that is filled at random; see serving.md."),
    ] = 0.0
    seed: Annotated[int, typer.Option(min=0, help="Of the first world, with its models and its assignment.")] = 0
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Worlds, with seeds from --seed on.")] = 1
    model: Annotated[str, typer.Option(help="Of policies that name none of their own.")] = "two_tower"
    settings: Annotated[
        Path | None,
        typer.Option(help="Settings of policies that name none of their own: a deployment's, or `trainer:` alone."),
    ] = None
    ab: Annotated[
        bool,
        typer.Option(
            "--ab", help="Two policies: let them also share the users as arms of an experiment, and say what it finds."
        ),
    ] = False
    learn_from: Annotated[
        LearnFromOption | None,
        typer.Option(help="With --ab: whose examples each learns from, instead of the settings'."),
    ] = None
    jobs: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here.")] = None
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw EVR by day here, as .svg or .png (needs matplotlib).")
    ] = None
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tables here, too.")] = None


@takes(LabOptions)
def lab(options: LabOptions) -> None:
    """Let policies play the same simulated week, each by itself, and compare what they earn.

    The demo without Kafka, Feast and gRPC, in one process and a fraction of its time: the same world, the stream's
    joins, the trainer with its gate, and a replica's answers. All policies meet the same users, who come at the same
    times and throw the same dice, so policies that do the same earn exactly the same.
    """
    world, policies = _world(options), _policies(options)
    _check(options, len(policies))
    from evaluation.lab.runs import plan_runs, simulate

    seeds = range(options.seed, options.seed + options.seeds)
    runs = plan_runs(world, seeds, policies, shared=options.ab)
    try:
        with _progress(len(runs)) as progress:
            outcomes = simulate(runs, options.jobs, progress)
    except KeyboardInterrupt:
        typer.echo("driftline: interrupted; nothing was written.", err=True)
        raise typer.Exit(130) from None
    _tell(options, outcomes)


def _tell(options: LabOptions, outcomes: "list[Outcome]") -> None:
    from evaluation.lab.report import as_json, by_policy, tables

    found = tables(outcomes)
    for each in found:
        _print(each)
    command = f"driftline {shlex.join(sys.argv[1:])}"
    try:
        if options.as_json:
            content = {"command": command, **as_json(outcomes)}
            options.as_json.write_text(json.dumps(content, indent=1) + "\n")
        if options.markdown:
            from evaluation.markdown import table as as_markdown

            parts = [f"{each.title}:\n\n{as_markdown(each.header, each.rows)}\n" for each in found]
            options.markdown.write_text("\n".join((f"```console\n$ {command}\n```\n", *parts)))
        if options.picture:
            from evaluation.lab.picture import draw

            draw(by_policy(outcomes), options.picture)
    except OSError as error:
        raise RunError(f"{error.filename} cannot be written: {error.strerror}.") from error


def _print(each: "Table") -> None:
    typer.echo(each.title)
    grid = table({name: place > 0 for place, name in enumerate(each.header)})
    for row in each.rows:
        grid.add_row(*row)
    show(grid)


def _world(options: LabOptions) -> "WorldPlan":
    from evaluation.lab.plan import WorldPlan

    return WorldPlan(
        data=None if options.world == SYNTHETIC else Path(options.world),
        days=options.days,
        warmup_days=options.warmup_days,
        slate=options.slate,
        users=options.users,
        items=options.items,
        births=options.births,
    )


def _policies(options: LabOptions) -> "list[PolicyPlan]":
    from evaluation.lab.plan import MODELS, policy_plan
    from evaluation.lab.settings import LabSettings, read_settings

    model = next((each for each in MODELS if each == options.model), None)
    if model is None:
        raise UsageError(f"There is no model '{options.model}'; there are {', '.join(MODELS)}.")
    common = read_settings(options.settings) if options.settings else LabSettings()
    plans = []
    for name in dict.fromkeys(part.strip() for part in options.policies.split(",") if part.strip()):
        _, _, file = name.partition("@")
        chosen = read_settings(Path(file)) if file else common
        trainer = chosen.trainer
        if options.learn_from is not None:
            trainer = trainer.model_copy(update={"learn_from": options.learn_from.value})
        plans.append(replace(policy_plan(name, model, trainer, chosen.stream), explore=options.explore))
        for ignored in chosen.by_the_clock() if plans[-1].learns else ():
            typer.echo(
                f"driftline: {name}: trainer.{ignored} goes by the wall clock, which stands still here.", err=True
            )
    return plans


def _check(options: LabOptions, policies: int) -> None:
    if not policies:
        raise UsageError("Which policies? --policies names none.")
    if options.ab and policies != 2:
        raise UsageError(f"--ab takes two policies, not {policies}.")
    if options.learn_from is not None and not options.ab:
        raise UsageError("--learn-from goes with --ab: without it there is nobody else to learn from.")
    for file in (options.as_json, options.picture, options.markdown):
        if file is not None and not file.parent.is_dir():
            raise UsageError(f"{file.parent} is not a folder.")
    if options.picture is not None and options.picture.suffix not in ENDINGS:
        raise UsageError(f"{options.picture} must end in {' or '.join(ENDINGS)}.")


@contextmanager
def _progress(whole: int) -> "Iterator[Progress]":
    """A bar on standard error; where that is no terminal, a line for each run that is done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    done: set[str] = set()

    def tell(run: "Run", share: float) -> None:
        if share >= 1 and str(run) not in done:
            done.add(str(run))
            if not console.is_terminal:
                typer.echo(f"{len(done)} of {whole} weeks: {run}", err=True)
        bar.update(task, completed=len(done) + (share if share < 1 else 0), description=str(run))

    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Opening the world", total=whole)
        yield tell
