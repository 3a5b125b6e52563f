"""Who is in which arm: uniform, independent, the same everywhere, and nobody moves."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from abtest.assignment.assign import Assignment, active, assign, assign_many, bucket, buckets, ramp_share
from contracts.config.experiment import Holdout, RampStep
from contracts.config.settings import Arm
from contracts.runtime.clock import DAY_MS
from tests.abtest.abtest_cases import START, experiment

# Of users 1 to 60 under weights .3, .3, 1.2, as assigned before there were layers, holdouts and ramps.
BEFORE = "cccacccccccbacbbacccccbcbacabbbbccacaabbcacaccccccccccacccbc"
GOLDEN = [0.2871323513546107, 0.8545042450624156, 0.11558755936280007, 0.12328561434827945]
USERS = np.arange(1, 100_001)
NOW = START + 2 * DAY_MS


def everything(**changes):
    """An experiment of which nobody is sure to be in it."""
    given = {
        "slots": (0.2, 0.9),
        "holdout": Holdout(salt="2026", share=0.1),
        "ramp": (RampStep(from_ms=START + DAY_MS, share=0.01), RampStep(from_ms=NOW, share=0.5)),
        "overrides": {"treatment": (7, 8), "control": (-3,)},
    }
    return experiment(**{**given, **changes})


def in_arms(definition, users=USERS, time_ms=NOW):
    return assign_many(definition, users, time_ms)


def test_every_process_gives_these_places():
    places = [bucket("s", user) for user in (1, 2, 3, 2**63 - 1)]
    assert places == GOLDEN
    assert buckets("s", np.array([1, 2, 3, 2**63 - 1])).tolist() == GOLDEN


def test_the_place_is_as_documented():
    """The table of docs/experiments.md."""
    assert hashlib.blake2b(b"layer:recall:17", digest_size=8).hexdigest() == "6a7be4238755dace"
    assert bucket("layer:recall", 17) == (0x6A7BE4238755DACE >> 11) / 2**53 == 0.4159529291858556
    assert bucket("früh", -5) == (0x58E2E122177EBF1A >> 11) / 2**53 == 0.3472119053108099


def test_another_process_with_another_hash_seed_assigns_the_same():
    code = (
        "from abtest.assignment.assign import assign\n"
        "from tests.abtest.assignment.test_assign import NOW, everything\n"
        "print([assign(everything(), user, NOW) for user in range(300)])"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        shown = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        assert shown.stdout.strip() == str([assign(everything(), user, NOW) for user in range(300)])


def test_buckets_are_uniform():
    counts = np.bincount((buckets("salt", USERS) * 1000).astype(int), minlength=1000)
    assert chisquare(counts).pvalue > 0.001


def test_weights_are_honoured():
    arms = {"a": Arm(weight=2, model="t2diff"), "b": Arm(weight=1, model="t2diff"), "c": Arm(weight=1, model="t2diff")}
    counts = np.bincount(in_arms(experiment(arms=arms, control="a")))
    assert chisquare(counts, [50_000, 25_000, 25_000]).pvalue > 0.001


def test_another_salt_assigns_independently():
    assert _dependence(in_arms(experiment(salt="one")), in_arms(experiment(salt="other"))) > 0.001


def test_layers_place_independently_and_arms_independently_of_slots_ramp_and_holdout():
    salts = ("layer:recall", "layer:ranking", "ramp:s", "holdout:s", "s")
    cut = [(buckets(salt, USERS) * 10).astype(int) for salt in salts]
    for one in range(len(salts)):
        for other in range(one):
            assert _dependence(cut[one], cut[other]) > 0.001, (salts[one], salts[other])


def test_the_period_includes_its_start_and_excludes_its_end():
    e = experiment(days=1)
    assert [active(e, t) for t in (START - 1, START, e.end_ms - 1, e.end_ms)] == [False, True, True, False]


def test_a_user_is_told_why():
    ramped = everything(overrides={})
    reasons = {assign(ramped, user, NOW).why for user in range(100)}
    assert reasons == {"assigned", "holdout", "outside slots", "not ramped yet"}
    assert {assign(ramped, user, START).why for user in range(100)} == {"holdout", "outside slots", "not ramped yet"}
    assert assign(ramped, 1, START - 1) == Assignment(None, "not running")
    assert all(
        (found.arm is None) == (found.why != "assigned") for found in (assign(ramped, u, NOW) for u in range(99))
    )


def test_a_tester_is_in_the_arm_that_the_file_says_while_it_runs():
    alone = everything(overrides={})
    held = next(user for user in range(1000) if assign(alone, user, NOW).why == "holdout")
    e = everything(overrides={"treatment": (held,)})
    assert assign(e, held, START) == Assignment("treatment", "override")
    assert assign(e, held, START - 1) == Assignment(None, "not running")
    assert e.testers == {held}


@pytest.mark.parametrize("time_ms", [START - 1, START, START + DAY_MS, NOW])
def test_many_at_a_time_are_assigned_as_one_by_one(time_ms):
    for e in (everything(), everything(slots=(0.0, 1.0), holdout=None, ramp=()), experiment()):
        arms = list(e.arms)
        users = np.concatenate([[-3, 0, 2**63 - 1], USERS[:20_000]])
        one_by_one = [assign(e, user, time_ms).arm for user in users.tolist()]
        assert [arms[place] if place >= 0 else None for place in in_arms(e, users, time_ms)] == one_by_one


@pytest.mark.proof
def test_a_hundred_thousand_at_a_time_are_assigned_as_one_by_one():
    e = everything()
    arms = [None, *e.arms]
    assert [arms[place + 1] for place in in_arms(e)] == [assign(e, user, NOW).arm for user in USERS.tolist()]


def test_nobody_at_a_time_is_nobody():
    assert in_arms(everything(), np.array([], np.int64)).tolist() == []


def test_a_ramp_from_1_to_50_percent_moves_nobody():
    e = everything(slots=(0.0, 1.0), holdout=None, overrides={})
    before, after = in_arms(e, time_ms=START + DAY_MS), in_arms(e, time_ms=NOW)
    assert (ramp_share(e, START + DAY_MS), ramp_share(e, NOW)) == (0.01, 0.5)
    assert 800 < (before >= 0).sum() < 1200
    assert 49_000 < (after >= 0).sum() < 51_000
    assert (before[before >= 0] == after[before >= 0]).all()


def test_exclusive_slots_share_no_user_and_leave_out_nobody():
    first, second = (in_arms(experiment(salt=str(slots), slots=slots)) >= 0 for slots in ((0.0, 0.3), (0.3, 1.0)))
    assert (first ^ second).all()


def test_who_has_an_arm_keeps_it():
    arms = {name: Arm(weight=weight, model="t2diff") for name, weight in (("a", 0.3), ("b", 0.3), ("c", 1.2))}
    e = experiment(arms=arms, control="a", salt="t2diff-against-two-tower-0")
    assert "".join(assign(e, user, NOW).arm or "-" for user in range(1, 61)) == BEFORE


def test_slots_holdout_and_ramp_change_nobody_s_arm():
    plain, full = in_arms(experiment()), in_arms(everything(overrides={}))
    assert 0 < (full >= 0).sum() < len(USERS)
    assert (plain[full >= 0] == full[full >= 0]).all()


@pytest.mark.proof
@pytest.mark.parametrize("salt", ["t2diff-against-two-tower-0", "layer:recall", "ramp:s", "x"])
def test_a_million_users_fill_a_thousand_buckets_evenly(salt):
    counts = np.bincount((buckets(salt, np.arange(1, 1_000_001)) * 1000).astype(int), minlength=1000)
    assert chisquare(counts).pvalue > 0.001


@pytest.mark.proof
def test_a_million_users_are_placed_independently_by_layers():
    users = np.arange(1, 1_000_001)
    one, other = ((buckets(f"layer:{layer}", users) * 100).astype(int) for layer in ("recall", "ranking"))
    assert _dependence(one, other) > 0.001
    arms = [in_arms(experiment(salt=layer, layer=layer, slots=(0.1, 0.8)), users) for layer in ("recall", "ranking")]
    assert _dependence(arms[0] + 1, arms[1] + 1) > 0.001


@pytest.mark.proof
def test_a_million_users_ramped_from_1_to_50_percent_stay_where_they_are():
    e, users = everything(overrides={}), np.arange(1, 1_000_001)
    before, after = in_arms(e, users, START + DAY_MS), in_arms(e, users, NOW)
    assert (before >= 0).sum() > 5000
    assert (before[before >= 0] != after[before >= 0]).sum() == 0


def _dependence(one, other):
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    return chi2_contingency(table).pvalue
