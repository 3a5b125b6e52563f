"""What operators do to a running experiment: which moment has which standing, and what is refused."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abtest.assignment.assign import assign, assign_many, ramp_share, state_of
from contracts.config.changes import LEAD_MS, Change, Kind, pauses, refusal, standing
from contracts.config.experiment import Arm, Experiment, RampStep, SettingsError, validated

ARMS = {"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="t2diff")}
PERIOD = (0, 2 * LEAD_MS)
TOO_SOON = "that is less than 5 s ahead, and replicas would not go by it at one moment"
USERS = np.arange(1, 400)
KINDS: tuple[Kind, ...] = ("pause", "resume", "ramp", "stop")


def experiment(*changes: Change, **more: object) -> Experiment:
    made = Experiment(name="e", salt="s", start_ms=0, end_ms=100, arms=ARMS, control="a", **more)
    return made.model_copy(update={"changes": changes})


def arms(of: Experiment, time_ms: int) -> dict[int, str]:
    found = {int(user): assign(of, int(user), time_ms).arm for user in USERS}
    numbers = assign_many(of, USERS, time_ms)
    names = [None, *ARMS]
    assert [found[int(user)] for user in USERS] == [names[number + 1] for number in numbers], "one by one as together"
    return {user: arm for user, arm in found.items() if arm is not None}


def test_a_pause_leaves_everybody_out_and_each_comes_back_to_the_same_arm() -> None:
    of = experiment(Change("pause", 10), Change("resume", 20))
    before = arms(of, 9)
    assert len(before) == len(USERS)
    assert arms(of, 10) == arms(of, 19) == {}
    assert arms(of, 20) == before
    assert assign(of, 1, 15) == (None, "paused")


def test_a_ramp_by_command_holds_instead_of_the_plans_until_it_is_given_back() -> None:
    plan = (RampStep(from_ms=0, share=0.5), RampStep(from_ms=50, share=1.0))
    of = experiment(Change("ramp", 20, 0.1), Change("ramp", 60, None), ramp=plan)
    assert [ramp_share(of, time_ms) for time_ms in (19, 20, 50, 59, 60)] == [0.5, 0.1, 0.1, 0.1, 1.0]
    few, half, everybody = arms(of, 20), arms(of, 19), arms(of, 60)
    assert few.items() < half.items() < everybody.items()
    assert 0 < len(few) < 0.2 * len(USERS)


def test_a_stop_is_for_ever_and_for_testers_too() -> None:
    of = experiment(Change("stop", 30), Change("resume", 40), overrides={"b": (7,)})
    assert assign(of, 7, 29) == ("b", "override")
    assert [assign(of, 7, time_ms).why for time_ms in (30, 40, 99)] == ["stopped"] * 3
    assert (state_of(of, 29), state_of(of, 99)) == ("running", "stopped")


def test_a_change_that_was_made_later_and_holds_earlier_takes_its_place_in_time() -> None:
    of = experiment(Change("stop", 90), Change("pause", 10), Change("resume", 30))
    assert pauses(of.changes, 100) == [(10, 30), (90, 100)]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99), st.sampled_from([None, 0.0, 0.3, 1.0]))))
def test_pauses_are_just_the_moments_at_which_nobody_is_assigned(made: list[tuple[Kind, int, float | None]]) -> None:
    changes = [Change(kind, from_ms, share if kind == "ramp" else None) for kind, from_ms, share in made]
    stretches = pauses(changes, 100)
    assert all(begin < end for begin, end in stretches)
    assert all(end < begin for (_, end), (begin, _) in pairwise(stretches)), "apart, and in order"
    idle = {time_ms for begin, end in stretches for time_ms in range(begin, end)}
    at = {time_ms: standing(changes, time_ms) for time_ms in range(100)}
    assert idle == {time_ms for time_ms, each in at.items() if each.paused or each.stopped or each.share == 0}


@pytest.mark.parametrize(
    ("made", "wanted", "why"),
    [
        ([], Change("resume", LEAD_MS + 50), "the experiment is not paused then"),
        ([Change("pause", LEAD_MS + 40)], Change("pause", LEAD_MS + 50), "the experiment is paused then already"),
        ([Change("stop", LEAD_MS + 40)], Change("resume", LEAD_MS + 50), "the experiment has been stopped"),
        ([Change("stop", LEAD_MS + 40)], Change("stop", LEAD_MS + 50), "the experiment has been stopped"),
        ([Change("ramp", LEAD_MS + 40, 0.1)], Change("ramp", LEAD_MS + 50, 0.1), "its share is 0.1 then already"),
        ([], Change("ramp", LEAD_MS + 50), "its share is as its file has it then already"),
        ([], Change("pause", 2 * LEAD_MS), "that is outside the experiment's period"),
        ([], Change("pause", 20), TOO_SOON),
        ([], Change("pause", 30 + LEAD_MS - 1), TOO_SOON),
        ([], Change("pause", LEAD_MS + 50), ""),
        ([Change("stop", LEAD_MS + 80)], Change("stop", LEAD_MS + 50), ""),
    ],
)
def test_what_makes_no_sense_is_refused(made: list[Change], wanted: Change, why: str) -> None:
    assert refusal(made, wanted, PERIOD, now_ms=30) == why


def test_nothing_is_done_to_an_experiment_that_is_over_unless_time_is_simulated() -> None:
    assert refusal([], Change("stop", 50), (0, 100), now_ms=100) == "the experiment is over"
    assert refusal([], Change("stop", 50), (0, 100), now_ms=None) == ""


def test_a_share_of_nobody_is_a_pause() -> None:
    assert pauses([Change("ramp", 10, 0.0), Change("ramp", 20, 0.5)], 100) == [(10, 20)]


def test_changes_stand_in_no_file_and_are_no_part_of_the_definition() -> None:
    changed = experiment(Change("pause", 10))
    assert changed.hash == experiment().hash
    assert "changes" not in changed.model_dump()
    with pytest.raises(SettingsError, match="changes are made by `driftline experiment pause`"):
        validated(Experiment, {**experiment().model_dump(), "changes": []}, "e.yaml")


def test_the_hash_is_of_what_decides_the_arms_alone() -> None:
    same = experiment(hypothesis="more", owner="me", ramp=(RampStep(from_ms=3, share=0.5),))
    assert same.hash == experiment().hash
    for other in ({"salt": "t"}, {"slots": (0, 0.5)}, {"overrides": {"a": (1,)}}, {"end_ms": 99}):
        assert Experiment.model_validate(experiment().model_dump() | other).hash != experiment().hash


def test_the_order_of_the_arms_is_part_of_the_definition_and_testers_are_no_text_in_it() -> None:
    turned = Experiment.model_validate(experiment().model_dump() | {"arms": dict(reversed(ARMS.items()))})
    assert [assign(turned, user, 0) for user in range(99)] != [assign(experiment(), user, 0) for user in range(99)]
    assert turned.hash != experiment().hash
    assert not turned.is_defined_by(json.loads(json.dumps(experiment().definition)))
    tested = Experiment.model_validate(experiment().model_dump() | {"overrides": {"b": (7234567890123456789,)}})
    assert "7234567890123456789" not in json.dumps(tested.definition)
    before = {name: value for name, value in tested.definition.items() if name != "order"}
    assert tested.is_defined_by(before | {"overrides": {"b": [7234567890123456789]}})
    assert not tested.is_defined_by(before | {"overrides": {}})
