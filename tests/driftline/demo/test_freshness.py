"""What freshness was worth: in a small world, with the demo's settings."""

from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings
from driftline.demo import freshness
from driftline.demo.run import DemoOptions, command, make_settings
from evaluation.lab.results import difference
from evaluation.lab.runs import simulate

OPTIONS = DemoOptions(None, 2, 1, 3, Path("out"), "embedded", 4, 40, 120, freshness=False)


@pytest.mark.timeout(300)
def test_each_arm_is_compared_with_itself_frozen_on_the_same_users(tmp_path: Path) -> None:
    world = OPTIONS.world
    settings = make_settings(3, world.open(3), tmp_path, KafkaSettings(bootstrap_servers="none:1"))
    planned = freshness.runs(world, settings)
    assert [run.policies[0].trainer for run in planned] == 4 * [settings.trainer]
    outcomes = simulate(planned)
    found = freshness.worth(settings, outcomes)
    by_name = {outcome.policy: outcome for outcome in outcomes}
    for name, model in (("control", "two_tower"), ("treatment", "t2diff")):
        online, frozen = by_name[f"online:{model}"], by_name[f"frozen:{model}"]
        assert (found[name]["online_evr"], found[name]["frozen_evr"]) == (online.evr, frozen.evr)
        assert found[name]["relative"] == difference(online, frozen).relative
        assert (found[name]["live"], frozen.live) == (online.live, 0)
    assert freshness.table(found).row_count == 2


def test_the_command_that_measures_it_by_hand_says_all_that_the_world_and_the_models_need(tmp_path: Path) -> None:
    settings = make_settings(3, OPTIONS.world.open(3), tmp_path, KafkaSettings(bootstrap_servers="none:1"))
    assert freshness.command(OPTIONS.world, settings, Path("out/run/settings.yaml")) == (
        "driftline lab --policies frozen:two_tower,online:two_tower,frozen:t2diff,online:t2diff "
        "--settings out/run/settings.yaml --seed 3 --days 2 --warmup-days 1 --slate 4 --users 40 --items 120"
    )
    assert command(OPTIONS).endswith("--users 40 --items 120 --no-freshness")
