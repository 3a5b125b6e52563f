import pytest

from abtest.analyse.analysis import analyse
from abtest.analyse.checks import STRONG, split_by_day, split_by_replica, split_so_far
from abtest.collect.records import VERSIONS, full_version
from abtest.collect.state import CollectorState, folded, merge
from abtest.stats.srm import sequential_split, splits
from contracts.config.settings import DAY_MS, HOUR_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, exposure, feedback, observe, rules

EVEN = {"control": 1.0, "treatment": 1.0}


def served(age_ms, versions=("v1", "v2"), users=80, days=2):
    """Users of both arms, answered by models of the age that `age_ms(arm, user)` says; treatment's views count more."""
    events = []
    for user in range(1, users + 1):
        arm = "treatment" if user % 2 else "control"
        for day in range(days):
            at, request = START + day * DAY_MS + HOUR_MS + user, f"{user}-{day}"
            told = {"model_time_ms": at - age_ms(arm, user), "snapshot_version": versions[day % len(versions)]}
            events.append(exposure(user, arm, at, request, **told))
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
    found = check(report, "model_age:treatment")
    assert found.level == "warning"
    assert found.said.endswith("control was served by staler models.")


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
    found = slices(report, "age")
    assert list(found) == ["under 5 min", "0.5 to 2 h"]
    for each in found.values():
        assert each.users == {"control": 20, "treatment": 20}
        assert [result.metric for result in each.metrics] == ["evr", "follow_rate"]
        assert each.metrics[0].effects[0].effect.relative > 0


def test_each_version_is_compared_with_the_control_on_its_days():
    report = analyse(
        observe(CollectorState(rules()), *served(lambda arm, user: HOUR_MS, versions=("v1", "v1+001", "v2"), days=3))
    )
    found = slices(report, "version")
    assert list(found) == ["treatment v1", "treatment v2"]
    days = {day.day: day for day in report.days}
    evr = found["treatment v2"].metrics[0]
    alone = days[2].daily[0]
    assert [arm.value for arm in evr.arms] == pytest.approx([arm.value for arm in reversed(alone.arms)])
    assert evr.effects[0].effect.relative == pytest.approx(alone.effects[0].effect.relative)
    assert evr.effects[0].effect.ci_low == pytest.approx(alone.effects[0].effect.ci_low, rel=1e-6)
    assert found["treatment v1"].note.startswith("1970-01-11 to 1970-01-12, ")


def test_of_many_versions_a_sample_is_told_apart_the_same_in_any_order():
    events = []
    for i in range(3 * VERSIONS):
        for user in (1, 2):
            arm, at = ("control", "treatment")[user % 2], START + i * HOUR_MS
            events.append(exposure(user, arm, at, f"{user}-{i}", snapshot_version=f"v{i}+001"))
    onward = folded(observe(CollectorState(rules()), *events))
    parts = [folded(observe(CollectorState(rules()), *events[i::4])) for i in range(4)]
    merged = merge(merge(parts[3], parts[1]), merge(parts[0], parts[2]))
    assert onward.spans == merged.spans
    assert onward.users == merged.users
    assert len(onward.spans) == 2 * VERSIONS
    for user in onward.users.values():
        assert len(user.versions) == VERSIONS
        assert all(tally.recalls == 1 for tally in user.versions.values())
    assert full_version("v3+001") in {
        version for _, version in folded(observe(CollectorState(rules()), *events[:8])).spans
    }


def test_a_sequential_mismatch_stays_one_although_later_days_even_it_out():
    days = [{"control": 1000, "treatment": 1400}, {"control": 1400, "treatment": 1000}]
    found = split_so_far(sequential_split(days, EVEN), ["monday", "tuesday"])
    assert found.level == "invalid"
    assert found.numbers["since"] == "monday"
    assert split_so_far(sequential_split([{"control": 1000, "treatment": 1010}], EVEN), ["monday"]).level == "ok"


def test_one_odd_day_is_a_warning_and_an_impossible_one_invalid():
    odd = {"monday": {"control": 500, "treatment": 500}, "tuesday": {"control": 430, "treatment": 570}}
    found = split_by_day(splits(odd, EVEN))
    assert found.level == "warning"
    assert "tuesday" in found.said
    impossible = {**odd, "tuesday": {"control": 300, "treatment": 700}}
    assert split_by_day(splits(impossible, EVEN)).level == "invalid"
    assert split_by_day(splits({}, EVEN)).level == "unknown"


def test_a_replica_that_hardly_answers_an_arm_is_broken_and_one_that_is_busy_only_named():
    busy = {"a:1": {"control": 1000, "treatment": 1200}, "b:1": {"control": 1000, "treatment": 1000}}
    found = split_by_replica(splits(busy, EVEN))
    assert (found.level, found.said.startswith("a:1 did not answer")) == ("warning", True)
    assert found.numbers["least_p_value"] > STRONG
    broken = {**busy, "b:1": {"control": 1000, "treatment": 100}}
    assert split_by_replica(splits(broken, EVEN)).level == "invalid"


def test_a_replica_that_answered_one_arm_only_makes_the_report_invalid():
    events = [
        exposure(
            user,
            ("control", "treatment")[user % 2],
            request=str(user),
            replica="b:1" if user % 2 and user % 4 == 1 else "a:1",
        )
        for user in range(1, 401)
    ]
    report = analyse(observe(CollectorState(rules()), *events))
    assert report.split.p_value > 0.9
    assert check(report, "split_by_replica").level == "invalid"
