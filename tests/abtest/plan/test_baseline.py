"""What is known before an experiment, in the shape that a plan needs."""

import numpy as np
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.user_days import table
from abtest.collect.state import CollectorState, folded
from abtest.plan.baseline import before, days_for, during, lasting, share_of, stated
from abtest.plan.power import steady
from abtest.stats.metrics import Mean, Ratio
from contracts.config.experiment import Holdout, RampStep
from tests.abtest.abtest_cases import START, experiment, exposure, observe, rules, week

EVR = Ratio("evr", "", "", "", "effective_views", "views")
LATENCY = Ratio("latency", "", "", "", "answer_ms", "timed")
PLAY = Mean("play", "", "", "", "play_s")
FOLLOWS = Ratio("follow_rate", "", "", "", "follows", "views")


def of(events):
    return aggregate(table(folded(observe(CollectorState(rules()), *events))))


def test_days_beyond_the_baseline_bring_as_many_users_as_its_last_day():
    three = steady(1.0, 2.0, 100, 3)
    assert lasting(three, 5).users.tolist() == [100, 200, 300, 400, 500]
    assert lasting(three, 2).users.tolist() == [100, 200]
    known = during(PLAY, of(week(users=60)), days=9)
    users = known.baseline.users
    assert users[2] == 60
    assert np.allclose(np.diff(users[2:]), users[2] - users[1])
    assert np.linalg.eigvalsh(known.baseline.correlations).min() > -1e-9
    assert np.allclose(np.diag(known.baseline.correlations), 1)


def test_days_until_enough_users_have_come():
    three = steady(1.0, 2.0, 100, 3)
    assert [days_for(n, three) for n in (1, 100, 101, 300, 301, 1000)] == [1, 1, 2, 3, 4, 10]
    assert days_for(1000, steady(1.0, 2.0, 100, 3, returning=1.0)) is None


def test_a_running_experiment_gives_its_value_and_spread():
    known = during(EVR, of(week(users=60)), days=3)
    assert known.users == 60
    assert known.events == round(known.value * 2 * 120)  # two views on each of two days of three
    assert known.reason is None
    more = during(EVR, of(week(users=60)), days=3, users_per_day=200)
    assert more.baseline.users[-1] == pytest.approx(600)
    assert more.baseline.spread == pytest.approx(known.baseline.spread)


def test_a_day_on_which_nothing_had_happened_yet_is_no_obstacle():
    events = week(users=60)
    for event in events:
        if hasattr(event, "follow"):
            event.follow = event.follow and event.time_ms > START + 2 * 86_400_000
    known = during(FOLLOWS, of(events), days=3)
    assert known.events > 0
    assert known.baseline.users.tolist() == pytest.approx([20, 40, 60])


def test_what_has_no_value_says_why():
    shown_only = [exposure(user, "treatment" if user % 2 else "control", request=str(user)) for user in range(1, 9)]
    assert during(LATENCY, of(shown_only), days=3).reason == "no timed"
    assert during(EVR, of(shown_only), days=3).reason == "it has no value above 0"
    assert during(PLAY, of(shown_only), days=3).reason == "it has no value above 0"
    nobody = folded(CollectorState(rules()))
    assert before(EVR, nobody, 3, 1.0).reason == "no users"


def test_the_share_of_users_is_that_of_slots_holdout_and_the_last_step_of_the_ramp():
    ramp = (RampStep(from_ms=START, share=0.01), RampStep(from_ms=START + 1, share=0.4))
    taken = experiment(slots=(0.25, 0.75), holdout=Holdout(salt="h", share=0.1), ramp=ramp)
    assert share_of(taken) == pytest.approx(0.5 * 0.9 * 0.4)


def test_stated_numbers_must_be_above_0():
    assert stated(2.0, 3.0, 100, 4).baseline.spread.tolist() == pytest.approx([2.25] * 4)
    with pytest.raises(ValueError, match="above 0"):
        stated(0.0, 3.0, 100, 4)
