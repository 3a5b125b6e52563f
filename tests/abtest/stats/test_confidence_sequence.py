import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import lambertw

from abtest.stats.confidence_sequence import always_valid, critical_values, fits, tuning


def test_the_interval_is_the_papers_formula():
    n, sigma, alpha = 5000, 2.5, 0.05
    rho_2 = tuning(20_000, alpha)
    half = sigma * math.sqrt((n * rho_2 + 1) / (n**2 * rho_2) * math.log((n * rho_2 + 1) / alpha**2))
    found = always_valid(0.1, sigma / math.sqrt(n), n, alpha, 20_000)
    assert found.high - 0.1 == pytest.approx(half, rel=1e-12)
    assert 0.1 - found.low == pytest.approx(half, rel=1e-12)
    assert found.ci_low == pytest.approx(math.expm1(found.low))


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.2])
def test_it_is_narrowest_about_where_it_is_tuned(alpha):
    best = minimize_scalar(
        lambda log_rho_2: (1 + math.exp(-log_rho_2)) * (math.log1p(math.exp(log_rho_2)) - 2 * math.log(alpha)),
        bounds=(-5, 10),
        method="bounded",
    )
    narrowest = math.sqrt(best.fun)
    assert critical_values(np.array([1e4]), alpha, 1e4)[0] == pytest.approx(narrowest, rel=2e-3)
    assert -lambertw(-(alpha**2) / math.e, -1).real - 1 == pytest.approx(math.exp(best.x), rel=1e-3)  # the exact one


@pytest.mark.parametrize("z", [0.0, 1.0, 2.9, 3.03, 3.04, 3.2, 5.0, 40.0])
@pytest.mark.parametrize("units", [500, 10_000, 200_000])
def test_the_p_value_is_at_most_alpha_exactly_where_the_interval_excludes_zero(z, units):
    found = always_valid(0.01 * z, 0.01, units, 0.05, 10_000)
    assert (found.p_value <= 0.05) == (found.low > 0)
    assert 0 <= found.p_value <= 1


def test_values_that_are_independent_are_watched_after_every_single_one_at_the_stated_error():
    random = np.random.default_rng(5)
    n = np.arange(1, 3001)
    z = np.abs(random.normal(size=(3000, n.size)).cumsum(axis=1)) / np.sqrt(n)
    wrong = (z >= critical_values(n, 0.05, 1000)).any(axis=1).mean()
    assert wrong <= 0.05
    assert wrong > 0.01  # and not by being vacuous
    assert (z[:, 99:] >= 1.96).any(axis=1).mean() > 0.3


def test_a_joint_covariance_says_whether_visits_will_do_as_the_clock():
    days = np.arange(1.0, 8)
    same_users = 0.5 + 0.5 / np.maximum.outer(days, days)
    assert fits(same_users, days) >= 0  # user-days
    assert fits(same_users, np.ones(7)) < 0  # users: all came on the first day, and yet the effect moves
    assert fits(np.eye(1), np.ones(1)) == 1.0


def test_with_users_as_the_clock_of_users_who_all_came_at_once_errors_pile_up():
    """What `fits` warns of: N stands still, the bound stays at 3.04, and the effect of a million visits runs on."""
    n = np.unique(np.geomspace(1, 1e6, 4000).astype(int))
    steps = np.random.default_rng(6).normal(size=(1500, n.size)) * np.sqrt(np.diff(n, prepend=0))
    z = np.abs(steps.cumsum(axis=1)) / np.sqrt(n)
    standing_still = critical_values(np.full(n.size, 1000.0), 0.05, 1000)
    assert (z >= standing_still).any(axis=1).mean() > 0.09
    assert (z >= critical_values(n, 0.05, 1000)).any(axis=1).mean() <= 0.05 + 3 * np.sqrt(0.05 / 1500)


def test_what_cannot_be_told_has_a_reason():
    assert always_valid(0.1, 0.0, 100, 0.05, 100).reason == "no standard error above 0"
    assert always_valid(math.nan, 1.0, 100, 0.05, 100).p_value is None
    wide = always_valid(0.0, 1000.0, 100, 0.05, 100)
    assert wide.ci_low is None
    assert wide.low < 0 < wide.high
    assert "too wide" in wide.reason


def test_units_tuning_and_alpha_that_make_no_sense_are_refused():
    for units, alpha, tuned_at in ((0, 0.05, 100), (100, 0.05, 0), (100, 0.05, math.inf), (100, 0, 100), (100, 1, 100)):
        with pytest.raises(ValueError, match=r"must"):
            always_valid(0.1, 0.1, units, alpha, tuned_at)
