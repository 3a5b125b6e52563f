"""The snapshot format: one immutable directory holds all that a replica needs to answer for one model.

    <root>/<model>/<version>/manifest.json      what it is, what it learned from, checksums of the rest and of itself
                             tower.onnx         user tower: sequence, mask, lag[, noise] -> user vectors (B, d)
                             item_ids.npy       (N,) int64, sorted
                             item_vectors.npy   (N, d) float32, row i belongs to item_ids[i]
                             item_counts.npy    (N,) float32, positives seen so far: what "popular" means
                             index.npz          how item_vectors are searched (`index.py` here); absent: exactly
    <root>/<model>/<version>+<sequence>/        a delta on it (contracts/snapshots/delta.py), such as v000010+003
    <root>/<model>/LIVE                         the version that replicas should serve; it may be a delta's
    <root>/<model>/CANARY                       the version that some users try (contracts/snapshots/canary.py)
    <root>/<model>/HELD, PINNED                 what people have decided (contracts/snapshots/retention.py)

Commit order: (1) write into a hidden directory, (2) checksum, (3) fsync and rename it into place, (4) replace LIVE.
A crash before (3) leaves a hidden directory that nobody reads, one before (4) a complete snapshot that nobody serves.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from contracts.config.store import Root
from contracts.features import Floats, Ints
from contracts.runtime import arrays
from contracts.snapshots.disk import HELD, LIVE
from contracts.snapshots.index import EXACT
from contracts.snapshots.pointers import Changes, Pointers
from contracts.snapshots.room import open_room
from contracts.snapshots.version import MANIFEST, SnapshotError, SnapshotExistsError, SnapshotGoneError, Version
from contracts.storage.objects import AwayError

__all__ = [
    "HELD",
    "LIVE",
    "MANIFEST",
    "Manifest",
    "Snapshot",
    "SnapshotError",
    "SnapshotExistsError",
    "SnapshotGoneError",
    "Version",
]

FORMAT = 3
LARGEST_INPUT = 1 << 20  # numbers of one user that a tower may take
PIECE = 1 << 18  # bytes that are read at once
_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True)
class Manifest:
    """What a snapshot, or a delta on one, is and what it learned from."""

    model: str
    version: str
    dim: int
    window: int
    sampling_seed: int
    noise_shape: tuple[int, ...]  # of one user; () where the tower takes no noise
    examples: int  # learned from so far
    shares: dict[str, int]  # examples by the arm that showed them; "" is traffic outside any experiment
    offsets: dict[str, int]  # "topic:partition" -> first offset not learned from
    event_time_ms: int  # of the newest example learned from
    metrics: dict[str, float]  # progressive recall and the like
    sent_at_ms: tuple[int, ...] = ()  # a sample of when the newly learned events entered Kafka, for freshness
    learn_from: str = ""  # whose examples it learns from, as `trainer.learn_from` says; "" where nobody said
    gate: dict[str, bool | float | str] = field(default_factory=dict)  # "passed", "reason", figures; {}: not gated
    format: int = FORMAT
    checksums: dict[str, str] = field(default_factory=dict)  # file name -> sha256

    @property
    def rejected(self) -> bool:
        """Whether the gate has refused it."""
        return self.gate.get("passed") is False


_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True)
class Snapshot:
    """A verified snapshot in memory. Tower and index are of one full snapshot, never mixed with another's."""

    manifest: Manifest
    tower: bytes  # ONNX
    item_ids: Ints  # (N,)
    item_vectors: Floats  # (N, d)
    item_counts: Floats  # (N,)
    index: bytes  # contracts/snapshots/index.py


def version_name(number: int, sequence: int = 0) -> str:
    """The name of a full snapshot, or of a delta on it.

    >>> version_name(7), version_name(7, 2)
    ('v000007', 'v000007+002')
    """
    return str(Version(number, sequence))


def models(root: Root) -> list[str]:
    """The models that have a home under `root`."""
    return open_room(root).models()


