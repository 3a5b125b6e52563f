"""A crossed bound is a decision: later looks are overrun and take nothing back."""

from itertools import pairwise

import numpy as np
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.user_days import arranged
from abtest.analyse.analysis import report
from abtest.analyse.context import ReportContext
from abtest.analyse.planned import planned
from abtest.analyse.results import ArmEffect, Course, Look, MetricResult
from abtest.collect.observed import Observed
from abtest.report.html import html
from abtest.report.markdown import markdown
from abtest.stats.effects import Effect
from abtest.stats.novelty import Trend
from contracts.config.experiment import AnalysisPlan, Arm, Experiment, MetricPlan
from contracts.runtime.clock import DAY_MS

DAYS, USERS = 7, 6000
PRIMARY = MetricPlan(name="evr", kind="ratio", columns=("effective_views", "views"), role="primary")
GUARDRAIL = MetricPlan(name="play", kind="mean", columns=("play_s",), role="guardrail", minimum_effect=0.01)


def week(kind, lift, guardrail_lift=(0.0,) * DAYS):
    """Users who come every day; `lift` of the rate and of seconds played by day."""
    random = np.random.default_rng(5)
    user, day = (each.ravel() for each in np.meshgrid(np.arange(USERS), np.arange(DAYS), indexing="ij"))
    arm, views = np.arange(USERS) % 2, np.full(len(user), 10)
    treated = arm[user] == 1
    effective = random.binomial(views, 0.3 + np.array(lift)[day] * treated)
    played = random.gamma(4, 1, len(user)) * (1 + np.array(guardrail_lift)[day] * treated)
    arms = ("control", "treatment")
    experiment = Experiment(
        name="week",
        salt="week",
        start_ms=0,
        end_ms=DAYS * DAY_MS,
        arms={name: Arm(weight=1, model="two_tower") for name in arms},
        control="control",
        metrics=(PRIMARY, GUARDRAIL),
        analysis=AnalysisPlan(kind=kind, cuped=False),
    )
    values = np.stack([views, effective, played], axis=1)
    ids, none = np.arange(USERS) + 1, np.zeros((USERS, 0))
    table = arranged(arms, ("views", "effective_views", "play_s"), (), ids, arm, none, day, user, values)
    return report(aggregate(table), experiment, Observed(newest_ms=(DAYS + 1) * DAY_MS))


FADES = (0.02, 0.02, 0.02, -0.02, -0.02, -0.02, -0.01)


@pytest.mark.parametrize("kind", ["group-sequential", "confidence-sequence"])
def test_a_crossing_is_a_decision_although_the_effect_is_gone_at_the_end(kind):
    found = week(kind, FADES)
    line = found.metrics[0].effects[0]
    (verdict,) = found.verdicts
    assert verdict.decision == "ship"
    assert f"Decided after day {line.planned.decided_on + 1}" in verdict.because
    assert line.planned.stopped_on == line.planned.decided_on < 6
    assert line.planned.low > 0
    assert line.planned.p_value <= 0.05  # of the same look as the interval
    assert line.planned.now.day == 6
    for page in (markdown(found, ReportContext()), html(found, ReportContext())):
        assert "overrun, after day 7" in page


def test_the_repeated_interval_now_may_hold_0():
    now = week("group-sequential", FADES).metrics[0].effects[0].planned.now
    assert now.low < 0 < now.high


def test_a_running_intersection_never_widens():
    looks = next(each for each in week("confidence-sequence", FADES).courses if each.metric == "evr").looks
    for before, after in pairwise(looks):
        assert before.low <= after.low < after.high <= before.high


@pytest.mark.parametrize("kind", ["group-sequential", "confidence-sequence"])
def test_a_guardrail_that_broke_stays_broken(kind):
    lost = (-0.2, -0.2, -0.2, 0.2, 0.2, 0.2, 0.2)
    (verdict,) = week(kind, (0.0,) * DAYS, lost).verdicts
    assert (verdict.decision, verdict.broken) == ("hold", ("play",))


def test_a_crossing_by_too_little_waits_for_a_look_that_decides():
    looks = (
        Look(0, 0.03, 0.01, 0.07, 3.0, crossed=True),
        Look(1, 0.06, 0.04, 0.08, 2.5, crossed=True),
        Look(2, 0.01, -0.01, 0.03, 2.0, crossed=False),
    )
    trend = Trend(0, None, None, None, None, None, None)
    course = Course("evr", "a", (), (), trend, looks, p_value=0.01, stopped_on=0)
    result = MetricResult("evr", "evr", "", "", "primary", "increase", 0.05, (), (ArmEffect("a", Effect()),))
    (judged,) = planned([result], [course], AnalysisPlan(kind="group-sequential"))
    assert (judged.effects[0].planned.decided_on, judged.effects[0].planned.now.day) == (1, 2)
