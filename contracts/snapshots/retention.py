"""What stays of a model's snapshots: pins, holds, and the removal of the rest.

    <root>/<model>/PINNED    versions that are never removed, one a line
                   HELD      a JSON object, `version` and `reason`: while it is there, LIVE does not move

A rollback holds its model, for the next publication would undo it otherwise.
"""

import contextlib
from collections.abc import Collection, Iterable

import structlog

from contracts.config.store import Root
from contracts.snapshots import canary, delta
from contracts.snapshots.disk import PINNED
from contracts.snapshots.pointers import Canary, Changes, Hold, Pointers
from contracts.snapshots.room import open_room
from contracts.snapshots.snapshot import SnapshotError, Version, read_manifest, require

__all__ = ["PINNED", "Hold"]

log = structlog.get_logger()


def pinned(root: Root, model: str) -> list[str]:
    """The versions that are never removed."""
    return open_room(root).pinned(model)


def pin(root: Root, model: str, version: str) -> None:
    """Keep a version, and what it is based on, for good.

    Raises:
        SnapshotError: it is not there, or not readable.

    """
    read_manifest(root, model, version)

    def decide(now: Pointers) -> Changes:
        require(root, model, version)
        return [("pinned", tuple(sorted({*now.pinned, version})))]

    open_room(root).change(model, decide)


def unpin(root: Root, model: str, version: str) -> None:
    """Let a version go when its time has come."""
    open_room(root).change(model, lambda now: [("pinned", tuple(sorted({*now.pinned} - {version})))])


def held(root: Root, model: str) -> Hold | None:
    """Why publications do not go live, or None where they do."""
    return open_room(root).held(model)


def roll_back(root: Root, model: str, version: str, reason: str) -> None:
    """Serve an earlier version, and hold it there until `release`. It is verified before anything moves.

    What is on trial is so no longer: everybody is answered from that version.

    Raises:
        SnapshotError: it cannot be served.

    """
    delta.read(root, model, version)

    def decide(now: Pointers) -> Changes:
        require(root, model, version)
        if now.trial is not None:
            _note_end(root, model, now.trial, version, reason)
        # The hold comes first: after a crash before the rest nothing has moved, and no publication nor trial will.
        return [("held", Hold(version, reason)), ("trial", None), ("live", version)]

    open_room(root).change(model, decide)


def release(root: Root, model: str) -> bool:
    """Let the next publication go live again; False where nothing was held."""
    return open_room(root).change(model, lambda now: [("held", None)] if now.held else None)


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


def prune(root: Root, model: str, keep: int, keep_rejected: int) -> list[str]:
    """Remove what `to_remove` says, and what crashes have left; the names of what was removed.

    What cannot be read, or did badly on trial, counts as rejected, so that it takes no sound snapshot's place. While
    PINNED names something that is no version, nothing is removed: it may be one that was meant to stay.
    """
    room = open_room(root)

    def choose(now: Pointers) -> list[str]:
        strange = [name for name in now.pinned if Version.parse(name) is None]
        if strange:
            log.warning("no snapshot is removed: PINNED is damaged", model=model, names=strange[0][:40])
            return []
        names = [str(version) for version in room.versions(model)]
        return to_remove(
            names,
            now.live,
            now.pinned,
            keep,
            on_trial=now.trial.version if now.trial else None,
            rejected=[name for name in names if not _sound(root, model, name)],
            keep_rejected=keep_rejected,
        )

    return room.remove(model, choose)


def _sound(root: Root, model: str, version: str) -> bool:
    trial = canary.noted(root, model, version)
    if trial is not None and not trial.promoted:
        return False
    try:
        return not read_manifest(root, model, version).rejected
    except SnapshotError:
        return False


def _note_end(root: Root, model: str, tried: Canary, version: str, reason: str) -> None:
    """Note that a trial ends because people go to a version: ill, unless that is what was on trial."""
    promoted = tried.version.partition("+")[0] == version.partition("+")[0]
    with contextlib.suppress(SnapshotError):  # it is gone: nothing is left to write it beside
        canary.note(root, model, tried.version, promoted=promoted, reason=f"people went to {version}: {reason}")
