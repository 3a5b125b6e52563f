"""A little table of users and days, and what the tests of reading compare."""

from datetime import date, timedelta

import numpy as np
import pandas as pd

from contracts.config.experiment import MetricPlan
from tests.abtest.abtest_cases import experiment

METRICS = (
    MetricPlan(name="evr", kind="ratio", columns=("effective_views", "views"), role="primary"),
    MetricPlan(name="play", kind="mean", columns=("play_s",)),
)


FIRST = date(1970, 1, 11)


WEEK = experiment(metrics=METRICS)


def people(users=400, seed=5):
    """Rows of users and days in no order, and what the users did before."""
    random = np.random.default_rng(seed)
    ids = random.choice(10**12, users, replace=False) - 10**11
    arm = np.where(random.random(users) < 0.5, "control", "treatment")
    user, day = np.nonzero(random.random((users, 7)) < 0.5)
    order = random.permutation(len(user))
    user, day = user[order], day[order]
    views = random.poisson(6, len(user)) + 1
    days = pd.DataFrame(
        {
            "user_id": ids[user],
            "arm": arm[user],
            "day": [FIRST + timedelta(days=int(d)) for d in day],
            "views": views,
            "effective_views": random.binomial(views, 0.3),
            "play_s": views * random.exponential(9.5, len(user)),
        }
    )
    pre = pd.DataFrame({"user_id": ids, "views": random.poisson(20, users), "play_s": random.exponential(300, users)})
    return days, pre


def parquet(tmp_path, days, name="days.parquet"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    days.to_parquet(path, index=False)
    return path


def assert_same(found, expected):
    assert (found.columns, found.covariates, found.days, found.users) == (
        expected.columns,
        expected.covariates,
        expected.days,
        expected.users,
    )
    for arm in expected.arms:
        np.testing.assert_allclose(found.moments[arm].means, expected.moments[arm].means, rtol=1e-12)
        a, b = found.moments[arm].products, expected.moments[arm].products
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.sqrt(np.outer(b.diagonal(), b.diagonal())).max())
        np.testing.assert_allclose(found.buckets[arm].sums, expected.buckets[arm].sums, rtol=1e-12)
        for segment, by_arm in expected.segments.items():
            np.testing.assert_allclose(found.segments[segment][arm].means, by_arm[arm].means, rtol=1e-12)
