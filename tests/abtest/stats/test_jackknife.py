import numpy as np
import pytest

from abtest.stats.effects import compare
from abtest.stats.jackknife import Buckets, jackknife
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Moments

COLUMNS = ("views", "ev")
EVR, VIEWS = Ratio("evr", "", "", "", "ev", "views"), Mean("views", "", "", "", "views")


def arm(seed, users=6000, buckets=200, lift=1.0):
    """An arm's users by bucket, and all its users' moments."""
    random = np.random.default_rng(seed)
    views = 1 + random.poisson(random.gamma(2, 5, users))
    values = np.stack([views, random.binomial(views, np.minimum(1, lift * random.beta(2, 4, users)))], axis=1).astype(
        float
    )
    bucket = random.integers(0, buckets, users)
    sums = np.zeros((buckets, 2))
    np.add.at(sums, bucket, values)
    return Buckets(COLUMNS, sums, np.bincount(bucket, minlength=buckets)), Moments.of(COLUMNS, values)


@pytest.mark.parametrize("metric", [EVR, VIEWS])
def test_deleting_buckets_in_turn_one_by_one_gives_the_same_errors(metric):
    (t, _), (c, _) = arm(1, lift=1.1), arm(2)
    differences, ratios = [], []
    for i in range(len(t.counts)):
        left = [np.arange(len(t.counts)) != i] * 2
        values = [
            float(metric.values(COLUMNS, of.sums[keep].sum(axis=0) / of.counts[keep].sum()))
            for of, keep in zip((t, c), left, strict=True)
        ]
        differences.append(values[0] - values[1])
        ratios.append(np.log(values[0] / values[1]))
    n = len(differences)
    found = jackknife(metric, t, c)
    assert found.difference_std_error == pytest.approx(
        np.sqrt((n - 1) ** 2 / n * np.var(differences, ddof=1)), rel=1e-9
    )
    assert found.log_std_error == pytest.approx(np.sqrt((n - 1) ** 2 / n * np.var(ratios, ddof=1)), rel=1e-9)


@pytest.mark.parametrize("metric", [EVR, VIEWS])
def test_with_users_dealt_into_buckets_by_chance_it_agrees_with_the_delta_method(metric):
    """Its own chance error with 200 buckets is 1/sqrt(400) = 5 %."""
    (t, t_moments), (c, c_moments) = arm(3, lift=1.1), arm(4)
    found, delta = jackknife(metric, t, c), compare(metric.estimate(t_moments), metric.estimate(c_moments))
    assert found.difference == pytest.approx(delta.difference, rel=1e-9)
    assert found.relative == pytest.approx(delta.relative, rel=1e-9)
    assert found.difference_std_error == pytest.approx(delta.difference_std_error, rel=0.2)
    assert found.ci_low == pytest.approx(delta.ci_low, abs=0.2 * (delta.ci_high - delta.ci_low))
    assert found.ci_low < found.relative < found.ci_high


def test_what_both_arms_of_a_bucket_share_does_not_count_as_noise():
    """Every bucket has its own level, the same in both arms: deletion in pairs sees that it cancels."""
    level = np.random.default_rng(5).gamma(5, 10, 100)
    counts = np.full(100, 10)
    t, c = (Buckets(("x",), (level + shift)[:, None] * 10, counts) for shift in (1.0, 0.0))
    found = jackknife(Mean("x", "", "", "", "x"), t, c)
    assert found.difference == pytest.approx(1.0)
    assert found.difference_std_error < 1e-9
    assert found.log_std_error < 0.01 * np.std(level) / np.mean(level)


def test_empty_buckets_change_nothing():
    (t, _), (c, _) = arm(6), arm(7)
    grown = [Buckets(COLUMNS, np.pad(of.sums, ((0, 9), (0, 0))), np.pad(of.counts, (0, 9))) for of in (t, c)]
    assert jackknife(EVR, *grown) == jackknife(EVR, t, c)


def test_intervals_are_students_t():
    (t, _), (c, _) = arm(8, buckets=5), arm(9, buckets=5)
    found = jackknife(EVR, t, c)
    half = (found.difference_high - found.difference_low) / 2
    assert half / found.difference_std_error == pytest.approx(2.7764451, rel=1e-7)  # t, .975, 4 degrees of freedom
    assert found.buckets == 5


@pytest.mark.parametrize(
    ("sums", "counts", "reason"),
    [
        ([[0, 0]] * 3, [0, 0, 0], "no value in one of the arms"),
        ([[0, 0]] * 3, [5, 5, 5], "no value in one of the arms"),
        ([[9, 1], [0, 0], [0, 0]], [5, 5, 5], "no value in one of the arms without one of the buckets"),
        ([[9, 0]] * 3, [5, 5, 5], "a value is not above 0"),
    ],
)
def test_what_cannot_be_told_has_a_reason(sums, counts, reason):
    good = Buckets(COLUMNS, np.array([[9.0, 2], [9, 3], [9, 4]]), np.array([5, 5, 5]))
    found = jackknife(EVR, Buckets(COLUMNS, np.array(sums, float), np.array(counts)), good)
    assert reason in found.reason
    assert found.ci_low is found.p_value is None


def test_one_bucket_is_too_few_and_unlike_buckets_are_an_error():
    one = Buckets(COLUMNS, np.array([[9.0, 2]]), np.array([5]))
    assert jackknife(EVR, one, one).reason == "users in fewer than 2 buckets"
    with pytest.raises(ValueError, match="buckets are not the same"):
        jackknife(EVR, one, arm(1)[0])


def test_a_ratio_beyond_all_numbers_has_no_interval_and_the_difference_has():
    """Two buckets, so one degree of freedom: at 1e-12 Student's t is 6e11."""
    arms = [Buckets(("x",), np.array(sums)[:, None], np.ones(2, np.int64)) for sums in ([3.0, 5.0], [2.0, 2.5])]
    found = jackknife(Mean("x", "x", "", "", "x"), *arms, alpha=1e-12)
    assert (found.ci_low, found.ci_high, found.p_value) == (None, None, None)
    assert found.reason == "no relative difference: the values are too near 0 for their errors"
    assert found.difference == pytest.approx(1.75)
    assert found.difference_high > 1e11
