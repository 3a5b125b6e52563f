import numpy as np
import pytest

from world.base import WorldError
from world.features import COLUMNS, Moment, Profiles, statistics
from world.logs import Observations
from world.response import ResponseModel, _out_of_fold, fit_and_measure, measure

DAY = 86_400_000


def observed(rng, n=12_000, users=200, items=80):
    """Views whose probability is known: users differ, items differ, and each user likes one half of the items."""
    who, what = rng.integers(0, users, n), rng.integers(0, items, n)
    logit = rng.normal(0, 0.7, users)[who] + rng.normal(0, 0.7, items)[what] + 1.2 * ((who % 2 == what % 2) - 0.5) - 0.7
    effective = rng.random(n) < 1 / (1 + np.exp(-logit))
    times = np.sort(rng.integers(0, 6 * DAY, n))
    plays = np.where(effective, 20_000 + rng.exponential(20_000, n), rng.random(n) * 17_000).astype(np.int64)
    follows = effective & (rng.random(n) < 0.01)
    unknown = np.full(users, np.nan, np.float32)
    profile = Profiles(unknown, unknown, np.arange(items) % 2, 3, np.full(items, 40_000))
    return Observations(who, what, times, np.ones(n, np.int64), plays, effective, follows), profile


@pytest.fixture(scope="module")
def world():
    return observed(np.random.default_rng(3))


@pytest.fixture(scope="module")
def fitted(world):
    return fit_and_measure(*world, 0)


def test_held_out_quality(fitted, world):
    _, quality = fitted
    assert quality.auc > 0.68
    assert quality.calibration_error < 0.05
    assert quality.play_mae_s < quality.play_constant_mae_s
    assert sum(b.rows for b in quality.calibration) == quality.rows == (world[0].times_ms >= 5 * DAY).sum()


def test_no_impression_is_described_by_its_own_response(world):
    seen, profile = world
    noise = np.random.default_rng(9).permutation(seen.effective)
    shuffled = Observations(seen.users, seen.items, seen.times_ms, seen.tabs, seen.plays_ms, noise, seen.follows)
    leaky = np.corrcoef(statistics(shuffled, profile).user_rate[seen.users], noise)[0, 1]
    described = _out_of_fold(shuffled, profile, 0)
    assert leaky > 0.1
    for name in ("user_rate", "item_rate", "category_affinity", "taste"):
        assert np.corrcoef(described[:, list(COLUMNS).index(name)], noise)[0, 1] < 0.03


def test_a_better_match_never_earns_less_and_pays_here(fitted):
    model, _ = fitted
    n = 80
    nothing = Moment(np.full((n, 5), -1), np.full(n, np.nan, np.float32))
    ones, items, never = np.ones(n, np.int64), np.arange(n), np.zeros(n, bool)
    p = np.stack([model.probabilities(ones * user, items, ones, ones, nothing, never) for user in range(100)])
    liked = (np.arange(100)[:, None] % 2) == (items % 2)
    assert p[liked].mean() > p[~liked].mean() + 0.05


def test_an_item_seen_before_earns_no_more(fitted):
    model, _ = fitted
    nothing = Moment(np.full((2, 5), -1), np.full(2, np.nan, np.float32))
    twice = np.ones(2, np.int64)
    fresh, again = model.probabilities(twice, twice, twice, twice, nothing, np.array([False, True]))
    assert again <= fresh


def test_follows_come_at_their_observed_rates(fitted, world):
    model, _ = fitted
    after = world[0].follows[world[0].effective].mean()
    assert model.follow_rates[0] < model.follow_rates[1]
    np.testing.assert_allclose(model.follow_rates[1], after, rtol=0.2)


def test_one_kind_of_view_only_is_refused(world):
    seen, profile = world
    with pytest.raises(WorldError, match="the response model needs"):
        ResponseModel.fit(seen.where(seen.effective), profile, 0)
    model = ResponseModel.fit(seen, profile, 0)
    with pytest.raises(WorldError, match="can't be checked"):
        measure(model, seen, seen.effective)
