from pathlib import Path

import pytest

from abtest.analyse.analysis import analyse
from abtest.collect.records import EventSums
from abtest.collect.state import CollectorState, close, folded, observe_exposure, observe_feedback
from abtest.collect.store import SAVE_EVERY_S, Saved, Saves, load, save
from contracts.config.experiment import AnalysisPlan, RampStep
from contracts.runtime.clock import DAY_MS, ManualClock
from contracts.runtime.durable import StateError
from tests.abtest.abtest_cases import START, exposure, feedback, impression, observe, rules, week

FORMAT_4 = Path(__file__).with_name("format-4.npz")


def plan_checks(report):
    return [check for check in report.checks if check.name == "plan"]


def test_a_plan_that_changed_after_the_collector_began_is_named(tmp_path):
    path = tmp_path / "state.npz"
    save(Saved(observe(CollectorState(rules()), *week(users=40))), path)
    assert plan_checks(analyse(load(path, rules()).state)) == []
    later = load(path, rules(analysis=AnalysisPlan(alpha=0.2), hypothesis="it was so all along")).state
    (finding,) = plan_checks(analyse(later))
    assert (finding.level, finding.said) == (
        "warning",
        "Hypothesis and analysis of the experiment’s file changed after the collector had begun.",
    )


def test_what_the_plan_was_outlasts_another_save(tmp_path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    save(Saved(CollectorState(rules())), first)
    changed = rules(analysis=AnalysisPlan(alpha=0.2))
    save(load(first, changed), second)
    assert load(second, changed).state.plan == CollectorState(rules()).plan


def test_a_saved_state_comes_back_whole_with_its_offsets(tmp_path):
    full = exposure(at=START + 1, request="told", replica="a:1", answer_ms=2.0, model_time_ms=START)
    before = exposure(at=START - DAY_MS, request="before")
    state = observe(CollectorState(rules()), *week(6), full, before, feedback(request="later"))
    close(state, START + DAY_MS)
    assert state.users[1].replicas
    assert state.users[1].pre.recalls
    saved = Saved(state, {"exposures:0": 5}, {"exposures:0": START})
    save(saved, tmp_path / "s.npz")
    assert load(tmp_path / "s.npz", rules()) == saved
    assert [path.name for path in tmp_path.iterdir()] == ["s.npz"]


def test_a_file_of_an_early_format_is_refused_in_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "s.npz"
    monkeypatch.setattr("abtest.collect.store.FORMAT", 3)
    save(Saved(observe(CollectorState(rules()), feedback())), path)
    monkeypatch.undo()
    with pytest.raises(StateError, match=r"s\.npz has format 3; this build reads 4 and 5\."):
        load(path, rules())


def test_a_file_of_before_there_was_served_only_is_read_as_if_all_that_was_served_was_shown():
    """It was written by the build that had this format."""
    saved = load(FORMAT_4, rules())
    assert saved.offsets == {"exposures:0": 5}
    state = saved.state
    assert state.arms == {"treatment": EventSums(1, 2, 1, 1, 0, 1000, served=2)}
    assert state.users[1].days == {0: EventSums(1, 2, 1, 1, 0, 1000, served=2)}
    assert state.users[1].pre == EventSums(1, 2, served=2)
    assert sorted(state.requests) == ["open", "waits"]
    observe(state, exposure(3, at=START + 2 * DAY_MS - 1, request="waits"))
    assert folded(state).arms == {
        "treatment": EventSums(2, 4, 2, 2, 0, 2000, served=4),
        "control": EventSums(1, 2, 1, 0, 0, 1000, served=2),
    }


def test_impressions_and_what_was_served_only_outlast_a_save(tmp_path):
    served = exposure(request="served", items=[(i, "t2diff") for i in range(1, 6)], served_only=True)
    folded_one = exposure(request="past", at=START, served_only=True)
    shown = [impression((2, 1, 9), at=START + 1, request=request) for request in ("served", "past")]
    state = observe(CollectorState(rules()), served, folded_one, *shown)
    close(state, START - 1)
    save(Saved(state), tmp_path / "s.npz")
    again = load(tmp_path / "s.npz", rules()).state
    assert again == state
    assert folded(again).arms == {"treatment": EventSums(2, 4, 4, served=7)}


def test_places_in_the_log_outlast_a_save(tmp_path):
    first, again = (feedback(event_id="f", play_ms=play_ms) for play_ms in (9, 5))
    state = CollectorState(rules())
    observe_feedback(state, first, 3)
    save(Saved(state), tmp_path / "s.npz")
    state = load(tmp_path / "s.npz", rules()).state
    observe_feedback(state, again, 7)
    observe_exposure(state, exposure())
    assert folded(state).arms["treatment"].play_ms == 9


def test_no_file_is_an_empty_state(tmp_path):
    assert load(tmp_path / "s.npz", rules()) == Saved(CollectorState(rules()))


def test_words_and_ramps_may_change_while_an_experiment_runs(tmp_path):
    save(Saved(CollectorState(rules())), tmp_path / "s.npz")
    ramp = [RampStep(from_ms=START, share=0.5)]
    assert (
        load(tmp_path / "s.npz", rules(hypothesis="fresher is better", owner="recall", ramp=ramp)).state.closed_ms == 0
    )


def test_a_damaged_file_or_another_experiments_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "s.npz"
    save(Saved(CollectorState(rules())), path)
    with pytest.raises(StateError, match="another experiment"):
        load(path, rules(salt="other"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StateError, match="is damaged"):
        load(path, rules())


def test_a_state_that_takes_long_to_save_is_saved_seldom_and_at_once_where_a_user_was_let_go_of(tmp_path, monkeypatch):
    clock, saved = ManualClock(), Saved(CollectorState(rules()))
    written = []

    def slowly(saved, path):
        written.append(clock.elapsed_s())
        clock.advance(2_000)

    monkeypatch.setattr("abtest.collect.store.save", slowly)
    saves = Saves(tmp_path / "state.npz", clock)
    for _ in range(60):
        clock.advance(1_000)
        saves.save_if_due(saved)
    assert written == [SAVE_EVERY_S, SAVE_EVERY_S + 20, SAVE_EVERY_S + 40, SAVE_EVERY_S + 60]
    saved.forgot = True
    saves.save_if_due(saved)
    assert len(written) == 5
    assert not saved.forgot
