from collections import Counter

import numpy as np
from scipy.stats import chi2_contingency, chisquare

from abtest.assignment import active, assign, bucket
from contracts.settings import Arm
from tests.abtest.abtest_cases import START, experiment

GOLDEN = [0.2871323513546107, 0.8545042450624156, 0.11558755936280007, 0.12328561434827945]


def test_every_process_gives_these_places():
    places = [bucket("s", user) for user in (1, 2, 3, 2**63 - 1)]
    assert places == GOLDEN


def test_buckets_are_uniform():
    counts = np.bincount([int(bucket("salt", user) * 1000) for user in range(1, 100_001)], minlength=1000)
    assert chisquare(counts).pvalue > 0.001


def test_weights_are_honoured():
    arms = {"a": Arm(weight=2, model="t2diff"), "b": Arm(weight=1, model="t2diff"), "c": Arm(weight=1, model="t2diff")}
    e = experiment(arms=arms, control="a")
    counts = Counter(assign(e, user) for user in range(1, 40_001))
    assert chisquare([counts[arm] for arm in "abc"], [20_000, 10_000, 10_000]).pvalue > 0.001


def test_another_salt_assigns_independently():
    one, other = experiment(salt="one"), experiment(salt="other")
    table = Counter((assign(one, user), assign(other, user)) for user in range(1, 20_001))
    arms = ("control", "treatment")
    assert chi2_contingency([[table[a, b] for b in arms] for a in arms]).pvalue > 0.001


def test_the_period_includes_its_start_and_excludes_its_end():
    e = experiment(days=1)
    assert [active(e, t) for t in (START - 1, START, e.end_ms - 1, e.end_ms)] == [False, True, True, False]
