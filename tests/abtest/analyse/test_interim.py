"""The live view: intervals that hold at all moments, and no others."""

from dataclasses import replace

import pytest

from abtest.analyse.analysis import analyse
from abtest.analyse.interim import always_valid_only, ended, live_report
from abtest.collect.state import CollectorState
from abtest.report.html import Live, html
from contracts.config.experiment import AnalysisPlan
from contracts.runtime.clock import DAY_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, exposure, observe, rules, week
from tests.abtest.report_cases import CONTEXT, filled, invalid, planned

KINDS = ["fixed", "group-sequential", "confidence-sequence"]


def state(kind="fixed", days=3):
    return observe(CollectorState(rules(analysis=AnalysisPlan(kind=kind))), *week(users=60, days=days))


@pytest.mark.parametrize("kind", KINDS)
def test_no_interval_or_p_value_of_another_kind_is_left(kind):
    found = live_report(state(kind))
    for result in found.metrics:
        assert all(arm.std_error is None for arm in result.arms)
        for line in result.effects:
            assert line.planned.kind == "confidence-sequence"
            assert (line.effect.ci_low, line.effect.p_value, line.adjusted, line.jackknife) == (None, None, None, None)
    assert found.slices == ()
    assert all(row.evr_std_error is None and row.evr_effect is None for row in found.sources)
    for day in found.days:
        assert all(line.effect.reason for result in day.daily for line in result.effects)
        assert all(line.effect.p_value is None for result in day.cumulative for line in result.effects)
    for course in found.courses:
        assert not any(course.daily_band)
        assert not any(course.cumulative_band)
        assert course.trend.low is None


def test_the_interval_is_wider_than_the_plain_one_around_the_same_middle():
    plain = analyse(state())
    live = live_report(state())
    for before, after in zip(plain.metrics, live.metrics, strict=True):
        for once, always in zip(before.effects, after.effects, strict=True):
            if once.planned.low is None or always.planned.low is None:
                continue
            assert always.planned.low < once.planned.low
            assert always.planned.high > once.planned.high
    assert any(line.planned.low is not None for result in live.metrics for line in result.effects)


def test_what_is_cumulative_has_the_interval_of_its_day():
    live = live_report(state())
    last = live.days[-1].cumulative[0].effects[0].effect
    judged = live.metrics[0].effects[0].planned
    assert (last.ci_low, last.ci_high) == (judged.low, judged.high)


@pytest.mark.parametrize("kind", ["fixed", "group-sequential"])
def test_a_plan_that_decides_later_decides_later(kind):
    (verdict,) = live_report(state(kind, days=7)).verdicts
    assert verdict.decision == "inconclusive"
    assert "its plan decides" in verdict.because
    assert live_report(state(kind)).plan["kind"] == kind


@pytest.mark.parametrize("kind", ["fixed", "group-sequential"])
def test_a_plan_that_has_ended_has_its_verdict_in_the_report_and_not_here(kind):
    watched = observe(state(kind, days=7), exposure(999, at=START + 7 * DAY_MS - MINUTE_MS, request="last"))
    found = live_report(watched)
    assert ended(watched, found)
    (verdict,) = found.verdicts
    assert verdict.because == (
        "The experiment has ended at 1970-01-18 00:00 UTC; the verdict by its plan is in the report "
        "(driftline experiment report)."
    )
    assert any(line.planned.low is not None for result in found.metrics for line in result.effects)
    page = html(found, CONTEXT, Live(0, 0, over=True))
    assert "Ended: treatment" in page
    assert "Inconclusive" not in page
    assert "What to do" not in page


def test_the_last_day_that_goes_on_is_not_the_end():
    watched = state(days=7)
    assert len(live_report(watched).days) == 7
    assert not ended(watched, live_report(watched))


def test_a_plan_that_may_look_at_any_time_has_its_verdict_here_to_the_end():
    watched = observe(state("confidence-sequence", 7), exposure(999, at=START + 7 * DAY_MS - MINUTE_MS, request="last"))
    (verdict,) = live_report(watched).verdicts
    assert "in the report" not in verdict.because


def test_an_invalid_experiment_is_invalid_at_once():
    void = always_valid_only(invalid(planned()), AnalysisPlan())
    assert [verdict.decision for verdict in void.verdicts] == ["invalid"]


def test_a_broken_guardrail_is_told_at_once():
    broken = replace(planned(), verdicts=tuple(replace(v, broken=("Play",)) for v in planned().verdicts))
    (verdict,) = always_valid_only(broken, AnalysisPlan()).verdicts
    assert verdict.broken == ("Play",)


@pytest.mark.parametrize(("cuped", "said"), [(True, ", by CUPED"), (False, "")])
def test_intervals_by_cuped_and_no_others_are_called_so_under_the_drawings(cuped, said):
    found = live_report(observe(CollectorState(rules(analysis=AnalysisPlan(cuped=cuped))), *week(users=60, days=3)))
    page = html(found, CONTEXT, Live(0, 0, 5))
    assert f"<figcaption>All days{said}: " in page
    assert f"95 % band{said}; it holds at all moments" in page


def test_the_state_is_left_as_it_was():
    watched = state()
    before = watched.rules
    live_report(watched)
    assert watched.rules == before


def test_the_page_of_it_shows_no_plain_interval():
    page = html(live_report(state()), CONTEXT, Live(0, 0, 5)).split("<main>")[1].split("</main>")[0]
    for said in ("plain", "by other methods", "Parts of the experiment", "each day, 95"):
        assert said not in page
    assert "hold at all moments" in page
    assert "by other methods" in html(filled(planned()), CONTEXT)
