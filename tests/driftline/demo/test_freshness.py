"""What freshness was worth: in a small world, with the demo's settings."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from contracts.config.settings import KafkaSettings
from driftline.demo import freshness
from driftline.demo.run import DemoOptions, command, make_settings
from evaluation.lab.plan import WorldPlan

OPTIONS = DemoOptions(None, 1, 1, 3, Path("out"), "embedded", 4, 40, 120, freshness=False)


@pytest.mark.timeout(300)
def test_each_arm_is_compared_with_itself_frozen_on_the_same_users(tmp_path: Path) -> None:
    world = OPTIONS.world
    settings = make_settings(3, world.open(3), tmp_path, KafkaSettings(bootstrap_servers="none:1"))
    planned = freshness.runs(world, settings)
    assert [run.policies[0].trainer for run in planned] == 4 * [settings.trainer]
    console = Console(record=True, width=120, file=StringIO())
    found = freshness.measure(world, settings, console)
    assert found is not None
    assert {name: arm["model"] for name, arm in found.items()} == {"control": "two_tower", "treatment": "t2diff"}
    for arm in found.values():
        assert arm["live"] >= 1
        assert arm["relative"] == pytest.approx(arm["online_evr"] / arm["frozen_evr"] - 1)
        assert arm["ci_low"] < arm["relative"] < arm["ci_high"]
        assert len(arm["online_evr_by_day"]) == len(arm["frozen_evr_by_day"]) == 1
    printed = console.export_text()
    assert all(f"{done} of 4: " in printed for done in range(1, 5))
    assert f"{found['control']['relative']:+.2%}" in printed


def test_a_world_in_which_nothing_can_be_learned_is_one_sentence(tmp_path: Path) -> None:
    settings = make_settings(3, OPTIONS.world.open(3), tmp_path, KafkaSettings(bootstrap_servers="none:1"))
    console = Console(record=True, width=120, file=StringIO())
    assert freshness.measure(WorldPlan(data=tmp_path / "none"), settings, console) is None
    assert "It cannot be measured: " in console.export_text()


def test_the_command_that_measures_it_by_hand_says_all_that_the_world_and_the_models_need(tmp_path: Path) -> None:
    settings = make_settings(3, OPTIONS.world.open(3), tmp_path, KafkaSettings(bootstrap_servers="none:1"))
    assert freshness.command(OPTIONS.world, settings, Path("out/run/settings.yaml")) == (
        "driftline lab --policies frozen:two_tower,online:two_tower,frozen:t2diff,online:t2diff "
        "--settings out/run/settings.yaml --seed 3 --days 1 --warmup-days 1 --slate 4 --users 40 --items 120"
    )
    assert command(OPTIONS).endswith("--users 40 --items 120 --no-freshness")
