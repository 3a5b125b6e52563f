"""Copy a model's snapshots from one place to another, such as from a folder onto a store.

Order: (1) versions, the oldest first, each verified as it is read and sealed as it was, (2) the pointers, all at once
where the target is a store. A copy that was cut off goes on when it is called again: what is there already stays.
"""

from dataclasses import fields

from contracts.config.store import Root
from contracts.snapshots.pointers import Changes, Pointers
from contracts.snapshots.room import Room, open_room
from contracts.snapshots.snapshot import require, unseal
from contracts.snapshots.version import SnapshotError, Version


def copy(source: Root, target: Root, model: str) -> int:
    """Copy all versions of a model and its pointers; how many versions.

    Raises:
        SnapshotError: a version is damaged or goes meanwhile, the target has another one of its name, or its pointers
            are others; or the source's are damaged. What was copied until then is there, and no pointer has moved.

    """
    here, there = open_room(source), open_room(target)
    wanted = _pointers(here, model)
    versions = [str(each) for each in here.versions(model)]
    for version in versions:
        _, files = unseal(source, model, version)
        manifest = here.manifest(model, version)
        there.seal(model, version, {name: bytes(content) for name, content in files.items()}, manifest)
        trial = here.noted(model, version)
        if trial is not None:
            there.note(model, version, trial)

    def decide(now: Pointers) -> Changes | None:
        if now == wanted:
            return None
        if now.live or not _part_of(now, wanted):  # `live` is written last: without it, a copy was cut off
            raise SnapshotError(f"{model} has other pointers in {target} already, so none of them was moved.")
        for each in (wanted.live, wanted.trial.version if wanted.trial else None, *wanted.pinned):
            if each is not None:
                require(target, model, each)
        named = (("held", wanted.held), ("trial", wanted.trial), ("pinned", wanted.pinned), ("live", wanted.live))
        return [(name, value) for name, value in named if value]

    there.change(model, decide)
    return len(versions)


def _part_of(now: Pointers, wanted: Pointers) -> bool:
    """Whether each pointer is where it shall be or not there yet, as a copy into a folder that was cut off leaves them.

    >>> _part_of(Pointers(pinned=("v000001",)), Pointers("v000002", pinned=("v000001",)))
    True
    >>> _part_of(Pointers(pinned=("v000001",)), Pointers("v000002"))
    False
    """
    names = (each.name for each in fields(Pointers))
    return all(not getattr(now, name) or getattr(now, name) == getattr(wanted, name) for name in names)


def _pointers(room: Room, model: str) -> Pointers:
    """All pointers of a model, each of which names a version.

    Raises:
        SnapshotError: one cannot be read, or names none.

    """
    try:
        found = Pointers(room.live(model), room.held(model), room.trial(model), tuple(sorted(room.pinned(model))))
    except OSError as error:
        raise SnapshotError(f"A pointer of {model} cannot be read: {error}.") from error
    named = [("live", found.live), ("held", found.held.version if found.held else None)]
    named += [("pinned", each) for each in found.pinned]  # what is on trial was looked at as it was read
    for state, version in named:
        if version is not None and Version.parse(version) is None:
            raise SnapshotError(f"A pointer of {model} is damaged: {version[:40]!a}, which is {state}, is no version.")
    return found
