"""Every kind of bad input, from events through the collector to a named state in the report."""

import math
from dataclasses import dataclass

import pytest
from kafka import TopicPartition
from prometheus_client import CollectorRegistry

from abtest.analyse.analysis import analyse
from abtest.analyse.data_quality import rows
from abtest.analyse.day_checks import ending, last_day, part_days
from abtest.collect.records import NOT_OURS_YET, Unused
from abtest.collect.state import CollectorState, close
from abtest.collect.store import Saved
from abtest.collect.worker import Meters, step
from contracts.config.changes import Change
from contracts.config.experiment import Experiment, MetricPlan, RampStep, instant_ms
from contracts.config.settings import StreamSettings
from contracts.runtime.clock import DAY_MS, HOUR_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, exposure, feedback, observe, rules, week

WEEK = week(users=60, days=7)


@dataclass
class Record:
    value: bytes | None
    offset: int
    timestamp: int = START + 8 * DAY_MS
    partition: int = 0


def report_of(*events, **changes):
    return analyse(observe(CollectorState(rules(**changes)), *events))


def through_the_worker(*events, extra=(), received_ms=START + 8 * DAY_MS):
    """The report on records as the collector reads them from Kafka; `extra` are raw feedback records."""
    saved, meters = Saved(CollectorState(rules())), Meters(CollectorRegistry())
    as_written = sorted(events, key=lambda event: event.time_ms)  # else most would be late in their log
    shown = [event.SerializeToString() for event in as_written if hasattr(event, "arm")]
    seen = [event.SerializeToString() for event in as_written if not hasattr(event, "arm")]
    for topic, values in (("exposures", shown), ("feedback", [*seen, *extra])):
        records = [Record(value, i, received_ms) for i, value in enumerate(values)]
        step(saved, TopicPartition(topic, 0), records, topic == "exposures", StreamSettings(), 1, meters)
    return analyse(saved.state)


def check(report, name):
    return next(check for check in report.checks if check.name == name)


def figures(report):
    return report.metrics, report.days, report.split, report.sources, report.slices


def test_a_clean_week_has_no_check_above_ok_but_power_and_what_is_unknown():
    report = through_the_worker(*WEEK)
    told = {check.name: check.level for check in report.checks if check.level != "ok"}
    assert set(told) <= {"pre_period:treatment", "estimable", "power", "last_day"}
    assert "invalid" not in told.values()


def test_tenfold_delivery_changes_no_figure_and_is_named():
    clean, often = through_the_worker(*WEEK), through_the_worker(*WEEK * 10)
    assert figures(clean) == figures(often)
    assert check(clean, "duplicates").level == "ok"
    repeats = check(often, "duplicates")
    assert repeats.level == "warning"
    assert repeats.numbers["share"] == 0.9
    assert repeats.numbers["events"] == 9 * len(WEEK)


def test_repeats_that_come_after_all_was_counted_change_no_figure_either():
    state = observe(CollectorState(rules()), *WEEK)
    close(state, START + 8 * DAY_MS)
    report = analyse(observe(state, *WEEK * 9))
    assert figures(report) == figures(report_of(*WEEK))
    assert check(report, "late").level == "warning"
    assert not report.invalid


def test_a_day_that_nobody_has_is_named_with_its_date():
    report = report_of(*(event for event in WEEK if not START + 2 * DAY_MS <= event.time_ms < START + 3 * DAY_MS))
    finding = check(report, "missing_days")
    assert finding.level == "warning"
    assert finding.said == "Nothing was seen on 1970-01-13."


def test_a_day_that_one_arm_lacks_makes_the_experiment_invalid():
    lacking = [
        event for event in WEEK if event.user_id % 2 or not START + 2 * DAY_MS <= event.time_ms < START + 3 * DAY_MS
    ]
    report = report_of(*lacking)
    finding = check(report, "missing_days")
    assert finding.level == "invalid"
    assert finding.said == "Nothing in control on 1970-01-13."
    assert report.verdicts[0].decision == "invalid"


def test_a_day_that_one_arm_lacks_by_chance_is_a_warning():
    report = report_of(exposure(1, "treatment", request="a"), exposure(2, "control", START + DAY_MS, "b"))
    assert check(report, "missing_days").level == "warning"


