"""The A/A replay finds an analysis that can be trusted, and one that cannot."""

import numpy as np
import pytest

from abtest.plan.aa import enough, replay
from abtest.stats.estimates import Estimate
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Moments

COLUMNS = ("views", "effective_views", "play_s")
EVR = Ratio("evr", "EVR", "%", "", "effective_views", "views")
PLAY = Mean("play", "Play", "s", "", "play_s")


def users(count: int = 800) -> np.ndarray:
    random = np.random.default_rng(3)
    views = random.poisson(random.gamma(1, 20, count)) + 1
    effective = random.binomial(views, random.beta(2, 5, count))
    return np.column_stack([views, effective, views * random.lognormal(2, 0.5, count)]).astype(float)


class ByEvent:
    """The wrong test: every view a unit of its own. No metric of ours can say this; the replay must see through it."""

    name = "evr_by_event"

    def estimate(self, moments: Moments) -> Estimate:
        rate = moments.total("effective_views") / moments.total("views")
        return Estimate(moments.n, rate, rate * (1 - rate) / moments.total("views"))


def test_metrics_over_users_keep_their_level_and_one_over_events_does_not():
    evr, play, by_event = replay(COLUMNS, users(), [EVR, PLAY, ByEvent()], 600, seed=1)
    assert (evr.trusted, play.trusted, by_event.trusted) == (True, True, False)
    assert by_event.false_positives > 0.2
    assert evr.uniform_p > 0.01 > by_event.uniform_p


def test_the_same_seed_gives_the_same_answer_and_progress_is_told():
    told = []
    once = replay(COLUMNS, users(50), [EVR], 5, seed=1, progress=told.append)
    assert once == replay(COLUMNS, users(50), [EVR], 5, seed=1)
    assert told == [1, 2, 3, 4, 5]


def test_few_replicates_tell_nothing_but_of_a_metric_that_is_far_off():
    evr, by_event = replay(COLUMNS, users(), [EVR, ByEvent()], 30, seed=1)
    assert evr.trusted is None
    assert evr.reason == "30 replicates are too few to tell, at least 104 are needed"
    assert (by_event.trusted, by_event.reason) == (False, None)
    (told,) = replay(COLUMNS, users(100), [PLAY], enough(0.05), seed=1)
    assert told.trusted is not None


def test_a_metric_that_never_has_a_p_value_says_why():
    (level,) = replay(COLUMNS, np.zeros((10, 3)), [PLAY], 3, seed=1)
    assert (level.trusted, level.replicates) == (None, 0)
    assert "the value is 0" in level.reason


def test_too_few_users_are_refused():
    with pytest.raises(ValueError, match="3 users are too few"):
        replay(COLUMNS, users(3), [EVR], 3, seed=1)
