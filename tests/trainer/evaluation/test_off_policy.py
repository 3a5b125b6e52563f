"""Estimates from explored places, in a world whose truth is known."""

import numpy as np
import pytest

from contracts.wire.events_pb2 import Exposure
from trainer.evaluation.off_policy import Explored, Guess, best_k, explored_places, value_of

USERS, ITEMS, BEST = 300, 50, 10


def world(seed, a_user=8, share=0.05):
    """Explored places of users who differ, the chances of a policy that shows each user's best ten, and its truth.

    The taste of user and item is the chance of a reward.
    """
    rng = np.random.default_rng(seed)
    tastes = np.clip(rng.beta(1, 3, (USERS, 1)) + rng.normal(0, 0.15, (USERS, ITEMS)), 0.01, 0.99)
    ranked = np.argsort(-(tastes + rng.normal(0, 0.1, tastes.shape)), axis=1)[:, :BEST]
    places = rng.poisson(a_user, USERS)
    user_ids = np.repeat(np.arange(USERS), places)
    item_ids = rng.integers(0, ITEMS, user_ids.size)
    rewards = (rng.random(user_ids.size) < tastes[user_ids, item_ids]).astype(float)
    chances = (ranked[user_ids] == item_ids[:, np.newaxis]).any(1) / BEST
    explored = Explored(user_ids, item_ids, rewards, np.full(user_ids.size, share / ITEMS))
    of_user = np.take_along_axis(tastes, ranked, 1).mean(1)
    truth = float((places * of_user).sum() / places.sum())
    guess = Guess(0.8 * tastes[user_ids, item_ids] + 0.05, 0.8 * of_user[user_ids] + 0.05)
    return explored, chances, guess, truth


@pytest.mark.parametrize("doubly_robust", [False, True])
def test_the_estimate_is_right_on_average_and_its_interval_holds_the_truth(doubly_robust):
    errors, held = [], 0
    for seed in range(200):
        explored, chances, guess, truth = world(seed)
        found = value_of(explored, chances, guess if doubly_robust else None)
        errors.append(found.mean - truth)
        held += found.low <= truth <= found.high
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(200)
    assert held >= 182  # of 200 with a chance of .95 each, fewer come in 1 of 300 cases


def test_a_good_guess_takes_variance_away_and_a_bad_one_does_no_harm_to_the_mean():
    by_guess = {"none": [], "good": [], "bad": []}
    widths = dict.fromkeys(by_guess, 0.0)
    for seed in range(200):
        explored, chances, guess, truth = world(seed)
        bad = Guess(np.full(chances.size, 0.9), np.full(chances.size, 0.9))
        for name, each in (("none", None), ("good", guess), ("bad", bad)):
            found = value_of(explored, chances, each)
            by_guess[name].append(found.mean - truth)
            widths[name] += found.high - found.low
    sds = {name: np.std(errors) for name, errors in by_guess.items()}
    assert sds["good"] < sds["none"]
    assert widths["good"] < widths["none"]
    assert abs(np.mean(by_guess["bad"])) < 4 * sds["bad"] / np.sqrt(200)


def test_the_uniform_policy_has_the_mean_of_what_was_seen():
    explored, *_ = world(0)
    found = value_of(explored, np.full(explored.rewards.size, 1 / ITEMS))
    assert found.mean == pytest.approx(explored.rewards.mean())
    assert found.effective == pytest.approx(explored.rewards.size)


def test_a_share_that_all_propensities_have_in_common_does_not_count():
    explored, chances, guess, _ = world(0)
    halved = explored._replace(propensities=explored.propensities / 2)
    for each in (None, guess):
        assert value_of(halved, chances, each)[:3] == pytest.approx(value_of(explored, chances, each)[:3])


def test_places_without_a_propensity_are_skipped_and_counted():
    explored, chances, _, _ = world(0)
    broken = explored.propensities.copy()
    broken[:5] = [0, -0.1, 1.5, np.nan, np.inf]
    kept = Explored(*(part[5:] for part in explored))
    found, alone = value_of(explored._replace(propensities=broken), chances), value_of(kept, chances[5:])
    assert (found.skipped, alone.skipped) == (5, 0)
    assert found[:6] == pytest.approx(alone[:6])


def test_nothing_to_tell_by_is_said():
    none = Explored(*(np.empty(0, dtype) for dtype in (np.int64, np.int64, float, float)))
    assert value_of(none, np.empty(0))[:3] == (None, None, None)
    explored, chances, _, _ = world(0)
    assert value_of(explored, np.zeros_like(chances))[:3] == (None, None, None)  # the policy shows none of it
    one = Explored(*(part[:3] for part in explored))._replace(user_ids=np.array([4, 4, 4]))
    alone = value_of(one, np.full(3, 0.1))
    assert alone.mean is not None
    assert (alone.low, alone.high, alone.users) == (None, None, 1)
    with pytest.raises(ValueError, match="3 places"):
        value_of(one, chances)


def test_what_came_by_rank_is_no_explored_place():
    exposure = Exposure(user_id=3)
    exposure.items.add(item_id=1)
    exposure.items.add(item_id=2, propensity=0.01)
    exposure.items.add(item_id=3, propensity=0.01)
    found = explored_places(exposure, {1: 1.0, 3: 1.0})
    assert found.item_ids.tolist() == [2, 3]
    assert found.rewards.tolist() == [0, 1]
    assert best_k(found.item_ids, {3, 4}).tolist() == [0, 0.5]
