"""What is planted in simulated weeks is found, and what is sound is left in peace."""

import numpy as np
import pytest

from abtest.analyse.analysis import analyse
from benchmarks.abtest.planted import LIFT, check, learned, measure, people, week


def test_the_planted_lift_is_the_truth_of_a_very_large_population():
    crowd = people(2_000_000, LIFT, np.random.default_rng(5))
    treated = (crowd.activity * crowd.taste * (1 + crowd.response)).mean()
    assert treated / (crowd.activity * crowd.taste).mean() - 1 == pytest.approx(LIFT, abs=0.001)
    assert (crowd.taste * (1 + crowd.response)).max() < 1


def test_one_simulated_week_goes_all_the_way_through():
    state = week(3, 300, LIFT)
    report = analyse(state, learned(3, state))
    assert not report.invalid
    assert report.counts["simulated_events"] > 1000
    assert check(report, "interference:treatment").level == "warning"
    assert check(report, "interference:control").level == "ok"
    assert all(check.level == "ok" for check in report.checks if check.name.startswith(("split", "model_age")))
    assert {each.kind for each in report.slices} == {"segment", "age", "version"}


def test_half_of_an_arms_users_lost_is_no_sound_split():
    assert check(analyse(week(3, 400, LIFT, lost=0.5)), "split").level == "invalid"


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_what_is_planted_is_found_as_often_as_stated():
    """All weeks that docs/abtest.md reports: two stretches of 300 seeds, event by event, and 15,000 by sums."""
    found, other = measure(300, 400, LIFT, planted_seeds=60), measure(300, 400, LIFT, seed=1001, planted_seeds=0)
    assert found["coverage_by_sums"]["cuped"] >= 0.94
    assert (found["coverage"] + other["coverage"]) / 2 >= 0.94
    assert other["interference_flagged"] >= 0.99
    assert found["interference_flagged"] >= 0.99
    assert found["shipped_despite_interference"] == 0
    assert found["harmless_interference_flagged"] <= 0.01
    assert found["invalid_though_sound"] <= 0.01
    assert found["split_flagged"]["0.5"] > found["split_flagged"]["0.4"]
    assert found["bias_flagged"]["0.5"] > found["bias_flagged"]["0.3"]
