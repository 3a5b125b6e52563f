import numpy as np
import pytest

from abtest.metrics import COLUMNS, DEFAULTS, LATENCY, METRICS, PRIMARY, Mean, MetricError, Quantile, Ratio, metric_of
from abtest.moments import Moments

GIVEN = {"name": "play", "kind": "mean", "column": "play_s"}


def test_the_defaults_need_only_columns_that_every_user_has():
    assert [metric.name for metric in DEFAULTS] == ["evr", "follow_rate", "play_duration", "app_usage", "recalls"]
    assert {column for metric in DEFAULTS for column in metric.columns} <= set(COLUMNS)
    assert [metric.name for metric in METRICS if metric.role == "primary"] == [PRIMARY]


def test_latency_is_a_ratio_over_recalls_where_lower_is_better():
    moments = Moments.of(("recalls", "latency_ms"), np.array([[2.0, 30.0], [1.0, 60.0]]))
    assert LATENCY.estimate(moments).value == 30.0
    assert LATENCY.direction == "decrease"


def test_metrics_are_declared_as_a_file_would():
    assert metric_of({**GIVEN, "unit": "s", "role": "guardrail", "minimum_effect": 0.02}) == Mean(
        "play", "play", "s", "", "play_s", "guardrail", "increase", 0.02
    )
    ratio = {"name": "r", "kind": "ratio", "label": "R", "numerator": "a", "denominator": "b", "direction": "decrease"}
    assert metric_of(ratio) == Ratio("r", "R", "", "", "a", "b", direction="decrease")
    assert metric_of({"name": "p90", "kind": "quantile", "column": "play_s", "q": 0.9}).q == 0.9
    assert metric_of({**GIVEN, "minimum_effect": 1}).minimum_effect == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "median"}, "Metric play: kind is 'median'; allowed are mean, ratio, quantile."),
        ({"kind": None}, "kind is None; allowed are"),
        ({"kind": ["mean"]}, "kind is ['mean']; allowed are"),
        ({"name": ""}, "name is ''; string should have at least 1 character"),
        ({"name": 3}, "name is 3; input should be a valid string"),
        ({"role": "main"}, "role is 'main'; input should be 'primary', 'guardrail' or 'diagnostic'"),
        ({"direction": "up"}, "direction is 'up'; input should be 'increase' or 'decrease'"),
        ({"minimum_effect": "2 %"}, "minimum_effect is '2 %'; input should be a valid number"),
        ({"minimum_effect": 0}, "minimum_effect is 0; input should be greater than 0"),
        ({"minimum_effect": float("nan")}, "minimum_effect is nan; "),
        ({"minimum_effect": True}, "minimum_effect is True; input should be a valid number"),
        ({"numerator": "views"}, "there is no field numerator; allowed are kind, name, label, unit, about, column"),
        ({"kind": "quantile"}, "q is missing"),
        ({"kind": "quantile", "q": 1.0}, "q is 1.0; input should be less than 1"),
        ({"column": "plays"}, "column is 'plays'; allowed are recalls, views, effective_views"),
    ],
)
def test_a_wrong_declaration_is_refused_in_a_sentence_that_names_the_field(change, message):
    with pytest.raises(MetricError) as refused:
        metric_of({**GIVEN, **change}, COLUMNS)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_missing_is_named():
    with pytest.raises(MetricError, match="name is missing"):
        metric_of({"kind": "mean", "column": "play_s"})
    with pytest.raises(MetricError, match="Metric play: column is missing"):
        metric_of({"name": "play", "kind": "mean"})
    with pytest.raises(MetricError, match="not by 'evr'"):
        metric_of("evr")


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


def test_few_users_or_events_are_a_caution():
    users = np.ones((30, 2))
    assert Ratio("r", "", "", "", "y", "x").caution(Moments.of(("x", "y"), users * [1, 0.5])) == "only 15 y"
    assert Ratio("r", "", "", "", "y", "x").caution(Moments.of(("x", "y"), users)) is None
    assert Mean("m", "", "", "", "y").caution(Moments.of(("x", "y"), users[:4])) == "only 4 users"
