import pytest

from abtest.analyse.analysis import analyse
from abtest.collect.state import CollectorState
from contracts.config.experiment import MetricPlan
from contracts.runtime.clock import DAY_MS, HOUR_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, exposure, feedback, observe, rules


def served(age_ms, versions=("v1", "v2"), users=80, days=2):
    """Users of both arms, answered by models of the age that `age_ms(arm, user)` says; treatment's views count more."""
    events = []
    for user in range(1, users + 1):
        arm = "treatment" if user % 2 else "control"
        for day in range(days):
            at, request = START + day * DAY_MS + HOUR_MS + user, f"{user}-{day}"
            model = {"model_time_ms": at - age_ms(arm, user), "snapshot_version": versions[day % len(versions)]}
            events.append(exposure(user, arm, at, request, **model))
            for item in (1, 2):
                ev = (user + day + item) % 5 < (4 if arm == "treatment" else 2)
                events.append(feedback(user, at + item, request, item, ev=ev))
    return events


def check(report, name):
    return next(check for check in report.checks if check.name == name)


def slices(report, kind):
    return {each.name: each for each in report.slices if each.kind == kind}


def test_arms_served_by_models_of_like_age_are_fine():
    report = analyse(observe(CollectorState(rules()), *served(lambda arm, user: 10 * MINUTE_MS)))
    assert check(report, "model_age:treatment").level == "ok"
    assert check(report, "model_age:treatment").numbers["mean_ms:control"] == 10 * MINUTE_MS
    assert check(report, "stale:control").level == "ok"


def test_an_arm_served_by_staler_models_is_named():
    report = analyse(
        observe(CollectorState(rules()), *served(lambda arm, user: (30 if arm == "control" else 10) * MINUTE_MS))
    )
    finding = check(report, "model_age:treatment")
    assert finding.level == "warning"
    assert finding.said.endswith("control was served by staler models.")


def test_an_arm_without_a_new_snapshot_for_a_day_is_named():
    report = analyse(
        observe(CollectorState(rules()), *served(lambda arm, user: DAY_MS if arm == "treatment" else HOUR_MS))
    )
    assert check(report, "stale:treatment").level == "warning"
    assert check(report, "stale:treatment").numbers["share"] == 1.0
    assert check(report, "stale:control").level == "ok"


def test_where_only_one_arm_tells_its_models_age_they_are_not_compared():
    events = served(lambda arm, user: HOUR_MS)
    for event in events:
        if hasattr(event, "arm") and event.arm == "control":
            event.ClearField("model_time_ms")
    report = analyse(observe(CollectorState(rules()), *events))
    assert check(report, "model_age:treatment").said == "Exposures of control do not tell."


def test_each_class_of_age_compares_what_models_of_that_age_showed():
    report = analyse(
        observe(CollectorState(rules()), *served(lambda arm, user: (1 if user % 4 < 2 else 60) * MINUTE_MS))
    )
    by_name = slices(report, "age")
    assert list(by_name) == ["under 5 min", "0.5 to 2 h"]
    for each in by_name.values():
        assert each.users == {"control": 20, "treatment": 20}
        assert [result.metric for result in each.metrics] == ["evr", "follow_rate"]
        assert each.metrics[0].effects[0].effect.relative > 0


def test_each_version_is_compared_with_the_control_on_its_days():
    report = analyse(
        observe(CollectorState(rules()), *served(lambda arm, user: HOUR_MS, versions=("v1", "v1+001", "v2"), days=3))
    )
    by_name = slices(report, "version")
    assert list(by_name) == ["treatment v1", "treatment v2"]
    days = {day.day: day for day in report.days}
    evr = by_name["treatment v2"].metrics[0]
    alone = days[2].daily[0]
    assert [arm.value for arm in evr.arms] == pytest.approx([arm.value for arm in reversed(alone.arms)])
    assert evr.effects[0].effect.relative == pytest.approx(alone.effects[0].effect.relative)
    assert evr.effects[0].effect.ci_low == pytest.approx(alone.effects[0].effect.ci_low, rel=1e-6)
    assert by_name["treatment v1"].note.startswith("1970-01-11 to 1970-01-12, ")


@pytest.mark.parametrize("stale_arm", ["control", "treatment"])
def test_what_freshness_may_explain_does_not_ship(stale_arm):
    """KuaiRand-Pure's demo: the control was held from the second day on, and the report said "ship"."""

    def age(arm, user):
        return 2 * DAY_MS if arm == stale_arm and user % 3 else HOUR_MS

    def decided(age_ms, **analysis):
        evr = MetricPlan(name="evr", kind="ratio", columns=("effective_views", "views"), role="primary")
        known = rules(metrics=(evr,), analysis={"kind": "confidence-sequence", **analysis})
        (verdict,) = analyse(observe(CollectorState(known), *served(age_ms, users=400))).verdicts
        return verdict

    found = decided(age)
    assert found.decision == "inconclusive"
    assert f"{stale_arm} was stale" in found.because
    assert decided(lambda arm, user: HOUR_MS).decision == "ship"
    assert decided(lambda arm, user: 2 * DAY_MS).decision == "ship"  # both are: the check warns, the arms are alike
    assert decided(age, unlike_freshness=True).decision == "ship"
