"""An experiment's little crowd, whose users come on some of a week's days."""

import numpy as np

from abtest.aggregate.user_days import arranged
from contracts.config.experiment import MetricPlan
from tests.abtest.abtest_cases import experiment

ARMS, COLUMNS, COVARIATES = ("control", "treatment"), ("views", "play_s"), ("pre.views", "pre.play_s")
WEEK = experiment(
    metrics=(
        MetricPlan(name="play", kind="mean", columns=("play_s",), role="primary"),
        MetricPlan(name="play_p90", kind="quantile", columns=("play_s",), q=0.9),
        MetricPlan(name="views", kind="mean", columns=("views",)),
    )
)


class Crowd:
    """Users on some of a week's days; `arm` (users, days), so that one may change."""

    def __init__(self, users=600, seed=9, mean=0.0):
        random = np.random.default_rng(seed)
        self.ids = random.choice(10**9, users, replace=False)
        self.seen = random.random((users, 7)) < 0.5
        self.arm = np.repeat(random.integers(0, 2, users)[:, None], 7, axis=1)
        self.values = random.gamma(2.0, 3.0, (users, 7, 2)) + mean
        self.pre = (random.gamma(2.0, 9.0, (users, 2)) + mean) * (random.random(users) < 0.7)[:, None]

    def table(self, days, inside=None):
        came = self.seen.copy()
        came[:, [d for d in range(7) if d not in days]] = False
        if inside is not None:
            came[~inside] = False
        users = np.flatnonzero(came.any(axis=1))
        user, day = np.nonzero(came[users])
        arm = self.arm[users, came[users].argmax(axis=1)]
        pre = self.pre[users]
        return arranged(ARMS, COLUMNS, COVARIATES, self.ids[users], arm, pre, day, user, self.values[users][user, day])
