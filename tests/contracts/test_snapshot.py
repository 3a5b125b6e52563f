"""A snapshot comes back as it was written, or not at all."""

from pathlib import Path

import numpy as np
import pytest

from contracts import snapshot
from contracts.snapshot import Manifest, Snapshot, SnapshotError


def make(version: str = "v000001", rows: int = 3) -> Snapshot:
    manifest = Manifest(
        model="two_tower",
        version=version,
        dim=2,
        window=4,
        sampling_seed=9,
        noise_shape=(4, 2),
        examples=10,
        shares={"": 4, "control": 6},
        offsets={"examples:0": 10},
        event_time_ms=5,
        metrics={"recall@20": 0.5},
        sent_at_ms=(1, 2),
    )
    return Snapshot(
        manifest,
        b"tower",
        np.arange(1, rows + 1),
        np.ones((rows, 2), np.float32),
        np.zeros(rows, np.float32),
        b"index",
    )


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = make()
    snapshot.write(tmp_path, written)
    read = snapshot.read(tmp_path, "two_tower", "v000001")
    assert read.manifest.shares == written.manifest.shares
    assert read.manifest.noise_shape == (4, 2)
    assert (read.tower, read.index) == (b"tower", b"index")
    assert np.array_equal(read.item_vectors, written.item_vectors)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        snapshot.write(tmp_path / name, make())
    files = [sorted((tmp_path / name).rglob("*.*")) for name in ("a", "b")]
    assert [f.read_bytes() for f in files[0] if f.is_file()] == [f.read_bytes() for f in files[1] if f.is_file()]


def test_live_moves_only_to_a_complete_snapshot(tmp_path: Path) -> None:
    assert snapshot.live(tmp_path, "two_tower") is None
    with pytest.raises(SnapshotError, match="no snapshot"):
        snapshot.publish(tmp_path, "two_tower", "v000001")
    snapshot.write(tmp_path, make())
    assert snapshot.live(tmp_path, "two_tower") is None
    snapshot.publish(tmp_path, "two_tower", "v000001")
    assert snapshot.live(tmp_path, "two_tower") == "v000001"


def test_a_version_is_never_written_twice(tmp_path: Path) -> None:
    snapshot.write(tmp_path, make())
    with pytest.raises(SnapshotError, match="exists already"):
        snapshot.write(tmp_path, make())


@pytest.mark.parametrize("name", ["tower.onnx", "item_ids.npy", "item_vectors.npy", "item_counts.npy", "index.faiss"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_found_before_anything_is_loaded(tmp_path: Path, name: str, damage: str) -> None:
    path = snapshot.write(tmp_path, make()) / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    with pytest.raises(SnapshotError, match=name):
        snapshot.read(tmp_path, "two_tower", "v000001")


def test_a_manifest_of_another_format_or_none_is_named(tmp_path: Path) -> None:
    home = snapshot.write(tmp_path, make())
    manifest = home / "manifest.json"
    for text, complaint in (('{"format": 99}', "format 99"), ("{", "not JSON"), ('{"format": 1}', "does not fit")):
        manifest.write_text(text)
        with pytest.raises(SnapshotError, match=complaint):
            snapshot.read_manifest(tmp_path, "two_tower", "v000001")
    manifest.unlink()
    with pytest.raises(SnapshotError, match="no readable"):
        snapshot.read_manifest(tmp_path, "two_tower", "v000001")
