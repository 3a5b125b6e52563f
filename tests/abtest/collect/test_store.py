from abtest.analyse.analysis import analyse
from abtest.collect.state import CollectorState
from abtest.collect.store import Saved, load, save
from contracts.config.experiment import AnalysisPlan
from tests.abtest.abtest_cases import observe, rules, week


def plan_checks(report):
    return [check for check in report.checks if check.name == "plan"]


def test_a_plan_that_changed_after_the_collector_began_is_named(tmp_path):
    path = tmp_path / "state.npz"
    save(Saved(observe(CollectorState(rules()), *week(users=40))), path)
    assert plan_checks(analyse(load(path, rules()).state)) == []
    later = load(path, rules(analysis=AnalysisPlan(alpha=0.2), hypothesis="it was so all along")).state
    (found,) = plan_checks(analyse(later))
    assert (found.level, found.said) == (
        "warning",
        "Hypothesis and analysis of the experiment’s file changed after the collector had begun.",
    )


def test_what_the_plan_was_outlasts_another_save(tmp_path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    save(Saved(CollectorState(rules())), first)
    changed = rules(analysis=AnalysisPlan(alpha=0.2))
    save(load(first, changed), second)
    assert load(second, changed).state.plan == CollectorState(rules()).plan
