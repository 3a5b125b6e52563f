"""Hysteresis, as literal states and what follows from them."""

from contracts.config.regimes import RegimesSettings
from trainer.regimes.choice import Choice, choose
from trainer.regimes.evidence import Gain

SETTINGS = RegimesSettings(margin=0.1, lead=100)
SURE, UNSURE, SMALL = Gain(0.5, 0.1), Gain(0.5, 0.4), Gain(0.15, 0.01)


def test_a_better_regime_takes_over_only_after_its_lead() -> None:
    first = choose(Choice("a"), 1.0, {"b": SURE}, 60, SETTINGS)
    assert first == Choice("a", {"b": 60})
    assert choose(first, 1.0, {"b": SURE}, 40, SETTINGS) == Choice("b", {}, changes=1)


def test_one_look_at_which_it_is_not_better_sets_it_back() -> None:
    on_its_way = Choice("a", {"b": 99})
    assert choose(on_its_way, 1.0, {"b": UNSURE}, 50, SETTINGS) == Choice("a", {})


def test_the_margin_is_a_share_of_the_leaders_loss() -> None:
    assert choose(Choice("a"), 1.0, {"b": SMALL}, 100, SETTINGS).leader == "b"
    assert choose(Choice("a"), 2.0, {"b": SMALL}, 100, SETTINGS) == Choice("a", {})


def test_of_several_the_one_with_the_largest_gain_takes_over() -> None:
    ahead = Choice("a", {"b": 90, "c": 95, "d": 10})
    gains = {"b": Gain(0.4, 0.01), "c": Gain(0.3, 0.01), "d": Gain(0.9, 0.01)}
    assert choose(ahead, 1.0, gains, 20, SETTINGS).leader == "b"  # d is the best, and has not been for long enough


def test_two_that_are_alike_do_not_take_turns() -> None:
    choice = Choice("a")
    for look in range(50):
        gain = Gain(0.05 if look % 2 else -0.05, 0.01)
        choice = choose(choice, 1.0, {"b" if choice.leader == "a" else "a": gain}, 60, SETTINGS)
    assert choice.changes == 0


def test_where_the_leader_is_out_the_best_takes_over_at_once() -> None:
    gains = {"b": Gain(-0.2, 0.1), "c": Gain(-0.1, 0.1)}
    assert choose(Choice("a"), 1.0, gains, 0, SETTINGS, leader_is_out=True) == Choice("c", {}, changes=1)
    assert choose(Choice("a"), 1.0, {}, 0, SETTINGS, leader_is_out=True) == Choice("a", {})  # nobody else is left
