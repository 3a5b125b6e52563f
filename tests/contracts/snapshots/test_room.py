"""Publishing, trials, rollback, pins and retention are the same in a directory and on a real S3 server."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from contracts.config.store import Location, Root
from contracts.snapshots import canary, delta, retention, snapshot
from contracts.snapshots.canary import Canary, Trial
from contracts.snapshots.retention import Hold
from contracts.snapshots.room import open_room
from contracts.snapshots.snapshot import SnapshotError, SnapshotExistsError, Version
from driftline.inspect.snapshots import entries, verify
from tests.contracts.snapshot_cases import make, with_gate, write_line

MODEL = "two_tower"


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    if request.param == "disk":
        return tmp_path / "snapshots"
    location: Location = request.getfixturevalue("s3_location")
    return location


def test_nothing_is_there_at_first(root: Root) -> None:
    assert (snapshot.models(root), snapshot.versions(root, MODEL), snapshot.live(root, MODEL)) == ([], [], None)
    assert (canary.on_trial(root, MODEL), retention.held(root, MODEL), retention.pinned(root, MODEL)) == (
        None,
        None,
        [],
    )
    assert not retention.release(root, MODEL)


def test_a_chain_is_read_back_as_it_was_written(root: Root) -> None:
    write_line(root)
    assert snapshot.publish(root, MODEL, "v000001+003")
    assert snapshot.live(root, MODEL) == "v000001+003"
    served = delta.read(root, MODEL, "v000001+003")
    assert served.item_ids.tolist() == [1, 2, 3, 11, 12, 13]
    assert np.array_equal(served.item_vectors[0], [4, 4])
    assert snapshot.models(root) == [MODEL]
    assert snapshot.versions(root, MODEL) == [Version(1, sequence) for sequence in range(4)]


def test_written_again_it_stays_and_another_of_its_name_is_refused(root: Root) -> None:
    snapshot.write(root, make())
    snapshot.write(root, make())
    with pytest.raises(SnapshotExistsError, match="exists already, and is another one"):
        snapshot.write(root, make(rows=4))
    assert snapshot.read(root, MODEL, "v000001").item_ids.size == 3


def test_a_pointer_moves_to_no_version_that_is_not_there(root: Root) -> None:
    snapshot.write(root, make())
    snapshot.publish(root, MODEL, "v000001")
    for act in (
        lambda: snapshot.publish(root, MODEL, "v000002"),
        lambda: snapshot.publish(root, MODEL, "v000001+001"),
        lambda: canary.try_out(root, MODEL, Canary("v000002", 0.5, "v000002")),
        lambda: retention.pin(root, MODEL, "v000002"),
        lambda: retention.roll_back(root, MODEL, "v000002", "why"),
    ):
        with pytest.raises(SnapshotError):
            act()
    assert (snapshot.live(root, MODEL), retention.held(root, MODEL)) == ("v000001", None)


def test_a_rollback_holds_until_it_is_released(root: Root) -> None:
    for number in (1, 2, 3):
        snapshot.write(root, make(f"v{number:06d}"))
    snapshot.publish(root, MODEL, "v000002")
    assert canary.try_out(root, MODEL, Canary("v000003", 0.5, "v000003"))
    retention.roll_back(root, MODEL, "v000001", "it is worse")
    assert snapshot.live(root, MODEL) == "v000001"
    assert retention.held(root, MODEL) == Hold("v000001", "it is worse")
    assert canary.on_trial(root, MODEL) is None
    assert canary.noted(root, MODEL, "v000003") == Trial(promoted=False, reason="people went to v000001: it is worse")
    assert not snapshot.publish(root, MODEL, "v000003")
    assert not canary.try_out(root, MODEL, Canary("v000003", 0.5, "v000003"))
    assert not canary.promote(root, MODEL, "v000003")
    assert snapshot.live(root, MODEL) == "v000001"
    assert retention.release(root, MODEL)
    assert snapshot.publish(root, MODEL, "v000003")
    assert snapshot.live(root, MODEL) == "v000003"


def test_a_trial_that_ends_well_goes_live(root: Root) -> None:
    for number in (1, 2):
        snapshot.write(root, make(f"v{number:06d}"))
    snapshot.publish(root, MODEL, "v000001")
    canary.try_out(root, MODEL, Canary("v000002", 0.25, "v000002"))
    glance = open_room(root).glance(MODEL)
    assert (glance.live, glance.trial) == ("v000001", Canary("v000002", 0.25, "v000002"))
    assert glance.moved_s is not None
    assert canary.promote(root, MODEL, "v000002")
    assert (snapshot.live(root, MODEL), canary.on_trial(root, MODEL)) == ("v000002", None)


def test_retention_keeps_what_is_live_pinned_or_new(root: Root) -> None:
    for number in (1, 2, 3, 4, 5, 6):
        made = make(f"v{number:06d}")
        snapshot.write(root, with_gate(made, passed=False) if number == 4 else made)
    snapshot.publish(root, MODEL, "v000002")
    retention.pin(root, MODEL, "v000001")
    assert retention.prune(root, MODEL, keep=1, keep_rejected=0) == ["v000005", "v000004", "v000003"]
    assert [str(each) for each in snapshot.versions(root, MODEL)] == ["v000001", "v000002", "v000006"]
    retention.unpin(root, MODEL, "v000001")
    assert retention.prune(root, MODEL, keep=1, keep_rejected=0) == ["v000001"]
    assert retention.prune(root, MODEL, keep=1, keep_rejected=0) == []
    assert snapshot.read(root, MODEL, "v000002").item_ids.size == 3
    snapshot.write(root, make("v000003"))  # a name that was removed can be written again
    assert snapshot.publish(root, MODEL, "v000003")


def test_what_people_see_is_the_same(root: Root) -> None:
    write_line(root, deltas=1)
    snapshot.publish(root, MODEL, "v000001+001")
    retention.pin(root, MODEL, "v000001")
    listed = entries(root, MODEL)
    assert [(str(each.version), each.states) for each in listed] == [
        ("v000001", ("pinned",)),
        ("v000001+001", ("live",)),
    ]
    assert all(each.size > 300 and each.written_ms > 0 for each in listed)
    assert not [finding for finding in verify(root, MODEL) if finding.problem]


def test_a_directory_that_was_made_before_is_read_as_it_is(tmp_path: Path) -> None:
    write_line(tmp_path / "made", deltas=0)
    home = tmp_path / "snapshots" / MODEL
    home.mkdir(parents=True)
    shutil.copytree(tmp_path / "made" / MODEL / "v000001", home / "v000001")
    (home / "LIVE").write_text("v000001")
    (home / "HELD").write_text('{"version": "v000001", "reason": "why"}')
    (home / "PINNED").write_text("v000001\n")
    glance = open_room(tmp_path / "snapshots").glance(MODEL)
    assert glance.live == "v000001"
    assert retention.held(tmp_path / "snapshots", MODEL) == Hold("v000001", "why")
    assert retention.pinned(tmp_path / "snapshots", MODEL) == ["v000001"]
