import numpy as np

from abtest.aggregate.user_days import PRE, arranged, earlier, table
from abtest.collect.state import CollectorState, folded
from contracts.runtime.clock import DAY_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, exposure, feedback, observe, rules


def state_of(*events):
    return folded(observe(CollectorState(rules()), *events))


def test_users_are_sorted_by_arm_and_first_day_and_rows_by_day_and_user():
    users = arranged(
        ["a", "b"],
        ["x"],
        ["pre.x"],
        np.array([5, 6, 7]),
        np.array([1, 0, 0]),
        np.array([[50.0], [60.0], [70.0]]),
        np.array([0, 2, 1, 2]),
        np.array([0, 1, 2, 2]),
        np.array([[1.0], [2.0], [3.0], [4.0]]),
    )
    assert users.user_id.tolist() == [7, 6, 5]
    assert (users.arm.tolist(), users.first.tolist()) == ([0, 0, 1], [1, 2, 0])
    assert users.pre[:, 0].tolist() == [70.0, 60.0, 50.0]
    assert list(zip(users.day, users.user, users.values[:, 0], strict=True)) == [
        (0, 2, 1),
        (1, 0, 3),
        (2, 0, 4),
        (2, 1, 2),
    ]


def test_users_of_two_arms_are_counted_and_left_out():
    users = table(state_of(exposure(1), exposure(1, "control", request="other"), exposure(2, request="third")))
    assert users.user_id.tolist() == [2]
    assert users.in_two_arms == 1


def test_times_are_seconds_and_a_session_counts_on_the_day_it_starts():
    users = table(state_of(exposure(at=START + DAY_MS), feedback(at=START + DAY_MS + MINUTE_MS, play_ms=2500)))
    row = dict(zip(users.columns, users.values[0], strict=True))
    assert users.day.tolist() == [1]
    assert (row["play_s"], row["usage_s"], row["views"]) == (2.5, 62.5, 2)


def test_what_users_did_before_stands_beside_them_and_is_there_for_those_who_never_came():
    state = state_of(
        exposure(1, "", START - DAY_MS, "before", experiment=""),
        exposure(9, "", START - DAY_MS, "elsewhere", experiment=""),
        exposure(1),
    )
    assert table(state).pre.tolist() == [[1.0, 2.0, *[0.0] * (len(PRE) - 2)]]
    assert earlier(state).shape == (2, len(PRE))
