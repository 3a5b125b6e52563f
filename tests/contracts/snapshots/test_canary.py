"""A trial is a pointer, a rule that divides the users, and a note of how it ended."""

from pathlib import Path

import pytest

from contracts.snapshots import canary, snapshot
from contracts.snapshots.canary import Canary, Trial, answers
from contracts.snapshots.snapshot import SnapshotError, version_name
from tests.contracts.snapshot_cases import damage, dies_at_each_step, make, write_line

USERS = range(1, 20_001)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_share_of_the_users_is_answered(share: float) -> None:
    tried = sum(answers("two_tower", Canary("v000001", share, "v000001"), user, 0) for user in USERS)
    expected = share * len(USERS)
    assert abs(tried - expected) < 4 * (expected * (1 - share)) ** 0.5


def test_who_tries_one_stays_while_the_share_grows_and_with_its_deltas() -> None:
    few, more = Canary("v000001", 0.1, "v000001"), Canary("v000001+004", 0.3, "v000001")
    assert all(answers("two_tower", more, user, 0) for user in USERS if answers("two_tower", few, user, 0))


@pytest.mark.parametrize("other", [("t2diff", "v000001"), ("two_tower", "v000002")])
def test_each_snapshot_of_each_model_is_tried_by_users_of_its_own(other: tuple[str, str]) -> None:
    model, version = other
    both = sum(
        answers("two_tower", Canary("v000001", 0.5, "v000001"), user, 0)
        and answers(model, Canary(version, 0.5, version.partition("+")[0]), user, 0)
        for user in USERS
    )
    assert abs(both - len(USERS) / 4) < 4 * (len(USERS) * 3 / 16) ** 0.5


def test_a_trial_begins_and_ends_well(tmp_path: Path) -> None:
    for number in (1, 2):
        snapshot.write(tmp_path, make(version_name(number)))
    snapshot.publish(tmp_path, "two_tower", "v000001")
    assert canary.on_trial(tmp_path, "two_tower") is None
    with pytest.raises(SnapshotError, match="no snapshot"):
        canary.try_out(tmp_path, "two_tower", Canary("v000003", 0.5, "v000003"))
    assert canary.try_out(tmp_path, "two_tower", Canary("v000002", 0.25, "v000002"))
    assert canary.on_trial(tmp_path, "two_tower") == Canary("v000002", 0.25, "v000002")
    assert snapshot.live(tmp_path, "two_tower") == "v000001"
    assert canary.promote(tmp_path, "two_tower", "v000002")
    assert canary.on_trial(tmp_path, "two_tower") is None
    assert snapshot.live(tmp_path, "two_tower") == "v000002"


def test_a_crash_at_any_step_of_a_promotion_never_takes_from_users_what_they_had(tmp_path: Path) -> None:
    for number in (1, 2):
        snapshot.write(tmp_path / "old", make(version_name(number)))
    snapshot.publish(tmp_path / "old", "two_tower", "v000001")
    canary.try_out(tmp_path / "old", "two_tower", Canary("v000002", 0.5, "v000002"))
    outcomes = {
        (snapshot.live(root, "two_tower"), canary.on_trial(root, "two_tower") is not None)
        for root in dies_at_each_step(tmp_path / "old", lambda root: canary.promote(root, "two_tower", "v000002"))
    }
    assert outcomes == {("v000001", True), ("v000002", True), ("v000002", False)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": "v000001"}',
        '{"version": "../v000001", "share": 0.5}',
        '{"version": "v000001", "share": 0}',
        '{"version": "v000001", "share": 1}',
        '{"version": "v000001", "share": NaN}',
        '{"version": "v000001", "share": null}',
    ],
)
def test_a_pointer_that_says_nothing_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "two_tower").mkdir()
    (tmp_path / "two_tower" / "CANARY").write_text(text)
    with pytest.raises(SnapshotError, match="two_tower/CANARY"):
        canary.on_trial(tmp_path, "two_tower")


def test_how_a_trial_ended_is_noted_beside_a_snapshot_that_stays_as_it_is(tmp_path: Path) -> None:
    write_line(tmp_path, 1, deltas=1)
    assert canary.noted(tmp_path, "two_tower", "v000001") is None
    canary.note(tmp_path, "two_tower", "v000001+001", promoted=False, reason="earned 4 % less")
    canary.note(tmp_path, "two_tower", "v000001", promoted=False, reason="earned 5 % less")
    for version in ("v000001", "v000001+001"):
        assert canary.noted(tmp_path, "two_tower", version) == Trial(promoted=False, reason="earned 5 % less")
    assert snapshot.read(tmp_path, "two_tower", "v000001").item_ids.size == 3
    assert snapshot.write(tmp_path, make()).name == "v000001"
    assert canary.noted(tmp_path, "two_tower", "v000001") is not None, "written again, it stays as it is"
    with pytest.raises(SnapshotError, match="no snapshot"):
        canary.note(tmp_path, "two_tower", "v000002", promoted=True, reason="")


def test_a_note_that_cannot_be_read_is_no_promotion(tmp_path: Path) -> None:
    path = snapshot.write(tmp_path, make())
    canary.note(tmp_path, "two_tower", "v000001", promoted=True, reason="no worse")
    assert canary.noted(tmp_path, "two_tower", "v000001") == Trial(promoted=True, reason="no worse")
    damage(path / "TRIAL", "truncate")
    assert canary.noted(tmp_path, "two_tower", "v000001") == Trial(promoted=False, reason="TRIAL cannot be read")


def test_a_crash_at_any_step_of_a_note_leaves_none_or_all_of_it(tmp_path: Path) -> None:
    snapshot.write(tmp_path / "old", make())
    outcomes = set()
    for root in dies_at_each_step(
        tmp_path / "old", lambda root: canary.note(root, "two_tower", "v000001", promoted=True, reason="no worse")
    ):
        outcomes.add(canary.noted(root, "two_tower", "v000001"))
        assert snapshot.read(root, "two_tower", "v000001").manifest.version == "v000001"
    assert outcomes == {None, Trial(promoted=True, reason="no worse")}
