"""`driftline trainer`: run the online trainer, or let it learn from the archive first."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from contracts.config.settings import load
from driftline.cli.options import DATE_FORMATS, ReadyFile, SettingsOption
from driftline.cli.workers import MetricsHost, MetricsPort, worker_settings
from driftline.errors import UsageError

app = typer.Typer()


@app.callback(invoke_without_command=True)
def trainer(
    context: typer.Context,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", "-s", help="Settings file (YAML); `driftline demo` writes one as an example."),
    ] = None,
    ready_file: ReadyFile = None,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run the online trainer: test each example, learn from it, publish snapshots.

    It goes on from its newest checkpoint; without one it begins with the first record of its topics.

    `torchrun --standalone --nproc-per-node 2 -m driftline trainer -s FILE` shares the work between two processes.
    """
    if context.invoked_subcommand is not None:
        if settings is not None:
            raise UsageError(f"Say `driftline trainer {context.invoked_subcommand} --settings FILE`, in this order.")
        return
    if settings is None:
        raise UsageError("Which settings? `driftline trainer --settings FILE`.")
    loaded = worker_settings("trainer", settings, metrics_host, metrics_port)
    from trainer.worker import run

    run(loaded, ready_file)


@app.command()
def backfill(
    settings: SettingsOption,
    start: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            metavar="DATE[ TIME]",
            formats=DATE_FORMATS,
            help="Event time (UTC) from which on to learn. \\[default: the first archived example]",
        ),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option(
            "--to",
            metavar="DATE[ TIME]",
            formats=DATE_FORMATS,
            help="Event time (UTC) at which the stream takes over. \\[default: where the archive ends]",
        ),
    ] = None,
    one_by_one: Annotated[
        bool,
        typer.Option(
            "--one-by-one",
            help="Learn each example with its own features in the order of the log, as the stream's trainer would: "
            "slower, tested on every example. \\[default: a user's history is learned in few windows]",
        ),
    ] = False,
) -> None:
    """Learn from the offline store, through Feast's historical features; the trainer then goes on from there.

    `driftline archive` has written what is read here. At the end a snapshot is published, and a checkpoint names the
    offset of each partition at which the stream takes over: each example is learned from once. A trainer that has a
    checkpoint goes on from it, so this is also how one catches up that was away for longer than the broker keeps its
    log. Ctrl-C keeps what was learned; the same command goes on from there.
    """
    loaded = load(settings)
    if start and end and start >= end:
        raise UsageError("--from must be before --to.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("A backfill runs in one process, without torchrun.")
    from rich.console import Console
    from rich.progress import Progress

    from contracts.kafka import bus, consumers
    from contracts.runtime.clock import SystemClock
    from contracts.runtime.worker import stop_on_signal
    from trainer.backfill import backfill as run

    stop = stop_on_signal(loaded.stop_within_s)
    clock = SystemClock()
    items = consumers.consumer(loaded.kafka, [bus.ITEMS], loaded.kafka.topic_prefix + "trainer")
    producer = bus.producer(loaded.kafka, max_request_size=bus.LARGEST_RECORD_BYTES)
    try:
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("Learning from the archive", total=None)
            learned = run(
                loaded, items, producer, clock, stop,
                start_ms=_ms(start), end_ms=_ms(end), one_by_one=one_by_one,
                largest_letter_bytes=bus.largest_letter_bytes(loaded.kafka),
                report=lambda done, whole: progress.update(task, completed=done, total=whole),
            )  # fmt: skip
    finally:
        items.close()
        producer.close()
    typer.echo(f"Learned from {learned:,} examples; `driftline trainer` goes on from there.")
    if stop.is_set():
        raise typer.Exit(130)


def _ms(time: datetime | None) -> int | None:
    return None if time is None else int(time.replace(tzinfo=UTC).timestamp() * 1000)
