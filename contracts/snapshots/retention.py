"""What stays of a model's snapshots: pins, holds, and the removal of the rest.

    <root>/<model>/PINNED    versions that are never removed, one a line
                   HELD      a JSON object, `version` and `reason`: while it is there, LIVE does not move

A rollback holds its model, for the next publication would undo it otherwise.
"""

import contextlib
import json
import shutil
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from contracts.runtime.durable import replace_file
from contracts.snapshots import canary, delta
from contracts.snapshots.snapshot import (
    HELD,
    SnapshotError,
    Version,
    exclusive,
    live,
    point,
    read_manifest,
    versions,
)

PINNED = "PINNED"
GONE = ".gone"  # ends the hidden name of what is being removed


@dataclass(frozen=True)
class Hold:
    """Why a model's pointer does not move, and where it stays."""

    version: str
    reason: str


def pinned(root: Path, model: str) -> list[str]:
    """The versions that are never removed."""
    try:
        return (root / model / PINNED).read_text().split()
    except FileNotFoundError:
        return []


def pin(root: Path, model: str, version: str) -> None:
    """Keep a version, and what it is based on, for good.

    Raises:
        SnapshotError: it is not there, or not readable.

    """
    read_manifest(root, model, version)
    with exclusive(root / model):
        _write_pins(root, model, {*pinned(root, model), version})


def unpin(root: Path, model: str, version: str) -> None:
    """Let a version go when its time has come."""
    with exclusive(root / model):
        _write_pins(root, model, {*pinned(root, model)} - {version})


def held(root: Path, model: str) -> Hold | None:
    """Why publications do not go live, or None where they do."""
    try:
        data = json.loads((root / model / HELD).read_bytes())
        return Hold(str(data["version"]), str(data["reason"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Hold("", f"{HELD} cannot be read")  # it is there, so it holds


def roll_back(root: Path, model: str, version: str, reason: str) -> None:
    """Serve an earlier version, and hold it there until `release`. It is verified before anything moves.

    What is on trial is so no longer: everybody is answered from that version.

    Raises:
        SnapshotError: it cannot be served.

    """
    delta.read(root, model, version)
    home = root / model
    with exclusive(home):
        # The hold comes first: after a crash before the rest nothing has moved, and no publication nor trial will.
        replace_file(home / HELD, json.dumps(asdict(Hold(version, reason))).encode())
        _end_trial(root, model, version, reason)
        point(home, version)


def release(root: Path, model: str) -> bool:
    """Let the next publication go live again; False where nothing was held."""
    try:
        (root / model / HELD).unlink()
    except FileNotFoundError:
        return False
    return True


def to_remove(
    names: Iterable[str],
    live: str | None,
    pinned: Collection[str],
    keep: int,
    *,
    on_trial: str | None = None,
    rejected: Collection[str] = (),
    keep_rejected: int = 0,
) -> list[str]:
    """What may go, in an order in which nothing ever lies there without what it is based on.

    Never what is live, pinned or on trial, nor what these are based on. Else the newest `keep` full snapshots stay,
    each with its deltas; of those that were refused, which do not count among them, the newest `keep_rejected`.

    Args:
        names: what is there; names that are no versions don't count.
        live: the version that the pointer names.
        pinned: versions.
        keep: full snapshots, >= 0.
        on_trial: the version that some users are answered from.
        rejected: versions, by the gate or by their trial; a delta goes with its base all the same.
        keep_rejected: full snapshots, >= 0.

    >>> to_remove(["v000001", "v000001+001", "v000001+002", "v000002", "v000003"], "v000003", ["v000001+001"], 1)
    ['v000002', 'v000001+002']

    """
    on_disk = sorted({version for name in names if (version := Version.parse(name)) is not None}, reverse=True)
    full = [version for version in on_disk if not version.sequence]
    passed = [version for version in full if str(version) not in rejected]
    refused = [version for version in full if str(version) in rejected]
    bases = {*passed[:keep], *refused[:keep_rejected]}
    wanted = (live, on_trial, *pinned)
    needed = {each for name in wanted if name and (version := Version.parse(name)) for each in version.chain()}
    return [str(version) for version in on_disk if version not in needed and version.base not in bases]


def prune(root: Path, model: str, keep: int, keep_rejected: int) -> list[str]:
    """Remove what `to_remove` says, and what crashes have left; the names of what was removed.

    What cannot be read, or did badly on trial, counts as rejected, so that it takes no sound snapshot's place.
    """
    home = root / model
    with exclusive(home):
        on_disk = versions(root, model)
        names = [str(version) for version in on_disk]
        rejected = [name for name in names if not _sound(root, model, name)]
        removed = to_remove(
            names,
            live(root, model),
            pinned(root, model),
            keep,
            on_trial=tried.version if (tried := _on_trial(root, model)) else None,
            rejected=rejected,
            keep_rejected=keep_rejected,
        )
        for name in removed:
            _remove(home, name)
        for path in home.glob(".v*"):
            if path.suffix == GONE or _left_over(path, on_disk):
                shutil.rmtree(path)
    return removed


def _sound(root: Path, model: str, version: str) -> bool:
    trial = canary.noted(root, model, version)
    if trial is not None and not trial.promoted:
        return False
    try:
        return not read_manifest(root, model, version).rejected
    except SnapshotError:
        return False


def _on_trial(root: Path, model: str) -> canary.Canary | None:
    """What is on trial; from a pointer that cannot be read nobody is answered."""
    try:
        return canary.on_trial(root, model)
    except SnapshotError:
        return None


def _end_trial(root: Path, model: str, version: str, reason: str) -> None:
    """End any trial because people go to a version: ill, unless that is what was on trial."""
    tried = _on_trial(root, model)
    if tried is not None:
        promoted = tried.version.partition("+")[0] == version.partition("+")[0]
        with contextlib.suppress(SnapshotError):  # it is gone: nothing is left to write it beside
            canary.note(root, model, tried.version, promoted=promoted, reason=f"people went to {version}: {reason}")
    canary.withdraw(root, model)


def _remove(home: Path, name: str) -> None:
    """Hide a snapshot, then delete it: a crash in between leaves nothing that looks like one."""
    hidden = home / f".{name}{GONE}"
    shutil.rmtree(hidden, ignore_errors=True)
    (home / name).rename(hidden)
    shutil.rmtree(hidden)


def _left_over(path: Path, on_disk: list[Version]) -> bool:
    """Whether this is a snapshot that was never finished: newer ones are there, and they are written in turn."""
    version = Version.parse(path.stem[1:])
    return path.suffix == ".tmp" and version is not None and bool(on_disk) and version < on_disk[-1]


def _write_pins(root: Path, model: str, names: set[str]) -> None:
    replace_file(root / model / PINNED, "".join(f"{name}\n" for name in sorted(names)).encode())
