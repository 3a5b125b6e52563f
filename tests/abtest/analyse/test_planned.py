from abtest.analyse.planned import planned
from abtest.analyse.results import ArmEffect, MetricResult
from abtest.stats.effects import Effect
from contracts.config.experiment import AnalysisPlan


def result(name, role, *p_values):
    effects = tuple(
        ArmEffect(f"t{i}", Effect(relative=0.1, ci_low=0.0, ci_high=0.2, p_value=p)) for i, p in enumerate(p_values)
    )
    return MetricResult(name, name, "", "", role, "increase", 0.0, (), effects)


def test_with_one_look_the_plain_comparison_is_what_the_plan_goes_by():
    (metric,) = planned([result("play", "primary", 0.03)], [], AnalysisPlan())
    line = metric.effects[0].planned
    assert (line.relative, line.low, line.high, line.p_value) == (0.1, 0.0, 0.2, 0.03)


def test_the_primary_metric_is_corrected_for_its_arms_alone():
    results = [result("play", "primary", 0.01, 0.04), result("views", "diagnostic", 0.01, 0.2)]
    primary, other = planned(results, [], AnalysisPlan(correction="holm"))
    assert [line.planned.adjusted_p_value for line in primary.effects] == [0.02, 0.04]
    assert [line.planned.adjusted_p_value for line in other.effects] == [0.02, 0.2]
