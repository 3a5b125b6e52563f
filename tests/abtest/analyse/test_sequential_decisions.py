"""A crossed bound is a decision: later looks are overrun and take nothing back."""

from itertools import pairwise

import numpy as np
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.user_days import arranged
from abtest.analyse.analysis import report
from abtest.analyse.context import ReportContext
from abtest.collect.observed import Observed
from abtest.report.html import html
from abtest.report.markdown import markdown
from contracts.config.experiment import AnalysisPlan, Arm, Experiment, MetricPlan
from contracts.runtime.clock import DAY_MS

DAYS, USERS = 7, 6000
PRIMARY = MetricPlan(name="evr", kind="ratio", columns=("effective_views", "views"), role="primary")
GUARDRAIL = MetricPlan(name="play", kind="mean", columns=("play_s",), role="guardrail", minimum_effect=0.01)


def week(kind, lift, guardrail_lift=(0.0,) * DAYS, seen=DAYS, minimum_effect=0.0, bot=None):
    """Users who come every day; `lift` of the rate and of seconds played by day. `bot`: of the treatment, the day on
    which one user views so many items more, all of them effectively, and plays so many seconds.
    """
    random = np.random.default_rng(5)
    user, day = (each.ravel() for each in np.meshgrid(np.arange(USERS), np.arange(DAYS), indexing="ij"))
    arm, views = np.arange(USERS) % 2, np.full(len(user), 10)
    treated = arm[user] == 1
    effective = random.binomial(views, 0.3 + np.array(lift)[day] * treated)
    played = random.gamma(4, 1, len(user)) * (1 + np.array(guardrail_lift)[day] * treated)
    values = np.stack([views, effective, played], axis=1).astype(float)
    for bot_day, more, liked, seconds in bot or ():
        values[(user == 1) & (day == bot_day)] += (more, liked, seconds)
    arms = ("control", "treatment")
    experiment = Experiment(
        name="week",
        salt="week",
        start_ms=0,
        end_ms=DAYS * DAY_MS,
        arms={name: Arm(weight=1, model="two_tower") for name in arms},
        control="control",
        metrics=(PRIMARY.model_copy(update={"minimum_effect": minimum_effect}), GUARDRAIL),
        analysis=AnalysisPlan(kind=kind, cuped=False),
    )
    ids, none, kept = np.arange(USERS) + 1, np.zeros((USERS, 0)), day < seen
    columns = ("views", "effective_views", "play_s")
    table = arranged(arms, columns, (), ids, arm, none, day[kept], user[kept], values[kept])
    newest_ms = (DAYS + 1 if seen == DAYS else seen) * DAY_MS
    return report(aggregate(table, looks=experiment.look_days), experiment, Observed(newest_ms=newest_ms))


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


def test_a_running_intersection_never_widens_while_the_effect_stays():
    looks = next(each for each in week("confidence-sequence", (0.02,) * DAYS).courses if each.metric == "evr").looks
    assert not any(look.changed for look in looks)
    for before, after in pairwise(looks):
        assert before.low <= after.low < after.high <= before.high


def test_days_that_contradict_each_other_conclude_nothing():
    up_and_down = (0.008, 0.008, -0.03, -0.03, -0.03, 0.0, 0.0)
    found = week("confidence-sequence", up_and_down, minimum_effect=0.2)
    looks = next(each for each in found.courses if each.metric == "evr").looks
    assert [look.changed for look in looks] == sorted(look.changed for look in looks)
    assert not looks[1].changed
    assert looks[-1].changed
    assert looks[-1].low < looks[-1].relative < looks[-1].high  # the day's own


def test_an_effect_that_is_gone_after_the_decision_is_told():
    (verdict,) = week("group-sequential", FADES).verdicts
    assert "but the effect has changed since: " in verdict.because
    assert "after day 7" in verdict.because


@pytest.mark.parametrize("kind", ["group-sequential", "confidence-sequence"])
def test_a_guardrail_that_broke_stays_broken(kind):
    lost = (-0.2, -0.2, -0.2, 0.2, 0.2, 0.2, 0.2)
    (verdict,) = week(kind, (0.0,) * DAYS, lost).verdicts
    assert (verdict.decision, verdict.broken) == ("hold", ("play",))


def test_a_crossing_by_too_little_waits_for_a_look_that_decides():
    grows = (0.008, 0.008, 0.02, 0.03, 0.04, 0.04, 0.04)
    line = week("group-sequential", grows, minimum_effect=0.05).metrics[0].effects[0]
    assert line.planned.stopped_on < line.planned.decided_on == line.deciding.look < 6


BOTS = {
    "none": (),
    "late, for the arm": ((5, 9_000, 9_000, 50_000.0),),
    "late, against it": ((5, 9_000, 0, 0.0),),
    "early, for the arm": ((0, 9_000, 9_000, 50_000.0),),
    "early, against it": ((0, 9_000, 0, 0.0),),
}


@pytest.mark.parametrize("kind", ["group-sequential", "confidence-sequence"])
@pytest.mark.parametrize("bot", BOTS)
@pytest.mark.parametrize(
    ("lift", "guardrail_lift"),
    [
        (FADES, (0.0,) * DAYS),
        ((-0.02, -0.02, -0.02, 0.03, 0.03, 0.03, 0.03), (0.0,) * DAYS),
        ((0.0,) * DAYS, (-0.1, -0.1, -0.1, 0.2, 0.2, 0.2, 0.2)),
    ],
)
def test_no_day_takes_a_decision_back(kind, bot, lift, guardrail_lift):
    verdicts = [week(kind, lift, guardrail_lift, seen, bot=BOTS[bot]).verdicts[0] for seen in range(1, DAYS + 1)]
    decisions = [verdict.decision for verdict in verdicts]
    decided = [decision for decision in decisions if decision != "inconclusive"]
    if bot == "none" or bot.startswith("late"):
        assert decided, decisions
    first = decisions.index(decided[0]) if decided else DAYS
    assert decisions[first:] == [decisions[first]] * (DAYS - first) if decided else True
    broken = [verdict.broken for verdict in verdicts]
    assert broken == sorted(broken, key=len)


def test_a_look_that_rests_on_one_user_waits_for_one_that_does_not():
    without, with_one = (
        week("group-sequential", (0.05,) * DAYS, bot=bot).metrics[0].effects[0].deciding
        for bot in ((), ((0, 4_500, 1_450, 0.0),))
    )
    assert (without.look, with_one.look) == (0, 1)
    assert with_one.largest_share["treatment"] < 0.1
