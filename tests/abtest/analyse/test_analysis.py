from abtest.aggregate.user_days import table
from abtest.analyse.analysis import analyse, summary
from abtest.collect.state import CollectorState
from contracts.runtime.clock import DAY_MS, HOUR_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, exposure, feedback, observe, rules, week


def report_of(*events, **changes):
    return analyse(observe(CollectorState(rules(**changes)), *events))


def values(results, metric):
    return {arm.arm: arm.value for arm in next(r for r in results if r.metric == metric).arms}


def test_metrics_of_a_hand_counted_experiment():
    report = report_of(
        exposure(1, "treatment", START, "a"),
        feedback(1, START, "a", 1, play_ms=4000, ev=True),
        feedback(1, START + 10_000, "a", 2, play_ms=2000, ev=False, follow=True),
        exposure(3, "treatment", START, "b"),
        exposure(2, "control", START, "c"),
        feedback(2, START, "c", 1, play_ms=1000, ev=True),
    )
    assert values(report.metrics, "evr") == {"control": 0.5, "treatment": 0.25}  # each exposure shows two items
    assert values(report.metrics, "follow_rate") == {"control": 0.0, "treatment": 0.25}
    assert values(report.metrics, "play_duration") == {"control": 1.0, "treatment": 3.0}  # 6 s over two users
    assert values(report.metrics, "app_usage") == {"control": 1.0, "treatment": 6.0}  # 12 s and 0 s


def test_days_are_alone_and_together():
    report = report_of(*week(users=40, days=3))
    assert [day.date for day in report.days] == ["1970-01-11", "1970-01-12", "1970-01-13"]
    for day, whole in zip(report.days[-1].cumulative, report.metrics, strict=False):  # quantiles come last, by no day
        assert (day.arms, day.effects[0].effect) == (whole.arms, whole.effects[0].effect)
    users = [sum(arm.users for arm in day.cumulative[0].arms) for day in report.days]
    assert users == sorted(users)
    assert users[-1] == sum(report.split.users.values()) == 40


def test_a_day_without_events_is_a_named_state():
    report = report_of(exposure(1, at=START, request="a"), exposure(1, at=START + 2 * DAY_MS, request="b"))
    empty = report.days[1].daily[0]
    assert [arm.reason for arm in empty.arms] == ["no users", "no users"]
    assert empty.effects[0].effect.reason == "no users in arm treatment"


def test_users_in_two_arms_are_counted_and_left_out():
    events = week(users=20)
    clean, mixed = report_of(*events), report_of(*events, exposure(1, "control", START, "x"), exposure(99, request="y"))
    assert mixed.users_in_two_arms == 1
    assert mixed.split.users["treatment"] == clean.split.users["treatment"]  # 1 left, 99 came
    assert mixed.split.users["control"] == clean.split.users["control"]


def test_an_arm_without_users_makes_no_number():
    report = report_of(*(event for event in week(users=30) if event.user_id % 2))
    assert report.split.users["control"] == 0
    assert report.metrics[0].effects[0].effect.reason == "no users in arm control"
    assert report.verdicts[0].decision == "invalid"  # 30 users all in one arm


def test_a_mismatch_is_invalid_whatever_the_effect():
    report = report_of(
        *(exposure(user, "treatment" if user < 90 else "control", request=str(user)) for user in range(1, 101))
    )
    assert report.split.mismatch
    assert report.verdicts[0].decision == "invalid"


def test_too_few_events_decide_nothing():
    report = report_of(*week(users=6))
    assert report.metrics[0].effects[0].cautions
    assert report.verdicts[0].decision == "inconclusive"


def test_sources_are_tallied_by_what_they_contributed():
    report = report_of(exposure(1), feedback(1, item=1), feedback(1, item=2, ev=False), exposure(3, request="s"))
    rows = {row.source: row for row in report.sources}
    assert (rows["t2diff"].shown, rows["t2diff"].views, rows["t2diff"].evr) == (2, 2, 0.5)
    assert (rows["popular"].users, rows["popular"].evr) == (2, 0.0)


def test_a_session_past_midnight_counts_on_the_day_it_began():
    late = START + DAY_MS - MINUTE_MS
    columns = table(observe_and_fold(exposure(1, at=late), feedback(1, at=late, play_ms=5 * MINUTE_MS)))
    assert columns.day.tolist() == [0]
    assert columns.values[0, columns.columns.index("usage_s")] == 300


def test_a_session_on_a_day_without_exposure_counts_on_the_day_before():
    shown = START + DAY_MS - HOUR_MS
    columns = table(observe_and_fold(exposure(1, at=shown), feedback(1, at=shown + 2 * HOUR_MS, play_ms=60_000)))
    assert columns.day.tolist() == [0]
    assert columns.values[0, columns.columns.index("usage_s")] == 60


def observe_and_fold(*events):
    from abtest.collect.state import folded

    return folded(observe(CollectorState(rules()), *events))


def test_the_summary_has_what_the_demo_prints():
    line = summary(report_of(*week(users=40)))["evr"]["treatment"]
    assert set(line) == {"treatment", "control", "relative", "ci_low", "ci_high", "p_value", "users", "reason"}
    assert line["users"] == {"treatment": 20, "control": 20}
    assert line["ci_low"] < line["relative"] < line["ci_high"]


def test_the_order_of_events_leaves_the_report_alone():
    events = week(users=12)
    assert report_of(*events).to_json() == report_of(*reversed(events)).to_json()


def test_sources_are_compared_with_the_controls_model_else_with_the_arms_own():
    shown = ((1, "popular"), (2, "t2diff"), (3, "two_tower"))
    events = [exposure(1, items=shown[:2]), exposure(2, "control", request="c", items=shown)]
    rows = {(row.arm, row.source): row.against for row in report_of(*events).sources}
    assert rows["treatment", "popular"] == "t2diff"
    assert rows["control", "popular"] == rows["control", "t2diff"] == "two_tower"
    assert all(row.preference is None for row in report_of(*events).sources)  # quotas are no team draft
