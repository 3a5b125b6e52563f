"""`driftline deadletters`: what people do about records that a worker could not use.

What is asked and what is printed; decisions are in `driftline.deadletters`, sending is in
`driftline.deadletters.resend`.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from abtest.format import counted
from contracts.config.settings import KafkaSettings, load
from driftline import tables
from driftline.cli.options import kafka_errors
from driftline.errors import RunError, UsageError
from driftline.tables import utc

if TYPE_CHECKING:
    from driftline.deadletters.letters import Letter, Log, Plan

app = typer.Typer(
    help="Dead letters: records that a worker could not use. Look at them, and send them again once the cause is"
    " mended.",
    no_args_is_help=True,
)

DUMPED_BYTES = 256  # of an original that cannot be decoded
HEX_WIDTH = 16

SettingsOption = Annotated[Path, typer.Option("--settings", "-s", help="Settings file (YAML) that the workers use.")]
Reason = Annotated[str | None, typer.Option(help="Only letters with this reason, such as `unknown_item`.")]


@app.command("list")
def list_letters(
    settings: SettingsOption,
    reason: Reason = None,
    topic: Annotated[
        str | None, typer.Option(help="Only originals from this topic, such as `feedback`; with or without the prefix.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="DATE[ TIME]",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"],
            help="Only originals with this timestamp (UTC) or a later one.",
        ),
    ] = None,
    pending: Annotated[bool, typer.Option("--pending", help="Only letters that were not sent again yet.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show the newest so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """List dead letters, the newest last, and count them by reason.

    `id` is a letter's offset in the dead-letter topic; `show` and `replay` take it. Topic, partition, offset and time
    are those of the original record; size is its length in bytes, `-` where it was too large to be kept in the letter.
    """
    kafka = load(settings).kafka
    from driftline.deadletters.letters import matching
    from driftline.deadletters.resend import places

    with kafka_errors(kafka):
        places(kafka)
        log = _read(kafka)
    matched = matching(
        log,
        reason=reason,
        topics=None if topic is None else {topic, kafka.topic(topic)},
        since_ms=None if since is None else round(since.replace(tzinfo=UTC).timestamp() * 1000),
        pending=pending,
    )
    shown = matched[-limit:]
    if as_json:
        for letter in shown:
            typer.echo(json.dumps(_as_json(log, letter)))
        return
    if not matched:
        typer.echo(_none(log))
        return
    _table(kafka, log, shown)
    typer.echo(_counts(log, matched))
    if hidden := len(matched) - len(shown):
        typer.echo(f"{hidden:,} older not shown (--limit).")


@app.command()
def show(
    settings: SettingsOption,
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="A letter's id, as `list` shows it.")],
    raw: Annotated[
        Path | None,
        typer.Option(help="Write the original's bytes to this file; `-`: to standard output, and nothing else."),
    ] = None,
) -> None:
    """Show all about one dead letter, the original decoded as far as that goes.

    An original that was too large to be kept in the letter is fetched from where it came, if it is still there.
    """
    kafka = load(settings).kafka
    from driftline.deadletters.letters import with_ids
    from driftline.deadletters.resend import original, places

    with kafka_errors(kafka):
        replayable = places(kafka)
        log = _read(kafka)
        (letter,) = with_ids(log, [letter_id])
        original_record = original(kafka, letter, replayable)
    if raw is not None:
        _write(raw, original_record.value, letter)
        if str(raw) == "-":
            return
    origin = letter.origin
    facts: dict[str, str] = {
        "id": str(letter.id),
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": origin.topic,
        "partition": str(origin.partition),
        "offset": str(origin.offset),
        "time": f"{utc(origin.timestamp_ms)} UTC ({origin.timestamp_ms} ms)",
        "key": "none" if original_record.key is None else repr(original_record.key)[2:-1],
        "size": "gone" if original_record.value is None else f"{len(original_record.value):,} bytes",
    }
    for name, fact in facts.items():
        typer.echo(f"{name:<10}{fact}")
    for replay_ in log.replays.get(origin, ()):
        typer.echo(f"{'replayed':<10}{utc(replay_.at_ms)} UTC: {replay_.detail}")
    typer.echo()
    typer.echo(_readable(kafka, origin.topic, original_record.value))


@app.command()
def replay(
    settings: SettingsOption,
    ids: Annotated[list[int] | None, typer.Argument(metavar="ID", help="Ids, as `list` shows them.")] = None,
    reason: Annotated[str | None, typer.Option(help="All letters with this reason, such as `unknown_item`.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All letters.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those, too, that were sent again before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")] = False,
) -> None:
    """Send the originals of dead letters again, to the topic and partition where they came from.

    Mend the cause first. Key, bytes and timestamp stay, and so does the order. The header `sent-at-ms` is new, and
    `replayed-from` holds the letter's id.

    Each replay is noted in the dead-letter topic: `list` shows it, and another replay leaves the record out, unless
    with --again. Exposures, feedback and items that come twice have one effect; an example is learned from twice.

    An event from a wrong partition (`wrong_partition`) goes to its user's, under its user's key; an item under a wrong
    key (`wrong_key`) is sent under its own.

    A replayed event is judged like a new one that arrives late: past `stream.allowed_lateness_ms` it comes back as
    `too_late`, and what is wrong in itself comes back with the same reason.
    """
    if (ids is not None and len(ids) > 0) + (reason is not None) + every != 1:
        raise UsageError("Say which letters to send again: ids, --reason, or --all (one of the three).")
    kafka = load(settings).kafka
    from contracts.runtime.clock import SystemClock
    from driftline.deadletters import resend
    from driftline.deadletters.letters import matching, plan, with_ids

    with kafka_errors(kafka):
        replayable = resend.places(kafka)
        log = _read(kafka)
        selected = with_ids(log, ids) if ids else matching(log, reason=reason)
        if not selected:
            typer.echo(_none(log))
            return
        planned = plan(log, selected, replayable, again=again)
        if ids and planned.batches:
            raise UsageError(_no_records(planned.batches))
        if ids and planned.refused:
            raise UsageError(_refusal(kafka, planned.refused))
        if dry_run and planned.send:
            _table(kafka, log, planned.send)
        sent, failed = planned.send, []
        if planned.send and not dry_run:
            outcome = resend.replay(kafka, planned.send, replayable, SystemClock())
            sent, failed = outcome.sent, outcome.failed
    typer.echo(_summary(kafka, sent, planned, dry_run=dry_run))
    for letter, why in failed:
        typer.echo(f"Dead letter {letter.id} was not sent: {why}.", err=True)
    if failed:
        were = "was" if len(failed) == 1 else "were"
        raise RunError(f"{len(failed):,} of {counted(len(planned.send), 'dead letter')} {were} not sent again.")


def _read(kafka: KafkaSettings) -> "Log":
    from driftline.deadletters.letters import read

    log = read(kafka)
    if log.strangers:
        are = counted(log.strangers, "record")
        none = "is no dead letter" if log.strangers == 1 else "are no dead letters"
        typer.echo(f"{are} of the dead-letter topic {none}; left out.", err=True)
    return log


def _none(log: "Log") -> str:
    if not log.letters:
        return "There are no dead letters."
    return f"No dead letter matches. All there are: {_counts(log, log.letters)}"


def _counts(log: "Log", letters: Sequence["Letter"]) -> str:
    """How many by reason, most frequent first; replayed ones among them."""
    by_reason = Counter(letter.reason for letter in letters)
    replayed = Counter(letter.reason for letter in letters if letter.origin in log.replays)
    return ", ".join(
        f"{reason} {count:,}" + (f" ({replayed[reason]:,} replayed)" if replayed[reason] else "")
        for reason, count in by_reason.most_common()
    )


def _refusal(kafka: KafkaSettings, refused: Sequence["Letter"]) -> str:
    from driftline.deadletters.letters import KINDS

    first = refused[0]
    return (
        f"Dead letter {first.id} comes from {first.origin.topic}, partition {first.origin.partition}: only existing"
        f" partitions of {', '.join(kafka.topic(name) for name in KINDS)} can be replayed into."
    )


def _no_records(batches: Sequence["Letter"]) -> str:
    first = batches[0].id
    return (
        f"Dead letter {first} is a whole batch that could not be decoded, so there is no record to send again;"
        f" `driftline deadletters show {first} --raw FILE` writes its bytes."
    )


def _summary(kafka: KafkaSettings, sent: Sequence["Letter"], planned: "Plan", *, dry_run: bool) -> str:
    """What was sent where, and what was left out why."""
    from driftline.deadletters.letters import short_name

    by_topic = Counter(short_name(kafka, letter.origin.topic) or letter.origin.topic for letter in sent)
    where = ", ".join(f"{topic} {count:,}" for topic, count in sorted(by_topic.items()))
    lines = [f"{len(sent):,} {'would be sent' if dry_run else 'sent'} again" + (f": {where}." if where else ".")]
    if planned.done:
        lines.append(f"{len(planned.done):,} left out: replayed before (--again sends them once more).")
    if planned.copies:
        lines.append(f"{len(planned.copies):,} left out: another letter is about the same record.")
    if planned.batches:
        lines.append(f"{len(planned.batches):,} left out. {_no_records(planned.batches)}")
    if planned.refused:
        lines.append(f"{len(planned.refused):,} left out. {_refusal(kafka, planned.refused)}")
    return "\n".join(lines)


def _as_json(log: "Log", letter: "Letter") -> dict[str, Any]:
    replayed_ms = log.replayed_ms(letter)
    return {
        "id": letter.id,
        "reason": letter.reason,
        "topic": letter.origin.topic,
        "partition": letter.origin.partition,
        "offset": letter.origin.offset,
        "timestamp_ms": letter.origin.timestamp_ms,
        "time": utc(letter.origin.timestamp_ms),
        "size": letter.size,
        "detail": letter.detail,
        "replayed": None if replayed_ms is None else utc(replayed_ms),
    }


def _table(kafka: KafkaSettings, log: "Log", letters: Sequence["Letter"]) -> None:
    from rich.text import Text

    from driftline.deadletters.letters import short_name

    any_replayed = any(letter.origin in log.replays for letter in letters)
    columns = {"id": True, "reason": False, "topic": False, "partition": True, "offset": True, "time (UTC)": False}
    columns |= {"size": True} | ({"replayed (UTC)": False} if any_replayed else {}) | {"detail": False}
    table = tables.table(columns, wraps=["detail"])
    for letter in letters:
        origin = letter.origin
        replayed_ms = log.replayed_ms(letter)
        cells = [
            str(letter.id),
            letter.reason,
            short_name(kafka, origin.topic) or origin.topic,
            str(origin.partition),
            str(origin.offset),
            utc(origin.timestamp_ms),
            "-" if letter.size is None else f"{letter.size:,}",
            *([utc(replayed_ms) if replayed_ms is not None else ""] if any_replayed else ()),
            letter.detail,
        ]
        table.add_row(*(Text(cell) for cell in cells))
    tables.show(table)


def _write(path: Path, value: bytes | None, letter: "Letter") -> None:
    if value is None:
        raise RunError(f"The original of dead letter {letter.id} is gone: {letter.detail}.")
    if str(path) == "-":
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
        return
    try:
        path.write_bytes(value)
    except OSError as error:
        raise UsageError(f"Cannot write {path}: {error.strerror}.") from error


def _readable(kafka: KafkaSettings, topic: str, value: bytes | None) -> str:
    """An original as JSON, or as the hex dump of its beginning where it cannot be decoded."""
    from google.protobuf.json_format import MessageToJson

    from driftline.deadletters.letters import decoded, short_name

    if value is None:
        return "The original is gone: it was too large to be kept in the letter, and its topic no longer has it."
    message = decoded(short_name(kafka, topic), value)
    if message is not None:
        return f"{message.DESCRIPTOR.name} {MessageToJson(message, preserving_proto_field_name=True)}"
    if not value:
        return "The original is empty."
    rest = len(value) - DUMPED_BYTES
    lines = ["The original cannot be decoded. Its bytes:", *hex_lines(value[:DUMPED_BYTES])]
    return "\n".join([*lines, f"and {rest:,} more (--raw writes them all)"] if rest > 0 else lines)


def hex_lines(data: bytes) -> list[str]:
    r"""Bytes for a person: where, in hexadecimal, and as text.

    >>> hex_lines(b"driftline v1 \x00\xff!")
    ['0000  64 72 69 66 74 6c 69 6e 65 20 76 31 20 00 ff 21  driftline v1 ..!']
    """
    lines = []
    for start in range(0, len(data), HEX_WIDTH):
        part = data[start : start + HEX_WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:04x}  {part.hex(' '):<{3 * HEX_WIDTH - 1}}  {text}")
    return lines
