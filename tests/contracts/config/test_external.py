"""The file of an experiment that driftline did not assign: what it means, and the sentence on each mistake."""

from pathlib import Path
from typing import Any

import pytest

from contracts.config.experiment import Experiment, SettingsError, load_experiment
from contracts.config.external import External, load_plan, plan_of
from contracts.config.table_metrics import Sum

WRITTEN = """
assignment: external
name: gate
columns: {user: uid, arm: variant, day: when}
row: event
control: off-gate
metrics:
  - {name: buyers, kind: conversion, where: {event: buy}}
  - {name: revenue, kind: revenue, column: Amount, where: {event: [buy, gift]}, unit: $, winsorize: {at: 500}}
  - {name: basket, kind: ratio, columns: [{column: Amount, where: {event: buy}}, {where: {event: buy}}]}
"""


def mapping(**changes: Any) -> dict[str, Any]:
    return {
        "assignment": "external",
        "columns": {"user": "uid", "arm": "variant"},
        "control": "a",
        "metrics": [{"name": "kept", "kind": "conversion"}],
        **changes,
    }


def test_a_file_means_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(WRITTEN)
    found = load_plan(tmp_path / "e.yaml")
    assert isinstance(found, External)
    assert (found.row_is, found.arms, found.start_ms) == ("event", None, None)
    buys, both = (("event", ("buy",)),), (("event", ("buy", "gift")),)
    assert found.sums == {
        "buyers": Sum(None, buys, "any"),
        "revenue": Sum("Amount", both),
        "basket": Sum("Amount", buys),
        "basket_2": Sum(None, buys),
    }
    buyers, revenue, basket = found.plans
    assert (buyers.kind, buyers.role, buyers.unit, buyers.label) == ("mean", "primary", "%", "Buyers")
    assert (revenue.role, revenue.unit, revenue.about) == ("diagnostic", "$", "Amount with event buy or gift per user")
    assert basket.columns == ("basket", "basket_2")


def test_it_becomes_an_experiment_without_models_of_the_rows_arms_and_period() -> None:
    plan = plan_of(mapping(), "plan")
    assert isinstance(plan, External)
    found = plan.experiment(["a", "b"], 0, 86_400_000)
    assert (found.assignment, found.days, found.control) == ("external", 1, "a")
    assert {arm: (spec.weight, spec.model) for arm, spec in found.arms.items()} == {"a": (1, ""), "b": (1, "")}
    assert found.definition["assignment"] == "external"


def test_weights_and_period_are_the_file_s_where_it_has_them() -> None:
    times = {"start": "2026-03-01T00:00:00+00:00", "end": "2026-03-08T00:00:00+00:00"}
    plan = plan_of(mapping(arms={"a": 9, "b": {"weight": 1}}, **times), "plan")
    assert isinstance(plan, External)
    found = plan.experiment(["x"], 0, 1)
    assert ({arm: spec.weight for arm, spec in found.arms.items()}, found.days) == ({"a": 9, "b": 1}, 7)


def test_a_name_that_the_analysis_has_taken_or_that_begins_with_no_letter_gets_another() -> None:
    metrics = [{"name": name, "kind": "count"} for name in ("recalls", "7-day spend", "Größe")]
    plan = plan_of(mapping(metrics=metrics), "plan")
    assert isinstance(plan, External)
    assert list(plan.sums) == ["recalls_2", "c_7_day_spend", "gr_e"]
    assert plan.called["c_7_day_spend"] == "7-day spend"


def test_of_one_that_driftline_assigned_nothing_is_written_otherwise_than_before() -> None:
    from tests.contracts.config.test_experiment import mapping as ours

    plan = plan_of({**ours(), "assignment": "driftline"}, "plan")
    assert isinstance(plan, Experiment)
    assert "assignment" not in plan.model_dump()
    assert plan.hash == plan_of(ours(), "plan").hash  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"salt": "s"}, "salt is of an experiment that driftline assigns; assignment external has none."),
        ({"arms": {"a": {"model": "sasrec"}, "b": 1}}, "model is of an experiment that driftline assigns"),
        ({"arms": ["b", "c"]}, "control arm 'a' is not among the arms ['b', 'c']"),
        ({"arms": ["a", "a"]}, "arms: a name stands twice in ['a', 'a']"),
        ({"start": "2026-03-01T00:00:00+00:00"}, "start and end go together"),
        ({"row": "event"}, "row: event needs a column that says when: columns: {day: …}"),
        ({"columns": {"user": "uid", "arm": "uid"}}, "user, arm and day must be three columns"),
        ({"metrics": []}, "metrics: Tuple should have at least 1 item"),
        (
            {"metrics": [{"name": "variant", "kind": "count"}]},
            "of column 'variant', which says the row's arm",
        ),
        ({"metrics": [{"name": "r", "kind": "ratio", "columns": ["x"]}]}, "columns of 'r' must be two"),
        ({"metrics": [{"name": "r", "kind": "count", "columns": ["x"]}]}, "columns of 'r' goes with kind ratio"),
        ({"metrics": [{"name": "r", "kind": "count", "where": {"e": 1}}]}, "where of 'r' goes with row: event"),
        (
            {"metrics": [{"name": "r", "kind": "ratio", "columns": ["x", {}]}]},
            "'r' counts rows, which goes with row",
        ),
        ({"metrics": [{"name": "r", "kind": "quantile"}]}, "q of 'r' goes with kind quantile"),
        ({"assignment": "internal"}, "assignment is 'internal'; it must be driftline or external."),
        ({"zone": "Mars/Base"}, "zone 'Mars/Base' is not the name of a time zone"),
    ],
)
def test_a_mistake_is_a_sentence(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        plan_of(mapping(**changes), "plan")
    assert said in str(refused.value)


def test_driftline_serves_no_such_experiment(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(WRITTEN)
    with pytest.raises(SettingsError, match="assignment external is of an experiment that driftline does not serve"):
        load_experiment(tmp_path / "e.yaml")


def test_an_arm_that_driftline_serves_has_a_model() -> None:
    from tests.contracts.config.test_experiment import mapping as ours

    arms = {"control": {"weight": 1, "model": ""}, "treatment": {"weight": 1, "model": "sasrec"}}
    with pytest.raises(SettingsError, match=r"control\.model: assignment driftline needs one"):
        plan_of({**ours(), "arms": arms, "control": "control"}, "plan")
