"""What weighted training promises: the examples of all arms, as if everybody had the model."""

import numpy as np
import pytest

from contracts.config.settings import Arm
from trainer.learn.arm_propensity import ArmPropensity

ARMS = {"mine": Arm(weight=1, model="t2diff"), "yours": Arm(weight=3, model="two_tower")}
SHARE = 0.25
ITEMS = 30
RANKS = np.array([1, 3, 12, 40, 200])


def stream(batches, seed=0):
    """Batches of (arms, item ids, ranks), and of each example the true P(mine | item, rank).

    Each arm draws items by its own taste, and `mine` ones that it ranks high.
    """
    rng = np.random.default_rng(seed)
    tastes = rng.dirichlet(np.ones(ITEMS), 2)
    levels = np.array([[0.7, 0.2, 0.05, 0.03, 0.02], [0.1, 0.15, 0.2, 0.25, 0.3]])
    for _ in range(batches):
        theirs = (rng.random(128) >= SHARE).astype(int)
        items = np.array([rng.choice(ITEMS, p=tastes[arm]) for arm in theirs])
        at = np.array([rng.choice(5, p=levels[arm]) for arm in theirs])
        mine, yours = (tastes[arm][items] * levels[arm][at] for arm in (0, 1))
        truth = SHARE * mine / (SHARE * mine + (1 - SHARE) * yours)
        yield ["yours" if arm else "mine" for arm in theirs], items, RANKS[at], truth


def test_weights_come_to_the_ratio_of_densities():
    propensity, found, true = ArmPropensity("t2diff", ARMS), [], []
    for arms, items, ranks, truth in stream(200):
        found.append(propensity.weigh(arms, items, ranks))
        true.append(truth / SHARE)
    late, expected = np.concatenate(found[100:]), np.concatenate(true[100:])
    assert np.corrcoef(late, expected)[0, 1] > 0.97
    assert np.abs(late - expected).mean() < 0.15 * np.abs(1 - expected).mean()
    assert late.mean() == pytest.approx(1, abs=0.05)
    assert late.max() <= 1 / SHARE


def test_before_anything_is_known_all_arms_count_alike_and_others_experiments_do_not():
    weights = ArmPropensity("t2diff", ARMS).weigh(["mine", "yours", "", "stranger"], np.arange(4), np.ones(4, np.int64))
    assert weights.tolist() == [1, 1, 1, 0]


def test_a_batch_is_weighted_before_it_is_learned_from():
    """Else a weight would be told by the example's own arm."""
    one, other = ArmPropensity("t2diff", ARMS), ArmPropensity("t2diff", ARMS)
    for arms, items, ranks, _ in stream(20):
        one.weigh(arms, items, ranks)
        other.weigh(arms, items, ranks)
    items, ranks = np.arange(6), np.ones(6, np.int64)
    assert np.array_equal(one.weigh(["mine"] * 6, items, ranks), other.weigh(["yours"] * 6, items, ranks))
    assert not np.array_equal(one.weigh(["mine"] * 6, items, ranks), other.weigh(["mine"] * 6, items, ranks))


def test_where_every_arm_is_the_models_own_nothing_is_weighted():
    arms = {"a": Arm(weight=1, model="t2diff"), "b": Arm(weight=1, model="t2diff")}
    weights = ArmPropensity("t2diff", arms).weigh(["a", "b", "", "c"], np.arange(4), np.ones(4, np.int64))
    assert weights.tolist() == [1, 1, 1, 0]


def test_it_goes_on_from_its_state_bit_for_bit():
    calm, killed, again = (ArmPropensity("t2diff", ARMS) for _ in range(3))
    for number, (arms, items, ranks, _) in enumerate(stream(30)):
        expected = calm.weigh(arms, items, ranks)
        if number < 15:
            killed.weigh(arms, items, ranks)
            again.restore(killed.state())
        else:
            assert np.array_equal(again.weigh(arms, items, ranks), expected)


def test_ranks_and_ids_of_any_size_are_taken():
    extreme = np.array([-(2**63), 2**63 - 1, 0])
    propensity = ArmPropensity("t2diff", ARMS)
    for _ in range(3):
        weights = propensity.weigh(["mine", "yours", "mine"], extreme, np.array([1, 2**40, 10**6]))
    assert np.isfinite(weights).all()
