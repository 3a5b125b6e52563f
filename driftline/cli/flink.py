"""`driftline flink`: the stream on Apache Flink, on a cluster of this machine; and the process that writes its rows."""

from pathlib import Path
from typing import Annotated

import typer

from contracts.config.settings import load
from driftline.cli.options import ReadyFile, SettingsOption, kafka_errors
from driftline.errors import UsageError

app = typer.Typer(
    help="The stream on Apache Flink, where one machine no longer carries it; here on a cluster of this machine.",
    no_args_is_help=True,
)


def _home() -> Path:
    from driftline.processes.flink import default_home

    return default_home()


Home = Annotated[
    Path,
    typer.Option(
        "--home",
        default_factory=_home,
        show_default="$DRIFTLINE_FLINK_HOME, else ~/.driftline/flink",
        help="Where it is installed.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="The cluster's directory: logs, checkpoints.", show_default="data/ in --home"),
]


@app.command()
def install(
    home: Home,
    repository: Annotated[
        str | None,
        typer.Option(envvar="DRIFTLINE_MAVEN_REPOSITORY", help="A mirror of Maven's central repository."),
    ] = None,
) -> None:
    """Make an environment with PyFlink and fetch the connector and the plugin for s3://, unless they are there.

    It needs a JDK 17 or newer.
    """
    from driftline.processes import flink, flink_code

    target = flink.install(home, repository)
    flink_code.records_jar(home)
    typer.echo(f"{flink.NAME} {flink.VERSION} is in {target}.")


@app.command()
def start(
    home: Home,
    data: Data = None,
    taskmanagers: Annotated[int, typer.Option(min=1, help="Processes that do the work.")] = 2,
    slots: Annotated[int, typer.Option(min=1, help="Tasks that each of them can run.")] = 1,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", "-s", help="Whose `store` it is to reach, for checkpoints on s3://…"),
    ] = None,
) -> None:
    """Start a JobManager and TaskManagers in the background, on free ports of 127.0.0.1."""
    from driftline.processes import flink

    store = load(settings).store if settings else None
    cluster = flink.Cluster(home, data or home / "data", detached=True, store=store)
    cluster.start(taskmanagers, slots)
    typer.echo(
        f"{flink.NAME} runs on {cluster.address} with {taskmanagers} TaskManagers; logs are in {cluster.directory}."
    )


@app.command()
def submit(
    settings: SettingsOption,
    home: Home,
    data: Data = None,
    parallelism: Annotated[int, typer.Option(min=1, help="Tasks that share the partitions.")] = 1,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            help="A folder, or s3://BUCKET/PREFIX, for checkpoints.", show_default="in the cluster's directory"
        ),
    ] = None,
    checkpoint_ms: Annotated[
        int, typer.Option(min=100, help="How often what was made is committed, and rows go to Feast.")
    ] = 2000,
    restore: Annotated[
        str | None,
        typer.Option("--from", help="A savepoint to go on from.", show_default="the newest checkpoint in the folder"),
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Begin without any checkpoint: everything is read again.")] = False,
    conf: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of Flink's settings, for this job.")] = None,
) -> None:
    """Submit the job, and wait until it runs. It goes on from the newest checkpoint, where there is one."""
    from driftline.processes import flink, flink_job

    for entry in conf or ():
        if "=" not in entry:
            raise UsageError(f"--conf {entry}: KEY=VALUE is wanted.")
    loaded = load(settings)
    cluster = flink.Cluster(home, data or home / "data", detached=True)
    with kafka_errors(loaded.kafka):
        job = flink_job.submit(
            cluster,
            loaded,
            checkpoints=checkpoints,
            restore=restore,
            fresh=fresh,
            parallelism=parallelism,
            checkpoint_ms=checkpoint_ms,
            conf=dict(entry.split("=", 1) for entry in conf or ()),
        )
    typer.echo(f"Job {job} runs; `driftline flink rows` writes what it makes of users to Feast.")


@app.command()
def status(home: Home, data: Data = None) -> None:
    """Say whether the cluster and its job run. Exit code 1 where one of them does not."""
    from driftline.processes import flink, flink_job

    cluster = flink.Cluster(home, data or home / "data")
    if cluster.address is None:
        typer.echo(f"{flink.NAME} does not run in {cluster.directory}.")
        raise typer.Exit(1)
    typer.echo(f"{flink.NAME} runs on {cluster.address}; TaskManagers: {len(cluster.taskmanagers())}.")
    if flink_job.job_of(cluster) is None:
        typer.echo("No job runs.")
        raise typer.Exit(1)
    found = flink_job.overview(cluster)
    typer.echo(
        f"Job {found['job']}: {found['state']}; checkpoints: {found['checkpoints']}, restored: {found['restored']},"
        f" newest: {found['newest']}."
    )


@app.command()
def stop(
    home: Home,
    data: Data = None,
    savepoint: Annotated[
        str | None,
        typer.Option(
            help="Stop the job with a savepoint in this folder or below s3://BUCKET/PREFIX first; `submit --from` goes"
            " on from it."
        ),
    ] = None,
) -> None:
    """Stop the cluster, Python's processes included. Without --savepoint the job goes on from its newest checkpoint."""
    from driftline.processes import flink, flink_job

    cluster = flink.Cluster(home, data or home / "data")
    if savepoint is not None:
        typer.echo(flink_job.stop_with_savepoint(cluster, flink_job.address_of(savepoint)))
    typer.echo(f"{flink.NAME} has stopped." if cluster.stop() else f"{flink.NAME} did not run.")


@app.command()
def rows(settings: SettingsOption, ready_file: ReadyFile = None) -> None:
    """Write users' rows that the job has made to Feast, until it is stopped. One process does it for all partitions."""
    loaded = load(settings)
    from stream.flink.rows import run

    run(loaded, ready_file)
