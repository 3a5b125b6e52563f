"""`driftline experiment`: experiments as files, who is in which arm, and what came of it."""

from pathlib import Path
from typing import Annotated

import typer

from contracts.config.settings import experiment_of, require_experiment
from contracts.runtime.clock import SystemClock
from driftline.cli import experiment_change, experiment_plan, experiment_report, experiment_run
from driftline.cli.options import ReadyFile, SettingsOption, number_of
from driftline.cli.workers import MetricsHost, MetricsPort, worker_settings
from driftline.errors import UsageError

app = typer.Typer(help="Experiments: who is in which arm, and what came of it.", no_args_is_help=True)
experiment_report.register(app)
app.command()(experiment_plan.plan)
app.command()(experiment_plan.aa)
for command in (experiment_change.pause, experiment_change.resume, experiment_change.ramp, experiment_change.stop):
    app.command()(command)
app.command()(experiment_change.status)
app.command()(experiment_run.run)
app.command("list")(experiment_run.list_)


@app.command()
def collect(
    settings: SettingsOption,
    ready_file: ReadyFile = None,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
    share: Annotated[
        str,
        typer.Option(
            metavar="NUMBER/OF",
            help="One of several collectors, each with its share of the partitions: 2/4 is the second of four. A "
            "report reads the parts of all.",
        ),
    ] = "1/1",
) -> None:
    """Run the collector: exposures and feedback into the experiment's state."""
    loaded = worker_settings("collector", settings, metrics_host, metrics_port)
    require_experiment(loaded, settings)
    from abtest.collect.parts import Share
    from abtest.collect.worker import run

    run(loaded, ready_file, Share.parse(share))


@app.command()
def validate(
    paths: Annotated[list[Path], typer.Argument(help="Experiment files, or folders of them.")],
) -> None:
    """Check experiments, each by itself and all together; exit code 2 where something is wrong."""
    from abtest.assignment.layers import conflicts, read
    from driftline.tables import show, table, utc

    experiments, errors = read(paths)
    errors += conflicts(experiments)
    if errors:
        for error in errors:
            typer.echo(f"driftline: {error}", err=True)
        raise typer.Exit(2)
    columns = ("experiment", "layer", "slots", "arms", "from (UTC)", "to (UTC)", "primary", "analysis")
    shown = table(dict.fromkeys(columns, False))
    for each in sorted(
        experiments.values(), key=lambda experiment: (experiment.layer, experiment.slots, experiment.start_ms)
    ):
        shown.add_row(
            each.name,
            each.layer,
            f"{each.slots[0]:g} to {each.slots[1]:g}",
            ", ".join(f"{name} {arm.weight:g}" for name, arm in each.arms.items()),
            utc(each.start_ms),
            utc(each.end_ms),
            next(metric.name for metric in each.metrics if metric.role == "primary"),
            each.analysis.kind,
        )
    show(shown)


@app.command()
def assign(
    settings: Annotated[
        Path, typer.Option("--settings", "-s", metavar="FILE", help="Settings file, or the file of an experiment.")
    ],
    user_ids: Annotated[list[int] | None, typer.Argument(help="User ids that are numbers.", show_default=False)] = None,
    user_key: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="A text id of a user; repeatable.")] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Unix milliseconds, or ISO 8601 with a zone. \\[default: now, within its period]"
        ),
    ] = None,
) -> None:
    """Print the arm of each user, - where it is none, and why."""
    from abtest.assignment.assign import assign as assigned

    numbers, texts = user_ids or [], user_key or []
    if not numbers and not texts:
        raise UsageError("Say whose arm: USER_IDS, or --user-key TEXT.")
    strange = next((user_id for user_id in numbers if not -(2**63) <= user_id < 2**63), None)
    if strange is not None:
        raise UsageError(f"User id {strange} is not a signed 64-bit integer (from -2^63 up to 2^63 - 1).")
    definition = experiment_of(settings)
    now_ms = SystemClock().now_ms()
    time_ms = (
        min(max(now_ms, definition.start_ms), definition.end_ms - 1) if at is None else experiment_change.moment_ms(at)
    )
    for name, user_id in [*((number, number) for number in numbers), *((text, number_of(text)) for text in texts)]:
        assignment = assigned(definition, user_id, time_ms)
        typer.echo(f"{name}\t{assignment.arm or '-'}\t{assignment.why}")
