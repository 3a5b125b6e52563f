"""Where a model's pointers are: what is live, held, on trial and pinned; and changes of them."""

import json
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

from contracts.snapshots.version import SnapshotError, Version


class Canary(NamedTuple):
    """What is on trial, with which share of the requests, and the first version of this trial."""

    version: str
    share: float
    group: str


@dataclass(frozen=True)
class Hold:
    """Why a model's pointer does not move, and where it stays."""

    version: str
    reason: str


@dataclass(frozen=True)
class Pointers:
    """All pointers of a model at one moment."""

    live: str | None = None
    held: Hold | None = None
    trial: Canary | None = None
    pinned: tuple[str, ...] = ()  # sorted


# (name of a pointer, its new value), in the order in which a disk writes them; a store writes all at once.
Changes: TypeAlias = list[tuple[str, Any]]


def changed(pointers: Pointers, changes: Changes) -> Pointers:
    """The pointers after these changes.

    >>> changed(Pointers("v000001"), [("live", "v000002"), ("pinned", ("v000001",))])
    Pointers(live='v000002', held=None, trial=None, pinned=('v000001',))
    """
    return replace(pointers, **dict(changes))


def canary_of(content: bytes, name: str) -> Canary:
    """What a file or an object says is on trial.

    Raises:
        SnapshotError: it cannot be read, or says what cannot be.

    """
    try:
        data = json.loads(content)
        canary = Canary(str(data["version"]), float(data["share"]), str(data["group"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SnapshotError(f"{name} cannot be read.") from error
    if Version.parse(canary.version) is None or not 0 < canary.share < 1:
        raise SnapshotError(f"{name} names {canary.version!r} with a share of {canary.share:g}.")
    return canary
