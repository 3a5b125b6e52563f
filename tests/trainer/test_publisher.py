"""What becomes of what the engine publishes: on the disk, live, held, cleared away."""

import shutil
from pathlib import Path

import pytest

from contracts.config.settings import Settings
from contracts.snapshots import delta
from contracts.snapshots.retention import release, roll_back
from contracts.snapshots.snapshot import Version, live, versions
from tests.trainer.conftest import MakeRig
from tests.trainer.trainer_cases import markov_examples, small_settings
from tests.trainer.trainer_rig import Rig

pytestmark = pytest.mark.usefixtures("trace_once")


def names(settings: Settings, model: str = "t2diff") -> list[str]:
    return [str(version) for version in versions(settings.snapshots, model)]


def grow(rig: Rig, examples: int, seed: int = 0, steps: int = 60) -> None:
    rig.add_items(12)
    rig.add_examples(markov_examples(examples, 12, seed))
    rig.steps(steps)


def test_deltas_go_live_and_can_be_served_as_one(tmp_path: Path, make_rig: MakeRig) -> None:
    settings = small_settings(tmp_path, deltas_every_examples=16)
    rig = make_rig(settings)
    grow(rig, 130)
    assert names(settings) == ["v000001", "v000001+001", "v000001+002", "v000002"]
    assert live(settings.snapshots, "t2diff") == "v000002"
    assert rig.value("trainer_snapshots_published_total", model="t2diff", kind="delta") == 2
    served = delta.read(settings.snapshots, "t2diff", "v000001+002")
    assert served.manifest.examples > delta.read(settings.snapshots, "t2diff", "v000001").manifest.examples


def test_while_people_hold_a_version_nothing_goes_live_and_after_it_a_snapshot_does(
    tmp_path: Path, make_rig: MakeRig
) -> None:
    settings = small_settings(tmp_path, deltas_every_examples=16, gate={"judge": "recall"})
    rig = make_rig(settings)
    grow(rig, 130)
    roll_back(settings.snapshots, "t2diff", "v000001", "worse")
    rig.add_examples(markov_examples(300, 12)[130:])
    rig.steps(60)
    assert live(settings.snapshots, "t2diff") == "v000001"
    (t2diff,) = (line for line in rig.engine.lines if line.name == "t2diff")
    assert t2diff._gate.incumbent == "v000001"  # what people chose is to be beaten
    assert "v000004" in names(settings)
    assert not any(version.sequence for version in versions(settings.snapshots, "t2diff") if version.number > 2)
    assert live(settings.snapshots, "two_tower") != "v000001"
    release(settings.snapshots, "t2diff")
    rig.add_examples(markov_examples(420, 12)[300:])
    rig.steps(60)
    assert Version.parse(str(live(settings.snapshots, "t2diff"))) >= Version(5)


def test_a_delta_whose_base_was_taken_away_gives_way_to_a_snapshot(tmp_path: Path, make_rig: MakeRig) -> None:
    settings = small_settings(tmp_path, publish_every_ms=10**12)
    rig = make_rig(settings)
    grow(rig, 64)
    rig.worker.publish_now()
    assert live(settings.snapshots, "t2diff") == "v000001"
    (settings.snapshots / "t2diff" / "v000001").rename(tmp_path / "gone")
    rig.add_examples(markov_examples(128, 12)[64:])
    rig.steps(30)
    rig.worker.deltas_due.set()
    rig.steps(1)
    assert live(settings.snapshots, "t2diff") == "v000002"
    assert live(settings.snapshots, "two_tower") == "v000001+001"


def test_a_snapshot_that_goes_before_it_is_live_is_not_served_and_the_next_one_is(
    tmp_path: Path, make_rig: MakeRig
) -> None:
    settings = small_settings(tmp_path, deltas_every_examples=16)
    rig = make_rig(settings)
    gone: list[str] = []

    def take_away() -> None:
        """Asked before each move of a pointer, so after the snapshot was written."""
        for name in names(settings)[-1:] if not gone else []:
            shutil.rmtree(settings.snapshots / "t2diff" / name)
            gone.append(name)

    rig.worker._publisher._require_mine = take_away
    grow(rig, 70)
    assert gone == ["v000001"]
    assert live(settings.snapshots, "t2diff") is None
    rig.add_examples(markov_examples(130, 12)[70:])
    rig.steps(60)
    assert live(settings.snapshots, "t2diff") == "v000002"


def test_by_the_clock_what_is_new_is_published_and_a_restart_takes_another_number(
    tmp_path: Path, make_rig: MakeRig
) -> None:
    settings = small_settings(tmp_path, publish_every_ms=10**12, checkpoint_every_examples=16)
    rig = make_rig(settings)
    grow(rig, 64)
    rig.worker.snapshots_due.set()
    rig.steps(1)
    assert names(settings) == ["v000001"]
    rig.worker.snapshots_due.set()
    rig.steps(1)
    assert names(settings) == ["v000001"]  # nothing is new
    rig.close()
    rig.log.rewind()
    again = make_rig(settings, log=rig.log)
    again.add_examples(markov_examples(128, 12)[64:])
    again.worker.resume()
    again.steps(40)
    again.worker.publish_now()
    assert names(settings) == ["v000001", "v000002"]
    assert live(settings.snapshots, "t2diff") == "v000002"


def test_old_snapshots_are_cleared_away(tmp_path: Path, make_rig: MakeRig) -> None:
    settings = small_settings(tmp_path, keep_snapshots=2)
    rig = make_rig(settings)
    grow(rig, 400, steps=120)
    assert names(settings) == ["v000005", "v000006"]


def test_how_far_behind_what_is_live_is_can_be_seen_and_after_a_restart_too(tmp_path: Path, make_rig: MakeRig) -> None:
    def shown(rig: Rig) -> tuple[float, float]:
        names = ("trainer_live_event_timestamp_seconds", "trainer_event_timestamp_seconds")
        learned, newest = (rig.value(name, model="t2diff") for name in names)
        return learned, newest

    settings = small_settings(tmp_path, publish_every_ms=10**12, gate={"judge": "recall"})
    examples = markov_examples(128, 12)
    rig = make_rig(settings)
    grow(rig, 64)
    rig.worker.publish_now()
    assert shown(rig) == (max(each.time_ms for each in examples[:64]) / 1000,) * 2
    roll_back(settings.snapshots, "t2diff", "v000001", "worse")
    rig.add_examples(examples[64:])
    rig.steps(30)
    rig.worker.publish_now()
    behind = shown(rig)
    assert behind[0] == max(each.time_ms for each in examples[:64]) / 1000 < behind[1]
    rig.close()
    assert shown(make_rig(settings, log=rig.log))[0] == behind[0]
