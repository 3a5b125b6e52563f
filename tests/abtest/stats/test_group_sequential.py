import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from abtest.stats.group_sequential import boundaries, fractions, group_sequential, sequential_p_value, spent
from abtest.stats.multinormal import correlation


def independent(looks):
    """Covariance of running means of independent values at equally spaced looks."""
    t = np.arange(1, looks + 1) / looks
    return 1 / np.maximum.outer(t, t)


def returning(looks, lasting=0.6):
    """The same users every day: what lasts of a user is in every look."""
    return lasting + (1 - lasting) * independent(looks)


EQUAL = np.arange(1, 8) / 7
DRAWS = 150_000
COVARIANCES = {
    "new users every day": independent(7),
    "the same users every day": returning(7),
    "nearly one look": 0.999 ** np.abs(np.subtract.outer(np.arange(7), np.arange(7))),
    "looks that swing": np.eye(7) * 1.2 - 0.15,
    "one look seven times": np.ones((7, 7)),
}


def exit_probabilities(covariance, critical, draws=DRAWS, seed=0):
    """By simulation, the share of paths that first leave the bounds at each look."""
    z = np.random.default_rng(seed).multivariate_normal(np.zeros(len(covariance)), correlation(covariance), draws)
    out = np.abs(z) >= critical
    first = np.where(out.any(axis=1), out.argmax(axis=1), len(critical))
    return np.bincount(first, minlength=len(critical) + 1)[:-1] / draws


# Lan-DeMets' O'Brien-Fleming bounds, two-sided .05, as ldbounds and gsDesign print them
PUBLISHED = {
    2: [2.963, 1.969],
    3: [3.710, 2.511, 1.993],
    4: [4.333, 2.963, 2.359, 2.014],
    5: [4.877, 3.357, 2.680, 2.290, 2.031],
}


@pytest.mark.parametrize("looks", PUBLISHED)
def test_with_independent_increments_the_bounds_are_the_published_ones(looks):
    found = boundaries(independent(looks), np.arange(1, looks + 1) / looks)
    np.testing.assert_allclose(found, PUBLISHED[looks], atol=6e-4)


def test_pocock_like_spending_has_its_published_bounds():
    found = boundaries(independent(5), np.arange(1, 6) / 5, spending="pocock")
    np.testing.assert_allclose(found, [2.438, 2.427, 2.410, 2.397, 2.386], atol=1e-3)


@pytest.mark.parametrize("name", COVARIANCES)
def test_each_look_lets_through_what_it_may_spend(name):
    covariance = COVARIANCES[name] * np.outer(EQUAL, EQUAL)  # scale does not matter
    critical = boundaries(covariance, EQUAL)
    allowed = np.diff(spent(EQUAL), prepend=0.0)
    let_through = exit_probabilities(covariance, critical)
    np.testing.assert_allclose(let_through, allowed, atol=4 * np.sqrt(allowed.max() / DRAWS))
    assert let_through.sum() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 / DRAWS))
    assert (critical >= norm.isf(0.025) - 3e-3).all()


def test_textbook_bounds_on_users_who_come_back_would_waste_power_and_ours_do_not():
    textbook = boundaries(independent(7), EQUAL)
    ours = boundaries(returning(7, 0.9), EQUAL)
    assert exit_probabilities(returning(7, 0.9), textbook).sum() < 0.045
    assert (ours <= textbook + 1e-3).all()


def test_bounds_agree_with_scipys_integral():
    covariance = correlation(returning(4))
    critical = boundaries(covariance, np.arange(1, 5) / 4)
    inside = multivariate_normal.cdf(critical, cov=covariance, lower_limit=-critical)
    assert 1 - inside == pytest.approx(0.05, abs=5e-5)


def test_a_later_look_moves_no_earlier_bound():
    whole = boundaries(returning(7), EQUAL)
    np.testing.assert_array_equal(boundaries(returning(7)[:4, :4], EQUAL[:4]), whole[:4])


def test_the_same_data_has_the_same_bounds():
    np.testing.assert_array_equal(boundaries(returning(7), EQUAL), boundaries(returning(7), EQUAL))


def test_a_look_left_out_leaves_its_share_to_the_next():
    t = np.array([1, 2, 5]) / 5
    critical = boundaries(1 / np.maximum.outer(t, t), t)
    assert critical[2] < PUBLISHED[5][4]
    assert exit_probabilities(1 / np.maximum.outer(t, t), critical).sum() == pytest.approx(
        0.05, abs=4 * np.sqrt(0.05 / DRAWS)
    )


def test_after_the_planned_days_nothing_is_left_to_spend():
    days = [3, 6, 8, 9]
    assert fractions(days, 7).tolist() == [3 / 7, 6 / 7, 1.0, 1.0]
    found = group_sequential(days, np.full(4, 9.0), independent(4), planned=7)
    assert np.isinf(found.looks[-1].critical)
    assert found.looks[-1].low is None
    assert found.looks[-1].spent == pytest.approx(0.05)