def versions(root: Root, model: str) -> list[Version]:
    """What lies there for a model, oldest first; whether it is sound is not looked at."""
    return open_room(root).versions(model)


def write(root: Root, snapshot: Snapshot) -> Path:
    """Write a snapshot, steps (1) to (3); its checksums are filled in here. Written again, it stays as it is.

    Raises:
        SnapshotExistsError: another snapshot of that version is there.

    """
    return seal(
        root,
        snapshot.manifest,
        {
            "tower.onnx": snapshot.tower,
            "item_ids.npy": npy(snapshot.item_ids),
            "item_vectors.npy": npy(snapshot.item_vectors),
            "item_counts.npy": npy(snapshot.item_counts),
        }
        | ({"index.npz": snapshot.index} if snapshot.index else {}),
    )


def read(root: Root, model: str, version: str) -> Snapshot:
    """Read and verify a full snapshot; `delta.read` takes either kind.

    Raises:
        SnapshotError: a file is missing, damaged or does not fit the others.

    """
    manifest, content = unseal(root, model, version)
    try:
        snapshot = Snapshot(
            manifest,
            bytes(content["tower.onnx"]),
            array(content["item_ids.npy"], np.int64),
            array(content["item_vectors.npy"], np.float32),
            array(content["item_counts.npy"], np.float32),
            bytes(content.get("index.npz", EXACT)),
        )
    except (KeyError, ValueError) as error:
        raise SnapshotError(f"Snapshot {model}/{version} is no full snapshot: {error}.") from error
    rows = snapshot.item_ids.size
    if (
        not ascending(snapshot.item_ids)
        or snapshot.item_vectors.shape != (rows, manifest.dim)
        or snapshot.item_counts.shape != (rows,)
    ):
        raise SnapshotError(f"Snapshot {model}/{version}: its arrays do not fit each other.")
    return snapshot


def publish(root: Root, model: str, version: str) -> bool:
    """Name the version that replicas should serve, step (4); False, and nothing moves, while the model is held.

    Raises:
        SnapshotError: there is no such snapshot, or one that it is based on is gone.

    """

    def decide(now: Pointers) -> Changes | None:
        if now.held:
            return None
        require(root, model, version)
        return [("live", version)]

    return open_room(root).change(model, decide)


def require(root: Root, model: str, version: str) -> None:
    """See that a pointer can move to a version.

    Raises:
        SnapshotGoneError: there is no such snapshot, or one that it is based on is gone.

    """
    place, room = Version.parse(version), open_room(root)
    for needed in place.chain() if place else [version]:
        if not room.complete(model, str(needed)):
            raise SnapshotGoneError(f"There is no snapshot {model}/{needed}.")


def live(root: Root, model: str) -> str | None:
    """The version that replicas should serve, or None before the first."""
    return open_room(root).live(model)


def read_manifest(root: Root, model: str, version: str) -> Manifest:
    """Read what a snapshot or a delta is, without its arrays.

    Raises:
        SnapshotError: it is absent, unreadable, damaged or of another format.

    """
    if Version.parse(version) is None:  # a pointer is damaged: what it says may be no path either
        raise SnapshotError(f"{model}: {version[:40]!a} is no version of a snapshot.")
    try:
        content = open_room(root).manifest(model, version)
    except AwayError as error:
        raise SnapshotError(f"Snapshot {model}/{version} cannot be read: {error}") from error
    except OSError as error:
        raise SnapshotError(f"Snapshot {model}/{version} has no readable {MANIFEST}.") from error
    return parse_manifest(model, version, content)


