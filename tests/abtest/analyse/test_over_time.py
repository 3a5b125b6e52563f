import numpy as np
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.analyse.analysis import report
from abtest.collect.observed import Observed
from contracts.config.experiment import AnalysisPlan, MetricPlan
from contracts.runtime.clock import DAY_MS
from tests.abtest.abtest_cases import START, experiment
from tests.abtest.aggregate.test_aggregate import people, table_of

METRICS = (
    MetricPlan(name="evr", kind="ratio", columns=("ev", "views"), role="primary"),
    MetricPlan(name="views", kind="mean", columns=("views",)),
    MetricPlan(name="views_p90", kind="quantile", columns=("views",), q=0.9),
)


@pytest.fixture(scope="module")
def crowd():
    days, arm, pre = people(seed=4, users=2000)
    return aggregate(table_of(days, arm, pre), spread=["views"], looks=range(4))


def reported(aggregated, plan, days=4, newest_ms=0):
    arms = experiment().arms
    names = dict(zip(("a", "b"), arms.values(), strict=True))
    end = START + days * DAY_MS
    design = experiment(arms=names, control="a", end_ms=end, metrics=METRICS, analysis=plan)
    return report(aggregated, design, Observed(newest_ms=newest_ms))


def course_of(whole, metric="evr"):
    return next(course for course in whole.courses if course.metric == metric)


def planned_of(whole, metric="evr"):
    return next(result for result in whole.metrics if result.metric == metric).effects[0].planned


def test_bands_of_all_days_hold_each_days_own_interval(crowd):
    whole = reported(crowd, AnalysisPlan())
    for day, (low, high) in zip(whole.days, course_of(whole).daily_band, strict=True):
        effect = day.daily[0].effects[0].effect
        assert low < effect.ci_low < effect.ci_high < high
    assert course_of(whole).looks == ()


def test_a_group_sequential_plan_judges_by_the_bounds_of_its_looks(crowd):
    whole = reported(crowd, AnalysisPlan(kind="group-sequential", looks=(2, 4)))
    course, planned = course_of(whole), planned_of(whole)
    assert [look.day for look in course.looks] == [1, 3]
    assert course.looks[0].critical > course.looks[1].critical > 1.959
    assert (planned.low, planned.high) == (course.looks[1].low, course.looks[1].high)
    assert planned.by_cuped
    plain = whole.metrics[0].effects[0].adjusted
    assert planned.relative == pytest.approx(plain.relative, abs=0.1 * (plain.ci_high - plain.ci_low))
    assert planned.high - planned.low > plain.ci_high - plain.ci_low
    assert (planned.p_value < 0.05) == (course.stopped_on is not None)


def test_a_look_waits_until_its_day_is_over(crowd):
    plan = AnalysisPlan(kind="group-sequential", looks=(2, 4))
    noon = START + 3 * DAY_MS + DAY_MS // 2
    whole = reported(crowd, plan, newest_ms=noon)
    assert [look.day for look in course_of(whole).looks] == [1]
    early = reported(crowd, plan, days=9, newest_ms=START + DAY_MS // 2)
    assert planned_of(early).reason == "the plan has not looked yet"
    assert early.verdicts[0].decision == "inconclusive"


def test_a_fixed_horizon_ends_with_its_last_whole_day(crowd):
    noon = START + 3 * DAY_MS + DAY_MS // 2
    assert "has not ended" in reported(crowd, AnalysisPlan(), newest_ms=noon).verdicts[0].because
    assert "has not ended" not in reported(crowd, AnalysisPlan(), newest_ms=START + 4 * DAY_MS).verdicts[0].because


def test_a_confidence_sequence_is_wider_than_one_look_and_there_every_day(crowd):
    whole = reported(crowd, AnalysisPlan(kind="confidence-sequence", tuned_at=5_000))
    course, planned = course_of(whole), planned_of(whole)
    plain = whole.metrics[0].effects[0].adjusted
    assert [look.day for look in course.looks] == [0, 1, 2, 3]
    assert planned.high - planned.low > 1.3 * (plain.ci_high - plain.ci_low)
    assert np.isfinite([look.critical for look in course.looks]).all()


def test_a_quantile_has_no_sequential_interval_and_says_so(crowd):
    assert planned_of(reported(crowd, AnalysisPlan()), "views_p90").low is not None
    sequential = planned_of(reported(crowd, AnalysisPlan(kind="group-sequential")), "views_p90")
    assert (sequential.low, sequential.reason) == (None, "a quantile has no sequential interval")


def test_corrected_p_values_leave_the_primary_metric_its_own(crowd):
    whole = reported(crowd, AnalysisPlan(correction="holm"))
    primary, *others = [result.effects[0].planned for result in whole.metrics]
    assert primary.adjusted_p_value == primary.p_value
    assert min(each.adjusted_p_value for each in others) == min(1.0, 2 * min(each.p_value for each in others))
