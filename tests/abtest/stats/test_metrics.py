import numpy as np
import pytest

from abtest.stats.metrics import COLUMNS, DEFAULTS, TIMED, Mean, Quantile, Ratio, of_experiment, of_plan
from abtest.stats.moments import Moments
from contracts.config.experiment import MetricPlan, SettingsError
from tests.abtest.abtest_cases import experiment


def test_the_defaults_need_only_columns_that_the_collector_has():
    names = ["evr", "follow_rate", "play_duration", "app_usage", "recalls", "latency"]
    assert [metric.name for metric in DEFAULTS] == names
    assert {column for metric in DEFAULTS for column in metric.columns} <= {*COLUMNS, *TIMED}


def test_latency_is_a_ratio_over_recalls_where_lower_is_better():
    latency = next(metric for metric in DEFAULTS if metric.name == "latency")
    moments = Moments.of(("timed", "answer_ms"), np.array([[2.0, 30.0], [1.0, 60.0]]))
    assert latency.estimate(moments).value == 30.0
    assert latency.direction == "decrease"


def test_metrics_are_made_of_what_a_file_declares():
    plan = MetricPlan(name="play", kind="mean", columns=("play_s",), role="guardrail", minimum_effect=0.02)
    assert of_plan(plan) == Mean(
        "play", "play", "s", "play duration per exposed user", "play_s", "guardrail", "increase", 0.02
    )
    ratio = of_plan(MetricPlan(name="r", kind="ratio", columns=("a", "b"), direction="decrease"))
    assert ratio == Ratio("r", "r", "", "a / b", "a", "b", direction="decrease")
    p90 = of_plan(MetricPlan(name="p90", kind="quantile", columns=("play_s",), q=0.9))
    assert (p90.name, p90.q, p90.label) == ("p90", 0.9, "Play duration, 90 % quantile")
    spent = of_plan(MetricPlan(name="s", kind="quantile", columns=("money_spent",), q=0.995))
    assert spent.label == "Money spent, 99.5 % quantile"


def test_the_primary_metric_comes_first_and_an_unknown_column_is_named():
    declared = (
        MetricPlan(name="b", kind="mean", columns=("views",)),
        MetricPlan(name="a", kind="mean", columns=("plays",), role="primary"),
    )
    of = experiment(metrics=declared)
    assert [metric.name for metric in of_experiment(of)] == ["a", "b"]
    with pytest.raises(SettingsError, match="Metric 'a': there is no column 'plays'; there are views"):
        of_experiment(of, ["views"])


def test_of_the_defaults_those_that_the_data_cannot_have_are_left_out_but_what_a_file_asks_for_is_not():
    assert "latency" in [metric.name for metric in of_experiment(experiment())]
    assert "latency" not in [metric.name for metric in of_experiment(experiment(), COLUMNS)]
    asked = MetricPlan(name="l", kind="ratio", columns=TIMED[::-1], role="primary")
    with pytest.raises(SettingsError, match="there is no column 'answer_ms'"):
        of_experiment(experiment(metrics=(asked,)), COLUMNS)


def test_a_quantile_has_no_estimate_from_moments():
    assert not hasattr(Quantile("m", "", "", "", "x", 0.5), "estimate")


def test_values_of_many_means_at_once_are_the_estimates_of_each():
    random = np.random.default_rng(0)
    parts = random.poisson(2.0, (5, 30, 2)).astype(float)
    parts[2] = 0
    means = parts.mean(axis=1)
    for metric in (Mean("m", "", "", "", "y"), Ratio("r", "", "", "", "y", "x")):
        expected = [metric.estimate(Moments.of(("x", "y"), part)).value for part in parts]
        found = metric.values(("x", "y"), means)
        np.testing.assert_allclose(found, np.array(expected, float), rtol=1e-12)


def test_few_users_or_events_are_a_caution_by_one_rule_for_means_and_ratios():
    users = np.ones((3000, 2))
    users[15:, 1] = 0.0
    assert Ratio("r", "", "", "", "y", "x").caution(Moments.of(("x", "y"), users)) == "only 15 effective events"
    assert Mean("m", "", "", "", "y").caution(Moments.of(("x", "y"), users)) == "only 15 effective events"
    assert Ratio("r", "", "", "", "y", "x").caution(Moments.of(("x", "y"), np.ones((30, 2)))) is None
    assert Mean("m", "", "", "", "y").caution(Moments.of(("x", "y"), users[:4])) == "only 4 users"
