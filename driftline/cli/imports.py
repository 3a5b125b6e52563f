"""`driftline import`: a historical log from a file, before the stream begins."""

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from abtest.format import counted
from contracts.config.settings import Settings, load
from contracts.runtime.cycles import looked_for_seldom
from driftline.catalogue.files import Format, format_of
from driftline.cli.options import FileFormat, SettingsOption, columns_of_options, kafka_errors, refuse_bad, tell_faults
from driftline.errors import RunError

if TYPE_CHECKING:
    from stream.importer import Imported


def import_history(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a header, JSON lines, or Parquet.")],
    settings: SettingsOption,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=COLUMN",
            help="What the file calls a field, as in `user_id=uid`; repeatable. Fields are user_id or user_key, "
            "item_id or item_key, time_ms, request_id, effective_view, play_time_ms, follow.",
        ),
    ] = None,
    file_format: FileFormat = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Import the good rows although others are bad, which are counted.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge every row, and import nothing.")] = False,
) -> None:
    """Take a historical log in: users' histories, and examples for trainer and archive, each once.

    A row is an item that a user was shown and what came of it. `user_id`, `item_id` (or the text ids `user_key`,
    `item_key`) and `time_ms` (Unix milliseconds, or a Parquet time) must be there. Rows with one `request_id` are one
    page; without that column each row is its own. Without `effective_view` every row is one. Load the catalogue before,
    and stop the stream; it goes on from there. Killed or interrupted, the same command goes on where it was. Several
    files go in the order of their time.
    """
    from contracts.runtime.clock import SystemClock
    from contracts.runtime.worker import stop_on_signal
    from driftline.catalogue.load import Progress
    from feature_repo.store import UserSequences
    from stream.deliver import Stopped
    from stream.import_file import FIELDS, Bounds, HistoryError, HistoryFile
    from stream.importer import Importer

    loaded = load(settings)
    columns = columns_of_options(column or (), FIELDS)
    kind = file_format or format_of(file)
    clock = SystemClock()
    progress = Progress(clock, lambda state: typer.echo(state, err=True))
    with _scratch() as scratch:
        with kafka_errors(loaded.kafka):
            known = _known_items(loaded)
        features = UserSequences(loaded.feature_repo)  # before the rows are judged, which may take minutes
        bounds = Bounds(clock.now_ms(), loaded.stream.future_tolerance_ms, loaded.stream.attribution_window_ms)
        try:
            history = HistoryFile(file, kind, columns, Path(scratch), known, bounds)
        except HistoryError as error:
            raise RunError(str(error)) from error
        bad, of = history.bad, counted(history.rows, "row")
        tell_faults(history.faults(), bad)
        if not skip_bad:
            refuse_bad(bad, history.rows, "imported", "imports")
        if dry_run:
            typer.echo(f"{history.rows - bad:,} of {of} would be imported.")
            return
        importer = Importer(loaded, features, known, clock.now_ms())
        stop = stop_on_signal(loaded.stop_within_s)
        try:
            with kafka_errors(loaded.kafka), looked_for_seldom():
                found = importer.take(
                    history,
                    _digest(file, kind, columns) + history.judgement(loaded.kafka.partitions),
                    stop,
                    lambda done, whole: progress.at(f"{done:,} of {whole:,} events taken in."),
                )
        except Stopped:
            raise RunError("Interrupted; the same command goes on where it was.") from None
        except HistoryError as error:
            raise RunError(str(error)) from error
        finally:
            history.close()
    _tell(of, found)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="driftline-import-")
    except OSError as error:
        raise RunError(f"There is no room for scratch files (TMPDIR): {error.strerror}.") from error


def _known_items(loaded: Settings) -> set[int]:
    from contracts.kafka import bus
    from contracts.kafka.batches import ReadCounts
    from stream.catalogue import KnownItems

    bus.check_topics(loaded.kafka)  # a topic that is not there has no end, and reading it would wait for one
    catalogue = KnownItems(loaded.kafka, loaded.stream.max_event_bytes, ReadCounts())
    catalogue.read()
    if not catalogue.items:
        raise RunError(
            f"{loaded.kafka.topic('items')} is empty: load the catalogue first, by `driftline catalogue load`."
        )
    return catalogue.items


def _digest(file: Path, kind: Format, columns: dict[str, str]) -> str:
    """Of what is in the file and how it is read: the same again is the same import."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    digest.update(repr((kind, sorted(columns.items()))).encode())
    return digest.hexdigest()


def _tell(rows: str, found: "Imported") -> None:
    if not found.events and found.before:
        typer.echo(f"It was imported before: {found.before:,} events. Nothing was changed.")
        return
    earlier = f" ({found.before:,} before)" if found.before else ""
    refused = "".join(f" {count:,} refused as {reason}." for reason, count in sorted(found.refused.items()))
    typer.echo(
        f"{rows}: {counted(found.events, 'event')} taken in{earlier}, {counted(found.examples, 'example')} of "
        f"{counted(found.users, 'user')}.{refused} Now start the stream; trainer and archive read the examples."
    )
