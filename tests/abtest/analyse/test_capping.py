"""What a report says of caps, and what capping does to a verdict."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from abtest.aggregate.user_days import arranged
from abtest.aggregate.winsorize import capped, caps_of, pooled_sums
from abtest.analyse.analysis import analyse, report
from abtest.analyse.capping import checks_of_caps, unlike, where
from abtest.analyse.interim import MOVES, live_report
from abtest.analyse.one_look import false_alarms, shuffled_verdicts
from abtest.analyse.results import Winsorized
from abtest.collect.state import CollectorState
from abtest.plan.aa import replay_table
from abtest.read.rows import read
from abtest.report.html import html
from abtest.report.markdown import markdown
from abtest.report.wording import plan_lines
from abtest.stats.metrics import capped_columns, of_experiment
from contracts.config.experiment import METRICS, AnalysisPlan, MetricPlan, Winsorize
from tests.abtest.abtest_cases import experiment, observe, rules, week
from tests.abtest.report_cases import CONTEXT

SPEND = MetricPlan(name="spend", kind="mean", columns=("spend",), role="primary")
AT_1200 = Winsorized(
    "p", "Play (capped)", "play_s", "s", "value", None, 1200.0, 0, {"a": 1000, "b": 1000}, {"a": 0, "b": 3}, 0.25
)


def shop(bot=0.0, lift=0.1, users=4000, seed=2):
    """Rows of three days; `bot`: what user 1, in the treatment, spends on the second day beside."""
    random = np.random.default_rng(seed)
    user, day = np.nonzero(random.random((users, 3)) < 0.7)
    spend = random.gamma(2.0, 10.0, len(user)) * np.where(user % 2, 1 + lift, 1.0)
    days = pd.DataFrame(
        {"user_id": user, "arm": np.where(user % 2, "treatment", "control"), "day": day, "spend": spend}
    )
    extra = pd.DataFrame({"user_id": [1], "arm": ["treatment"], "day": [1], "spend": [bot]})
    return pd.concat([days, extra]).groupby(["user_id", "arm", "day"], as_index=False).spend.sum()


def judged(days, winsorize=None, **changes):
    metric = SPEND.model_copy(update={"winsorize": winsorize})
    of = experiment(days=3, metrics=(metric,), **changes)
    return report(read(days, of).aggregate, of)


def test_one_bot_makes_a_metric_undecided_and_a_cap_decides_it():
    days = shop(bot=60_000.0)
    (plain,) = judged(days).verdicts
    assert plain.decision == "inconclusive"
    assert "one user has" in plain.because
    for how in (Winsorize(quantile=0.99), Winsorize(at=150)):
        found = judged(days, how)
        assert found.verdicts[0].decision == "ship"
        (line,) = found.metrics[0].effects
        assert line.planned.low < 0.1 < line.planned.high
        assert found.metrics[0].label == "spend (capped)"
        assert "a user’s sum is capped at" in found.metrics[0].about
    (level,) = [check for check in found.checks if check.name == "winsorized:spend"]
    assert level.level == "ok"
    unmoved = judged(shop(), Winsorize(at=150)).metrics[0].effects[0]
    assert line.effect.difference == pytest.approx(unmoved.effect.difference, rel=0.1)


def test_the_report_has_the_threshold_where_it_is_from_and_how_many_users_of_each_arm():
    days = shop(users=400)
    (cap,) = judged(days, Winsorize(quantile=0.99)).winsorized
    totals = days.groupby(["arm", "user_id"]).spend.sum()
    threshold = np.sort(totals.to_numpy())[int(np.ceil(0.99 * len(totals))) - 1]
    above = totals[totals > threshold * (1 + 1e-12)].groupby("arm").size()
    assert cap.threshold == pytest.approx(threshold, rel=1e-12)
    assert (cap.metric, cap.column, cap.of, cap.quantile, cap.among) == ("spend", "spend", "pooled", 0.99, len(totals))
    assert cap.capped == {arm: int(above.get(arm, 0)) for arm in ("control", "treatment")}
    assert sum(cap.users.values()) == len(totals)
    assert judged(days).winsorized == ()


def test_all_that_people_read_has_it():
    found = analyse(
        observe(
            CollectorState(rules(metrics=tuple(_with(m, "play_duration", Winsorize(quantile=0.9)) for m in METRICS))),
            *week(users=60, days=3),
        )
    )
    (cap,) = found.winsorized
    said = where(cap)
    assert said.startswith("Users’ sums of play s are capped at ")
    assert said.endswith(" s, the 90 % quantile of all 60 users, all arms together")
    assert dict(plan_lines(found))["Caps"] == (
        "Play duration (capped): users’ sums of play s, at the 90 % quantile of all users"
    )
    check = next(check for check in found.checks if check.name == "winsorized:play_duration")
    assert check.title == "Cap of Play duration"
    assert check.said.startswith(f"{said}; above it, and counted as that: ")
    page, text = html(found, CONTEXT), markdown(found, CONTEXT)
    for place in (page, text):
        assert said in place
        assert "Play duration (capped)" in place
    assert "a user’s sum is capped at the 90 % quantile of all users" in page
    assert found.to_json()["winsorized"][0]["threshold"] == cap.threshold


def _with(metric, name, how):
    return metric.model_copy(update={"winsorize": how}) if metric.name == name else metric


def test_a_ratio_s_numerator_is_capped_and_its_denominator_is_not():
    rows = [(1, "control", 9.0, 2.0), (2, "control", 1.0, 2.0), (3, "treatment", 30.0, 5.0), (4, "treatment", 2.0, 5.0)]
    days = pd.DataFrame(rows, columns=["user_id", "arm", "above", "below"]).assign(day=0)
    metric = MetricPlan(name="r", kind="ratio", columns=("above", "below"), role="primary", winsorize={"at": 5})
    of = experiment(metrics=(metric,))
    found = report(read(days, of).aggregate, of)
    assert {arm.arm: arm.value for arm in found.metrics[0].arms} == {"control": 6 / 4, "treatment": 7 / 10}
    assert found.winsorized[0].capped == {"control": 1, "treatment": 1}


def test_shares_capped_that_differ_are_a_warning_from_the_stated_level_on():
    users = {"a": 1000, "b": 1000}
    for capped_in_b, warns in ((10, False), (11, True)):
        p_value = unlike(users, {"a": 0, "b": capped_in_b}, "a")
        assert p_value == pytest.approx(2 * hypergeom(2000, capped_in_b, 1000).pmf(0), rel=1e-9)
        cap = replace(AT_1200, capped={"a": 0, "b": capped_in_b}, p_value=p_value)
        (check,) = checks_of_caps([cap], "a")
        assert (check.level == "warning") is warns is (p_value < 0.001)
        assert check.numbers["capped:b"] == capped_in_b
    assert "The arms differ in that (Fisher’s exact test against a, p < .001)" in check.said
    (check,) = checks_of_caps([AT_1200], "a")
    assert check.said == (
        "Users’ sums of play s are capped at 1,200 s, a value fixed in advance; above it, and counted as that: "
        "0 of 1,000 users of a and 3 of 1,000 users of b (0.30 %), p = .250."
    )


def test_several_arms_are_each_compared_with_the_control_and_corrected():
    users, counts = {"a": 1000, "b": 1000, "c": 1000, "d": 0}, {"a": 2, "b": 2, "c": 12, "d": 0}
    alone = unlike({"a": 1000, "c": 1000}, {"a": 2, "c": 12}, "a")
    assert unlike(users, counts, "a") == pytest.approx(2 * alone)
    assert unlike({"a": 1000, "b": 0}, {"a": 2, "b": 0}, "a") is None


def test_the_warning_is_as_rare_as_it_says_where_tails_do_not_differ():
    random, warned = np.random.default_rng(5), 0
    for _ in range(2000):
        above = int(random.hypergeometric(40, 1960, 1000))  # 2 % of 2,000 are capped, whoever is in which arm
        warned += unlike({"a": 1000, "b": 1000}, {"a": above, "b": 40 - above}, "a") < 0.001
    assert warned <= 7  # of 2,000 with a probability of .001: more has one of .001


def test_a_cap_that_caps_nothing_is_a_warning_with_the_reason():
    days = shop(users=200).assign(spend=lambda rows: np.where(rows.user_id < 2, rows.spend, 0.0))
    found = judged(days, Winsorize(quantile=0.9))
    check = next(check for check in found.checks if check.name == "winsorized:spend")
    assert check.level == "warning"
    among = found.winsorized[0].among
    assert check.said == (
        f"Users’ sums of spend are not capped, though the plan says at the 90 % quantile of all {among} users, all "
        "arms together: that quantile is 0, and at 0 nothing would be left."
    )
    assert found.winsorized[0].threshold is None


def test_before_anyone_has_come_there_is_a_report_all_the_same():
    metrics = tuple(_with(m, "play_duration", Winsorize(quantile=0.9)) for m in METRICS)
    found = analyse(CollectorState(rules(metrics=metrics)))
    assert found.winsorized[0].reason == "there are no users yet"


def heavy(users=400, seed=9):
    """Users of one day whose spend is heavy-tailed, as a table with the capped column."""
    random = np.random.default_rng(seed)
    spend = np.where(random.random(users) < 0.3, random.lognormal(2.0, 2.0, users), 0.0)
    table = arranged(
        ("control", "treatment"),
        ("spend",),
        (),
        np.arange(users),
        random.integers(0, 2, users),
        np.zeros((users, 0)),
        np.zeros(users, int),
        np.arange(users),
        spend[:, None],
    )
    of = experiment(metrics=(SPEND.model_copy(update={"winsorize": Winsorize(quantile=0.95)}),))
    wanted = capped_columns(of)
    table = capped(table, caps_of(wanted, pooled_sums(table, wanted), {}, in_advance=False))
    return table, of_experiment(of, table.columns)


def test_capped_users_who_do_not_differ_ship_no_more_often_than_stated():
    """600 weeks of 400 users: of a true .025, more than 25 are shown with a probability of .006."""
    table, metrics = heavy()
    weeks = shuffled_verdicts(
        table, metrics, {"control": 1, "treatment": 1}, "control", AnalysisPlan(cuped=False), 600, 4
    )
    found = false_alarms(weeks)
    assert found.ship <= 25 / 600
    assert found.ship > 0  # a metric that is never decided would pass as well
    (level,) = replay_table(table, metrics, 600, seed=4)
    assert level.trusted


def test_the_live_page_shows_no_interval_of_a_metric_whose_cap_moves():
    metrics = tuple(_with(m, "play_duration", Winsorize(quantile=0.9)) for m in METRICS)
    state = observe(CollectorState(rules(metrics=metrics)), *week(users=60, days=3))
    found = live_report(state)
    by_name = {result.metric: result for result in found.metrics}
    (line,) = by_name["play_duration"].effects
    assert (line.planned.low, line.planned.reason, line.deciding) == (None, MOVES, None)
    assert by_name["app_usage"].effects[0].planned.low is not None
    for day in found.days:
        of_day = next(result for result in day.cumulative if result.metric == "play_duration")
        assert of_day.effects[0].effect.ci_low is None
    assert {course.reason for course in found.courses if course.metric == "play_duration"} == {MOVES}
    assert all(verdict.broken == () for verdict in found.verdicts)
    fixed = tuple(_with(m, "play_duration", Winsorize(at=10)) for m in METRICS)
    known = live_report(observe(CollectorState(rules(metrics=fixed)), *week(users=60, days=3)))
    assert next(r for r in known.metrics if r.metric == "play_duration").effects[0].planned.low is not None