def test_ended_early_the_last_look_spends_the_rest_only_if_declared_final():
    covariance = independent(7)[:3, :3]
    assert spent(EQUAL[:3])[-1] < 0.002
    final = boundaries(covariance, np.array([1 / 7, 2 / 7, 1.0]))
    judged = [group_sequential([1, 2, 3], np.full(3, 0.01), covariance, 7, final=last) for last in (False, True)]
    assert [look.critical for look in judged[1].looks] == final.tolist()
    assert judged[0].looks[:2] == judged[1].looks[:2]
    assert judged[0].p_value is None
    assert judged[1].p_value > 0.9
    assert exit_probabilities(covariance, final).sum() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 / DRAWS))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.9, 2.2, 2.6, 3.3, 4.5, 7.0])
@pytest.mark.parametrize("covariance", [independent(7), returning(7)], ids=["new users", "the same users"])
def test_a_bound_is_crossed_exactly_where_interval_and_p_value_say_so(scale, covariance):
    effects = scale * np.sqrt(np.diag(covariance)) * 0.01 * np.sqrt(EQUAL)
    found = group_sequential(range(1, 8), effects, 1e-4 * covariance, planned=7)
    for look in found.looks:
        assert look.crossed == (look.low > 0 or look.high < 0)
        assert look.ci_low < look.relative < look.ci_high
    assert found.stopped_at == next((look.day for look in found.looks if look.crossed), None)
    assert (found.p_value <= 0.05) == (found.stopped_at is not None)
    sequential = sequential_p_value(scale * np.sqrt(EQUAL), covariance, EQUAL)
    if abs(sequential / 0.05 - 1) > 0.01:
        assert (sequential <= 0.05) == (found.stopped_at is not None)


@pytest.mark.parametrize("scale", [1.3, 2.0, 2.6, 3.3, 7.0, 30.0])
@pytest.mark.parametrize("covariance", [independent(7), returning(7)], ids=["new users", "the same users"])
def test_the_sequential_p_value_is_the_alpha_whose_bounds_are_just_touched(scale, covariance):
    z = scale * np.array([0.3, 0.7, 0.9, 1.0, 1.0, 0.9, 0.8])
    p_value = sequential_p_value(z, covariance, EQUAL)
    below, above = ((boundaries(covariance, EQUAL, p_value * factor) - z).min() for factor in (0.99, 1.01))
    assert above < 0 < below
    assert sequential_p_value(z[:4], covariance[:4, :4], EQUAL[:4]) >= p_value * 0.99


def test_p_values_at_the_end_are_uniform_where_nothing_differs():
    random = np.random.default_rng(3)
    z = random.multivariate_normal(np.zeros(3), correlation(returning(3)), 500)
    errors = np.sqrt(np.diag(returning(3)))
    p_values = np.array([group_sequential([1, 2, 3], row * errors, returning(3), 3).p_value for row in z])
    for level in (0.01, 0.05, 0.2, 0.5, 0.8):
        assert (p_values <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 500))


def test_without_a_crossing_an_analysis_under_way_has_no_p_value_yet():
    found = group_sequential([1, 2], np.array([0.1, 0.1]), independent(7)[:2, :2], planned=7)
    assert found.p_value is None
    assert "still to come" in found.reason
    assert group_sequential([], np.zeros(0), np.zeros((0, 0)), 7).reason == "no look yet has an effect"


@pytest.mark.parametrize(
    ("covariance", "information", "alpha", "said"),
    [
        (np.eye(2), np.array([0.5]), 0.05, "as many shares"),
        (np.eye(2), np.array([0.5, 0.4]), 0.05, "not fall"),
        (np.eye(2), np.array([0.0, 0.4]), 0.05, "above 0"),
        (np.eye(2), np.array([0.5, 1.1]), 0.05, "at most at 1"),
        (np.eye(2), np.array([0.5, 1.0]), 0.0, "alpha"),
        (np.diag([1.0, 0.0]), np.array([0.5, 1.0]), 0.05, "finite variance"),
        (np.diag([1.0, np.nan]), np.array([0.5, 1.0]), 0.05, "finite variance"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([0.5, 1.0]), 0.05, "no covariance"),
        (np.ones((1, 2)), np.array([0.5, 1.0]), 0.05, "shape"),
    ],
)
def test_what_is_no_plan_or_no_covariance_is_refused(covariance, information, alpha, said):
    with pytest.raises(ValueError, match=said):
        boundaries(covariance, information, alpha)


def test_days_and_spending_that_make_no_sense_are_refused():
    for days, planned in (([2, 1], 7), ([0, 1], 7), ([1], 0)):
        with pytest.raises(ValueError, match="days"):
            fractions(days, planned)
    with pytest.raises(ValueError, match="allowed are obrien-fleming and pocock"):
        spent(np.ones(1), spending="haybittle")


def test_bounds_of_several_are_each_as_if_it_were_alone():
    covariances = np.stack([returning(7), independent(7), returning(7, 0.9)])
    alone = np.stack([boundaries(covariance, EQUAL) for covariance in covariances])
    np.testing.assert_array_equal(boundaries(covariances, EQUAL), alone)
