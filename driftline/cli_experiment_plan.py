"""`driftline experiment plan` and `aa`: how long an experiment must run, and whether its numbers can be trusted."""

import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from contracts.settings import Settings, load
from driftline.errors import UsageError
from driftline.options import SettingsOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from abtest.aa import Level
    from abtest.state import State


def aa(
    settings: SettingsOption,
    replicates: Annotated[int, typer.Option(min=1, help="How often the users are shuffled.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the shuffles.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Shuffle the experiment's own users into two halves, many times, and count how often a metric is "significant".

    No half differs from the other but by chance, so that should happen as often as the plan's alpha says. Each metric
    has a line, and one more after CUPED where users are known from before. Exit code 2 where a metric's rate is off:
    its interval (exact, 99 %) does not hold alpha, and the report on this traffic cannot be trusted.
    """
    loaded = load(settings)
    from abtest.aa import replay_table
    from abtest.metrics import Quantile, of_experiment
    from abtest.state import folded
    from abtest.table import table

    experiment = loaded.experiment
    users = table(folded(saved_state(loaded)))
    metrics = [m for m in of_experiment(experiment, users.columns) if not isinstance(m, Quantile)]
    if len(users.arm) < 4:
        raise UsageError(f"The collector has seen {len(users.arm)} users in an arm; there is nobody to shuffle yet.")
    with _progress("shuffling users", replicates) as told:
        levels = replay_table(users, metrics, replicates, seed, experiment.analysis.alpha, told)
    trusted = all(level.trusted is not False for level in levels)
    if as_json:
        said = {
            "experiment": experiment.name,
            "users": len(users.arm),
            "replicates": replicates,
            "seed": seed,
            "alpha": experiment.analysis.alpha,
            "trusted": trusted,
            "levels": [asdict(level) for level in levels],
        }
        typer.echo(json.dumps(said, indent=2))
    else:
        typer.echo(f"{experiment.name}: {len(users.arm):,} users, shuffled into two halves {replicates:,} times\n")
        _show_levels(levels)
        for sentence in _judged(levels, experiment.analysis.alpha):
            typer.echo(sentence)
    if not trusted:
        raise typer.Exit(2)


def saved_state(settings: Settings) -> "State":
    """What the collector has saved.

    Raises:
        UsageError: nothing, or nothing that can be used.

    """
    from abtest.store import StateError, load_state, path_of

    if not path_of(settings).exists():
        raise UsageError(f"The collector has saved nothing in {settings.state} yet.")
    try:
        return load_state(settings)
    except StateError as error:
        raise UsageError(str(error)) from error


@contextmanager
def _progress(what: str, total: int) -> "Iterator[Callable[[int], None]]":
    """A bar on standard error while it is a terminal; it is told how many are done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _show_levels(levels: "Sequence[Level]") -> None:
    from driftline.tables import show, table

    columns = {"metric": False, "CUPED": False, "false positives": True, "99 % interval": True}
    shown = table(columns | {"uniform p": True, "trusted": False}, wraps="trusted")
    for level in levels:
        by_cuped = "yes" if level.by_cuped else "no"
        if level.false_positives is None or level.low is None or level.high is None or level.uniform_p is None:
            shown.add_row(level.metric, by_cuped, "-", "-", "-", f"not testable: {level.reason}")
            continue
        interval = f"{level.low:.1%} to {level.high:.1%}"
        trusted = "yes" if level.trusted else "NO"
        shown.add_row(
            level.metric, by_cuped, f"{level.false_positives:.1%}", interval, f"{level.uniform_p:.3f}", trusted
        )
    show(shown)


def _judged(levels: "Sequence[Level]", alpha: float) -> "Iterator[str]":
    """A sentence on each metric whose rate is off, or one that none is."""
    off = [level for level in levels if level.trusted is False]
    for level in off:
        name = f"{level.metric} by CUPED" if level.by_cuped else level.metric
        if level.low is not None and level.low > alpha:
            yield f"{name} cries wolf: do not act on its p-values. What makes these users depend on each other?"
        else:
            yield f"{name} is significant too rarely: its events are too few, and its intervals wider than need be."
    if not off:
        yield f"Every metric that could be tested is significant about as often as alpha, {alpha:.0%}, says."
