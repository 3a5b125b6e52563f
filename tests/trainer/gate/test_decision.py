import numpy as np
import pytest

from contracts.config.settings import GateSettings
from trainer.gate.decision import MIN_USERS, Comparison, compare, dominated_by_one_user, flaw, judge, recovered

SETTINGS = GateSettings(margin=0.1)


def found(difference: float, reach: float, incumbent: float = 0.5) -> Comparison:
    return Comparison(1000, incumbent, difference, difference - reach, difference + reach)


def test_a_user_with_many_examples_is_one_user() -> None:
    quiet = np.arange(200)
    users = np.concatenate([quiet, np.full(5000, 999)])
    better = np.concatenate([quiet % 10 == 0, np.ones(5000, bool)])
    worse = np.concatenate([quiet % 5 == 0, np.zeros(5000, bool)])
    comparison = compare(users, better, worse, 0.95)
    assert comparison is not None
    assert comparison.users == 201
    assert comparison.difference == pytest.approx((20 - 40 + 1) / 201)
    assert comparison.high < 0


def test_the_bounds_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    too_low = 0
    for _ in range(1000):
        hits = rng.random((2, 300)) < [[0.3], [0.4]]
        comparison = compare(np.arange(300), hits[0], hits[1], 0.9)
        assert comparison is not None
        too_low += comparison.high < -0.1
    assert too_low / 1000 == pytest.approx(0.1, abs=0.03)


def test_few_users_tell_nothing_and_hold_nothing() -> None:
    users = np.arange(MIN_USERS - 1)
    assert compare(users, np.zeros(users.size, bool), np.ones(users.size, bool), 0.95) is None
    verdict = judge("v000001", None, None, SETTINGS, held=False)
    assert verdict.passed
    assert "too few users" in verdict.reason


@pytest.mark.parametrize(
    ("difference", "reach", "held", "passes"),
    [
        (-0.08, 0.04, False, True),  # it may be as little as -0.04, which is inside the margin of 0.05
        (-0.08, 0.01, False, False),
        (-0.08, 0.02, True, False),  # after a hold, the estimate itself must be inside
        (-0.04, 0.30, True, True),
        (0.10, 0.01, False, True),
    ],
)
def test_harm_must_be_proved_to_close_the_gate_and_disproved_to_open_it(
    difference: float, reach: float, held: bool, passes: bool
) -> None:
    bad, good = found(difference, reach), found(0.1, 0.01)
    assert judge("v1", bad, good, SETTINGS, held=held).passed is passes
    assert judge("v1", good, bad, SETTINGS, held=held).passed is passes


def test_the_margin_is_a_share_of_what_the_incumbent_finds() -> None:
    assert judge("v1", None, found(-0.04, 0.01, incumbent=0.5), SETTINGS, held=False).passed
    assert not judge("v1", None, found(-0.04, 0.01, incumbent=0.2), SETTINGS, held=False).passed


def test_a_stream_has_recovered_when_the_incumbent_finds_what_it_used_to_and_the_learner_no_less() -> None:
    assert recovered(found(0.0, 0.04), 0.5)
    assert not recovered(found(-0.01, 0.04), 0.5)
    assert not recovered(found(0.2, 0.04, incumbent=0.4), 0.5)  # drift: the incumbent is not what it was
    assert not recovered(None, 0.5)
    assert not recovered(found(0.0, 0.04), None)


def test_one_user_may_not_make_more_of_the_examples_than_a_person_does() -> None:
    settings = GateSettings(window=100, user_share=0.1)
    assert dominated_by_one_user(np.array([7] * 10 + [*range(100, 190)]), settings) is None
    assert (
        dominated_by_one_user(np.array([7] * 11 + [*range(100, 189)]), settings)
        == "one user made 11% of the newest 100 examples"
    )
    assert dominated_by_one_user(np.array([7] * 99), settings) is None  # too few to tell


def test_what_has_recovered_opens_the_gate_for_good_and_never_closes_it() -> None:
    bad, good = found(-0.2, 0.01), found(0.0, 0.01)
    assert judge("v1", good, bad, SETTINGS, held=True, has_recovered=True).passed
    assert not judge("v1", good, bad, SETTINGS, held=False, has_recovered=True).passed


def test_a_verdict_says_why_in_words_and_figures() -> None:
    verdict = judge("v000007", found(0.01, 0.02), found(-0.2, 0.01), SETTINGS, held=False)
    assert verdict.reason == (
        "recall@100 on the anchor is below v000007 by more than 10%: -0.2000 [-0.2100, -0.1900] over 1,000 users"
    )
    figures = verdict.figures()
    assert figures["passed"] is False
    assert (figures["fresh_difference"], figures["anchor_high"], figures["anchor_users"]) == (0.01, -0.19, 1000)


@pytest.mark.parametrize(
    ("vectors", "why"),
    [
        (np.array([[1, 2], [np.nan, 1]]), "not finite"),
        (np.array([[1, 2], [np.inf, 1]]), "not finite"),
        (np.array([[1, 2], [0, 0]]), "zero"),
        (np.ones((3, 2)), "equal"),
    ],
)
def test_vectors_that_rank_nothing_are_a_flaw(
    vectors: np.ndarray[tuple[int, int], np.dtype[np.float64]], why: str
) -> None:
    assert why in (flaw(vectors.astype(np.float32)) or "")


def test_one_item_and_none_are_no_flaw() -> None:
    assert flaw(np.ones((1, 2), np.float32)) is None
    assert flaw(np.ones((0, 2), np.float32)) is None
