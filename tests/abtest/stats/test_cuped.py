import numpy as np
import pytest

from abtest.stats.cuped import adjust
from abtest.stats.effects import compare
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Moments

COLUMNS = ("views", "ev", "play", "pre.views", "pre.ev", "pre.play", "constant", "nothing")
PLAY, EVR = Mean("play", "", "", "", "play"), Ratio("evr", "", "", "", "ev", "views")
PRE_EVR = Ratio("pre.evr", "", "", "", "pre.ev", "pre.views")


def users(random, n, lift=1.0):
    activity, taste = random.gamma(2.0, 1.0, n), random.beta(2, 4, n)
    views, before = 1 + random.poisson(9 * activity), 1 + random.poisson(9 * activity)
    columns = [
        views,
        random.binomial(views, taste),
        lift * views * random.lognormal(1, 0.5, n),
        before,
        random.binomial(before, taste),
        before * random.lognormal(1, 0.5, n),
        np.full(n, 0.1),
        np.zeros(n),
    ]
    return np.stack(columns, axis=1).astype(float)


def arms(seed=0, sizes=(900, 700), lift=1.2):
    random = np.random.default_rng(seed)
    return {
        "t": Moments.of(COLUMNS, users(random, sizes[0], lift)),
        "c": Moments.of(COLUMNS, users(random, sizes[1])),
    }


@pytest.mark.parametrize(
    ("metric", "covariates"), [(PLAY, ["pre.play"]), (EVR, [PRE_EVR]), (EVR, ["pre.ev", "pre.views"])]
)
def test_covariates_that_tell_something_take_variance_away(metric, covariates):
    found = adjust(arms(), metric, covariates)
    assert 0.1 < found.variance_removed < 0.9
    for arm, moments in arms().items():
        assert found.estimates[arm].variance < metric.estimate(moments).variance


def test_more_covariates_do_not_take_less_away_by_more_than_chance():
    one, three = (
        adjust(arms(), PLAY, names).variance_removed for names in (["pre.play"], ["pre.play", "pre.views", "pre.ev"])
    )
    assert three > one - 0.01


def test_the_adjustment_favours_no_arm():
    """Over 400 experiments without an effect, the adjusted difference is 0 but for chance, and spreads as it says."""
    z = []
    for seed in range(400):
        found = adjust(arms(seed, (300, 200), 1.0), PLAY, ["pre.play", "pre.views"]).estimates
        effect = compare(found["t"], found["c"])
        z.append(effect.difference / effect.difference_std_error)
    assert abs(np.mean(z)) < 4 / np.sqrt(400)
    assert np.std(z) == pytest.approx(1.0, abs=4 / np.sqrt(800))


def test_a_covariate_without_variance_is_dropped_and_named():
    with_it = adjust(arms(), PLAY, ["constant", "pre.play", "nothing"])
    without = adjust(arms(), PLAY, ["pre.play"])
    assert with_it.dropped == ("constant", "nothing")
    assert with_it.covariates == ("pre.play",)
    assert with_it.estimates["t"].value == without.estimates["t"].value


def test_nothing_to_adjust_by_leaves_the_plain_estimates():
    for names in ([], ["constant"]):
        found = adjust(arms(), PLAY, names)
        assert found.estimates["t"].value == PLAY.estimate(arms()["t"]).value
        assert found.variance_removed == 0
        assert found.covariates == ()
        assert found.dropped == tuple(names)


def test_covariates_that_say_the_same_count_once():
    twice = {arm: of.sums([(c, [c]) for c in COLUMNS] + [("again", ["pre.play"] * 3)]) for arm, of in arms().items()}
    one, both = (adjust(twice, PLAY, names) for names in (["pre.play"], ["pre.play", "again"]))
    for arm in twice:
        assert both.estimates[arm].value == pytest.approx(one.estimates[arm].value, rel=1e-9)
        assert both.estimates[arm].variance == pytest.approx(one.estimates[arm].variance, rel=1e-9)


def test_the_coefficients_are_of_all_arms_and_the_means_too():
    """With three arms, the adjusted values' mean, weighted by users, is the plain one's."""
    three = {**arms(), "u": arms(1)["c"]}
    found = adjust(three, PLAY, ["pre.play"]).estimates
    plain = sum(of.n * PLAY.estimate(of).value for of in three.values())
    assert sum(of.n * found[arm].value for arm, of in three.items()) == pytest.approx(plain, rel=1e-12)


def test_the_unit_of_a_covariate_does_not_matter():
    small = {arm: of.linear(COLUMNS, np.diag([1, 1, 1, 1e9, 1, 1e-9, 1, 1])) for arm, of in arms().items()}
    found, scaled = (adjust(of, PLAY, ["pre.play", "pre.views"]) for of in (arms(), small))
    assert scaled.estimates["t"].value == pytest.approx(found.estimates["t"].value, rel=1e-9)
    assert scaled.variance_removed == pytest.approx(found.variance_removed, rel=1e-9)


def test_arms_of_too_little_keep_their_reasons():
    nothing, one = (Moments.of(COLUMNS, users(np.random.default_rng(1), n)) for n in (0, 1))
    found = adjust({**arms(), "empty": nothing, "one": one}, PLAY, ["pre.play"])
    assert found.estimates["empty"].reason == "no users"
    assert found.estimates["one"].reason == "fewer than 2 users"
    assert found.estimates["one"].variance is None
    assert found.variance_removed is None
    assert found.estimates["t"].variance is not None
    assert adjust({"empty": nothing}, PLAY, ["pre.play"]).estimates["empty"].reason == "no users"


def test_a_covariate_without_a_value_in_one_arm_is_dropped_everywhere():
    """Zero denominators before the experiment: the arm's covariate is unknown, not 0."""
    moments = arms()
    silent = Moments.of(COLUMNS, users(np.random.default_rng(5), 50) * np.array([1, 1, 1, 0, 0, 1, 1, 1]))
    found = adjust({**moments, "s": silent}, EVR, [PRE_EVR, "pre.play"])
    assert found.dropped == ("pre.evr",)
    assert found.covariates == ("pre.play",)


def test_the_influence_has_the_estimates_variance():
    moments = arms()
    for arm, estimate in adjust(moments, EVR, [PRE_EVR, "pre.play"]).estimates.items():
        variance = estimate.influence @ moments[arm].covariances @ estimate.influence / moments[arm].n
        assert variance == pytest.approx(estimate.variance, rel=1e-12)


def test_no_arms_is_an_error():
    with pytest.raises(ValueError, match="no arms"):
        adjust({}, PLAY, ["pre.play"])
