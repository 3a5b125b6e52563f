import numpy as np
import pytest
from scipy.stats import dirichlet_multinomial, multinomial

from abtest.stats.split import split_check
from abtest.stats.srm import log_e_values, sequential_split, splits

EVEN = {"a": 1.0, "b": 1.0}
UNEVEN = {"control": 0.8, "t": 0.15, "u": 0.05}


def days(seed, weights, per_day=3000, n=7):
    random = np.random.default_rng(seed)
    shares = np.array(list(weights.values())) / sum(weights.values())
    return [dict(zip(weights, random.multinomial(per_day, shares).tolist(), strict=True)) for _ in range(n)]


@pytest.mark.parametrize("counts", [[3, 5, 2], [100, 90, 200], [0, 0, 1]])
def test_the_e_value_is_the_ratio_of_scipys_likelihoods(counts):
    weights = np.array([2.0, 1.0, 1.0])
    prior = 50 * weights / 4
    n = sum(counts)
    expected = dirichlet_multinomial.logpmf(counts, prior, n) - multinomial.logpmf(counts, n, weights / 4)
    assert log_e_values(np.array(counts, float), weights, [50]) == pytest.approx(expected, abs=1e-9)


def test_as_planned_the_e_value_is_a_martingale():
    counts, weights = np.array([7.0, 4.0]), np.array([0.7, 0.3])
    now = np.exp(log_e_values(counts, weights))
    after = np.exp(log_e_values(counts + np.eye(2), weights))
    assert weights @ after == pytest.approx(now, rel=1e-12)
    assert log_e_values(np.zeros(2), weights) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("weights", [EVEN, UNEVEN])
def test_splits_as_planned_pass_and_the_p_value_never_rises(weights):
    for seed in range(50):
        found = sequential_split(days(seed, weights), weights)
        assert not found.mismatch
        assert all(after <= before for before, after in zip(found.p_values, found.p_values[1:], strict=False))


@pytest.mark.parametrize("seed", range(5))
def test_an_arm_that_loses_a_tenth_of_its_users_is_found_within_days(seed):
    found = sequential_split(days(seed, {"a": 1.0, "b": 0.9}), EVEN)
    assert found.mismatch
    assert found.since <= 5
    assert found.p_value == found.p_values[-1] < 0.001


def test_once_found_a_mismatch_stays_found():
    found = sequential_split([{"a": 2000, "b": 1500}, {"a": 1500, "b": 2000}], EVEN)
    assert found.since == 0
    assert found.p_values[1] == found.p_values[0]
    assert split_check({"a": 3500, "b": 3500}, EVEN).p_value == 1.0  # the plain test has forgotten


def test_the_order_of_users_within_a_day_and_the_scale_of_weights_do_not_matter():
    seen = days(1, UNEVEN)
    once = sequential_split(seen, UNEVEN)
    assert sequential_split(seen, {arm: 100 * w for arm, w in UNEVEN.items()}).p_values == pytest.approx(once.p_values)


def test_an_arm_without_users_is_a_mismatch_and_no_days_are_none():
    assert sequential_split([{"a": 100}], EVEN).mismatch
    assert sequential_split([], EVEN).p_value == 1.0
    assert sequential_split([{}], EVEN).p_values == (1.0,)


def test_a_bad_replica_or_day_is_named_and_good_ones_are_not():
    good = days(3, EVEN, n=20)
    parts = {f"replica-{i}": day for i, day in enumerate(good)} | {"replica-x": {"a": 900, "b": 700}, "idle": {}}
    found = splits(parts, EVEN)
    assert found.mismatches == ("replica-x",)
    assert found.adjusted["idle"] is None
    assert found.parts["replica-x"].p_value < found.adjusted["replica-x"]


def test_weights_and_counts_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="above 0"):
        sequential_split([{"a": 1}], {"a": 1, "b": 0})
    with pytest.raises(ValueError, match="above 0"):
        sequential_split([{"a": 1}], EVEN, concentrations=[0])
    with pytest.raises(ValueError, match="fewer than none"):
        sequential_split([{"a": -1}], EVEN)
