"""`driftline catalogue`: items into the topic `items`, from files and one by one, and what it says of them.

What is asked and what is printed; decisions are in `driftline.catalogue`, sending is in `driftline.catalogue.topic`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from abtest.format import counted
from contracts.config.settings import Settings, load
from driftline import tables
from driftline.catalogue.files import columns_of, format_of, require, rows
from driftline.cli.options import FileFormat, columns_of_options, kafka_errors, number_of, refuse_bad, tell_faults
from driftline.errors import RunError, UsageError
from driftline.tables import utc

if TYPE_CHECKING:
    from contracts.wire.events_pb2 import Item
    from driftline.catalogue.load import Tally
    from driftline.catalogue.topic import Record

app = typer.Typer(
    help="The catalogue: load it from a file, put, block and delete items, and see what the topic `items` says.",
    no_args_is_help=True,
)

SettingsOption = Annotated[Path, typer.Option("--settings", "-s", help="Settings file (YAML) that the workers use.")]
ItemIds = Annotated[
    list[int] | None, typer.Argument(metavar="ITEM_ID…", help="Ids of items that are numbers.", show_default=False)
]
ItemKeys = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="A text id of an item; repeatable.")]
COLUMNS = {"item": True, "categories": False, "duration": True, "expires (UTC)": False, "": False}


@app.command("load")
def load_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a header, JSON lines, or Parquet.")],
    settings: SettingsOption,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=COLUMN",
            help="What the file calls a field, as in `item_id=video_id`; repeatable. Fields are item_id, item_key, "
            "category_ids, duration_ms, expires_ms, blocked.",
        ),
    ] = None,
    file_format: FileFormat = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Send the good rows although others are bad, which are counted.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge every row, and send nothing.")] = False,
) -> None:
    """Send every row of a file to the topic `items`, judged as the workers judge items.

    Only `item_id`, or the text id `item_key`, must be there; other fields may be absent or empty. A row replaces all
    that was known of its item; of several rows of one item the last one counts. Where any row is bad nothing is sent,
    unless with --skip-bad.
    Exit code 1 where rows are bad and nothing was sent.
    """
    loaded = load(settings)
    from contracts.runtime.clock import SystemClock
    from driftline.catalogue.load import Progress, Tally, judged
    from driftline.catalogue.rows import WANTED

    columns = columns_of_options(column or (), WANTED)
    kind = file_format or format_of(file)
    require(file, columns_of(file, kind), columns)
    max_bytes = loaded.stream.max_event_bytes
    progress = Progress(SystemClock(), lambda state: typer.echo(state, err=True))

    if dry_run or not skip_bad:
        tally = Tally()
        for _ in judged(rows(file, kind), columns, max_bytes, tally, progress, "judged"):
            pass
        tell_faults(tally.faults, tally.bad)
        if not skip_bad:
            refuse_bad(tally.bad, tally.rows, "sent", "sends")
        if dry_run:
            typer.echo(f"{tally.rows - tally.bad:,} of {counted(tally.rows, 'row')} would be sent.{_unused(tally)}")
            return

    from driftline.catalogue import topic

    tally = Tally()
    with kafka_errors(loaded.kafka):
        sent = topic.send(loaded, judged(rows(file, kind), columns, max_bytes, tally, progress, "sent"))
    if skip_bad:
        tell_faults(tally.faults, tally.bad)
    left_out = f" {counted(tally.bad, 'bad row')} left out." if tally.bad else ""
    typer.echo(f"{counted(sent, 'item')} sent to {loaded.kafka.topic('items')}.{left_out}{_unused(tally)}")
    if not sent:
        raise RunError(f"{file} has no row that could be sent.")


@app.command()
def put(
    settings: SettingsOption,
    item_ids: ItemIds = None,
    item_key: ItemKeys = None,
    category: Annotated[list[int] | None, typer.Option(help="Of a category; repeatable.")] = None,
    duration_ms: Annotated[int | None, typer.Option(help="How long it plays. \\[default: not known]")] = None,
    expires_ms: Annotated[
        int | None, typer.Option(help="From when on nobody gets it (Unix ms). \\[default: never]")
    ] = None,
    blocked: Annotated[bool, typer.Option("--blocked", help="Nobody gets it.")] = False,
) -> None:
    """Say all about items: what is given replaces what was known of them."""
    loaded = load(settings)
    from driftline.catalogue.rows import BadRow, item_of, sentence
    from driftline.catalogue.topic import Record

    about = {"category_ids": category, "duration_ms": duration_ms, "expires_ms": expires_ms, "blocked": blocked}
    records = []
    for item_id, name in _named(item_ids, item_key).items():
        own = {"item_key": name} if isinstance(name, str) else {"item_id": name}
        try:
            item = item_of(own | about, {}, max_bytes=loaded.stream.max_event_bytes)
        except BadRow as error:
            raise UsageError(f"Item {name} cannot be put: {sentence(str(error))}") from error
        records.append(Record(item_id, item))
    _send(loaded, records, "put")


@app.command()
def block(settings: SettingsOption, item_ids: ItemIds = None, item_key: ItemKeys = None) -> None:
    """Let nobody get items any more; what else is known of them stays. Replicas follow within moments."""
    _block(settings, _named(item_ids, item_key), blocked=True)


@app.command()
def unblock(settings: SettingsOption, item_ids: ItemIds = None, item_key: ItemKeys = None) -> None:
    """Let everybody get items again that were blocked."""
    _block(settings, _named(item_ids, item_key), blocked=False)


@app.command()
def delete(settings: SettingsOption, item_ids: ItemIds = None, item_key: ItemKeys = None) -> None:
    """Delete items: nobody gets them any more. What users did with them before, and say later, still counts."""
    loaded = load(settings)
    from driftline.catalogue.topic import Record

    known = _known(loaded, _named(item_ids, item_key))
    _send(loaded, [Record(item_id, None) for item_id in known], "deleted")


@app.command()
def show(settings: SettingsOption, item_ids: ItemIds = None, item_key: ItemKeys = None) -> None:
    """Print what the topic `items` says of items, one JSON object a line."""
    loaded = load(settings)
    for item in _known(loaded, _named(item_ids, item_key)).values():
        typer.echo(_as_json(item))


@app.command("list")
def list_items(
    settings: SettingsOption,
    blocked: Annotated[bool, typer.Option("--blocked", help="Only items that are blocked.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show the newest so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """List the catalogue as the topic `items` has it now, what was sent last at the end, and count it."""
    loaded = load(settings)
    from contracts.runtime.clock import SystemClock
    from driftline.catalogue.topic import current

    with kafka_errors(loaded.kafka):
        everything = list(current(loaded).values())
    shown = [item for item in everything if item.blocked or not blocked][-limit:]
    if as_json:
        for item in shown:
            typer.echo(_as_json(item))
        return
    now_ms = SystemClock().now_ms()
    if shown:
        _table(shown, now_ms)
    withheld = sum(item.blocked for item in everything)
    expired = sum(_is_expired(item, now_ms) for item in everything)
    typer.echo(f"{counted(len(everything), 'item')}, {withheld:,} blocked, {expired:,} expired.")


def _unused(tally: "Tally") -> str:
    return f" Columns that items do not have were left out: {', '.join(tally.unused)}." if tally.unused else ""


def _named(numbers: Sequence[int] | None, texts: Sequence[str] | None) -> dict[int, int | str]:
    """The items that were asked for, by number, and what they were called.

    Raises:
        UsageError: none was, or a text is no id.

    """
    numbers, texts = numbers or (), texts or ()
    if not numbers and not texts:
        raise UsageError("Say which items: ITEM_ID, or --item-key TEXT.")
    return {number: number for number in numbers} | {number_of(text): text for text in texts}


def _known(loaded: Settings, named: Mapping[int, int | str]) -> "dict[int, Item]":
    """The items, once all of them have been found in the catalogue. `named`: as `_named` has them."""
    from driftline.catalogue.topic import current

    with kafka_errors(loaded.kafka):
        found = current(loaded, frozenset(named))
    missing = [name for item_id, name in named.items() if item_id not in found]
    if missing:
        raise UsageError(f"Item {missing[0]} is not in {loaded.kafka.topic('items')}; nothing was changed.")
    return {item_id: found[item_id] for item_id in named}


def _block(settings: Path, named: Mapping[int, int | str], *, blocked: bool) -> None:
    loaded = load(settings)
    from driftline.catalogue.topic import Record

    known = _known(loaded, named)
    for item in known.values():
        item.blocked = blocked
    records = [Record(item_id, item) for item_id, item in known.items()]
    _send(loaded, records, "blocked" if blocked else "unblocked")


def _send(loaded: Settings, records: "Sequence[Record]", done: str) -> None:
    from driftline.catalogue import topic

    with kafka_errors(loaded.kafka):
        sent = topic.send(loaded, records)
    typer.echo(f"{counted(sent, 'item')} {done}.")


def _as_json(item: "Item") -> str:
    from google.protobuf.json_format import MessageToDict

    fields = MessageToDict(item, preserving_proto_field_name=True)
    # Protobuf's JSON has 64-bit numbers as text; `load` takes either, and people read numbers.
    numbers = {name: int(fields[name]) for name in ("item_id", "duration_ms", "expires_ms") if name in fields}
    return json.dumps({name: value for name, value in (fields | numbers).items() if name != "schema_version"})


def _is_expired(item: "Item", now_ms: int) -> bool:
    return item.HasField("expires_ms") and item.expires_ms <= now_ms


def _table(items: "Sequence[Item]", now_ms: int) -> None:
    table = tables.table(COLUMNS, wraps=["categories"])
    for item in items:
        expires = utc(item.expires_ms) if item.HasField("expires_ms") else ""
        state = "blocked" if item.blocked else "expired" if _is_expired(item, now_ms) else ""
        duration = f"{item.duration_ms / 1000:,.1f} s" if item.duration_ms else ""
        table.add_row(str(item.item_id), " ".join(map(str, item.category_ids)), duration, expires, state)
    tables.show(table)
