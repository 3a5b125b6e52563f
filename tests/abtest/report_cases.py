"""Reports for the tests of what is made of them: the real analysis of small weeks, and every optional part filled."""

from dataclasses import replace
from functools import cache

from abtest.analyse.analysis import analyse
from abtest.analyse.checks import ModelFacts
from abtest.analyse.context import ReportContext, SnapshotMark
from abtest.analyse.results import Check, Look, Report, Slice
from abtest.collect.state import CollectorState
from contracts.config.experiment import DAY_MS, METRICS, AnalysisPlan
from contracts.snapshots.parts import Part
from tests.abtest.abtest_cases import START, exposure, observe, rules, week

CONTEXT = ReportContext(
    simulated=True,
    world="a little world",
    response_quality={"auc": 0.7, "play_mae_s": float("nan"), "rows": 10},
    models=(
        ModelFacts("control", "two_tower", 3, "v3", {"control": 99, "treatment": 1}, {20: 0.1, 100: None}),
        ModelFacts(
            "treatment",
            "t2diff",
            3,
            "v3",
            {"treatment": 50, "control": 50},
            {20: 0.2, 100: 0.3},
            parts=(Part("guess", False, -0.001, -0.004, 0.002),),
        ),
    ),
    configuration={"dim": 64},
    counts={"recalls": 12},
    seed=7,
    commit="0123456789abcdef",
    command="driftline experiment report -s settings.yaml --out out",
    marks=tuple(SnapshotMark("treatment", "t2diff", f"v{i}", START + i * DAY_MS // 2) for i in range(9)),
)
STATES = {
    "full": week(users=60, days=7),
    "empty": [],
    "one user": [exposure()],
    "mismatch": [exposure(user, "treatment" if user < 90 else "control", request=str(user)) for user in range(1, 100)],
}
PLANNED = tuple(
    replaced.model_copy(update={"minimum_effect": 0.01}) if replaced.role != "diagnostic" else replaced
    for replaced in METRICS
)


@cache
def report_of(name: str) -> Report:
    return analyse(observe(CollectorState(rules()), *STATES[name]))


@cache
def planned(kind: str = "fixed", days: int = 7, name: str = "full") -> Report:
    """With a minimum effect, a hypothesis and an owner, by a plan of the kind."""
    looks = (3, 5, 7) if kind == "group-sequential" else ()
    changes = {
        "hypothesis": "It helps.",
        "owner": "recall",
        "metrics": PLANNED,
        "analysis": AnalysisPlan(kind=kind, looks=looks),
    }
    return analyse(observe(CollectorState(rules(days=days, **changes)), *STATES[name]))


def filled(report: Report) -> Report:
    """With everything that may be there: bands, looks, slices of three kinds, paired sources, a warning."""
    bands = tuple((-0.2, 0.3) for _ in report.days)
    looks = (Look(2, 0.01, -0.1, 0.2, 2.4, crossed=False), Look(6, 0.15, 0.1, 0.2, 2.0, crossed=True))
    effect = report.metrics[0].effects[0].effect
    slices = tuple(
        Slice(kind, name, dict(report.split.users), report.metrics, note)
        for kind, name, note in (("segment", "new", ""), ("age", "under 1 h", "few"), ("version", "v1", ""))
    )
    return replace(
        report,
        checks=(*report.checks, Check("late", "Late events", "warning", "3 of 100 came late.", {"share": 0.03})),
        courses=tuple(
            replace(course, daily_band=bands, cumulative_band=bands, looks=looks) for course in report.courses
        ),
        slices=slices,
        sources=tuple(
            replace(row, against="t2diff", evr_effect=None if row.source == "t2diff" else effect)
            for row in report.sources
        ),
    )


def invalid(report: Report) -> Report:
    """The same, but a check makes it void."""
    void = Check("split", "Traffic split", "invalid", "Users did not fall into the arms as planned.")
    verdicts = tuple(replace(verdict, decision="invalid", because=void.said) for verdict in report.verdicts)
    return replace(report, checks=(void, *report.checks[1:]), verdicts=verdicts)
