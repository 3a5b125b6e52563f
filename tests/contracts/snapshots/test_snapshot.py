"""A snapshot comes back as it was written, or not at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.snapshots import snapshot
from contracts.snapshots.index import EXACT
from contracts.snapshots.snapshot import SnapshotError, SnapshotExistsError, Version
from tests.contracts.snapshot_cases import damage, dies_at_each_step, make

LISTS = b"what contracts.snapshots.index has written"
FILES = ["tower.onnx", "item_ids.npy", "item_vectors.npy", "item_counts.npy", "index.npz", "manifest.json"]


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = replace(make(), index=LISTS)
    snapshot.write(tmp_path, written)
    read = snapshot.read(tmp_path, "two_tower", "v000001")
    assert replace(read.manifest, checksums={}) == written.manifest
    assert (read.tower, read.index) == (written.tower, written.index)
    assert np.array_equal(read.item_vectors, written.item_vectors)


def test_one_that_is_searched_exactly_has_no_file_for_that(tmp_path: Path) -> None:
    assert not (snapshot.write(tmp_path, make()) / "index.npz").exists()
    assert snapshot.read(tmp_path, "two_tower", "v000001").index == EXACT


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        snapshot.write(tmp_path / name, make())
    files = [sorted((tmp_path / name).rglob("*.*")) for name in ("a", "b")]
    assert [f.read_bytes() for f in files[0] if f.is_file()] == [f.read_bytes() for f in files[1] if f.is_file()]


def test_live_moves_only_to_a_complete_snapshot(tmp_path: Path) -> None:
    assert snapshot.live(tmp_path, "two_tower") is None
    for name in ("v000001", "v1", "../two_tower"):
        with pytest.raises(SnapshotError, match="no snapshot"):
            snapshot.publish(tmp_path, "two_tower", name)
    snapshot.write(tmp_path, make())
    assert snapshot.live(tmp_path, "two_tower") is None
    assert snapshot.publish(tmp_path, "two_tower", "v000001")
    assert snapshot.live(tmp_path, "two_tower") == "v000001"


def test_a_version_is_never_written_twice_unless_it_is_the_same(tmp_path: Path) -> None:
    first = snapshot.write(tmp_path, make())
    assert snapshot.write(tmp_path, make()) == first
    with pytest.raises(SnapshotExistsError, match="exists already"):
        snapshot.write(tmp_path, make(rows=4))
    assert snapshot.read(tmp_path, "two_tower", "v000001").item_ids.size == 3


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
def test_damage_is_found_before_anything_is_loaded(tmp_path: Path, name: str, how: str) -> None:
    damage(snapshot.write(tmp_path, replace(make(), index=LISTS)) / name, how)
    with pytest.raises(SnapshotError, match=name):
        snapshot.read(tmp_path, "two_tower", "v000001")


def test_no_byte_of_a_manifest_changes_in_silence(tmp_path: Path) -> None:
    manifest = snapshot.write(tmp_path, make()) / "manifest.json"
    sound = manifest.read_bytes()
    for at in range(0, len(sound), 3):
        manifest.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(SnapshotError):
            snapshot.read_manifest(tmp_path, "two_tower", "v000001")
    manifest.write_bytes(sound)
    assert snapshot.read_manifest(tmp_path, "two_tower", "v000001").examples == 10


def test_a_manifest_of_another_format_or_none_is_named(tmp_path: Path) -> None:
    manifest = snapshot.write(tmp_path, make()) / "manifest.json"
    for text, complaint in (
        ('{"format": 1}', "format 1; this build reads 3"),
        ("[]", "format None"),
        ("{", "not JSON"),
        ('{"format": 3}', "does not match its checksum"),
    ):
        manifest.write_text(text)
        with pytest.raises(SnapshotError, match=complaint):
            snapshot.read_manifest(tmp_path, "two_tower", "v000001")
    manifest.unlink()
    with pytest.raises(SnapshotError, match="no readable"):
        snapshot.read_manifest(tmp_path, "two_tower", "v000001")


def test_a_snapshot_that_goes_by_another_name_is_not_read(tmp_path: Path) -> None:
    path = snapshot.write(tmp_path, make())
    path.rename(path.with_name("v000002"))
    with pytest.raises(SnapshotError, match=r"says that it is two_tower/v000001"):
        snapshot.read(tmp_path, "two_tower", "v000002")


@pytest.mark.parametrize("name", ["v1", "v000001+1", "v000001+000", "v0000001", "LIVE", ".v000002.tmp", "v000001+001x"])
def test_what_is_no_name_of_a_version(name: str) -> None:
    assert Version.parse(name) is None


def test_versions_sort_as_they_were_made() -> None:
    made = [Version(9), Version(10), Version(10, 1), Version(10, 999), Version(10, 1000), Version(11), Version(10**6)]
    assert sorted(set(made)) == made
    assert [Version.parse(str(version)) for version in made] == made


def test_a_crash_at_any_step_leaves_the_old_snapshot_live_or_the_new_one(tmp_path: Path) -> None:
    def go_on(root: Path) -> None:
        snapshot.write(root, make("v000002", rows=4))
        snapshot.publish(root, "two_tower", "v000002")

    snapshot.write(tmp_path / "old", make())
    snapshot.publish(tmp_path / "old", "two_tower", "v000001")
    lives = []
    for root in dies_at_each_step(tmp_path / "old", go_on):
        lives.append(snapshot.live(root, "two_tower"))
        for version in snapshot.versions(root, "two_tower"):
            snapshot.read(root, "two_tower", str(version))
        go_on(root)
        assert snapshot.read(root, "two_tower", "v000002").item_ids.size == 4
        assert snapshot.live(root, "two_tower") == "v000002"
    assert lives == sorted(lives)
    assert lives.count("v000001") > 15
