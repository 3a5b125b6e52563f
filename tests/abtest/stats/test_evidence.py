import numpy as np
import pytest

from abtest.stats.evidence import evidence
from abtest.stats.largest import Largest
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Moments

MEAN, RATIO = Mean("m", "", "", "", "y"), Ratio("r", "", "", "", "y", "x")


def of(values, metric=MEAN):
    columns = ("x", "y")
    return evidence(metric, Moments.of(columns, values), Largest.of(columns, values, 2))


@pytest.mark.parametrize("metric", [MEAN, RATIO])
def test_rare_events_count_as_many_as_there_are(metric):
    values = np.zeros((100_000, 2))
    values[:, 0], values[:40, 1] = 1, 1
    found = of(values, metric)
    assert found.events == pytest.approx(40, rel=1e-3)
    assert found.error_share == pytest.approx(1 / 40, rel=1e-2)
    assert (found.share, found.column) == (pytest.approx(1 / 40), "y")


def test_the_user_with_most_of_the_error_is_found():
    values = np.column_stack([np.ones(1000), np.random.default_rng(1).gamma(1, 1, 1000)])
    values[7, 1] = 5000
    found = of(values)
    apart = (values[:, 1] - values[:, 1].mean()) ** 2
    assert found.error_share == pytest.approx(apart.max() / apart.sum())
    assert found.share == pytest.approx(5000 / values[:, 1].sum())
    assert values[7] in found.standouts


def test_sums_below_0_have_no_share_but_their_error_has():
    values = np.column_stack([np.ones(500), np.random.default_rng(1).normal(0.1, 1, 500)])
    found = of(values)
    assert found.share is None
    assert 0 < found.error_share < 0.05


def test_where_the_largest_users_are_not_known_events_are():
    values = np.ones((50, 2)) * np.arange(50)[:, None]
    found = evidence(MEAN, Moments.of(("x", "y"), values), None)
    assert found.error_share is None
    assert found.events > 50
