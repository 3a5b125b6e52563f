"""What `driftline snapshots` says: what lies there, whether it is sound, how two snapshots differ. Prints nothing."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from contracts.config.store import Root
from contracts.features import rows_of
from contracts.snapshots import canary, delta, retention, snapshot
from contracts.snapshots.canary import Canary, Trial
from contracts.snapshots.room import open_room
from contracts.snapshots.snapshot import Manifest, Snapshot, SnapshotError, Version

QUANTILES = (0.5, 0.9, 0.99, 1.0)
RECALL = ("recall@100/recent", "recall@100")  # the first that a manifest has


@dataclass(frozen=True)
class Entry:
    """One directory: a full snapshot or a delta."""

    model: str
    version: Version
    manifest: Manifest | None  # None: not readable, for the reason in `problem`
    problem: str
    states: tuple[str, ...]  # of "live", "held", "on trial", "pinned", "rejected", "rolled back", "damaged"
    share: float | None  # of users who are answered from it because it is on trial
    trial: Trial | None  # how its own trial, or that of its base, has ended
    size: int  # bytes
    written_ms: int

    @property
    def kind(self) -> str:
        """Whether it is full or a delta."""
        return "delta" if self.version.sequence else "full"

    @property
    def recall(self) -> float | None:
        """Progressive recall@100 on recent examples, or on all where the manifest says no other."""
        metrics: Mapping[str, float] = self.manifest.metrics if self.manifest else {}
        return next((metrics[name] for name in RECALL if name in metrics), None)


class Finding(NamedTuple):
    """What a verification came to for one version, or for a pointer file; `problem` is empty where it is sound."""

    model: str
    name: str
    problem: str


@dataclass(frozen=True)
class Comparison:
    """How one snapshot differs from an earlier one."""

    items: tuple[int, int]
    added: int
    removed: int
    moved: int  # items in both whose vector is not the same
    movement: dict[float, float]  # quantile -> relative movement |after − before| / |before| of items in both
    metrics: dict[str, tuple[float | None, float | None]]


def entries(root: Root, model: str) -> list[Entry]:
    """What lies there for a model, oldest first."""
    listed = []
    for version in snapshot.versions(root, model):
        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
            listed.append(entry(root, model, version))
    return listed


def entry(root: Root, model: str, version: Version) -> Entry:
    """What lies there under one version, by its manifest; the other files are not read."""
    name = str(version)
    manifest, problem = None, ""
    try:
        manifest = snapshot.read_manifest(root, model, name)
    except SnapshotError as error:
        problem = str(error)
    live = snapshot.live(root, model) == name
    tried = on_trial(root, model)
    share = tried.share if tried and tried.version == name else None
    trial = canary.noted(root, model, name)
    states = {
        "live": live,
        "held": live and retention.held(root, model) is not None,
        "on trial": share is not None,
        "pinned": name in retention.pinned(root, model),
        "rejected": manifest is not None and manifest.rejected,
        "rolled back": trial is not None and not trial.promoted,
        "damaged": manifest is None,
    }
    size, written_ms = open_room(root).size(model, name)
    return Entry(
        model=model,
        version=version,
        manifest=manifest,
        problem=problem,
        states=tuple(state for state, applies in states.items() if applies),
        share=share,
        trial=trial,
        size=size,
        # The manifest is written once and last; its own time is that of the data, so that equal logs give equal bytes.
        written_ms=written_ms,
    )


def published(root: Root, model: str) -> list[Manifest]:
    """The manifest of every full snapshot that the gate let pass, oldest first."""
    full = (version for version in snapshot.versions(root, model) if not version.sequence)
    manifests = (snapshot.read_manifest(root, model, str(version)) for version in full)
    return [manifest for manifest in manifests if not manifest.rejected]


def went_live(root: Root, model: str) -> list[Manifest]:
    """The manifest of every full snapshot that all requests were answered from, oldest first.

    One that another took the place of while it was on trial, or that was rolled back, never was.
    """
    return [
        manifest
        for manifest in published(root, model)
        if canary.trial_of(manifest) is None
        or ((ended := canary.noted(root, model, manifest.version)) is not None and ended.promoted)
    ]


def verify(root: Root, model: str, version: Version | None = None) -> Iterator[Finding]:
    """Read everything of a model, or all that one version needs: checksums, chains, and what the pointers name."""
    on_disk = snapshot.versions(root, model)
    wanted = [each for each in on_disk if version is None or each in version.chain()]
    sound: set[str] = set()
    served: Snapshot | None = None
    for each in wanted:
        name = str(each)
        try:
            if not each.sequence:
                served = None
                served = snapshot.read(root, model, name)
            else:
                this = delta.read_delta(root, model, name)
                if served is None:
                    raise delta.GapError(f"Snapshot {model}/{name} needs {each.chain()[-2]}, which is no use.")
                served = delta.apply(served, this)
        except SnapshotError as error:
            served = None
            yield Finding(model, name, str(error))
        else:
            sound.add(name)
            yield Finding(model, name, "")
    if version is None:
        yield from _pointers(root, model, sound)


def on_trial(root: Root, model: str) -> Canary | None:
    """What is on trial; from a pointer that cannot be read nobody is answered, and `trial_problem` says why."""
    try:
        return canary.on_trial(root, model)
    except SnapshotError:
        return None


def trial_problem(root: Root, model: str) -> str:
    """Why what is on trial cannot be read; empty where it can, or where nothing is."""
    try:
        canary.on_trial(root, model)
    except SnapshotError as error:
        return str(error)
    return ""


def _pointers(root: Root, model: str, sound: Collection[str]) -> Iterator[Finding]:
    live, held = snapshot.live(root, model), retention.held(root, model)
    if live is not None:
        yield Finding(model, snapshot.LIVE, "" if live in sound else f"LIVE names {live}, which cannot be served.")
    if held is not None:
        yield Finding(
            model, snapshot.HELD, "" if held.version == live else f"HELD names {held.version}, LIVE names {live}."
        )
    if problem := trial_problem(root, model):
        yield Finding(model, canary.CANARY, problem)
    elif (tried := canary.on_trial(root, model)) is not None:
        lost = f"CANARY names {tried.version}, which cannot be served."
        yield Finding(model, canary.CANARY, "" if tried.version in sound else lost)
    for name in retention.pinned(root, model):
        if name not in sound:
            yield Finding(model, retention.PINNED, f"PINNED names {name}, which cannot be served.")


def before_live(on_disk: Sequence[Version], live: str | None, refused: Collection[Version]) -> Version | None:
    """The full snapshot to go back to: the newest one before the live version that was not refused.

    >>> before_live([Version(1), Version(2), Version(3), Version(3, 1)], "v000003", {Version(2)})
    Version(number=1, sequence=0)
    >>> before_live([Version(3), Version(3, 1)], "v000003+001", set())
    Version(number=3, sequence=0)
    """
    now = Version.parse(live or "")
    full = (each for each in sorted(on_disk) if not each.sequence and each not in refused)
    return max((each for each in full if now is not None and each < now), default=None)


def compare(before: Snapshot, after: Snapshot) -> Comparison:
    """How `after` differs from `before`; both are verified and whole."""
    rows = rows_of(after.item_ids, before.item_ids)
    both = rows >= 0
    moved = delta.movement(before.item_vectors[rows[both]], after.item_vectors[both])
    names = sorted({*before.manifest.metrics, *after.manifest.metrics})
    return Comparison(
        items=(before.item_ids.size, after.item_ids.size),
        added=int((~both).sum()),
        removed=before.item_ids.size - int(both.sum()),
        moved=int((moved != 0).sum()),
        movement=dict(zip(QUANTILES, np.quantile(moved, QUANTILES).tolist(), strict=True)) if moved.size else {},
        metrics={name: (before.manifest.metrics.get(name), after.manifest.metrics.get(name)) for name in names},
    )
