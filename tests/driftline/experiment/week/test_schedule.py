"""What is due when, over a week, its ramp, its looks, a stop, and a clock that is changed."""

from contracts.config.changes import Change
from contracts.config.experiment import AnalysisPlan, RampStep
from contracts.runtime.clock import DAY_MS, HOUR_MS
from driftline.experiment.week.schedule import closed_ms, coming, due, jobs_of
from tests.abtest.abtest_cases import START, experiment

LATE_MS = 2 * HOUR_MS


def test_a_report_a_day_and_the_last_one_is_final():
    jobs = jobs_of(experiment(days=3), LATE_MS)
    assert [(job.key, job.at_ms, job.final, job.look) for job in jobs] == [
        ("day-01", START + DAY_MS + LATE_MS, False, False),
        ("day-02", START + 2 * DAY_MS + LATE_MS, False, False),
        ("day-03", START + 3 * DAY_MS + LATE_MS, True, True),
    ]


def test_the_looks_are_the_plans_and_no_others():
    plan = AnalysisPlan(kind="group-sequential", looks=(2, 4))
    jobs = jobs_of(experiment(days=4, analysis=plan), 0)
    assert [job.look for job in jobs] == [False, True, False, True]
    every_day = jobs_of(experiment(days=4, analysis=AnalysisPlan(kind="confidence-sequence")), 0)
    assert all(job.look for job in every_day)


def test_ramps_come_at_their_times():
    ramp = (RampStep(from_ms=START, share=0.1), RampStep(from_ms=START + DAY_MS, share=0.5))
    jobs = jobs_of(experiment(days=2, ramp=ramp), LATE_MS)
    assert [(job.kind, job.at_ms, job.share) for job in jobs if job.kind == "ramp"] == [
        ("ramp", START, 0.1),
        ("ramp", START + DAY_MS, 0.5),
    ]


def test_what_was_missed_is_made_up_for_by_one_report():
    jobs = jobs_of(experiment(days=5), LATE_MS)
    now = due(jobs, {"day-01"}, START + 4 * DAY_MS + LATE_MS)
    assert now.report is not None
    assert (now.report.key, [job.key for job in now.missed]) == ("day-04", ["day-02", "day-03"])
    after = coming(jobs, {"day-01", "day-02", "day-03", "day-04"})
    assert after is not None
    assert after.key == "day-05"
    assert due(jobs, {job.key for job in jobs}, START + 99 * DAY_MS).report is None


def test_after_a_stop_there_is_one_last_report_and_a_plan_of_one_look_has_none():
    stop_ms = START + DAY_MS + 5 * HOUR_MS
    stopped = experiment(days=7).model_copy(update={"changes": (Change("stop", stop_ms),)})
    jobs = jobs_of(stopped, LATE_MS)
    assert [(job.key, job.at_ms, job.final) for job in jobs] == [
        ("day-01", START + DAY_MS + LATE_MS, False),
        ("day-02", stop_ms + LATE_MS, True),
    ]
    assert not any(job.look for job in jobs)


def test_a_stop_before_the_start_leaves_a_report_all_the_same():
    stopped = experiment(days=7).model_copy(update={"changes": (Change("stop", START - DAY_MS),)})
    assert [(job.key, job.final) for job in jobs_of(stopped, 0)] == [("day-01", True)]


def test_days_are_those_of_the_experiments_calendar_also_where_clocks_change():
    # 2026-03-29: Berlin's day has 23 hours.
    start_ms, end_ms = 1_774_652_400_000, 1_774_821_600_000  # 28 and 30 March, midnight there
    two_days = experiment(start_ms=start_ms, end_ms=end_ms, zone="Europe/Berlin")
    assert [job.at_ms for job in jobs_of(two_days, 0)] == [start_ms + 24 * HOUR_MS, start_ms + 47 * HOUR_MS]
    assert closed_ms(two_days, end_ms - 1) == start_ms + 24 * HOUR_MS
    assert closed_ms(two_days, start_ms + 5) == start_ms
