"""`driftline kafka`, `redis` and `s3`: the servers that the parts stand on, for development and tests."""

import os
from pathlib import Path
from typing import Annotated

import typer

from driftline.errors import UsageError

kafka = typer.Typer(help="Apache Kafka on this machine: one node, for development and tests.", no_args_is_help=True)
s3 = typer.Typer(help="An S3 server on this machine, for snapshots on a store.", no_args_is_help=True)
redis = typer.Typer(help="Redis on this machine, for Feast's online store.", no_args_is_help=True)


def _kafka_home() -> Path:
    from driftline.processes.kafka import default_home

    return default_home()


def _redis_home() -> Path:
    from driftline.processes.redis import default_home

    return default_home()


def _s3_home() -> Path:
    from driftline.processes.s3 import default_home

    return default_home()


KafkaHome = Annotated[
    Path,
    typer.Option(
        "--home",
        default_factory=_kafka_home,
        show_default="$DRIFTLINE_KAFKA_HOME, else ~/.driftline/kafka",
        help="Where it is installed; it keeps its data in data/ there.",
    ),
]
RedisHome = Annotated[
    Path,
    typer.Option(
        "--home",
        default_factory=_redis_home,
        show_default="$DRIFTLINE_REDIS_HOME, else ~/.driftline/redis",
        help="Where it is unpacked; it keeps its data in data/ there.",
    ),
]
S3Home = Annotated[
    Path,
    typer.Option(
        "--home",
        default_factory=_s3_home,
        show_default="$DRIFTLINE_S3_HOME, else ~/.driftline/s3",
        help="Where it is installed; it keeps its data in data/ there.",
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0 for a free one.")]
Repository = Annotated[
    str | None,
    typer.Option(envvar="DRIFTLINE_MAVEN_REPOSITORY", help="A mirror of Maven's central repository."),
]


@kafka.command("install")
def install_kafka(home: KafkaHome, repository: Repository = None) -> None:
    """Fetch Apache Kafka, unless it is there. It needs Java 17 or newer; nothing outside `--home` is touched."""
    from driftline.processes import kafka as apache

    typer.echo(f"Apache Kafka {apache.VERSION} is in {apache.install(home, repository)}.")


@kafka.command("start")
def start_kafka(home: KafkaHome, port: Port = 9092) -> None:
    """Start it in the background, and wait until it answers. Its data survive a stop."""
    from driftline.processes import kafka as apache

    if not _runs(apache.NAME, home, port):
        _say(apache.NAME, apache.start(home, home / "data", port, detached=True).directory)


@kafka.command("stop")
def stop_kafka(home: KafkaHome) -> None:
    """Stop it, and wait until it has ended."""
    _stop("Apache Kafka", home)


@kafka.command("status")
def kafka_status(home: KafkaHome) -> None:
    """Say whether it runs, and where. Exit code 1 where it does not."""
    _status("Apache Kafka", home)


@redis.command("install")
def install_redis(home: RedisHome) -> None:
    """Unpack Debian's Redis, unless there is a `redis-server` on the PATH. No system service is installed."""
    from driftline.processes import redis as server

    typer.echo(f"Redis is {server.install(home)}.")


@redis.command("start")
def start_redis(home: RedisHome, port: Port = 6379) -> None:
    """Start it in the background, and wait until it answers. Its data survive a stop."""
    from driftline.processes import redis as server

    if not _runs(server.NAME, home, port):
        options = {"appendonly": "yes"}
        _say(server.NAME, server.start(home, home / "data", port, options, detached=True).directory)


@redis.command("stop")
def stop_redis(home: RedisHome) -> None:
    """Stop it, and wait until it has ended."""
    _stop("Redis", home)


@redis.command("status")
def redis_status(home: RedisHome) -> None:
    """Say whether it runs, and where. Exit code 1 where it does not."""
    _status("Redis", home)


@s3.command("install")
def install_s3(home: S3Home) -> None:
    """Build versitygw by Go, unless it is on the PATH or there already."""
    from driftline.processes import s3 as server

    typer.echo(f"{server.NAME} is {server.install(home)}.")


@s3.command("start")
def start_s3(
    home: S3Home,
    port: Port = 7070,
    bucket: Annotated[str, typer.Option(help="A bucket that is made where it is not there.")] = "driftline",
) -> None:
    """Start it in the background, and wait until it answers. Its keys are those of AWS_… in the environment."""
    from driftline.processes import s3 as server

    keys = [os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    if not all(keys):
        raise UsageError("Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to the keys that the server shall know.")
    server.require_bucket(bucket)
    if not _runs(server.NAME, home, port):
        _say(server.NAME, server.start(home, home / "data", keys[0], keys[1], port, detached=True).directory)
    server.bucket(home / "data", bucket)


@s3.command("stop")
def stop_s3(home: S3Home) -> None:
    """Stop it, and wait until it has ended."""
    _stop("versitygw", home)


def _runs(name: str, home: Path, port: int) -> bool:
    """Whether it runs already, and on the port that is asked for."""
    from driftline.processes.server import find

    running = find(home / "data")
    if running is None:
        return False
    if port and not running.address.endswith(f":{port}"):
        raise UsageError(f"{name} runs already, on {running.address}; stop it before you start it on port {port}.")
    _say(name, home / "data")
    return True


def _say(name: str, directory: Path) -> bool:
    from driftline.processes.server import find

    running = find(directory)
    if running:
        typer.echo(
            f"{name} runs on {running.address} (process {running.process.pid}; its log: {directory}/server.log)."
        )
    else:
        typer.echo(f"{name} does not run.")
    return running is not None


def _stop(name: str, home: Path) -> None:
    from driftline.processes.server import end

    typer.echo(f"{name} has stopped." if end(home / "data") else f"{name} did not run.")


def _status(name: str, home: Path) -> None:
    if not _say(name, home / "data"):
        raise typer.Exit(1)
