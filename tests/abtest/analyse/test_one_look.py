from dataclasses import replace

import numpy as np
import pytest

from abtest.analyse.one_look import false_alarms, shuffled_verdicts, users_of, verdicts_on
from abtest.analyse.results import Verdict
from abtest.stats.metrics import Mean
from contracts.config.experiment import AnalysisPlan
from tests.abtest.aggregate.test_aggregate import people, table_of

PLAN = AnalysisPlan(cuped=False)
PLAY = Mean("play", "play", "", "", "play", "primary")


def test_an_effect_ships_and_none_does_not():
    random = np.random.default_rng(1)
    arms = {name: random.gamma(4, 1, (500, 1)) for name in ("control", "a", "b")}
    arms["b"] *= 1.3
    decisions = {each.arm: each.decision for each in verdicts_on([PLAY], users_of(["play"], arms), "control", PLAN)}
    assert decisions == {"a": "inconclusive", "b": "ship"}


def test_one_heavy_user_is_named_with_covariates_too():
    random = np.random.default_rng(1)
    arms = {name: random.gamma(4, 1, (500, 2)) for name in ("control", "treatment")}
    arms["treatment"][3, 0] = 10**6
    (verdict,) = verdicts_on([PLAY], users_of(["play", "pre.play"], arms, ["pre.play"]), "control", AnalysisPlan())
    assert verdict.decision == "inconclusive"
    assert "one user has" in verdict.because


def test_shuffled_users_are_dealt_by_the_weights_and_rarely_ship():
    days, arm, pre = people(seed=4, users=600)
    table = table_of(days, arm, pre)
    metric = Mean("views", "views", "", "", "views", "primary")
    found = false_alarms(shuffled_verdicts(table, [metric], {"a": 3, "b": 1}, "a", AnalysisPlan(), 100, 1))
    assert found.replicates == 100
    assert found.ship <= 0.1
    assert found.broken == 0
    assert found.ship_interval[0] <= 0.025 <= found.ship_interval[1]


def test_alarms_are_counted_by_week_not_by_arm():
    week = [Verdict("a", "ship", "."), Verdict("b", "ship", "."), Verdict("c", "hold", ".", ("x",))]
    found = false_alarms([week, [Verdict("a", "inconclusive", ".")]])
    assert (found.ship, found.hold, found.broken) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="one week or more"):
        false_alarms([])


def test_where_no_user_is_known_the_hundredth_that_moves_it_most_is_left_out():
    random = np.random.default_rng(1)
    arms = {name: random.gamma(4, 1, (5000, 1)) for name in ("control", "treatment")}
    arms["treatment"] *= 1.1
    for heavy, decision in ((0.0, "ship"), (3000.0, "inconclusive")):
        arms["treatment"][3] += heavy
        users = users_of(["play"], arms)
        unnamed = replace(users, largest={})
        assert verdicts_on([PLAY], unnamed, "control", PLAN)[0].decision == decision
