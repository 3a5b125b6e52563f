import numpy as np
import pandas as pd
import pytest

from abtest.analyse.analysis import analyse
from abtest.analyse.analysis import report as report_on
from abtest.analyse.checks import (
    STRONG,
    ModelFacts,
    covariates_from_during,
    split_by_day,
    split_by_replica,
    split_so_far,
)
from abtest.collect.state import CollectorState
from abtest.read.rows import read
from abtest.report.files import ReportContext, html
from abtest.stats.cuped import Adjustment
from abtest.stats.metrics import Mean
from abtest.stats.moments import Moments
from abtest.stats.srm import sequential_split, splits
from contracts.config.experiment import MetricPlan
from contracts.runtime.clock import DAY_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, experiment, exposure, feedback, observe, rules

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


def test_a_covariate_that_is_the_metric_itself_is_warned_of_and_one_from_before_is_not():
    random = np.random.default_rng(2)
    taste = random.normal(50, 10, 4000)
    spend = taste + random.normal(0, 2, 4000)  # what was before has a correlation of .96 with what is now
    given = {"user_id": np.arange(4000), "arm": np.where(random.random(4000) < 0.5, "control", "treatment"), "day": 0}
    metric = MetricPlan(name="spend", kind="mean", columns=("spend",), role="primary")
    plan = experiment(days=1, metrics=(metric,))

    def found(**covariates):
        frame = pd.DataFrame({**given, "spend": spend} | {f"pre.{name}": values for name, values in covariates.items()})
        checks = report_on(read(frame, plan).aggregate, plan).checks
        return next((each for each in checks if each.name == "covariates_from_during"), None)

    assert found(spend=taste, visits=random.poisson(5, 4000)) is None
    told = found(visits=random.poisson(5, 4000), spend=2 * spend + 1)
    assert told.level == "warning"
    assert told.said.startswith("pre.spend takes 100.0 % of the variance of spend: that is the metric itself, or was")
    assert told.numbers == {"spend": pytest.approx(1.0)}
    halves = found(first=spend - taste, second=taste)  # neither alone, but both together
    assert halves.said.startswith("pre.first and pre.second take 100.0 % of the variance of spend")


def test_the_threshold_of_such_a_covariate_lies_between_what_was_before_and_what_is_now():
    random = np.random.default_rng(4)
    for correlation, warned in ((0.97, False), (0.99, False), (0.998, True)):
        x = random.normal(0, 1, (20_000, 2))
        spend = correlation * x[:, 0] + np.sqrt(1 - correlation**2) * x[:, 1]
        moments = {
            arm: Moments.of(("spend", "pre.spend"), np.column_stack([spend, x[:, 0]])[i::2])
            for i, arm in enumerate(("control", "treatment"))
        }
        checks = covariates_from_during(
            Adjustment.of(moments, ["pre.spend"]), [Mean("spend", "Spend", "", "", "spend")]
        )
        assert bool([*checks]) is warned, correlation


def two_arms(in_both, only_treatment):
    """Users of a day, of whom some are seen in the other arm on the next day."""
    users = np.arange(2000)
    arm = np.where(users % 2 == 1, "treatment", "control")
    rows = pd.DataFrame({"user_id": users, "arm": arm, "day": 0, "views": 10, "effective_views": users % 7})
    seen = rows[(rows.arm == "treatment") | (not only_treatment)].head(in_both)
    other = seen.assign(arm=np.where(seen.arm == "control", "treatment", "control"), day=1)
    return pd.concat([rows, other])


@pytest.mark.parametrize(
    ("in_both", "lost", "first"),
    [
        (300, 0, "contamination"),  # all of them began in the treatment, which has 300 fewer for it
        (30, 300, "split"),  # 300 others were lost: the 30 do not make that good
    ],
)
def test_users_in_two_arms_are_named_before_a_split_that_they_alone_can_explain(in_both, lost, first):
    plan = experiment(
        days=2, metrics=(MetricPlan(name="evr", kind="ratio", columns=("effective_views", "views"), role="primary"),)
    )
    rows = two_arms(in_both, only_treatment=True)
    rows = rows[~((rows.user_id >= 2000 - 2 * lost) & (rows.arm == "treatment"))]
    report = report_on(read(rows, plan).aggregate, plan)
    invalid = [each for each in report.checks if each.level == "invalid"]
    assert invalid[0].name == first
    assert {"split", "contamination"} <= {each.name for each in invalid}
    assert report.verdicts[0].because.startswith(invalid[0].said)
    said = next(each.said for each in invalid if each.name == "contamination")
    assert ("may be why the others did not fall into the arms as planned" in said) is (first == "contamination")


def test_what_an_arm_learned_from_others_users_is_a_warning_unless_each_example_was_weighted():
    learned = {"": 100, "control": 50, "treatment": 50}
    models = [
        ModelFacts("control", "two_tower", learned_from=learned, learn_from="pooled"),
        ModelFacts("treatment", "t2diff", learned_from=learned, learn_from="weighted"),
    ]
    report = analyse(observe(CollectorState(rules()), exposure()), models)
    pooled, weighted = (check(report, f"interference:{arm}") for arm in ("control", "treatment"))
    assert (pooled.level, weighted.level) == ("warning", "ok")
    assert "3 and 9 points off" in pooled.said
    assert "weighted by how likely its own arm shows it" in weighted.said
    assert pooled.numbers == weighted.numbers == {"share": 0.5}
