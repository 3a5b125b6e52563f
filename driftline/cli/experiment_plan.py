"""`driftline experiment plan` and `aa`: how long an experiment must run, and whether its numbers can be trusted."""

import json
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from abtest.format import counted, share
from contracts.config.experiment import Experiment, load_experiment
from contracts.config.settings import Settings, load_experimenting
from contracts.config.yaml_file import read_yaml
from driftline.cli.options import SettingsOption, no_password
from driftline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from abtest.collect.state import CollectorState
    from abtest.plan.aa import Level
    from abtest.plan.baseline import Known
    from abtest.stats.metrics import Mean, Ratio


def plan(
    file: Annotated[Path, typer.Argument(help="The experiment's file, or a settings file with the experiment.")],
    settings: Annotated[
        Path | None,
        typer.Option("--settings", "-s", help="Settings of a collector whose saved state is the baseline."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH|URL", help="Or rows of users and days: Parquet, or the URL of an SQL engine."),
    ] = None,
    table: Annotated[str | None, typer.Option(metavar="NAME|SQL", help="With a URL: which table, or a SELECT.")] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Or an aggregate that `experiment report --save-state` wrote.")
    ] = None,
    users_per_day: Annotated[
        float | None,
        typer.Option(help="Users whom a day brings for the first time, 1 or more. \\[default: as in the baseline]"),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=90, help="Days of the experiment. \\[default: as in the file]")
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option(help="Relative effect to be found, 0.01 for 1 %. \\[default: each metric's minimum_effect]"),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Only this metric. \\[default with numbers: the primary one]")
    ] = None,
    mean: Annotated[float | None, typer.Option(help="Baseline in numbers: a user's mean over the experiment.")] = None,
    sd: Annotated[float | None, typer.Option(help="With --mean: standard deviation over users.")] = None,
    rate: Annotated[float | None, typer.Option(help="Or the share of users who do it, once or more.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how many users and days the experiment needs, and what it can find at all.

    By the file's plan (kind, alpha, power, weights, looks, CUPED), for each metric by itself, from a baseline: what a
    collector has saved, before the experiment or while it runs; rows or an aggregate of its days; or numbers. With
    CUPED the variance that it takes away in the baseline is taken off.
    """
    from abtest.plan.power import MOST_USERS

    no_password("--data", data)
    if users_per_day is not None and not 1 <= users_per_day <= MOST_USERS:
        raise UsageError(f"--users-per-day is {users_per_day:g}; it must be a number from 1 to {MOST_USERS:,}.")
    experiment, own = _planned_file(file)
    days = days or experiment.days
    from abtest.plan.needs import Stated, as_values, rows_of
    from abtest.stats.metrics import of_experiment
    from driftline.experiment.planning import notes_on, table_of
    from driftline.tables import show

    numbers = Stated(mean, sd, rate, prefix="--")
    if numbers.given and metric is None:
        metric = of_experiment(experiment)[0].name
    wanted = _chosen(experiment, metric)
    if sum((numbers.given, settings is not None, data is not None, state is not None)) > 1:
        raise UsageError("Give one baseline: --settings, --data, --state or numbers.")
    if numbers.given:
        from abtest.plan.baseline import stated

        if users_per_day is None:
            raise UsageError("A baseline in numbers needs --users-per-day.")
        with _as_usage_errors():
            baselines = [stated(*numbers.numbers(), users_per_day, days, rate)] * len(wanted)
        source = "from the numbers given"
    elif data is not None or state is not None:
        baselines, source = _from_aggregate(wanted, experiment, data, table, state, days, users_per_day)
    else:
        where = load_experimenting(settings) if settings else own
        if where is None:
            raise UsageError("There is no baseline: give --settings, --data, --state, or --mean and --sd, or --rate.")
        baselines, source = _from_state(wanted, where, experiment, days, users_per_day)
    with _as_usage_errors(), _progress("planning", len(wanted)) as progress:
        rows = rows_of(wanted, baselines, experiment, effect, progress, prefix="--")
    if as_json:
        typer.echo(json.dumps(as_values(rows, experiment, days, source), indent=2))
        return
    analysis = experiment.analysis
    by = f"{analysis.kind}, alpha {analysis.alpha:g}, power {analysis.power:.12g}"
    typer.echo(f"{experiment.name}: {by}, {counted(days, 'day')}, {source}\n")
    show(table_of(rows, days))
    for sentence in notes_on(rows, experiment, days):
        typer.echo(sentence)


def _chosen(experiment: Experiment, name: str | None) -> "list[Mean | Ratio]":
    """The metrics that are planned for: the one of that name, or all but quantiles."""
    from abtest.stats.metrics import Quantile, of_experiment

    every = of_experiment(experiment)
    if any(isinstance(each, Quantile) and each.name == name for each in every):
        raise UsageError(f"Metric '{name}' is a quantile; means and ratios can be planned for.")
    metrics = [each for each in every if not isinstance(each, Quantile)]
    if name is not None and name not in [each.name for each in metrics]:
        there_are = ", ".join(each.name for each in metrics)
        raise UsageError(f"There is no metric '{name}' to plan for; there are {there_are}.")
    return [each for each in metrics if name in {None, each.name}]


def aa(
    settings: SettingsOption,
    replicates: Annotated[int, typer.Option(min=1, max=1_000_000, help="How often the users are shuffled.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the shuffles.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Shuffle the experiment's own users into two halves, many times, and count how often a metric is "significant".

    No half differs from the other but by chance, so that should happen as often as the plan's alpha says. Each metric
    has a line, and one more after CUPED where users are known from before. The verdict is measured as well: how often
    users who were dealt into the experiment's arms anew get "ship" or "hold", by the whole rule in one look; reports
    that follow show it beside the verdict. Exit code 2 where a metric's rate is off: its interval (exact, 99 %) does
    not hold alpha, and the report on this traffic cannot be trusted. Few replicates do not tell: the table says so, and
    `trusted` is null in the JSON.
    """
    loaded = load_experimenting(settings)
    from abtest.aggregate.winsorize import table_of
    from abtest.analyse.one_look import false_alarms, shuffled_verdicts
    from abtest.collect.state import folded
    from abtest.plan.aa import replay_table
    from abtest.plan.aa import trusted as all_trusted
    from abtest.report.wording import cried_wolf
    from abtest.stats.metrics import Quantile, of_experiment
    from driftline.experiment.false_alarms import save_false_alarms

    experiment = loaded.experiment
    users = table_of(folded(saved_state(loaded)), experiment)
    metrics = [m for m in of_experiment(experiment, users.columns) if not isinstance(m, Quantile)]
    if len(users.arm) < 4:
        raise UsageError(
            f"The collector has seen {counted(len(users.arm), 'user')} in an arm; there is nobody to shuffle yet."
        )
    with _progress("shuffling users", replicates) as progress:
        levels = replay_table(users, metrics, replicates, seed, experiment.analysis.alpha, progress)
    weights = {arm: spec.weight for arm, spec in experiment.arms.items()}
    weeks = shuffled_verdicts(users, metrics, weights, experiment.control, experiment.analysis, replicates, seed)
    alarms = replace(false_alarms(weeks), users=len(users.arm))
    save_false_alarms(alarms, loaded)
    trusted = all_trusted(levels)
    if as_json:
        result = {
            "experiment": experiment.name,
            "users": len(users.arm),
            "replicates": replicates,
            "seed": seed,
            "alpha": experiment.analysis.alpha,
            "trusted": trusted,
            "levels": [asdict(level) for level in levels],
            "verdicts": asdict(alarms),
        }
        typer.echo(json.dumps(result, indent=2))
    else:
        times = counted(replicates, "time")
        typer.echo(f"{experiment.name}: {counted(len(users.arm), 'user')}, shuffled into two halves {times}\n")
        _show_levels(levels)
        for sentence in _judged(levels, experiment.analysis.alpha):
            typer.echo(sentence)
        typer.echo(cried_wolf(alarms))
    if trusted is False:
        raise typer.Exit(2)


def saved_state(settings: Settings) -> "CollectorState":
    """What the collector has saved.

    Raises:
        UsageError: nothing, or nothing that can be used.

    """
    from abtest.collect.parts import load_state, saved_parts
    from contracts.runtime.durable import StateError

    try:
        if not saved_parts(settings):
            raise UsageError(f"The collector has saved nothing in {settings.state} yet.")
        return load_state(settings)
    except StateError as error:
        raise UsageError(str(error)) from error


@contextmanager
def _as_usage_errors() -> "Iterator[None]":
    """Numbers that nothing can be planned by are a mistake in the command's words."""
    from abtest.plan.needs import PlanError

    try:
        yield
    except PlanError as error:
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


def _planned_file(file: Path) -> tuple[Experiment, Settings | None]:
    """The experiment, and the settings where the file is of these."""
    data: Any = read_yaml(file)
    if isinstance(data, dict) and "experiment" in data:
        loaded = load_experimenting(file)
        return loaded.experiment, loaded
    return load_experiment(file), None


def _from_aggregate(
    metrics: Sequence["Mean | Ratio"],
    experiment: Experiment,
    data: str | None,
    table: str | None,
    state: Path | None,
    days: int,
    users_per_day: float | None,
) -> "tuple[list[Known], str]":
    """What rows, or an aggregate that was saved, say of the metrics; and a few words on what that is."""
    from abtest.aggregate.archive import load as load_aggregate
    from abtest.plan.baseline import during
    from contracts.runtime.durable import StateError
    from driftline.experiment import data as rows

    try:
        observed = load_aggregate(state, experiment) if state else rows.counted(str(data), table, experiment)[0]
    except StateError as error:
        raise UsageError(str(error)) from error
    aggregate = observed.aggregate
    baselines = [during(metric, aggregate, days, users_per_day) for metric in metrics]
    met = f"{counted(sum(aggregate.users.values()), 'user')} in {counted(aggregate.days, 'day')}"
    return baselines, f"from {met} of {state or rows.public(str(data))}"


def _from_state(
    metrics: Sequence["Mean | Ratio"],
    settings: Settings,
    experiment: Experiment,
    days: int,
    users_per_day: float | None,
) -> "tuple[list[Known], str]":
    """What a collector's state says of the metrics; and a few words on what that is."""
    from abtest.aggregate.aggregate import aggregate
    from abtest.aggregate.winsorize import table_of
    from abtest.collect.rules import PRE_DAYS
    from abtest.collect.state import folded
    from abtest.plan.baseline import before, during, share_of
    from abtest.stats.metrics import STREAMED, capped_columns, with_capped

    state = folded(saved_state(settings))
    for metric in metrics:
        for column in metric.columns:
            if column not in with_capped(STREAMED, experiment):
                raise UsageError(f"Metric '{metric.name}': the collector knows no column '{column}'.")
    users = table_of(state, experiment)
    if len(users.arm):
        daily = aggregate(users)
        baselines = [during(metric, daily, days, users_per_day) for metric in metrics]
        return (
            baselines,
            f"from {counted(len(users.arm), 'user')} in {counted(daily.days, 'day')} of {settings.experiment.name}",
        )
    share, to_cap = share_of(experiment), capped_columns(experiment)
    baselines = [before(metric, state, days, share, users_per_day, to_cap) for metric in metrics]
    if not any(each.users for each in baselines):
        raise UsageError(f"The collector of {settings.experiment.name} has seen nobody yet.")
    return (
        baselines,
        f"from {counted(baselines[0].users, 'user')} in the {PRE_DAYS} days before {settings.experiment.name}",
    )


def _show_levels(levels: Sequence["Level"]) -> None:
    from driftline.tables import show, table

    columns = {"metric": False, "CUPED": False, "false positives": True, "99 % interval": True}
    shown = table(columns | {"uniform p": True, "trusted": False}, wraps=["trusted"])
    for level in levels:
        by_cuped = "yes" if level.by_cuped else "no"
        if level.false_positives is None or level.low is None or level.high is None or level.uniform_p is None:
            shown.add_row(level.metric, by_cuped, "-", "-", "-", f"not testable: {level.reason}")
            continue
        interval = f"{share(level.low)} to {share(level.high)}"
        trusted = {True: "yes", False: "NO", None: f"not told: {level.reason}"}[level.trusted]
        shown.add_row(level.metric, by_cuped, share(level.false_positives), interval, f"{level.uniform_p:.3f}", trusted)
    show(shown)


def _judged(levels: Sequence["Level"], alpha: float) -> "Iterator[str]":
    """A sentence on each metric whose rate is off, or one that none is."""
    from abtest.plan.aa import enough

    off = [level for level in levels if level.trusted is False]
    for level in off:
        name = f"{level.metric} by CUPED" if level.by_cuped else level.metric
        if level.low is not None and level.low > alpha:
            yield f"{name} cries wolf: do not act on its p-values. What makes these users depend on each other?"
        else:
            yield f"{name} is significant too rarely: its events are too few, and its intervals wider than need be."
    if not any(level.trusted is not None for level in levels):
        least = counted(enough(alpha), "replicate tells", "replicates tell")
        yield f"No metric can be called trusted. At alpha {100 * alpha:.6g} %, at least {least}."
    elif not off:
        yield f"Every metric that could be tested is significant about as often as alpha, {100 * alpha:.6g} %, says."
