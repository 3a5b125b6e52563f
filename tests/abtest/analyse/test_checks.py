from abtest.analyse.analysis import analyse
from abtest.analyse.checks import STRONG, split_by_day, split_by_replica, split_so_far
from abtest.collect.state import CollectorState
from abtest.report.files import ReportContext, html
from abtest.stats.srm import sequential_split, splits
from contracts.runtime.clock import DAY_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, exposure, feedback, observe, rules

USERS = 240
EVEN = {"control": 1.0, "treatment": 1.0}


def check(report, name):
    return next(check for check in report.checks if check.name == name)


def events(before):
    """Users with habits of their own in the experiment; `before(user, treated)`: views of each the day before."""
    events_of_all = []
    for user in range(1, USERS + 1):
        treated, habit = user % 2 == 1, 1 + (user * 37) % 23
        arm = "treatment" if treated else "control"
        for number in range(before(user, treated)):
            request = f"before-{user}-{number}"
            at = START - DAY_MS + number * MINUTE_MS
            events_of_all += [exposure(user, "", at, request, experiment=""), feedback(user, at, request, play_ms=1000)]
        at = START + user * MINUTE_MS
        events_of_all.append(exposure(user, arm, at, f"{user}", items=tuple((item, "t2diff") for item in range(1, 40))))
        for item in range(1, habit + 2):
            ev = (user + item) % 3 > 0
            events_of_all.append(feedback(user, at + item, f"{user}", item, 1000 + 13 * (item % 7), ev, item % 9 == 0))
    return events_of_all


def test_what_users_did_before_narrows_the_interval_and_moves_no_verdict():
    known = analyse(observe(CollectorState(rules()), *events(lambda user, treated: 1 + (user * 37) % 23)))
    unknown = analyse(observe(CollectorState(rules()), *events(lambda user, treated: 0)))
    line, bare = (
        next(m for m in report.metrics if m.metric == "play_duration").effects[0] for report in (known, unknown)
    )
    assert line.effect == bare.effect
    assert bare.adjusted is None
    assert line.variance_removed > 0.9
    assert line.adjusted.ci_high - line.adjusted.ci_low < 0.4 * (line.effect.ci_high - line.effect.ci_low)
    assert "CUPED" in html(known, ReportContext())
    assert known.verdicts == unknown.verdicts
    assert not known.pre_period[0].biased


def test_nothing_known_from_before_is_said():
    report = analyse(observe(CollectorState(rules()), *events(lambda user, treated: 0)))
    assert report.pre_period[0].p_value is None
    assert "could not be compared with control" in html(report, ReportContext())


def test_arms_that_differed_before_make_the_experiment_invalid():
    report = analyse(observe(CollectorState(rules()), *events(lambda user, treated: 2 + user % 3 + 3 * treated)))
    (verdict,) = report.verdicts
    assert report.pre_period[0].biased
    assert verdict.decision == "invalid"
    assert "before the start" in verdict.because
    page = html(report, ReportContext())
    assert "differed before the start" in page
    assert "cards void" in page


def test_a_sequential_mismatch_stays_one_although_later_days_even_it_out():
    days = [{"control": 1000, "treatment": 1400}, {"control": 1400, "treatment": 1000}]
    finding = split_so_far(sequential_split(days, EVEN), ["monday", "tuesday"])
    assert finding.level == "invalid"
    assert finding.numbers["since"] == "monday"
    assert split_so_far(sequential_split([{"control": 1000, "treatment": 1010}], EVEN), ["monday"]).level == "ok"


def test_one_odd_day_is_a_warning_and_an_impossible_one_invalid():
    odd = {"monday": {"control": 500, "treatment": 500}, "tuesday": {"control": 430, "treatment": 570}}
    finding = split_by_day(splits(odd, EVEN))
    assert finding.level == "warning"
    assert "tuesday" in finding.said
    impossible = {**odd, "tuesday": {"control": 300, "treatment": 700}}
    assert split_by_day(splits(impossible, EVEN)).level == "invalid"
    assert split_by_day(splits({}, EVEN)).level == "unknown"


def test_a_replica_that_hardly_answers_an_arm_is_broken_and_one_that_is_busy_only_named():
    busy = {"a:1": {"control": 1000, "treatment": 1200}, "b:1": {"control": 1000, "treatment": 1000}}
    finding = split_by_replica(splits(busy, EVEN))
    assert (finding.level, finding.said.startswith("a:1 did not answer")) == ("warning", True)
    assert finding.numbers["least_p_value"] > STRONG
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
