"""`driftline snapshots`: what people do about what the trainer has published.

What is asked and what is printed; what is found out is in `driftline.inspect.snapshots`, what is done in
`contracts.snapshots.retention`.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from abtest.format import counted
from contracts.config.settings import load
from driftline.cli.snapshots_output import as_json as entry_as_json
from driftline.cli.snapshots_output import facts, listed, show_comparison, show_table
from driftline.errors import RunError, UsageError

if TYPE_CHECKING:
    from contracts.config.store import Root
    from contracts.snapshots.snapshot import Version
    from driftline.inspect.snapshots import Entry

app = typer.Typer(
    help="Snapshots: what the trainer has published. Look at them, verify them, go back to an earlier one.",
    no_args_is_help=True,
)

REFUSED = {"rejected", "rolled back", "damaged"}

SettingsOption = Annotated[Path, typer.Option("--settings", "-s", help="Settings file (YAML) that the workers use.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
JsonLines = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, such as `t2diff`.")]
VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help="A version, as `list` shows it.")]
VersionOrLive = Annotated[
    str | None, typer.Argument(metavar="VERSION", help="A version, as `list` shows it. Without it: the live one.")
]


@app.command("list")
def list_snapshots(
    settings: SettingsOption,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this model's.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Only full snapshots, no deltas.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show the newest so many of each model.")] = 50,
    as_json: JsonLines = False,
) -> None:
    """List snapshots, the newest last.

    A delta, such as v000010+003, holds the items that have moved since the one before; its base is v000010. `held` says
    that LIVE stays where it is until `release`; `on trial` that so large a share of the requests is answered from it
    first; `rejected` that the gate has refused the snapshot; `rolled back` that its trial has ended badly, and why.
    """
    root = load(settings).snapshot_root
    from contracts.runtime.clock import SystemClock
    from driftline.inspect.snapshots import entries, trial_problem

    now_ms = SystemClock().now_ms()
    shown, hidden = [], 0
    names = _models(root, model)
    for name in names:
        listed = [each for each in entries(root, name) if not (full and each.version.sequence)]
        shown += listed[-limit:]
        hidden += len(listed[:-limit])
    if as_json:
        for each in shown:
            typer.echo(json.dumps(entry_as_json(each, now_ms)))
        return
    if not shown:
        typer.echo(f"There are no snapshots in {root}.")
        return
    show_table(shown, now_ms)
    if hidden:
        typer.echo(f"{hidden:,} older not shown (--limit).")
    for problem in filter(None, (trial_problem(root, name) for name in names)):
        typer.echo(f"{problem} Nobody is answered from what it names.")


@app.command()
def show(settings: SettingsOption, model: Model, version: VersionOrLive = None, as_json: Json = False) -> None:
    """Show all about one snapshot: what it learned from, how well it foresaw, what gate and trial said."""
    root = load(settings).snapshot_root
    from contracts.runtime.clock import SystemClock
    from driftline.inspect.snapshots import entry

    snapshot_entry = entry(root, model, _version(root, model, version))
    now_ms = SystemClock().now_ms()
    if snapshot_entry.manifest is None:
        raise RunError(snapshot_entry.problem)
    items = _items(root, snapshot_entry)
    if as_json:
        typer.echo(
            json.dumps(
                entry_as_json(snapshot_entry, now_ms) | {"items": items, "manifest": asdict(snapshot_entry.manifest)}
            )
        )
        return
    about = facts(root, snapshot_entry, items, now_ms)
    width = max(map(len, about)) + 2
    for name, fact in about.items():
        typer.echo(f"{name:<{width}}{fact}")


@app.command()
def diff(
    settings: SettingsOption,
    model: Model,
    before: VersionArgument,
    after: VersionOrLive = None,
    as_json: Json = False,
) -> None:
    """Compare two snapshots: items that came and went, how far vectors have moved, metrics, size.

    A delta stands for its base with all deltas up to it.
    """
    root = load(settings).snapshot_root
    from contracts.snapshots import delta
    from driftline.inspect.snapshots import compare, entry

    places = _version(root, model, before), _version(root, model, after)
    with _snapshot_errors():
        comparison = compare(*(delta.read(root, model, str(place)) for place in places))
    sizes = [entry(root, model, place).size for place in places]
    if as_json:
        names = {"model": model, "before": str(places[0]), "after": str(places[1]), "size": sizes}
        typer.echo(json.dumps(names | asdict(comparison)))
        return
    show_comparison([str(place) for place in places], comparison, sizes)


@app.command()
def verify(
    settings: SettingsOption,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this model's.")] = None,
    version: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="Only this version and what it is based on.")
    ] = None,
    as_json: JsonLines = False,
) -> None:
    """Read every file and compare it with its checksum; find gaps between deltas, and pointers to what is not there.

    Exit code 1 where something is damaged.
    """
    root = load(settings).snapshot_root
    from driftline.inspect import snapshots

    findings = [
        finding
        for name in _models(root, model)
        for finding in snapshots.verify(root, name, _version(root, name, version) if version else None)
    ]
    if as_json:
        for finding in findings:
            typer.echo(json.dumps(finding._asdict() | {"sound": not finding.problem}))
    damaged = [finding for finding in findings if finding.problem]
    if damaged:
        if not as_json:
            for finding in damaged:
                typer.echo(finding.problem)
        is_or_are = "is" if len(damaged) == 1 else "are"
        raise RunError(f"{len(damaged):,} of {len(findings):,} snapshots and pointers {is_or_are} damaged.")
    if not as_json:
        typer.echo(f"{counted(len(findings), 'snapshot or pointer is', 'snapshots and pointers are')} sound.")


@app.command()
def rollback(
    settings: SettingsOption,
    model: Model,
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="VERSION",
            help="Where to go. Without it: the full snapshot before the live one that neither gate nor trial refused.",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for those who look at it later.")] = "rolled back by hand",
) -> None:
    """Serve an earlier snapshot, and hold it: what the trainer publishes does not go live until `release`.

    It is verified first; if it is damaged, nothing moves. What is on trial is so no longer: everybody gets that one.
    """
    root = load(settings).snapshot_root
    from contracts.snapshots import retention, snapshot
    from driftline.inspect.snapshots import before_live, entries

    _models(root, model)
    was = snapshot.live(root, model)
    if version is None:
        on_disk = entries(root, model)
        refused = {each.version for each in on_disk if REFUSED & {*each.states}}
        target = before_live([each.version for each in on_disk], was, refused)
        if target is None:
            raise UsageError(f"There is no full snapshot of {model} before {was or 'the first publication'}.")
    else:
        target = _version(root, model, version)
        for each in entries(root, model):
            if each.version == target and "rejected" in each.states:
                typer.echo(f"{target} was rejected by the gate; `driftline snapshots show` says why.")
            elif each.version == target and "rolled back" in each.states:
                typer.echo(f"{target} did badly on trial; `driftline snapshots show` says why.")
    tried = [each for each in entries(root, model) if each.share is not None]
    with _snapshot_errors():
        retention.roll_back(root, model, str(target), reason)
    typer.echo(f"{model}: {target} is live (it was {was or 'none'}) and held: {reason}.")
    for each in tried:
        typer.echo(f"The trial of {each.version} has ended.")
    typer.echo(f"`driftline snapshots release {model} -s {settings}` lets publications go live again.")


@app.command()
def release(settings: SettingsOption, model: Model) -> None:
    """End a hold: the next snapshot that the trainer publishes goes live."""
    root = load(settings).snapshot_root
    from contracts.snapshots import retention

    _models(root, model)
    was_held = retention.release(root, model)
    typer.echo(f"{model}: the next publication goes live." if was_held else f"{model} is not held.")


@app.command()
def pin(settings: SettingsOption, model: Model, version: VersionOrLive = None) -> None:
    """Keep a snapshot, and what it is based on, until `unpin`."""
    root = load(settings).snapshot_root
    from contracts.snapshots import retention

    place = _version(root, model, version)
    with _snapshot_errors():
        retention.pin(root, model, str(place))
    typer.echo(f"{model}: {place} is pinned.")


@app.command()
def unpin(settings: SettingsOption, model: Model, version: VersionArgument) -> None:
    """Let a snapshot go when its time has come."""
    root = load(settings).snapshot_root
    from contracts.snapshots import retention

    _models(root, model)
    was_pinned = version in retention.pinned(root, model)
    retention.unpin(root, model, version)
    typer.echo(f"{model}: {version} is {'no longer' if was_pinned else 'not'} pinned.")


@app.command()
def copy(
    settings: SettingsOption,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of snapshots to copy from.")],
) -> None:
    """Copy a folder's snapshots and pointers to where the settings keep theirs, such as a store.

    Stop the trainer first. Each file is verified on the way. Called again, it goes on; where the target has other
    snapshots of the same name or other pointers, it says so and moves no pointer.
    """
    root = load(settings).snapshot_root
    from contracts.snapshots.copying import copy as copy_model

    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.")
    if isinstance(root, Path) and root.resolve() == folder.resolve():
        raise UsageError(f"{folder} is where {settings} keeps snapshots; it says where to copy them to.")
    names = [name for name in _models(folder, None) if not name.startswith(".")]
    if not names:
        raise UsageError(f"There are no snapshots in {folder}.")
    for name in names:
        with _snapshot_errors():
            count = copy_model(folder, root, name)
        typer.echo(f"{name}: {counted(count, 'snapshot is', 'snapshots are')} in {root}.")


@contextlib.contextmanager
def _snapshot_errors() -> Iterator[None]:
    """What is damaged, as one sentence."""
    from contracts.snapshots.snapshot import SnapshotError

    try:
        yield
    except SnapshotError as error:
        raise RunError(str(error)) from error


def _models(root: "Root", wanted: str | None) -> list[str]:
    from contracts.snapshots.snapshot import models

    on_disk = models(root)
    if wanted is None:
        return on_disk
    if wanted not in on_disk:
        raise UsageError(f"There are no snapshots of {wanted} in {root}; there are some of: {listed(on_disk)}.")
    return [wanted]


def _version(root: "Root", model: str, name: str | None) -> "Version":
    """A version that is there, by its name, or the live one."""
    from contracts.snapshots.snapshot import Version, live, versions

    _models(root, model)
    wanted = live(root, model) if name is None else name
    if wanted is None:
        raise UsageError(f"No snapshot of {model} is live yet; say which one.")
    place = Version.parse(wanted)
    on_disk = versions(root, model)
    if place is None or place not in on_disk:
        newest = listed([str(each) for each in on_disk[-3:]])
        raise UsageError(f"There is no snapshot {wanted} of {model}; the newest are: {newest}.")
    return place


def _items(root: "Root", entry: "Entry") -> dict[str, int] | None:
    """How many items a snapshot has, or a delta brings and removes; None where the files are damaged."""
    from contracts.snapshots import delta, snapshot
    from contracts.snapshots.snapshot import SnapshotError

    name = str(entry.version)
    try:
        if not entry.version.sequence:
            return {"items": snapshot.read(root, entry.model, name).item_ids.size}
        changes = delta.read_delta(root, entry.model, name).changes
    except SnapshotError:
        return None
    return {"touched or new": changes.item_ids.size, "removed": changes.removed_ids.size}
