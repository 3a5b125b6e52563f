"""The `driftline` command. Heavy imports (torch, feast) wait until a subcommand needs them."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from contracts.config.settings import load
from driftline.cli import (
    catalogue,
    deadletters,
    evaluate,
    events,
    experiment,
    flink,
    forget,
    imports,
    lab,
    servers,
    serving,
    snapshots,
    trainer,
)
from driftline.cli.extras import OURS, sentence
from driftline.cli.options import ReadyFile, SettingsOption, no_password
from driftline.cli.workers import MetricsHost, MetricsPort, begin, complain, worker_settings
from driftline.errors import RUN_ERRORS, USER_ERRORS
from driftline.inspect.build import release

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(experiment.app, name="experiment")
app.add_typer(servers.kafka, name="kafka")
app.add_typer(servers.redis, name="redis")
app.add_typer(flink.app, name="flink")
app.add_typer(servers.s3, name="s3")
app.add_typer(catalogue.app, name="catalogue")
app.add_typer(deadletters.app, name="deadletters")
app.add_typer(snapshots.app, name="snapshots")
app.add_typer(trainer.app, name="trainer")
app.command("import")(imports.import_history)
app.command()(evaluate.evaluate)
app.command()(lab.lab)
app.command()(serving.recall)
app.command()(serving.status)
app.command()(events.check_event)
app.command("id")(events.ids)
app.command(epilog=forget.CODES)(forget.forget)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(release() or "driftline, not installed as a package")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Streaming online learning for live A/B experiments in the recall stage of a recommender."""


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="KuaiRand-Pure folder (csv as shipped, or parquet). Without it: a synthetic world."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=60, help="Days of the A/B experiment.")] = 7,
    warmup_days: Annotated[
        int | None,
        typer.Option(min=1, max=60, help="Days of log replayed before it. \\[default: 7 with --data, else 2]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world, the models and the assignment.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the report, the summary and the run's files go.")] = Path("out"),
    broker: Annotated[str, typer.Option(help="`embedded`, or HOST:PORT of a running Apache Kafka.")] = "embedded",
    slate: Annotated[int, typer.Option(min=1, max=20, help="With --data: items that a visit asks for at least.")] = 4,
    users: Annotated[int | None, typer.Option(min=10, help="Without --data: users. \\[default: 1000]")] = None,
    items: Annotated[int | None, typer.Option(min=50, help="Without --data: items. \\[default: 1500]")] = None,
    births: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.5,
            help="Without --data: share of the items that is born anew on each day; old ones fade, tastes shift.",
        ),
    ] = None,
    freshness: Annotated[
        bool | None,
        typer.Option(
            "--freshness/--no-freshness",
            help="At the end, measure in the laboratory what freshness was worth: each arm's model learning all week "
            "and frozen at the start. \\[default: yes; with --data, where each such week takes minutes, no]",
        ),
    ] = None,
) -> None:
    """Run a whole A/B experiment on this machine: T2Diff against a regular two-tower, on a live loop.

    Starts a broker, a Feast store, a stream worker, a trainer and two serving replicas as processes, drives the
    users, and writes the report (HTML, JSON, Markdown) and summary.json. While it runs it shows of each arm which
    snapshot is on trial, whether snapshots are held and since when, and whether the arm has gone stale. Ctrl-C stops
    everything.
    """
    from driftline.demo.run import DemoOptions, run

    try:
        run(DemoOptions(data, days, warmup_days, seed, out, broker, slate, users, items, births, freshness))
    except KeyboardInterrupt:
        typer.echo("driftline: interrupted; everything it had started was stopped.", err=True)
        raise typer.Exit(130) from None


@app.command()
def init(
    settings: SettingsOption,
    redis: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of Redis for Feast's online store; what Feast takes after it may follow, as in "
            "'HOST:PORT,db=1,password=${REDIS_PASSWORD}'; each worker takes that from its environment, or from the "
            "file in REDIS_PASSWORD_FILE. Without it: as the repository has it, SQLite at first."
        ),
    ] = None,
) -> None:
    """Prepare what the workers stand on: create missing Kafka topics, set for how long topics keep their records
    (`retention.topics_ms`), and apply the Feast repository.
    """
    no_password("--redis", redis)
    loaded = load(settings)
    from driftline.processes import broker
    from feature_repo.store import apply

    broker.prepare(loaded.kafka, loaded.retention.of_topics)
    apply(loaded.feature_repo, redis)
    typer.echo(f"Topics {loaded.kafka.topic_prefix}* are there; the Feast repository is in {loaded.feature_repo}.")


@app.command()
def stream(
    settings: SettingsOption,
    ready_file: ReadyFile = None,
    instance: Annotated[
        str | None,
        typer.Option(help="A name that stays over restarts: a worker that is soon back keeps its partitions."),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            help="Begin without a state although the group has read before: everything is read again, examples and "
            "dead letters are sent a second time, and rows stay as they are until the reading has caught up with them."
        ),
    ] = False,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run a stream worker: join, sessions, features into Feast, training examples.

    Start as many as there are partitions: they share them, and take over from each other.
    """
    loaded = worker_settings("stream", settings, metrics_host, metrics_port)
    from stream.worker import run

    run(loaded, ready_file, instance=instance, rebuild=rebuild)


@app.command()
def archive(
    settings: SettingsOption,
    ready_file: ReadyFile = None,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run the archive: training examples into Feast's offline store, for historical features."""
    loaded = worker_settings("archive", settings, metrics_host, metrics_port)
    from stream.archive import run

    run(loaded, ready_file)


@app.command()
def serve(
    settings: SettingsOption,
    ready_file: ReadyFile = None,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run a serving replica: gRPC `Recall`, health and reflection.

    SIGHUP makes it read the experiment in its settings again; certificates and tokens are watched.
    """
    loaded = worker_settings("replica", settings, metrics_host, metrics_port)
    from serving.replica import run

    run(loaded, ready_file, partial(load, settings))


def main() -> None:
    """Run the command; an error that a user can mend is one sentence on standard error and exit code 2.

    Any other is a traceback; of a worker, one line of its log with the traceback in it.
    """
    begin()
    try:
        app()
    except USER_ERRORS as error:
        complain(str(error))
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in OURS:
            raise
        complain(sentence(sys.argv[1:], missing))
        raise SystemExit(2) from None
    except RUN_ERRORS as error:
        complain(str(error))
        raise SystemExit(1) from None