def test_days_at_the_end_without_exposures_are_missing_where_other_events_went_on():
    went_on = exposure(999, at=START + 6 * DAY_MS, request="other", experiment="another")
    report = report_of(*week(users=60, days=5), went_on)
    assert check(report, "missing_days").said == "Nothing was seen on 1970-01-16 and 1970-01-17."


def test_no_exposure_is_expected_before_the_first_step_of_a_ramp():
    ramp = [RampStep(from_ms=START + 2 * DAY_MS, share=0.5)]
    events = [event for event in WEEK if event.time_ms >= START + 2 * DAY_MS]
    assert check(report_of(*events, ramp=ramp), "missing_days").level == "ok"


def test_an_arm_without_users_is_named_and_invalid():
    report = report_of(*(event for event in WEEK if event.user_id % 2))
    finding = check(report, "empty_arms")
    assert (finding.level, finding.said) == ("invalid", "No user has been seen in control, 30 in the other arms.")
    assert all(line.effect.relative is None for result in report.metrics for line in result.effects)


def test_an_arm_without_users_among_few_may_be_chance():
    assert check(report_of(exposure(1), exposure(3, request="s")), "empty_arms").level == "warning"


def test_nobody_at_all_is_said_and_not_judged():
    report = report_of()
    assert check(report, "empty_arms").level == check(report, "missing_days").level == "unknown"
    assert not report.invalid


@pytest.mark.parametrize(("users", "level"), [(1, "warning"), (10, "invalid")])
def test_users_in_two_arms_are_named(users, level):
    events = [
        *(exposure(user, ("control", "treatment")[user % 2], request=str(user)) for user in range(1, 501)),
        *(exposure(user, ("treatment", "control")[user % 2], request=f"{user} again") for user in range(1, users + 1)),
    ]
    finding = check(report_of(*events), "contamination")
    assert (finding.level, finding.numbers["users"]) == (level, users)


def test_feedback_from_before_its_exposure_is_named_and_in_no_figure():
    early = feedback(1, START + 6 * MINUTE_MS, "1-0", 1, play_ms=10**7, follow=True)
    clean, mixed = report_of(*WEEK), report_of(*WEEK, early)
    assert figures(clean) == figures(mixed)
    finding = check(mixed, Unused.BEFORE_EXPOSURE)
    assert (finding.level, finding.numbers["events"]) == ("warning", 1)


def test_where_all_feedback_is_from_before_its_exposure_nothing_can_be_read():
    shifted = []
    for event in WEEK:
        moved = type(event)()
        moved.CopyFrom(event)
        if not hasattr(event, "arm"):
            moved.time_ms -= HOUR_MS
        shifted.append(moved)
    report = report_of(*shifted)
    assert check(report, Unused.BEFORE_EXPOSURE).level == "invalid"
    assert (
        check(report, "estimable").numbers["evr:treatment"]
        == "Effective view rate: not estimable: the value is 0 in arm treatment"
    )
    assert report.verdicts[0].decision == "invalid"


def test_negative_play_time_is_counted_by_reason_and_in_no_figure():
    bad = [feedback(1, START + HOUR_MS, "1-0", 1, play_ms=-5).SerializeToString(), b"junk"]
    clean, mixed = through_the_worker(*WEEK), through_the_worker(*WEEK, extra=bad)
    assert figures(clean) == figures(mixed)
    finding = check(mixed, "unreadable")
    assert finding.level == "warning"
    assert {name: finding.numbers[name] for name in ("out_of_range", "undecodable")} == {
        "out_of_range": 1,
        "undecodable": 1,
    }
    assert "1 out of range" in finding.said


