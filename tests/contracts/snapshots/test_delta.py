"""A delta says what has moved; applied in order it gives what was meant, and never anything else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contracts.features import Floats, Ints, rows_of
from contracts.snapshots import delta, snapshot
from contracts.snapshots.delta import Changes, Delta, GapError
from contracts.snapshots.index import EXACT, Index
from contracts.snapshots.snapshot import Snapshot, SnapshotError, SnapshotExistsError
from tests.contracts.snapshot_cases import damage, dies_at_each_step, make, make_delta, make_manifest, write_line

Items = tuple[Ints, Floats, Floats]
FILES = ["item_ids.npy", "item_vectors.npy", "item_counts.npy", "removed_ids.npy", "manifest.json"]


@st.composite
def items(draw: st.DrawFn) -> Items:
    ids = np.array(sorted(draw(st.sets(st.integers(1, 12), max_size=8))), np.int64)
    values = st.integers(-3, 3).map(float)
    vectors = draw(arrays.arrays(np.float32, (ids.size, 2), elements=values))
    counts = draw(arrays.arrays(np.float32, ids.size, elements=st.integers(0, 3).map(float)))
    return ids, vectors, counts


def as_snapshot(found: Items) -> Snapshot:
    return Snapshot(make_manifest("v000001"), b"tower", *found, EXACT)


def in_line(changes: Changes, sequence: int) -> Delta:
    return Delta(make_manifest(snapshot.version_name(1, sequence)), changes)


@given(st.lists(items(), min_size=1, max_size=4))
def test_deltas_without_tolerance_give_exactly_what_each_state_was(states: list[Items]) -> None:
    first, *later = states
    base = served = as_snapshot(first)
    line = []
    for sequence, (ids, vectors, counts) in enumerate(later, 1):
        changes = delta.difference(served.item_ids, served.item_vectors, served.item_counts, ids, vectors, counts, 0)
        line.append(in_line(changes, sequence))
        served = delta.apply(served, line[-1])
        assert np.array_equal(served.item_ids, ids)
        assert np.array_equal(served.item_vectors, vectors)
        assert np.array_equal(served.item_counts, counts)
        assert served.index == EXACT
    at_once = delta.apply(base, *line)
    assert (at_once.manifest, at_once.index) == (served.manifest, served.index)
    assert np.array_equal(at_once.item_counts, served.item_counts)


@given(items(), items(), st.floats(0, 2))
def test_what_is_left_out_has_moved_by_no_more_than_the_tolerance(
    before: Items, after: Items, tolerance: float
) -> None:
    changes = delta.difference(*before, *after, tolerance)
    served = delta.apply(as_snapshot(before), in_line(changes, 1))
    assert np.array_equal(served.item_ids, after[0])
    off = np.linalg.norm(served.item_vectors - after[1], axis=1)
    assert (off <= tolerance * np.linalg.norm(served.item_vectors, axis=1) * (1 + 1e-6)).all()
    rows = rows_of(changes.item_ids, before[0])
    known = rows >= 0
    moved = (before[1][rows[known]] != changes.item_vectors[known]).any(1)
    counted = before[2][rows[known]] != changes.item_counts[known]
    assert (moved | counted).all(), "nothing is sent that has not moved"


def test_what_is_sent_literally() -> None:
    served = (np.array([1, 2, 3, 4]), np.float32([[10, 0], [10, 0], [10, 0], [10, 0]]), np.float32([1, 1, 1, 1]))
    now = (np.array([1, 2, 4, 5]), np.float32([[10, 1], [10, 2], [10, 0], [1, 1]]), np.float32([1, 1, 2, 0]))
    changes = delta.difference(*served, *now, 0.1)
    assert changes.item_ids.tolist() == [2, 4, 5], "1 has moved by the tolerance, 4 has another count, 5 is new"
    assert changes.removed_ids.tolist() == [3]


def test_a_vector_that_is_no_number_any_more_is_not_left_out() -> None:
    ids, counts = np.array([1]), np.float32([1])
    changes = delta.difference(ids, np.float32([[1, 1]]), counts, ids, np.float32([[np.nan, 1]]), counts, 0.5)
    assert changes.item_ids.tolist() == [1]


def test_a_snapshot_with_deltas_is_read_as_one(tmp_path: Path) -> None:
    write_line(tmp_path, deltas=3)
    read = delta.read(tmp_path, "two_tower", "v000001+002")
    assert read.manifest.version == "v000001+002"
    assert read.tower == b"tower"
    assert read.item_ids.tolist() == [1, 2, 3, 11, 12]
    assert read.item_vectors[:, 0].tolist() == [3, 1, 1, 2, 3]
    _, found = Index.load(read.index, read.item_ids, read.item_vectors).search(np.float32([[1, 1]]), 2)
    assert found.tolist() == [[1, 12]]
    assert delta.read(tmp_path, "two_tower", "v000001").item_ids.tolist() == [1, 2, 3]


def test_applying_leaves_what_it_is_applied_to_as_it_was() -> None:
    base = make()
    delta.apply(base, make_delta("v000001+001", [1, 7], removed=[2]))
    assert base.item_ids.tolist() == [1, 2, 3]
    assert (base.item_vectors == 1).all()


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("v000001+002", "the one before it is missing"),
        ("v000002+001", "it is based on another snapshot"),
        ("v000001", "it is no delta"),
    ],
)
def test_a_delta_that_does_not_follow_is_a_gap(version: str, why: str) -> None:
    with pytest.raises(GapError, match="does not follow"):
        delta.apply(make(), make_delta(version, [1]))


def test_a_delta_of_another_base_of_the_same_name_is_a_gap() -> None:
    base = make()
    other = make_delta("v000001+001", [1])
    for changed in (
        replace(other, manifest=replace(other.manifest, sampling_seed=10)),
        make_delta("v000001+001", [1], removed=[99]),
    ):
        with pytest.raises(GapError):
            delta.apply(base, changed)
    assert delta.apply(base, other).manifest.version == "v000001+001"


def test_a_delta_is_written_only_after_the_one_before(tmp_path: Path) -> None:
    for version in ("v000001+001", "v000001"):
        with pytest.raises(GapError):
            delta.write(tmp_path, make_delta(version, [1]))
    write_line(tmp_path, deltas=1)
    with pytest.raises(GapError, match=r"needs v000001\+002, which is not there"):
        delta.write(tmp_path, make_delta("v000001+003", [1]))
    with pytest.raises(SnapshotExistsError):
        delta.write(tmp_path, make_delta("v000001+001", [2]))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("sequence", [1, 3])
def test_damage_anywhere_in_the_chain_is_found_before_anything_is_loaded(
    tmp_path: Path, name: str, how: str, sequence: int
) -> None:
    damage(write_line(tmp_path)[sequence] / name, how)
    with pytest.raises(SnapshotError, match=rf"\+00{sequence}.*{name}"):
        delta.read(tmp_path, "two_tower", "v000001+003")
    assert delta.read(tmp_path, "two_tower", f"v000001+{sequence - 1:03d}".removesuffix("+000"))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_link_is_a_gap(tmp_path: Path, missing: int) -> None:
    path = write_line(tmp_path)[missing]
    path.rename(path.with_name(f".{path.name}.gone"))
    with pytest.raises(GapError, match=f"needs v000001{rf'.00{missing}' if missing else ''}, which is not there"):
        delta.read(tmp_path, "two_tower", "v000001+003")
    with pytest.raises(SnapshotError, match="There is no snapshot"):
        snapshot.publish(tmp_path, "two_tower", "v000001+003")


def test_a_delta_moved_into_another_line_is_not_read(tmp_path: Path) -> None:
    first, second = write_line(tmp_path, 1, 1), write_line(tmp_path, 2, 0)
    first[1].rename(second[0].with_name("v000002+001"))
    with pytest.raises(SnapshotError, match=r"says that it is two_tower/v000001\+001"):
        delta.read(tmp_path, "two_tower", "v000002+001")


def test_neither_kind_is_read_as_the_other(tmp_path: Path) -> None:
    write_line(tmp_path, deltas=1)
    with pytest.raises(SnapshotError, match="no full snapshot"):
        snapshot.read(tmp_path, "two_tower", "v000001+001")
    with pytest.raises(SnapshotError, match="no delta"):
        delta.read_delta(tmp_path, "two_tower", "v000001")


def test_a_crash_at_any_step_of_writing_a_delta_leaves_a_chain_that_can_be_read(tmp_path: Path) -> None:
    def go_on(root: Path) -> None:
        delta.write(root, make_delta("v000001+002", [2]))
        snapshot.publish(root, "two_tower", "v000001+002")

    write_line(tmp_path / "old", deltas=1)
    snapshot.publish(tmp_path / "old", "two_tower", "v000001+001")
    lives = []
    for root in dies_at_each_step(tmp_path / "old", go_on):
        lives.append(snapshot.live(root, "two_tower") or "")
        assert delta.read(root, "two_tower", lives[-1]).manifest.version == lives[-1]
        go_on(root)
        assert snapshot.live(root, "two_tower") == "v000001+002"
    assert lives == sorted(lives)
    assert lives.count("v000001+001") > 15
