import math

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.power import NormalIndPower

from abtest.plan.power import Baseline, drift, measured, one_look, plan, steady
from abtest.stats.columns import Column
from abtest.stats.confidence_sequence import critical_values
from abtest.stats.cumulative import so_far, sums_so_far
from abtest.stats.group_sequential import boundaries
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Moments
from abtest.stats.multinormal import correlation
from abtest.stats.novelty import course

EVEN = {"control": 1.0, "t": 1.0}


def independent(looks):
    t = np.arange(1, looks + 1) / looks
    return np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t)), 1 / np.sqrt(t)


@pytest.mark.parametrize("effect", [0.01, 0.05, 0.2, -0.1])
@pytest.mark.parametrize("weights", [EVEN, {"control": 3.0, "t": 1.0}])
@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.01, 0.95)])
def test_users_for_one_look_are_those_of_statsmodels(effect, weights, alpha, power):
    found = plan(steady(10.0, 400.0, 1000.0, 1), weights, "control", effect, alpha, power)
    standardised = abs(math.log1p(effect)) / 2.0  # in standard deviations of a user's value over the mean
    expected = NormalIndPower().solve_power(
        standardised, alpha=alpha, power=power, ratio=weights["control"] / weights["t"], alternative="two-sided"
    )
    assert found.users["t"] == pytest.approx(expected, rel=1e-4, abs=1)
    assert found.users["control"] == pytest.approx(expected * weights["control"] / weights["t"], rel=1e-4, abs=1)


def test_the_smallest_effect_found_is_found_with_the_power_wanted():
    found = plan(steady(10.0, 400.0, 1000.0, 1), EVEN, "control", 0.1)
    error = 2.0 * math.sqrt(4 / 1000)
    assert norm.sf(norm.isf(0.025) - math.log1p(found.by_day[0]) / error) == pytest.approx(0.8, abs=1e-9)


# Jennison and Turnbull, tables 2.2 and 2.4: Pocock's and O'Brien and Fleming's tests at .05 and power .8
PUBLISHED = [(2, 2.178, 1.110), (5, 2.413, 1.229), (10, 2.555, 1.301)]
PUBLISHED_OBF = [(2, 1.977, 1.008), (5, 2.040, 1.028), (10, 2.087, 1.040)]


@pytest.mark.parametrize(("looks", "constant", "inflation"), PUBLISHED)
def test_pococks_inflation_is_the_published_one(looks, constant, inflation):
    correlations, errors = independent(looks)
    found = drift(correlations, np.full(looks, constant), errors)
    assert (found / one_look()) ** 2 == pytest.approx(inflation, abs=2e-3)


@pytest.mark.parametrize(("looks", "constant", "inflation"), PUBLISHED_OBF)
def test_obrien_and_flemings_inflation_is_the_published_one(looks, constant, inflation):
    correlations, errors = independent(looks)
    critical = constant * np.sqrt(looks / np.arange(1, looks + 1))
    assert (drift(correlations, critical, errors) / one_look()) ** 2 == pytest.approx(inflation, abs=2e-3)


@pytest.mark.parametrize("kind", ["group-sequential", "confidence-sequence"])
@pytest.mark.parametrize("within", [0.0, 0.5])
def test_a_planned_effect_is_found_as_often_as_planned(kind, within):
    baseline = steady(10.0, 400.0, 5000.0, 7, returning=0.8, within=within)
    found = plan(baseline, EVEN, "control", 0.05, kind=kind)
    errors = np.sqrt(baseline.spread * 4 / baseline.users)
    means = math.log1p(found.by_day[-1]) / errors
    critical = (
        boundaries(baseline.correlations, np.arange(1, 8) / 7)
        if kind == "group-sequential"
        else critical_values(baseline.visits, 0.05, baseline.visits[-1])
    )
    z = np.random.default_rng(1).multivariate_normal(means, baseline.correlations, 100_000)
    assert (np.abs(z) >= critical).any(axis=1).mean() == pytest.approx(0.8, abs=0.005)


def test_looking_often_costs_users_and_a_confidence_sequence_costs_most():
    baseline = steady(10.0, 400.0, 5000.0, 7, returning=0.8, within=0.3)
    once, bounds, always = (
        plan(baseline, EVEN, "control", 0.05, kind=kind)
        for kind in ("fixed", "group-sequential", "confidence-sequence")
    )
    assert once.inflation == 1
    assert 1 < bounds.inflation < 1.1
    assert 1.3 < always.inflation < 2.5
    assert once.users["t"] < bounds.users["t"] < always.users["t"]
    two = plan(baseline, EVEN, "control", 0.05, kind="group-sequential", looks=(3, 7))
    assert 1 < two.inflation < bounds.inflation


