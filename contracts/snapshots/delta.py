"""A delta: the items of a model that have moved since its last snapshot or delta, so that vectors are fresh in seconds.

    <root>/<model>/<base>+<sequence>/manifest.json      as of a full snapshot
                                     item_ids.npy       (M,) int64, sorted: items that have moved or are new
                                     item_vectors.npy   (M, d) float32
                                     item_counts.npy    (M,) float32
                                     removed_ids.npy    (R,) int64, sorted

`v000010+003` is the third delta on the full snapshot v000010. It is written in the same order of commit, LIVE may name
it, and it is served with tower and sampling seed of its base. Each delta holds what has moved since the one before, so
one that is missing makes all after it useless: a gap, after which only a full snapshot helps.

What is served is not quite what a full snapshot would say. The map of the item tower is learned, so with every step
all item vectors move a little, and a delta that left none of them out would be as large as a full one. The trainer
therefore makes a delta's vectors to go with the user tower of the base, which is the one in force, and leaves out what
has moved by no more than a tolerance. For any item, |served − full| <= tolerance · |served|, so its score for a user
vector u is off by at most tolerance · |u| · |served|: the tolerance alone bounds the difference.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contracts.config.store import Root
from contracts.features import Floats, Ints, rows_of
from contracts.snapshots import index, snapshot
from contracts.snapshots.room import open_room
from contracts.snapshots.snapshot import Manifest, Snapshot, SnapshotError, Version, npy


class GapError(SnapshotError):
    """A delta that does not follow what it should be applied to; only a full snapshot helps."""


class Changes(NamedTuple):
    """The arrays of a delta."""

    item_ids: Ints  # (M,) sorted
    item_vectors: Floats  # (M, d)
    item_counts: Floats  # (M,)
    removed_ids: Ints  # (R,) sorted


@dataclass(frozen=True)
class Delta:
    """A verified delta in memory. Its manifest is that of a snapshot; the version says on what it is based."""

    manifest: Manifest
    changes: Changes


def movement(before: Floats, after: Floats) -> Floats:
    """|after − before| / |before| of each row, in the Euclidean norm; (N, d) and (N, d) give (N,).

    >>> movement(np.float32([[3, 4], [0, 0], [0, 0]]), np.float32([[3, 9], [0, 1], [0, 0]])).tolist()
    [1.0, inf, 0.0]
    """
    moved = np.linalg.norm(after - before, axis=1)
    length = np.linalg.norm(before, axis=1)
    still = np.where(moved == 0, np.float32(0), np.float32(np.inf))
    out: Floats = np.divide(moved, length, out=still, where=length > 0)
    return out


def difference(
    served_ids: Ints,
    served_vectors: Floats,
    served_counts: Floats,
    ids: Ints,
    vectors: Floats,
    counts: Floats,
    tolerance: float,
) -> Changes:
    """What to send so that replicas serve `ids`, `vectors` and `counts`, within the tolerance.

    An item is sent if it is new, or if its vector or its count has moved, relative to what was last sent of it, by
    more than `tolerance`; with 0, `apply` gives exactly the new arrays.

    Args:
        served_ids: (S,) sorted; with the next two, what replicas serve now: the base with all deltas applied.
        served_vectors: (S, d)
        served_counts: (S,)
        ids: (N,) sorted; with the next two, what they should serve.
        vectors: (N, d)
        counts: (N,)
        tolerance: of relative movement, >= 0.

    """
    rows = rows_of(ids, served_ids)
    served = rows >= 0
    touched = ~served
    before = rows[served]
    # "Not within" instead of "above": a vector that is no number any more is not left out in silence.
    touched[served] = ~(
        (movement(served_vectors[before], vectors[served]) <= tolerance)
        & (movement(served_counts[before, None], counts[served, None]) <= tolerance)
    )
    removed = served_ids[rows_of(served_ids, ids) < 0]
    return Changes(ids[touched], vectors[touched], counts[touched], removed)


def apply(base: Snapshot, *deltas: Delta) -> Snapshot:
    """A snapshot with the deltas that follow it, in their order: new arrays, its index updated, the tower that it had.

    Raises:
        GapError: a delta does not follow, or is based on another snapshot.
        SnapshotError: the snapshot's index is damaged.

    """
    if not deltas:
        return base
    manifest, arrays = base.manifest, (base.item_ids, base.item_vectors.copy(), base.item_counts.copy())
    for delta in deltas:
        _follows(manifest, delta.manifest)
        arrays = _merged(*arrays, delta)
        manifest = delta.manifest
    touched = np.unique(np.concatenate([delta.changes.item_ids for delta in deltas]))
    ids, vectors, _ = arrays
    try:
        searched = index.updated(base.index, base.item_ids, ids, vectors, touched)
    except (ValueError, RuntimeError) as error:  # it cannot be read, or Faiss cannot take what is in it
        why = " ".join(str(error).split())
        raise SnapshotError(f"Snapshot {base.manifest.model}/{base.manifest.version}: {why}.") from error
    return Snapshot(manifest, base.tower, *arrays, searched)


def write(root: Root, delta: Delta) -> Path:
    """Write a delta, steps (1) to (3) of a snapshot. Written again, it stays as it is.

    Raises:
        GapError: the snapshot or delta that it follows is not there.
        SnapshotExistsError: another delta of that version is there.

    """
    manifest = delta.manifest
    _follows(_predecessor(root, manifest.model, manifest.version), manifest)
    return snapshot.seal(root, manifest, {f"{name}.npy": npy(each) for name, each in delta.changes._asdict().items()})


def read_delta(root: Root, model: str, version: str) -> Delta:
    """Read and verify one delta.

    Raises:
        SnapshotError: a file is missing, damaged or does not fit the others.

    """
    manifest, content = snapshot.unseal(root, model, version)
    try:
        changes = Changes(
            snapshot.array(content["item_ids.npy"], np.int64),
            snapshot.array(content["item_vectors.npy"], np.float32),
            snapshot.array(content["item_counts.npy"], np.float32),
            snapshot.array(content["removed_ids.npy"], np.int64),
        )
    except (KeyError, ValueError) as error:
        raise SnapshotError(f"Snapshot {model}/{version} is no delta: {error}.") from error
    rows = changes.item_ids.size
    if not snapshot.ascending(changes.item_ids) or not snapshot.ascending(changes.removed_ids):
        raise SnapshotError(f"Snapshot {model}/{version}: its ids are not sorted.")
    if changes.item_vectors.shape != (rows, manifest.dim) or changes.item_counts.shape != (rows,):
        raise SnapshotError(f"Snapshot {model}/{version}: its arrays do not fit each other.")
    return Delta(manifest, changes)


def read(root: Root, model: str, version: str) -> Snapshot:
    """Read and verify what a version serves: a full snapshot, or one with all deltas up to the version's.

    Raises:
        GapError: a delta of the chain is missing, or the full snapshot is.
        SnapshotError: a file is missing, damaged or does not fit the others.

    """
    place = Version.parse(version)
    if place is None or not place.sequence:
        return snapshot.read(root, model, version)
    base, *deltas = place.chain()
    room = open_room(root)
    for needed in (base, *deltas):
        if not room.has(model, str(needed)):
            raise GapError(f"Snapshot {model}/{version} needs {needed}, which is not there.")
    served = snapshot.read(root, model, str(base))
    return apply(served, *(read_delta(root, model, str(each)) for each in deltas))


def _predecessor(root: Root, model: str, version: str) -> Manifest:
    place = Version.parse(version)
    if place is None or not place.sequence:
        raise GapError(f"Snapshot {model}/{version} is no delta by its name.")
    before = str(place.chain()[-2])
    if not open_room(root).has(model, before):
        raise GapError(f"Snapshot {model}/{version} needs {before}, which is not there.")
    return snapshot.read_manifest(root, model, before)


def _follows(before: Manifest, after: Manifest) -> None:
    """Refuse a delta that is not the next one of the same base."""
    last, this = Version.parse(before.version), Version.parse(after.version)
    if last is None or this is None or this != Version(last.number, last.sequence + 1):
        raise GapError(f"Delta {after.model}/{after.version} does not follow {before.model}/{before.version}.")
    if _shape(before) != _shape(after):
        raise GapError(f"Delta {after.model}/{after.version} is based on another {before.version} than the one here.")


def _shape(manifest: Manifest) -> tuple[object, ...]:
    """What a delta shares with its base."""
    return manifest.model, manifest.dim, manifest.window, manifest.sampling_seed, manifest.noise_shape


def _merged(ids: Ints, vectors: Floats, counts: Floats, delta: Delta) -> tuple[Ints, Floats, Floats]:
    """The arrays with a delta in them; vectors and counts are written into where no item comes or goes."""
    changes = delta.changes
    gone = rows_of(changes.removed_ids, ids)
    if (gone < 0).any():
        name = f"{delta.manifest.model}/{delta.manifest.version}"
        raise GapError(f"Delta {name} removes items that are not in what it should follow.")
    if gone.size:
        ids, vectors, counts = np.delete(ids, gone), np.delete(vectors, gone, axis=0), np.delete(counts, gone)
    rows = rows_of(changes.item_ids, ids)
    served = rows >= 0
    vectors[rows[served]] = changes.item_vectors[served]
    counts[rows[served]] = changes.item_counts[served]
    if served.all():
        return ids, vectors, counts
    new = changes.item_ids[~served]
    at = np.searchsorted(ids, new)
    return (
        np.insert(ids, at, new),
        np.insert(vectors, at, changes.item_vectors[~served], axis=0),
        np.insert(counts, at, changes.item_counts[~served]),
    )
