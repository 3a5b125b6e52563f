"""What is live or pinned never goes, nor what it is based on; a hold holds."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.snapshots import canary, delta, retention, snapshot
from contracts.snapshots.canary import Canary, Trial
from contracts.snapshots.retention import Hold, to_remove
from contracts.snapshots.snapshot import SnapshotError, Version, version_name
from tests.contracts.snapshot_cases import damage, dies_at_each_step, make, with_gate, write_line

places = st.builds(Version, st.integers(1, 6), st.integers(0, 4))
names = st.builds(version_name, st.integers(1, 6), st.integers(0, 4))


@pytest.mark.parametrize(
    ("there", "live", "pinned", "rejected", "expected", "why"),
    [
        ("1 2 3 4", "4", "", "", "2 1", "the newest two stay"),
        ("1 2 3 4", "1", "", "", "2", "the live one stays, however old"),
        ("1 2 3 4", "4", "1", "", "2", "a pinned one stays"),
        ("1 1+1 1+2 2 3", "3", "", "", "1+2 1+1 1", "deltas go with their base, and before it"),
        ("1 1+1 1+2 2 3", "3", "1+1", "", "1+2", "a pinned delta keeps its base and what is between"),
        ("1 1+1 1+2 2 3", "1+1", "", "", "1+2", "so does a live one"),
        ("1 2 3 4", "1", "", "3 4", "3", "rejected ones do not count among those kept; the newest of them stays"),
        ("1 2+1 3", "3", "", "", "2+1", "a delta without its base is of no use"),
        ("1", None, "", "", "", "nothing is live yet"),
    ],
)
def test_what_goes(there: str, live: str | None, pinned: str, rejected: str, expected: str, why: str) -> None:
    def named(short: str) -> list[str]:
        parts = [each.partition("+") for each in short.split()]
        return [version_name(int(number), int(sequence or 0)) for number, _, sequence in parts]

    removed = to_remove(
        [*named(there), "LIVE", ".v000009.tmp"],
        named(live)[0] if live else None,
        named(pinned),
        2,
        rejected=named(rejected),
        keep_rejected=1,
    )
    assert removed == named(expected), why


@given(
    st.sets(names),
    st.none() | names,
    st.none() | names,
    st.sets(names, max_size=3),
    st.integers(0, 4),
    st.sets(names),
    st.integers(0, 2),
)
def test_whatever_is_there_what_is_needed_stays_at_every_moment(
    there: set[str],
    live: str | None,
    on_trial: str | None,
    pinned: set[str],
    keep: int,
    rejected: set[str],
    keep_rejected: int,
) -> None:
    removed = to_remove(there, live, pinned, keep, on_trial=on_trial, rejected=rejected, keep_rejected=keep_rejected)
    assert len(set(removed)) == len(removed)
    assert set(removed) <= there
    left = there - set(removed)
    for name in (live, on_trial, *pinned):
        if name is not None:
            assert not {str(each) for each in Version.parse(name).chain()} & set(removed)
    passed = sorted(name for name in there if "+" not in name and name not in rejected)
    assert set(passed[len(passed) - keep :] if keep else ()) <= left
    assert len([name for name in left if "+" not in name and name in {*rejected} - {live, on_trial} - pinned]) <= (
        keep_rejected + len(pinned) + 2
    )
    readable = {name for name in there if {str(each) for each in Version.parse(name).chain()} <= there}
    remaining = set(there)
    for name in removed:
        remaining.remove(name)
        for other in remaining & readable:
            assert {str(each) for each in Version.parse(other).chain()} <= remaining


@pytest.mark.parametrize("content", [b"v00\x96\xff01\n", b"v000001\nlatest\n"])
def test_nothing_is_removed_while_nobody_can_tell_what_is_pinned(tmp_path: Path, content: bytes) -> None:
    for number in range(1, 5):
        write_line(tmp_path, number, deltas=0)
    snapshot.publish(tmp_path, "two_tower", "v000004")
    (tmp_path / "two_tower" / "PINNED").write_bytes(content)
    assert retention.prune(tmp_path, "two_tower", keep=1, keep_rejected=1) == []
    assert snapshot.publish(tmp_path, "two_tower", "v000003")  # the trainer goes on
    (tmp_path / "two_tower" / "PINNED").write_bytes(b"v000001\n")
    assert retention.prune(tmp_path, "two_tower", keep=1, keep_rejected=1) == ["v000002"]


def test_pruning_keeps_the_newest_the_live_and_the_pinned(tmp_path: Path) -> None:
    for number in range(1, 7):
        write_line(tmp_path, number, deltas=1)
    snapshot.write(tmp_path, with_gate(make("v000007"), passed=False))
    damage(snapshot.write(tmp_path, make("v000008")) / "manifest.json", "flip")
    snapshot.publish(tmp_path, "two_tower", "v000002+001")
    retention.pin(tmp_path, "two_tower", "v000001")
    home = tmp_path / "two_tower"
    for left_over in (".v000003.gone", ".v000004+002.tmp", ".v000009.tmp"):
        (home / left_over).mkdir()
    removed = retention.prune(tmp_path, "two_tower", keep=2, keep_rejected=1)
    assert sorted(removed) == ["v000001+001", "v000003", "v000003+001", "v000004", "v000004+001", "v000007"]
    assert sorted(path.name for path in home.glob(".v*")) == [".v000009.tmp"], "what may still be being written stays"
    assert retention.prune(tmp_path, "two_tower", keep=2, keep_rejected=1) == []
    assert delta.read(tmp_path, "two_tower", "v000002+001")
    retention.unpin(tmp_path, "two_tower", "v000001")
    assert retention.prune(tmp_path, "two_tower", keep=2, keep_rejected=1) == ["v000001"]


def test_a_crash_at_any_step_of_pruning_leaves_only_what_can_be_read(tmp_path: Path) -> None:
    def prune(root: Path) -> None:
        retention.prune(root, "two_tower", keep=1, keep_rejected=0)

    write_line(tmp_path / "old", 1, deltas=2)
    write_line(tmp_path / "old", 2, deltas=0)
    snapshot.publish(tmp_path / "old", "two_tower", "v000002")
    left = []
    for root in dies_at_each_step(tmp_path / "old", prune):
        found = snapshot.versions(root, "two_tower")
        left.append(len(found))
        for version in found:
            delta.read(root, "two_tower", str(version))
        prune(root)
        assert sorted(path.name for path in (root / "two_tower").iterdir()) == [".lock", "LIVE", "v000002"]
    assert left == sorted(left, reverse=True)
    assert set(left) == {4, 3, 2, 1}


def test_a_rollback_holds_until_it_is_released(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        snapshot.write(tmp_path, make(version_name(number)))
    assert snapshot.publish(tmp_path, "two_tower", "v000002")
    retention.roll_back(tmp_path, "two_tower", "v000001", "complaints")
    assert retention.held(tmp_path, "two_tower") == Hold("v000001", "complaints")
    assert not snapshot.publish(tmp_path, "two_tower", "v000003")
    assert snapshot.live(tmp_path, "two_tower") == "v000001"
    assert retention.release(tmp_path, "two_tower")
    assert not retention.release(tmp_path, "two_tower")
    assert retention.held(tmp_path, "two_tower") is None
    assert snapshot.publish(tmp_path, "two_tower", "v000003")


def test_a_rollback_to_what_is_damaged_moves_and_holds_nothing(tmp_path: Path) -> None:
    damage(snapshot.write(tmp_path, make()) / "tower.onnx", "flip")
    snapshot.write(tmp_path, make("v000002"))
    snapshot.publish(tmp_path, "two_tower", "v000002")
    with pytest.raises(SnapshotError, match="checksum"):
        retention.roll_back(tmp_path, "two_tower", "v000001", "")
    assert snapshot.live(tmp_path, "two_tower") == "v000002"
    assert retention.held(tmp_path, "two_tower") is None


def test_a_crash_at_any_step_of_a_rollback_never_moves_without_holding(tmp_path: Path) -> None:
    for number in (1, 2):
        snapshot.write(tmp_path / "old", make(version_name(number)))
    snapshot.publish(tmp_path / "old", "two_tower", "v000002")
    outcomes = {
        (snapshot.live(root, "two_tower"), retention.held(root, "two_tower") is not None)
        for root in dies_at_each_step(
            tmp_path / "old", lambda root: retention.roll_back(root, "two_tower", "v000001", "why")
        )
    }
    assert outcomes == {("v000002", False), ("v000002", True), ("v000001", True)}


def test_a_hold_that_cannot_be_read_holds(tmp_path: Path) -> None:
    snapshot.write(tmp_path, make())
    for text in ("{", "[]", "{}"):
        (tmp_path / "two_tower" / "HELD").write_text(text)
        assert retention.held(tmp_path, "two_tower") == Hold("", "HELD cannot be read")
        assert not snapshot.publish(tmp_path, "two_tower", "v000001")


def test_pins_are_named_once_and_only_for_what_is_there(tmp_path: Path) -> None:
    write_line(tmp_path, deltas=1)
    for name in ("v000001+001", "v000001", "v000001"):
        retention.pin(tmp_path, "two_tower", name)
    assert (tmp_path / "two_tower" / "PINNED").read_text() == "v000001\nv000001+001\n"
    with pytest.raises(SnapshotError, match="no readable"):
        retention.pin(tmp_path, "two_tower", "v000002")
    retention.unpin(tmp_path, "two_tower", "v000001")
    assert retention.pinned(tmp_path, "two_tower") == ["v000001+001"]


def test_what_is_on_trial_stays_with_its_base_and_what_did_badly_is_rejected(tmp_path: Path) -> None:
    for number in range(1, 7):
        write_line(tmp_path, number, deltas=2)
    snapshot.publish(tmp_path, "two_tower", "v000003")
    canary.try_out(tmp_path, "two_tower", Canary("v000001+001", 0.5, "v000001"))
    canary.note(tmp_path, "two_tower", "v000004", promoted=True, reason="no worse")
    for number in (5, 6):
        canary.note(tmp_path, "two_tower", version_name(number), promoted=False, reason="worse")
    retention.prune(tmp_path, "two_tower", keep=1, keep_rejected=1)
    left = [str(version) for version in snapshot.versions(tmp_path, "two_tower")]
    line = ["v000004", "v000004+001", "v000004+002", "v000006", "v000006+001", "v000006+002"]
    assert left == ["v000001", "v000001+001", "v000003", *line]
    canary.withdraw(tmp_path, "two_tower")
    assert retention.prune(tmp_path, "two_tower", keep=1, keep_rejected=1) == ["v000001+001", "v000001"]


def test_a_pointer_to_a_trial_that_cannot_be_read_stops_neither_removal_nor_rollback(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        snapshot.write(tmp_path, make(version_name(number)))
    snapshot.publish(tmp_path, "two_tower", "v000003")
    (tmp_path / "two_tower" / "CANARY").write_text("{")
    assert retention.prune(tmp_path, "two_tower", keep=2, keep_rejected=0) == ["v000001"]
    retention.roll_back(tmp_path, "two_tower", "v000002", "complaints")
    assert snapshot.live(tmp_path, "two_tower") == "v000002"
    assert canary.on_trial(tmp_path, "two_tower") is None


@pytest.mark.parametrize(
    ("target", "ended"),
    [
        ("v000001", Trial(promoted=False, reason="people went to v000001: complaints")),
        ("v000003", Trial(promoted=True, reason="people went to v000003: complaints")),
    ],
)
def test_a_rollback_ends_the_trial_and_none_begins_while_it_holds(tmp_path: Path, target: str, ended: Trial) -> None:
    for number in (1, 2):
        snapshot.write(tmp_path, make(version_name(number)))
    write_line(tmp_path, 3, deltas=1)
    snapshot.publish(tmp_path, "two_tower", "v000002")
    canary.try_out(tmp_path, "two_tower", Canary("v000003+001", 0.5, "v000003"))
    retention.roll_back(tmp_path, "two_tower", target, "complaints")
    assert canary.on_trial(tmp_path, "two_tower") is None
    assert canary.noted(tmp_path, "two_tower", "v000003+001") == ended
    assert not canary.try_out(tmp_path, "two_tower", Canary("v000003", 0.5, "v000003"))
    assert not canary.promote(tmp_path, "two_tower", "v000003")
    assert snapshot.live(tmp_path, "two_tower") == target
    retention.release(tmp_path, "two_tower")
    assert canary.try_out(tmp_path, "two_tower", Canary("v000003", 0.5, "v000003"))


def test_a_crash_at_any_step_of_a_rollback_leaves_no_trial_beside_the_version_that_it_went_to(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        snapshot.write(tmp_path / "old", make(version_name(number)))
    snapshot.publish(tmp_path / "old", "two_tower", "v000002")
    canary.try_out(tmp_path / "old", "two_tower", Canary("v000003", 0.5, "v000003"))
    outcomes = {
        (
            snapshot.live(root, "two_tower"),
            retention.held(root, "two_tower") is not None,
            canary.on_trial(root, "two_tower") is not None,
        )
        for root in dies_at_each_step(
            tmp_path / "old", lambda root: retention.roll_back(root, "two_tower", "v000001", "why")
        )
    }
    steps = [("v000002", False, True), ("v000002", True, True), ("v000002", True, False), ("v000001", True, False)]
    assert outcomes == set(steps)
