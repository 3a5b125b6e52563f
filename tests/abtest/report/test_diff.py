"""Two reports compared."""

from dataclasses import replace

from abtest.analyse.results import Check
from abtest.report.diff import diff
from tests.abtest.report_cases import invalid, planned, report_of


def of(difference, kind):
    return {change.name: change for change in difference.changes if change.kind == kind}


def test_a_report_and_itself_differ_in_nothing():
    difference = diff(report_of("full"), report_of("full"))
    assert difference.changes == ()
    assert difference.same_data is True


def test_other_data_are_told_apart_and_unknown_ones_are_not_guessed():
    full, short = report_of("full"), report_of("one user")
    assert diff(full, short).same_data is False
    assert diff(replace(full, data_hash=""), short).same_data is None


def test_users_days_and_effects_that_changed_are_named_with_both_sides():
    difference = diff(report_of("one user"), report_of("full"))
    assert of(difference, "users")["control"].before == "0"
    assert of(difference, "users")["control"].after == "30"
    assert of(difference, "days")["seen"].before.startswith("1 of 7")
    assert of(difference, "days")["seen"].after.startswith("7 of 7")
    assert of(difference, "effect")["Effective view rate, treatment"].after.startswith("+")


def test_an_effect_says_what_its_metric_is_for_and_what_is_worse():
    difference = of(diff(report_of("one user"), planned()), "effect")
    assert difference["Effective view rate, treatment"].judged == "primary; less is worse; worth shipping from 1.0 %"
    assert difference["Play duration, treatment"].judged == "guardrail; less is worse; may lose 1.0 %"
    assert difference["Recalls, treatment"].judged == "diagnostic; less is worse"


def test_another_role_direction_or_tolerance_is_named():
    report = planned()
    first, *others = report.metrics
    changed = replace(report, metrics=(replace(first, direction="decrease", minimum_effect=0.0), *others))
    (change,) = of(diff(report, changed), "metric").values()
    assert (change.name, change.before, change.after) == (
        "Effective view rate",
        "primary; less is worse; worth shipping from 1.0 %",
        "primary; more is worse",
    )


def test_an_effect_that_became_void_is_called_not_valid():
    difference = diff(planned(), invalid(planned()))
    changed = of(difference, "effect")["Effective view rate, treatment"]
    assert changed.after == f"not valid: {changed.before}"
    assert changed.note.endswith("→ not valid")
    assert of(difference, "verdict")["treatment"].after.startswith("Invalid: ")


def test_a_check_that_is_new_has_nothing_before_it():
    more = replace(planned(), checks=(*planned().checks, Check("x", "Clock skew", "warning", "Some.")))
    (changed,) = diff(planned(), more).changes
    assert (changed.kind, changed.name, changed.before, changed.after) == ("check", "Clock skew", "—", "Warning: Some.")


def test_another_plan_is_named():
    difference = diff(planned(), planned("group-sequential"))
    assert of(difference, "plan")["Analysis"].after == "group-sequential"