def test_cuped_saves_the_share_that_it_removes_and_more_tests_cost():
    baseline = steady(10.0, 400.0, 5000.0, 7)
    plain = plan(baseline, EVEN, "control", 0.05)
    assert plan(baseline, EVEN, "control", 0.05, variance_removed=0.4).users["t"] == pytest.approx(
        0.6 * plain.users["t"], abs=1
    )
    assert plan(baseline, EVEN, "control", 0.05, comparisons=5).users["t"] == pytest.approx(
        plan(baseline, EVEN, "control", 0.05, alpha=0.01).users["t"]
    )


def test_the_duration_is_the_first_day_that_finds_the_effect():
    found = plan(steady(10.0, 400.0, 2000.0, 28, returning=0.7, within=0.3), EVEN, "control", 0.08)
    assert found.by_day[found.days - 1] <= 0.08 < found.by_day[found.days - 2]
    none = plan(steady(10.0, 400.0, 2000.0, 28, returning=1.0, within=0.3), EVEN, "control", 0.001)
    assert none.days is None
    assert none.reason == "28 days are too few to find +0.10%"


def test_users_who_return_add_little_where_their_values_last():
    lasting, fresh = (
        plan(steady(10.0, 400.0, 2000.0, 14, returning=1.0, within=w), EVEN, "control", 0.05).by_day[-1]
        for w in (0.9, 0.0)
    )
    assert lasting > 3 * fresh


def test_the_smallest_arm_decides():
    three = plan(steady(10.0, 400.0, 2000.0, 7), {"c": 2.0, "t": 1.0, "u": 0.5}, "c", 0.05)
    two = plan(steady(10.0, 400.0, 2000.0 * 2.5 / 3.5, 7), {"c": 2.0, "u": 0.5}, "c", 0.05)
    assert three.by_day == pytest.approx(two.by_day)


def test_a_past_week_makes_the_baseline_that_its_users_say():
    random = np.random.default_rng(2)
    n, days = 4000, 5
    taste, rate = random.beta(2, 4, n), random.gamma(0.8, 1.5, n)
    recalls = random.poisson(rate[:, None] * np.ones(days))
    views = random.poisson(5 * recalls)
    liked = random.binomial(views, taste[:, None])
    came = recalls.any(axis=1)
    first = np.eye(days)[np.argmax(recalls[came] > 0, axis=1)]
    names = tuple(Column(c, d) for c in ("first", "recalls", "views", "liked") for d in range(days))
    values = np.concatenate([first, recalls[came], views[came], liked[came]], axis=1).astype(float)
    metric = Ratio("rate", "", "", "", "liked", "views")
    past = Moments.of(names, values)
    found = measured(metric, past, days, traffic=3.0)
    assert isinstance(found, Baseline)
    np.testing.assert_allclose(found.users, 3 * first.cumsum(axis=1).sum(axis=0))
    np.testing.assert_allclose(found.visits, 3 * recalls[came].cumsum(axis=1).sum(axis=0))
    arms = [
        Moments.of(names, half).sums(sums_so_far([metric], range(days)))
        for half in np.split(values[: -1 * (len(values) % 2) or None], 2)
    ]
    seen = course([so_far(metric, day) for day in range(days)], *arms)
    np.testing.assert_allclose(found.correlations, correlation(seen.covariance), atol=0.02)
    errors = np.sqrt(found.spread * 4 / (found.users / 3))
    np.testing.assert_allclose(errors, np.sqrt(np.diag(seen.covariance)), rtol=0.03)
    assert plan(found, EVEN, "control", 0.05, kind="group-sequential").inflation > 1


def test_a_past_without_values_is_refused():
    empty = Moments.of([Column(name, 0) for name in ("first", "x", "recalls")], np.zeros((5, 3)))
    with pytest.raises(ValueError, match="no value above 0"):
        measured(Mean("x", "", "", "", "x"), empty, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weights": {"t": 1.0}}, "control"),
        ({"weights": {"control": 1.0, "t": 0.0}}, "above 0"),
        ({"effect": 0.0}, "effect"),
        ({"effect": -1.0}, "effect"),
        ({"alpha": 0.9}, "power"),
        ({"power": 1.0}, "power"),
        ({"variance_removed": 1.0}, "variance_removed"),
        ({"comparisons": 0}, "comparison"),
        ({"kind": "bayes"}, "allowed are fixed"),
    ],
)
def test_plans_that_make_no_sense_are_refused(given, said):
    usual = {"baseline": steady(10.0, 400.0, 1000.0, 2), "weights": EVEN, "control": "control", "effect": 0.05}
    with pytest.raises(ValueError, match=said):
        plan(**{**usual, **given})


@pytest.mark.parametrize("given", [{"mean": 0.0}, {"variance": 0.0}, {"days": 0}, {"returning": 1.5}, {"within": 1.0}])
def test_baselines_that_make_no_sense_are_refused(given):
    usual = {"mean": 10.0, "variance": 400.0, "users_per_day": 1000.0, "days": 2}
    with pytest.raises(ValueError, match="must"):
        steady(**{**usual, **given})
