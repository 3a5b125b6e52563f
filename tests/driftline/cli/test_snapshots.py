"""`driftline snapshots` on a directory as a trainer leaves it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.snapshots import canary, retention, snapshot
from contracts.snapshots.canary import Canary, Trial
from driftline.cli import app as cli
from tests.contracts.snapshot_cases import damage, make, with_gate, write_line


class Command:
    """The command on one snapshot directory: what it prints as text or JSON lines, errors as code and sentence."""

    def __init__(self, root: Path, settings: Path, run: Callable[..., tuple[int, str, str]]) -> None:
        self.root = root
        self._settings = settings
        self._run = run

    def text(self, *arguments: str) -> str:
        code, out, err = self._run("snapshots", *arguments, "-s", str(self._settings))
        assert (code, err) == (0, "")
        return out

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text(*arguments, "--json").splitlines()]

    def refused(self, *arguments: str) -> tuple[int, str]:
        code, _, err = self._run("snapshots", *arguments, "-s", str(self._settings))
        assert len(err.splitlines()) == 1
        return code, err


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Snapshots 1 (with two deltas), 2 (rejected) and 3 of the two-tower; the third is live, the first pinned."""
    root = tmp_path / "snapshots"
    write_line(root, 1, deltas=2)
    snapshot.write(root, with_gate(make("v000002"), passed=False))
    snapshot.write(root, make("v000003", rows=4))
    snapshot.publish(root, "two_tower", "v000003")
    retention.pin(root, "two_tower", "v000001")
    arms = {name: {"weight": 1, "model": "two_tower"} for name in ("a", "b")}
    experiment = {"name": "e", "salt": "s", "start_ms": 0, "end_ms": 1, "arms": arms, "control": "a"}
    settings = tmp_path / "settings.yaml"
    paths = {"feature_repo": "f", "snapshots": str(root), "state": "s"}
    settings.write_text(yaml.safe_dump({"kafka": {"bootstrap_servers": "h:1"}, "experiment": experiment, **paths}))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["driftline", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return Command(root, settings, run)


def test_list_says_what_each_one_is(command: Command) -> None:
    found = command.objects("list")
    assert [(each["version"], each["kind"], each["states"]) for each in found] == [
        ("v000001", "full", ["pinned"]),
        ("v000001+001", "delta", []),
        ("v000001+002", "delta", []),
        ("v000002", "full", ["rejected"]),
        ("v000003", "full", ["live"]),
    ]
    assert {each["examples"] for each in found} == {10}
    assert all(0 <= each["age_s"] < 600 < each["size"] for each in found)
    assert [each["version"] for each in command.objects("list", "two_tower", "--full")] == [
        "v000001",
        "v000002",
        "v000003",
    ]
    shown = command.text("list", "--limit", "2")
    assert "3 older not shown" in shown
    assert [line.split()[:4] for line in shown.splitlines() if "two_tower" in line] == [
        ["two_tower", "v000002", "full", "rejected"],
        ["two_tower", "v000003", "full", "live"],
    ]


def test_list_shows_what_is_damaged_beside_the_rest(command: Command) -> None:
    damage(command.root / "two_tower" / "v000002" / "manifest.json", "flip")
    (found,) = [each for each in command.objects("list") if each["version"] == "v000002"]
    assert found["states"] == ["damaged"]
    assert "manifest.json" in found["problem"]
    assert "damaged" in command.text("list")


def test_show_is_the_manifest_in_words(command: Command) -> None:
    shown = command.text("show", "two_tower", "v000002")
    for said in (
        "two_tower/v000002, full",
        "rejected: worse than v000001",
        "10 examples, own",
        "outside any experiment 4 (40.0%), control 6 (60.0%)",
        "examples:0 10",
        "recall@20     0.5",
        "3 items",
    ):
        assert said in shown
    assert "the delta 2 on v000001" in command.text("show", "two_tower", "v000001+002")
    (found,) = command.objects("show", "two_tower")
    assert (found["version"], found["items"], found["manifest"]["offsets"]) == (
        "v000003",
        {"items": 4},
        {"examples:0": 10},
    )


def test_diff_counts_items_and_movement_over_the_whole_chain(command: Command) -> None:
    (found,) = command.objects("diff", "two_tower", "v000001", "v000001+002")
    assert (found["items"], found["added"], found["removed"], found["moved"]) == ([3, 5], 2, 0, 1)
    assert found["movement"]["1.0"] == pytest.approx(2)
    assert found["metrics"] == {"recall@20": [0.5, 0.5]}
    shown = command.text("diff", "two_tower", "v000001+002")
    assert "+1 -2" in shown
    assert "1 of 3 vectors have moved; relative movement p50 0, " in shown


def test_verify_finds_damage_gaps_and_lost_pointers(command: Command) -> None:
    assert command.text("verify") == "6 snapshots and pointers are sound.\n"
    home = command.root / "two_tower"
    damage(home / "v000001+001" / "item_ids.npy", "flip")
    (home / "v000003").rename(home / ".v000003.gone")
    code, out, err = command._run("snapshots", "verify", "--json", "-s", str(command._settings))
    assert code == 1
    assert "3 of 5 snapshots and pointers are damaged" in err
    found = {each["name"]: each["problem"] for each in map(json.loads, out.splitlines())}
    assert {name for name, problem in found.items() if problem} == {"v000001+001", "v000001+002", "LIVE"}
    assert "item_ids.npy does not match" in found["v000001+001"]
    assert "needs v000001+001, which is no use" in found["v000001+002"]
    assert "LIVE names v000003" in found["LIVE"]
    assert "sound" in command.text("verify", "two_tower", "v000001")
    assert command.refused("verify", "two_tower", "v000001+002")[0] == 1


def test_rollback_goes_before_the_live_one_past_a_rejected_one_and_holds(command: Command) -> None:
    said = command.text("rollback", "two_tower", "--reason", "complaints")
    assert "v000001 is live (it was v000003) and held: complaints." in said
    assert not snapshot.publish(command.root, "two_tower", "v000003")
    assert "live, held, pinned (complaints)" in command.text("show", "two_tower")
    assert command.refused("rollback", "two_tower") == (
        2,
        "driftline: There is no full snapshot of two_tower before v000001.\n",
    )
    assert "next publication goes live" in command.text("release", "two_tower")
    assert "is not held" in command.text("release", "two_tower")
    assert snapshot.publish(command.root, "two_tower", "v000003")
    assert "v000002 was rejected by the gate" in command.text("rollback", "two_tower", "v000002")


def test_rollback_to_what_is_damaged_moves_nothing(command: Command) -> None:
    damage(command.root / "two_tower" / "v000001+001" / "item_vectors.npy", "truncate")
    code, said = command.refused("rollback", "two_tower", "v000001+002")
    assert (code, "item_vectors.npy does not match its checksum" in said) == (1, True)
    assert snapshot.live(command.root, "two_tower") == "v000003"
    assert retention.held(command.root, "two_tower") is None
    assert "v000001 is live" in command.text("rollback", "two_tower", "v000001")


def test_list_and_show_say_what_is_on_trial_for_whom_and_how_trials_ended(command: Command) -> None:
    root = command.root
    canary.note(root, "two_tower", "v000001", promoted=False, reason="earned 4 % less")
    canary.note(root, "two_tower", "v000003", promoted=True, reason="no worse after 2,000 items")
    snapshot.write(root, make("v000004"))
    canary.try_out(root, "two_tower", Canary("v000004", 0.25, "v000004"))
    found = {each["version"]: each for each in command.objects("list")}
    assert (found["v000004"]["states"], found["v000004"]["share"], found["v000004"]["trial"]) == (
        ["on trial"],
        0.25,
        None,
    )
    assert found["v000001+002"]["trial"] == {"promoted": False, "reason": "earned 4 % less"}
    assert (found["v000003"]["states"], found["v000003"]["share"]) == (["live"], None)
    shown = command.text("list")
    for said in ("on trial for 25%", "pinned, rolled back: earned 4 % less"):
        assert said in shown
    said_of = {version: command.text("show", "two_tower", version) for version in ("v000001", "v000003", "v000004")}
    assert "trial         rolled back: earned 4 % less" in said_of["v000001"]
    assert "trial         promoted: no worse after 2,000 items" in said_of["v000003"]
    assert "state         on trial for 25%" in said_of["v000004"]
    assert "trial         none has ended" in said_of["v000004"]


def test_verify_finds_a_trial_that_nobody_can_be_answered_from(command: Command) -> None:
    snapshot.write(command.root, make("v000004"))
    canary.try_out(command.root, "two_tower", Canary("v000004", 0.25, "v000004"))
    assert command.text("verify") == "8 snapshots and pointers are sound.\n"
    damage(command.root / "two_tower" / "v000004" / "tower.onnx", "flip")
    code, out, _ = command._run("snapshots", "verify", "-s", str(command._settings))
    assert (code, "CANARY names v000004, which cannot be served." in out) == (1, True)
    (command.root / "two_tower" / "CANARY").write_text("{")
    code, out, _ = command._run("snapshots", "verify", "-s", str(command._settings))
    assert (code, "two_tower/CANARY cannot be read." in out) == (1, True)
    assert "two_tower/CANARY cannot be read. Nobody is answered from what it names." in command.text("list")


def test_rollback_goes_past_a_trial_that_cannot_be_read(command: Command) -> None:
    (command.root / "two_tower" / "CANARY").mkdir()
    assert "v000001 is live (it was v000003) and held" in command.text("rollback", "two_tower")
    assert snapshot.live(command.root, "two_tower") == "v000001"
    assert "two_tower/CANARY cannot be read." in command.text("list")


def test_rollback_ends_the_trial_and_goes_past_what_did_badly_on_trial(command: Command) -> None:
    root = command.root
    snapshot.write(root, make("v000004"))
    snapshot.write(root, make("v000005"))
    canary.note(root, "two_tower", "v000003", promoted=False, reason="worse")
    snapshot.publish(root, "two_tower", "v000004")
    canary.try_out(root, "two_tower", Canary("v000005", 0.5, "v000005"))
    said = command.text("rollback", "two_tower", "--reason", "complaints")
    assert "v000001 is live (it was v000004) and held: complaints." in said
    assert "The trial of v000005 has ended." in said
    assert canary.on_trial(root, "two_tower") is None
    assert canary.noted(root, "two_tower", "v000005") == Trial(
        promoted=False, reason="people went to v000001: complaints"
    )
    assert "v000003 did badly on trial" in command.text("rollback", "two_tower", "v000003")


def test_pins_come_and_go(command: Command) -> None:
    assert "v000003 is pinned" in command.text("pin", "two_tower")
    assert retention.pinned(command.root, "two_tower") == ["v000001", "v000003"]
    assert "no longer pinned" in command.text("unpin", "two_tower", "v000001")
    assert "is not pinned" in command.text("unpin", "two_tower", "v000001")
    assert retention.pinned(command.root, "two_tower") == ["v000003"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["show", "t2diff"], "There are no snapshots of t2diff"),
        (["show", "two_tower", "v000009"], "the newest are: v000001+002, v000002, v000003"),
        (["diff", "two_tower", "latest"], "There is no snapshot latest of two_tower"),
        (["pin", "two_tower", "../two_tower"], "There is no snapshot"),
        (["list", "t2diff"], "there are some of: two_tower"),
    ],
)
def test_a_name_that_is_not_there_is_one_sentence_and_exit_code_2(
    command: Command, arguments: list[str], complaint: str
) -> None:
    code, said = command.refused(*arguments)
    assert code == 2
    assert complaint in said
