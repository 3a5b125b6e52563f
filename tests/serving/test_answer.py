"""Which arm, which model, which fallback: literal requests, literal answers."""

import pytest

from abtest.assignment import assign
from contracts.settings import Arm, Experiment
from feature_repo.store import UserRow
from serving.answer import POPULAR, NoAnswer, answer
from serving.model import LoadedModel
from tests.serving.serving_cases import make_snapshot

EXPERIMENT = Experiment(
    name="e",
    salt="s",
    start_ms=100,
    end_ms=200,
    arms={"control": Arm(weight=1, model="two_tower"), "treatment": Arm(weight=1, model="t2diff")},
    control="control",
)
BOTH = {name: LoadedModel(make_snapshot(name)) for name in ("two_tower", "t2diff")}
TREATED = next(user for user in range(1, 100) if assign(EXPERIMENT, user) == "treatment")


def row(user_id: int, items: list[int], views: list[int]) -> UserRow:
    times = list(range(len(items)))
    return UserRow(user_id, items, times, times, views, [0] * len(items), [0] * len(items), 1, 1)


def test_the_arm_decides_the_model() -> None:
    found = answer(EXPERIMENT, BOTH, TREATED, row(TREATED, [1], [1]), 150, 2)
    assert (found.experiment, found.arm, found.source, found.fallback) == ("e", "treatment", "t2diff", "")
    assert found.model is BOTH["t2diff"]
    assert found.candidates.item_ids.tolist() == [2, 3]


def test_outside_the_period_the_control_serves_everyone_in_no_arm() -> None:
    for time_ms in (99, 200):
        found = answer(EXPERIMENT, BOTH, TREATED, row(TREATED, [1], [1]), time_ms, 1)
        assert (found.experiment, found.arm, found.source) == ("", "", "two_tower")


def test_an_unknown_user_gets_popular_items_and_is_told() -> None:
    found = answer(EXPERIMENT, BOTH, TREATED, None, 150, 2)
    assert (found.source, found.fallback) == (POPULAR, "unknown user")
    assert found.candidates.item_ids.tolist() == [6, 5]


def test_an_arm_without_a_snapshot_is_served_by_the_control_and_is_told() -> None:
    only = {"two_tower": BOTH["two_tower"]}
    found = answer(EXPERIMENT, only, TREATED, row(TREATED, [1], [1]), 150, 2)
    assert (found.arm, found.source, found.fallback) == ("treatment", "two_tower", "no snapshot of t2diff")


def test_nothing_loaded_and_an_empty_catalogue_are_no_answer() -> None:
    with pytest.raises(NoAnswer, match="no snapshot"):
        answer(EXPERIMENT, {}, TREATED, None, 150, 2)
    empty = {"t2diff": LoadedModel(make_snapshot("t2diff", rows=0))}
    with pytest.raises(NoAnswer, match="catalogue"):
        answer(EXPERIMENT, empty, TREATED, None, 150, 2)
