"""`driftline check-event`: what the workers would say of one event. `driftline id`: the numbers of text ids."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from contracts.config.settings import KafkaSettings, StreamSettings, load
from driftline.cli.options import number_of
from driftline.errors import UsageError

Topic = Literal["items", "exposures", "feedback"]


def check_event(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="One message, in binary or JSON form; `-`: standard input.")
    ],
    topic: Annotated[Topic, typer.Option(help="The topic that it is for, without the prefix.")],
    settings: Annotated[
        Path | None,
        typer.Option("--settings", "-s", help="Settings file of the workers; without it, their defaults are taken."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="The record's key, as text.")] = None,
    partition: Annotated[
        int | None, typer.Option(min=0, help="The partition that it is sent to. \\[default: the right one]")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="How many the topic has. \\[default: kafka.partitions of the settings]")
    ] = None,
    received_ms: Annotated[
        int | None, typer.Option(help="When the broker receives it (Unix ms). \\[default: now]")
    ] = None,
    deletion: Annotated[bool, typer.Option("--null", help="The record's value is null; FILE is not read.")] = False,
) -> None:
    """Judge one event as the workers would, by the same code: `ok`, or the reason and exit code 1.

    What only the workers can know is left open: whether feedback's item is in the catalogue, whether its exposure
    comes, and whether it is late.
    """
    from contracts.messages.events import BadEvent
    from contracts.runtime.clock import SystemClock
    from driftline.inspect.event import Event, binary, judge

    loaded = None if settings is None else load(settings)
    stream = StreamSettings() if loaded is None else loaded.stream
    if topic == "items":
        if partitions not in (None, 1):
            raise UsageError(f"--partitions is {partitions}; items has one partition.")
        partitions = 1
    elif partitions is None:
        partitions = KafkaSettings.model_fields["partitions"].default if loaded is None else loaded.kafka.partitions
    if partition is not None and partition >= partitions:
        raise UsageError(f"--partition is {partition}; {topic} has {partitions}, which count from 0.")
    try:
        value = None if deletion else binary(topic, _content(file))
        event = Event(
            topic,
            value,
            None if key is None else key.encode(),
            partition,
            SystemClock().now_ms() if received_ms is None else received_ms,
        )
        typer.echo(f"ok: {judge(event, stream, partitions)}")
    except BadEvent as error:
        typer.echo(str(error))
        raise typer.Exit(1) from None


def ids(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT", help="Text ids of users or items.")],
    settings: Annotated[
        Path | None,
        typer.Option("--settings", "-s", help="Settings file of the workers: the user's partition is printed as well."),
    ] = None,
) -> None:
    """Print the number that each text id stands for, with the text behind it; tabs are between.

    It is the first 8 bytes of the text's SHA-256, big-endian, without the highest bit; 1 for 0. With settings the
    partition of a user of this id comes between the two.
    """
    from contracts.messages.placement import partition_of

    partitions = None if settings is None else load(settings).kafka.partitions
    for text in texts:
        number = number_of(text)
        partition = [] if partitions is None else [partition_of(number, partitions)]
        typer.echo("\t".join(map(str, [number, *partition, text])))


def _content(file: Path) -> bytes:
    if str(file) == "-":
        if sys.stdin is None:
            raise UsageError("Cannot read standard input: it is closed.")
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {file}: {error.strerror}.") from error
