"""What several subcommands share: options, options as one value, and Kafka's refusals as one sentence."""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

from abtest.format import counted
from contracts.config.secret import holds_password
from contracts.config.settings import KafkaSettings
from driftline.catalogue.files import Format
from driftline.errors import RunError, UsageError

SettingsOption: TypeAlias = Annotated[
    Path, typer.Option("--settings", "-s", help="Settings file (YAML); `driftline demo` writes one as an example.")
]
ReadyFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="Written when ready: a JSON object with the process id and the ports.")
]
FileFormat: TypeAlias = Annotated[
    Format | None, typer.Option("--format", help="What the file is. \\[default: by its name]")
]
DATE_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]

T = TypeVar("T")


@contextmanager
def kafka_errors(kafka: KafkaSettings) -> Iterator[None]:
    """What Kafka refuses, as one sentence."""
    from kafka.errors import KafkaError

    try:
        yield
    except KafkaError as error:
        raise RunError(f"Kafka at {kafka.bootstrap_servers} says no: {error}.") from error


def no_password(option: str, value: str | None) -> None:
    """Refuse a password on the command line, which everybody on the machine and the shell's history can read."""
    if value is not None and holds_password(value):
        raise UsageError(
            f"{option} has a password in it, and others can read a command line; write '${{NAME}}' in its place, and "
            "set NAME in the environment, or NAME_FILE to the file that holds it."
        )


def number_of(text: str) -> int:
    """The number of a text id that was given on the command line."""
    from contracts.messages.ids import BadTextId, id_of_text

    try:
        return id_of_text(text)
    except BadTextId as error:
        raise UsageError(f"The text id {text[:40]!a} {error}.") from None


def columns_of_options(options: Sequence[str], fields: Collection[str]) -> dict[str, str]:
    """`--column FIELD=COLUMN` as columns by field.

    >>> columns_of_options(["item_id=video_id"], ["item_id"])
    {'item_id': 'video_id'}
    """
    columns: dict[str, str] = {}
    for option in options:
        name, _, column = option.partition("=")
        if name not in fields or not column:
            raise UsageError(f"--column {option}: it is FIELD=COLUMN, and a field is {', '.join(fields)}.")
        if columns.setdefault(name, column) != column:
            raise UsageError(f"--column names two columns for {name}: {columns[name]} and {column}.")
    for name, column in columns.items():
        if other := next((each for each in columns if each != name and columns[each] == column), None):
            raise UsageError(f"--column names column {column} for two fields: {name} and {other}.")
    return columns


def tell_faults(faults: Sequence[object], bad: int) -> None:
    """Show the first bad rows of a file, and how many more there are of the `bad`."""
    for fault in faults:
        typer.echo(str(fault), err=True)
    if more := bad - len(faults):
        typer.echo(f"… and {counted(more, 'bad row')} more.", err=True)


def refuse_bad(bad: int, rows: int, done: str, does: str) -> None:
    """Stop where any of a file's rows is bad. `done`, `does`: what is done with rows, "sent" and "sends".

    Raises:
        RunError: one is.

    """
    if bad:
        are = "is" if bad == 1 else "are"
        raise RunError(
            f"{bad:,} of {counted(rows, 'row')} {are} bad, so nothing was {done}; --skip-bad {does} the others."
        )


def takes(kind: Callable[..., T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Let a subcommand take one value of a dataclass, whose annotated fields are its options."""

    def decorate(command: Callable[[T], None]) -> Callable[..., None]:
        def called(**options: Any) -> None:
            command(kind(**options))

        signature = inspect.signature(kind)
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__signature__ = signature.replace(return_annotation=None)  # type: ignore[attr-defined]
        called.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        return called

    return decorate