def parse_manifest(model: str, version: str, content: bytes) -> Manifest:
    """What a manifest says.

    Raises:
        SnapshotError: it is damaged, of another format, or another snapshot's.

    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SnapshotError(f"Snapshot {model}/{version}: {MANIFEST} is not JSON.") from error
    written = data.get("format") if isinstance(data, dict) else None
    if written != FORMAT:
        raise SnapshotError(f"Snapshot {model}/{version} has format {written}; this build reads {FORMAT}.")
    if data.pop("checksum", None) != _sha256(_canonical(data)):
        raise SnapshotError(f"Snapshot {model}/{version}: {MANIFEST} does not match its checksum.")
    if data.keys() != {each.name for each in fields(Manifest)}:
        raise SnapshotError(f"Snapshot {model}/{version}: {MANIFEST} has other fields than this build reads.")
    if (data["model"], data["version"]) != (model, version):
        raise SnapshotError(f"Snapshot {model}/{version} says that it is {data['model']}/{data['version']}.")
    try:
        manifest = _MANIFEST.validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise SnapshotError(
            f"Snapshot {model}/{version}: {'.'.join(map(str, first['loc']))} in {MANIFEST} is none: {first['msg']}."
        ) from error
    _require_usable(manifest)
    return manifest


def _require_usable(manifest: Manifest) -> None:
    """Refuse what is of the right kind and yet cannot be: it would take any memory, or leave the directory."""
    name = f"Snapshot {manifest.model}/{manifest.version}"
    sides = (manifest.dim, manifest.window, *manifest.noise_shape)
    if min(sides) < 1 or max(manifest.dim * manifest.window, math.prod(manifest.noise_shape)) > LARGEST_INPUT:
        raise SnapshotError(f"{name}: its tower takes {sides} numbers of a user, which it cannot.")
    for file in manifest.checksums:
        if Path(file).name != file or "\0" in file:
            raise SnapshotError(f"{name}: {MANIFEST} names {file!a}, which is no file of a snapshot.")


def seal(root: Root, manifest: Manifest, files: Mapping[str, bytes]) -> Path:
    """Write a directory that is whole or not there, steps (1) to (3). Written again, it stays as it is.

    Raises:
        SnapshotExistsError: another one of that version is there.

    """
    sealed = asdict(manifest) | {"checksums": {name: _sha256(content) for name, content in files.items()}}
    sealed["checksum"] = _sha256(_canonical(sealed))
    written = json.dumps(sealed, indent=1, sort_keys=True).encode()
    return open_room(root).seal(manifest.model, manifest.version, files, written)


def unseal(root: Root, model: str, version: str) -> tuple[Manifest, dict[str, memoryview]]:
    """Read such a directory and verify every file of it.

    Raises:
        SnapshotError: a file is missing or damaged.

    """
    manifest, room = read_manifest(root, model, version), open_room(root)
    directory = room.directory(model, version, manifest.checksums)
    content: dict[str, memoryview] = {}
    for name, checksum in manifest.checksums.items():
        try:
            content[name], actual = _read(directory / name)
        except OSError as error:
            room.discard(model, version)
            raise SnapshotError(f"Snapshot {model}/{version}: {name} is missing.") from error
        if actual != checksum:
            room.discard(model, version)
            raise SnapshotError(f"Snapshot {model}/{version}: {name} does not match its checksum.")
    return manifest, content


def npy(values: np.ndarray[Any, Any]) -> bytes:
    """An array as the bytes of an .npy file."""
    buffer = BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def array(content: memoryview, kind: type[_Number]) -> npt.NDArray[_Number]:
    """The array in the bytes of an .npy file: a view of them, not a copy.

    Raises:
        ValueError: it cannot be read, or holds another kind of number.

    """
    values = arrays.view(content)
    if values.dtype != kind:
        raise ValueError(f"an array of {values.dtype} stands where {np.dtype(kind)} should")
    return values


def ascending(ids: Ints) -> bool:
    """Whether these are ids (N,), sorted, none twice."""
    return ids.ndim == 1 and bool((ids[1:] > ids[:-1]).all())


def _canonical(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> tuple[memoryview, str]:
    """A file and its checksum, piece by piece: one long read keeps all others off the processor until it ends."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        content = np.empty(path.stat().st_size, np.uint8).data  # pages that nothing has filled before
        end = 0
        while length := file.readinto(content[end : end + PIECE]):
            digest.update(content[end : end + length])
            end += length
    return content[:end], digest.hexdigest()