def test_a_tenth_of_unreadable_events_leaves_nothing_to_compare():
    report = through_the_worker(*WEEK, extra=[b"junk"] * (len(WEEK) // 5))
    assert check(report, "unreadable").level == "invalid"


def test_a_clock_that_runs_ahead_is_named():
    ahead = [feedback(1, START + 9 * DAY_MS, "1-0", 1).SerializeToString()] * 2
    clean, mixed = through_the_worker(*WEEK), through_the_worker(*WEEK, extra=ahead)
    assert figures(clean) == figures(mixed)
    finding = check(mixed, "clock")
    assert (finding.level, finding.numbers["future"]) == ("warning", 2)


def test_exposures_that_name_the_experiment_outside_its_period_are_a_wrong_clock():
    stray = [exposure(900 + i, at=START + (8 if i else -9) * DAY_MS, request=f"stray{i}") for i in range(2)]
    finding = check(report_of(*WEEK, *stray), "clock")
    assert (finding.level, finding.numbers[NOT_OURS_YET]) == ("warning", 2)


def test_feedback_whose_exposure_is_lost_is_named():
    kept = [event for event in WEEK if not hasattr(event, "arm") or event.user_id > 6]
    finding = check(report_of(*kept), Unused.NO_EXPOSURE)
    assert finding.level == "warning"
    assert finding.numbers["events"] == sum(not hasattr(event, "arm") and event.user_id <= 6 for event in WEEK)


def test_feedback_after_the_attribution_window_is_counted():
    late = [feedback(user, START + 5 * DAY_MS, f"{user}-1", 2) for user in range(1, 60) if (user + 1) % 3]
    finding = check(report_of(*WEEK, *late), "late")
    assert (finding.level, finding.numbers[Unused.TOO_LATE]) == ("warning", len(late))


def test_feedback_on_what_was_not_shown_is_named():
    strange = [feedback(1, START + 8 * MINUTE_MS, "1-0", 77), feedback(2, START + 8 * MINUTE_MS, "1-0", 1)]
    finding = check(report_of(*WEEK, *strange), "mismatched_feedback")
    assert (finding.level, finding.numbers["share"] > 0) == ("warning", True)


def test_a_last_day_that_is_not_over_says_how_far_it_goes():
    assert check(report_of(exposure(at=START + DAY_MS + 13 * HOUR_MS)), "last_day").said.startswith(
        "1970-01-12 is not whole: events go up to 13:00."
    )
    assert check(report_of(exposure(at=START + 2 * DAY_MS - 1)), "last_day").level == "ok"
    assert check(report_of(exposure(), exposure(9, at=START + 8 * DAY_MS, request="o")), "last_day").level == "ok"


def test_days_that_begin_elsewhere_end_elsewhere():
    report = report_of(exposure(at=START + 15 * HOUR_MS + 30 * MINUTE_MS), day_offset_ms=8 * HOUR_MS)
    assert check(report, "last_day").level == "ok"


def test_a_zero_denominator_is_a_named_state():
    report = report_of(*(exposure(user, ("control", "treatment")[user % 2], request=str(user)) for user in range(60)))
    finding = check(report, "estimable")
    assert finding.level == "unknown"
    assert finding.numbers["latency:treatment"] == "Recall latency: no timed in arm treatment"
    assert all(math.isfinite(arm.value) for result in report.metrics for arm in result.arms if arm.value is not None)


def test_a_metric_too_blind_for_any_plausible_effect_says_so():
    finding = check(report_of(*WEEK), "power")
    assert finding.level == "unknown"
    assert finding.numbers["follow_rate:treatment"] > 0.2
    assert "Follow rate of treatment from ±" in finding.said


def test_a_metric_too_blind_for_the_plans_own_minimum_says_so():
    wanted = (MetricPlan(name="play_duration", kind="mean", columns=("play_s",), role="primary", minimum_effect=1e-6),)
    assert "0.0001 % would matter" in check(report_of(*WEEK, metrics=wanted), "power").said


@pytest.mark.parametrize(("outside", "level"), [(0, "ok"), (5, "warning"), (200, "invalid")])
def test_rows_left_out_are_a_named_state_of_the_report(outside, level):
    counts = {"rows": 1000, "rows_outside_days": outside, "rows_of_testers": 3, "users_without_pre": 7}
    left_out, past = rows(counts, 100)
    assert (left_out.name, left_out.level, left_out.numbers["rows_of_testers"]) == ("rows", level, 3)
    assert past.said.startswith("Of 7 of 100 users (7.00 %) nothing is known from before")
    assert not list(rows({"exposures": 9}, 100))


def parts(start, end, newest=None, **changes):
    spec = Experiment(
        name="week",
        salt="week",
        start_ms=instant_ms(start, "start"),
        end_ms=instant_ms(end, "end"),
        arms={name: {"weight": 1, "model": "two_tower"} for name in ("control", "treatment")},
        control="control",
        **changes,
    )
    newest_ms = 0 if newest is None else instant_ms(newest, "newest")
    found = [*part_days(spec), *last_day(spec, newest_ms), *ending(spec, 0, 7)]
    return {check.name: (check.level, check.said) for check in found}


def test_days_that_the_experiment_has_in_part_are_named_and_not_taken_for_whole_ones():
    told = parts("2026-03-01T15:00:00Z", "2026-03-08T15:30:00Z", "2026-03-08T15:20:00Z")
    level, said = told["part_days"]
    assert level == "warning"
    assert said.startswith(
        "The experiment starts at 15:00 and ends at 15:30: of 2026-03-01 it has 9 hours and of 2026-03-08 it has "
        "15 hours and 30 minutes. Sums per user of a part of a day are smaller"
    )
    assert told["last_day"] == ("ok", "2026-03-08 is over, 15 hours and 30 minutes of it.")
    assert told["end"][1].startswith("7 of 8 days are over, the first of them with 9 hours only; what is waited for is")


@pytest.mark.parametrize(
    ("start", "end", "changes"),
    [
        ("2026-03-01T00:00:00Z", "2026-03-08T00:00:00Z", {}),
        ("2026-03-01T00:00:00+08:00", "2026-03-08T00:00:00+08:00", {"day_offset": "+08:00"}),
        ("2026-10-22T00:00:00+02:00", "2026-10-29T00:00:00+01:00", {"zone": "Europe/Berlin"}),  # one has 25 hours
    ],
)
def test_whole_days_are_not_spoken_of(start, end, changes):
    told = parts(start, end, end, **changes)
    assert "part_days" not in told
    assert told["last_day"][1].endswith("is whole.")


def test_an_experiment_within_one_day_has_that_day_in_part():
    told = parts("2026-03-01T15:00:00Z", "2026-03-01T18:00:00Z")
    said = "The experiment starts at 15:00 and ends at 18:00: of 2026-03-01 it has 3 hours."
    assert told["part_days"][1].startswith(said)


@pytest.mark.parametrize(
    ("outside", "said"),
    [(0, "0 of 9 rows are on days"), (1, "1 of 9 rows (11.11 %) is on days"), (2, "2 of 9 rows (22.22 %) are on days")],
)
def test_counts_agree_with_their_nouns_and_verbs(outside, said):
    (found,) = rows({"rows": 9, "rows_outside_days": outside}, 9)
    assert found.said.startswith(said)


def test_what_operators_did_stands_in_the_report_and_a_day_that_was_paused_is_not_missing():
    pause = Change("pause", START + 2 * DAY_MS - HOUR_MS, by="ann", why="a fire")
    resume = Change("resume", START + 3 * DAY_MS)
    idle = {START + 2 * DAY_MS - HOUR_MS <= event.time_ms < START + 3 * DAY_MS for event in WEEK}
    assert idle == {True, False}
    events = [event for event in WEEK if not pause.from_ms <= event.time_ms < resume.from_ms]
    of = rules()
    assert check(analyse(observe(CollectorState(of), *events)), "missing_days").level == "warning"
    report = analyse(observe(CollectorState(of.after([resume, pause])), *events))
    assert check(report, "missing_days").level == "ok"
    told = check(report, "changes")
    assert told.level == "warning"
    assert told.said == (
        "The experiment was paused from 1970-01-12 23:00 UTC on (by ann, a fire); "
        "resumed from 1970-01-14 00:00 UTC on. Nobody was assigned for 25 hours of its period; nobody changed arm."
    )


def test_a_stop_says_that_a_plan_with_one_end_decides_nothing():
    stopped = CollectorState(rules().after([Change("ramp", START, 0.25), Change("stop", START + 6 * DAY_MS)]))
    report = analyse(observe(stopped, *WEEK))
    (verdict,) = report.verdicts
    assert (verdict.decision, verdict.because[:35]) == ("inconclusive", "The experiment was stopped before i")
    assert "end" not in [each.name for each in report.checks]
    said = check(report, "changes").said
    assert "ramped to 25.0 %" in said
    assert said.endswith("Its plan decides at its end, which is not to come: nothing is decided by what there is.")


def test_a_week_whose_last_day_nobody_came_on_has_ended_all_the_same():
    last = START + 6 * DAY_MS
    events = [event for event in WEEK if event.time_ms < last]
    state = observe(CollectorState(rules()), *events)
    assert "end" in [each.name for each in analyse(state).checks]
    state.newest_ms = START + 8 * DAY_MS  # of other traffic
    report = analyse(state)
    assert "end" not in [each.name for each in report.checks]
    assert "has not ended" not in report.verdicts[0].because
