"""The words that page, Markdown and terminal share."""

from dataclasses import replace

import pytest

from abtest.analyse.results import Check, MetricResult, Verdict
from abtest.report.wording import Relative, plan_lines, side, to_do
from tests.abtest.report_cases import filled, invalid, planned


def decided(report, *decisions):
    verdicts = tuple(Verdict(f"arm{i}", decision, ".") for i, decision in enumerate(decisions))
    return replace(report, verdicts=verdicts)


@pytest.mark.parametrize(
    ("direction", "low", "high", "said"),
    [
        ("increase", 0.01, 0.02, "better"),
        ("increase", -0.02, -0.01, "worse"),
        ("decrease", -0.02, -0.01, "better"),
        ("decrease", 0.01, 0.02, "worse"),
        ("increase", -0.01, 0.01, "unclear"),
        ("decrease", None, None, "unclear"),
    ],
)
def test_good_and_bad_follow_the_metric_s_direction(direction, low, high, said):
    metric = MetricResult("m", "M", "", "", "primary", direction, 0.0, (), ())
    assert side(metric, Relative(0.0, low, high)) == said


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ("ship", "Give arm0 to everyone."),
        ("hold", "Keep control; do not ship arm0."),
        ("invalid", "Use no effect below."),
    ],
)
def test_each_decision_says_what_to_do(decision, said):
    report = decided(replace(planned(), checks=()), decision)
    assert to_do(report, report.verdicts[0]).startswith(said)


def test_warnings_are_weighed_before_shipping():
    report = decided(filled(planned()), "ship")
    assert "weighed the warnings" in to_do(report, report.verdicts[0])


def test_of_two_arms_that_may_ship_one_is_to_be_chosen():
    report = decided(planned(), "ship", "ship")
    assert "or arm1: the one that improved most" in to_do(report, report.verdicts[0])
    texts = "arm0 improved most.", "arm1 improved less than arm0."
    best, less = (replace(verdict, beside=beside) for verdict, beside in zip(report.verdicts, texts, strict=True))
    compared = replace(report, verdicts=(best, less))
    assert to_do(compared, best) == "Give one arm to everyone. arm0 improved most."
    assert to_do(compared, less) == "Give arm0 to everyone instead: arm1 improved less than arm0."


def test_an_open_experiment_is_to_run_on_and_an_ended_one_is_not():
    running, ended = decided(planned(days=9), "inconclusive"), decided(planned(), "inconclusive")
    assert "2 of 9 days are still to come" in to_do(running, running.verdicts[0])
    assert "Keep control for now" in to_do(ended, ended.verdicts[0])


def test_models_that_learned_from_each_other_are_to_be_parted():
    mixed = replace(planned(), checks=(Check("interference:t", "T", "warning", "."),))
    report = decided(mixed, "inconclusive")
    assert "its own arm’s users alone" in to_do(report, report.verdicts[0])


def test_the_fault_of_an_invalid_experiment_is_named():
    report = invalid(planned())
    assert "Traffic split" in to_do(report, report.verdicts[0])


def test_a_plan_is_told_in_full():
    lines = dict(plan_lines(planned("group-sequential")))
    assert lines["Looks"] == "after day 3, 5 and 7 of 7, and no others"
    assert lines["Error level"] == "5 % two-sided, so intervals at 95 %"
    assert dict(plan_lines(planned()))["Looks"] == "one, after day 7"
