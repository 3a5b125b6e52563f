"""The snapshot format: one immutable directory holds all that a replica needs to answer for one model.

    <root>/<model>/<version>/manifest.json      what it is, what it learned from, checksums of the rest
                             tower.onnx         user tower: sequence, mask, lag[, noise] -> user vectors (B, d)
                             item_ids.npy       (N,) int64, sorted
                             item_vectors.npy   (N, d) float32, row i belongs to item_ids[i]
                             item_counts.npy    (N,) float32, positives seen so far: what "popular" means
                             index.faiss        inner-product index over item_vectors
    <root>/<model>/LIVE                         the version that replicas should serve

Commit order: (1) write into a hidden directory, (2) checksum, (3) fsync and rename it into place, (4) replace LIVE.
A crash before (3) leaves a hidden directory that nobody reads, one before (4) a complete snapshot that nobody serves.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np

from contracts.features import Floats, Ints

FORMAT = 1
LIVE = "LIVE"
MANIFEST = "manifest.json"


class SnapshotError(Exception):
    """A snapshot that must not be served; one sentence says why."""


@dataclass(frozen=True)
class Manifest:
    """What a snapshot is and what it learned from."""

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


@dataclass(frozen=True)
class Snapshot:
    """A verified snapshot in memory. Tower and index come from one directory and are never mixed with another's."""

    manifest: Manifest
    tower: bytes  # ONNX
    item_ids: Ints  # (N,)
    item_vectors: Floats  # (N, d)
    item_counts: Floats  # (N,)
    index: bytes  # faiss.serialize_index


def version_name(number: int) -> str:
    """Versions sort as their numbers do.

    >>> version_name(7)
    'v000007'
    """
    return f"v{number:06d}"


def write(root: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot, steps (1) to (3); its checksums are filled in here.

    Raises:
        SnapshotError: that version exists already.

    """
    manifest = snapshot.manifest
    home = root / manifest.model
    target = home / manifest.version
    if target.exists():
        raise SnapshotError(f"Snapshot {manifest.model}/{manifest.version} exists already.")
    hidden = home / f".{manifest.version}.tmp"
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir(parents=True)
    files = {
        "tower.onnx": snapshot.tower,
        "item_ids.npy": _npy(snapshot.item_ids),
        "item_vectors.npy": _npy(snapshot.item_vectors),
        "item_counts.npy": _npy(snapshot.item_counts),
        "index.faiss": snapshot.index,
    }
    for name, content in files.items():
        _write_synced(hidden / name, content)
    sealed = asdict(manifest) | {"checksums": {name: _sha256(content) for name, content in files.items()}}
    _write_synced(hidden / MANIFEST, json.dumps(sealed, indent=1, sort_keys=True).encode())
    _sync_directory(hidden)
    hidden.rename(target)
    _sync_directory(home)
    return target


def publish(root: Path, model: str, version: str) -> None:
    """Name the version that replicas should serve, step (4).

    Raises:
        SnapshotError: there is no such snapshot.

    """
    home = root / model
    if not (home / version / MANIFEST).is_file():
        raise SnapshotError(f"There is no snapshot {model}/{version}.")
    pointer = home / f".{LIVE}.tmp"
    _write_synced(pointer, version.encode())
    pointer.replace(home / LIVE)
    _sync_directory(home)


def live(root: Path, model: str) -> str | None:
    """The version that replicas should serve, or None before the first."""
    try:
        return (root / model / LIVE).read_text().strip()
    except FileNotFoundError:
        return None


def read_manifest(root: Path, model: str, version: str) -> Manifest:
    """Read what a snapshot is, without its arrays.

    Raises:
        SnapshotError: it is absent, unreadable or of another format.

    """
    path = root / model / version / MANIFEST
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise SnapshotError(f"Snapshot {model}/{version} has no readable {MANIFEST}.") from error
    except ValueError as error:
        raise SnapshotError(f"Snapshot {model}/{version}: {MANIFEST} is not JSON.") from error
    if data.get("format") != FORMAT:
        raise SnapshotError(f"Snapshot {model}/{version} has format {data.get('format')}; this build reads {FORMAT}.")
    try:
        data["noise_shape"] = tuple(data["noise_shape"])
        data["sent_at_ms"] = tuple(data["sent_at_ms"])
        return Manifest(**data)
    except (KeyError, TypeError) as error:
        raise SnapshotError(f"Snapshot {model}/{version}: {MANIFEST} does not fit: {error}.") from error


def read(root: Path, model: str, version: str) -> Snapshot:
    """Read and verify a snapshot.

    Raises:
        SnapshotError: a file is missing, damaged or does not fit the others.

    """
    manifest = read_manifest(root, model, version)
    content: dict[str, bytes] = {}
    for name, checksum in manifest.checksums.items():
        try:
            content[name] = (root / model / version / name).read_bytes()
        except OSError as error:
            raise SnapshotError(f"Snapshot {model}/{version}: {name} is missing.") from error
        if _sha256(content[name]) != checksum:
            raise SnapshotError(f"Snapshot {model}/{version}: {name} does not match its checksum.")
    try:
        snapshot = Snapshot(
            manifest,
            content["tower.onnx"],
            np.load(BytesIO(content["item_ids.npy"])),
            np.load(BytesIO(content["item_vectors.npy"])),
            np.load(BytesIO(content["item_counts.npy"])),
            content["index.faiss"],
        )
    except (KeyError, ValueError) as error:
        raise SnapshotError(f"Snapshot {model}/{version}: {error} is missing or unreadable.") from error
    rows = snapshot.item_ids.shape[0]
    if snapshot.item_vectors.shape != (rows, manifest.dim) or snapshot.item_counts.shape != (rows,):
        raise SnapshotError(f"Snapshot {model}/{version}: its arrays do not fit each other.")
    return snapshot


def _npy(array: Ints | Floats) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
