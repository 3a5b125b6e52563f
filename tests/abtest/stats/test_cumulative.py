import numpy as np
import pytest

from abtest.stats.columns import Column
from abtest.stats.cumulative import so_far, sums_so_far
from abtest.stats.group_sequential import boundaries, fractions
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Moments
from abtest.stats.novelty import course


def test_looks_so_far_are_those_of_sums_over_the_days_and_users_so_far():
    random = np.random.default_rng(1)
    first = np.eye(3)[random.integers(0, 3, 300)]
    here = first.cumsum(axis=1)
    views = random.poisson(5, (300, 3)) * here
    liked = random.binomial(views.astype(int), 0.3)
    names = tuple(Column(name, day) for name in ("first", "views", "liked") for day in range(3))
    metrics = [Mean("views", "", "", "", "views"), Ratio("rate", "", "", "", "liked", "views")]
    moments = Moments.of(names, np.concatenate([first, views, liked], axis=1))
    so_far_by_day = moments.sums(sums_so_far(metrics, range(3)))
    for day in range(3):
        came = here[:, day] == 1
        mean, rate = (so_far(metric, day).estimate(so_far_by_day) for metric in metrics)
        assert mean.value == pytest.approx(views[came, : day + 1].sum() / came.sum())
        assert rate.value == pytest.approx(liked[:, : day + 1].sum() / views[:, : day + 1].sum())
        alone = Moments.of(("views",), views[came, : day + 1].sum(axis=1, keepdims=True))
        assert mean.variance == pytest.approx(metrics[0].estimate(alone).variance, rel=0.01)
    effects = course([so_far(metrics[0], day) for day in range(3)], so_far_by_day, so_far_by_day)
    assert len(boundaries(effects.covariance, fractions([1, 2, 3], 3))) == 3
