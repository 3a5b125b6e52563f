"""When each snapshot of an arm went live, and whether the arm went stale."""

from contracts.runtime.clock import DAY_MS, HOUR_MS
from contracts.snapshots.canary import Canary
from contracts.snapshots.snapshot import Manifest, version_name
from driftline.demo.arms import Counts, Span, of_arm, publications, warnings
from driftline.demo.monitor import Standing

BEGIN = 100 * DAY_MS


def snapshot(number: int, hour: float) -> Manifest:
    """One that has learned up to an hour of the experiment."""
    return Manifest(
        model="t2diff", version=version_name(number), dim=2, window=4, sampling_seed=0, noise_shape=(), examples=9,
        shares={}, offsets={}, event_time_ms=BEGIN + round(hour * HOUR_MS), metrics={},
    )  # fmt: skip


def span(first_h: float, last_h: float) -> Span:
    return BEGIN + round(first_h * HOUR_MS), BEGIN + round(last_h * HOUR_MS)


def hours(live: list[Manifest], spans: dict[str, Span]) -> list[float]:
    return [(each.at_ms - BEGIN) / HOUR_MS for each in publications(live, spans)]


def test_a_snapshot_goes_live_with_the_last_answer_of_the_one_before() -> None:
    live = [snapshot(1, -1), snapshot(3, 5), snapshot(4, 11)]
    spans = {"v000001": span(0, 9), "v000002": span(3, 4), "v000003": span(6, 17), "v000004": span(12, 24)}
    assert hours(live, spans) == [0, 9, 17]  # its own first answers, at 6 and 12, were on trial


def test_what_never_answered_went_live_when_it_was_made_or_later() -> None:
    live = [snapshot(1, -12), snapshot(2, -6), snapshot(3, -1), snapshot(4, 6)]
    assert hours(live, {"v000003": span(0, 8), "v000004": span(8, 9)}) == [-12, -6, 0, 8]


def test_an_arm_that_learns_all_week_is_not_stale_and_goes_live_each_half_day() -> None:
    live = [snapshot(number, 6 * number - 6) for number in range(1, 9)]
    spans = {each.version: span(6 * number, 6 * number + 6.5) for number, each in enumerate(live)}
    arm = of_arm("t2diff", Counts(9, 7, 0, 0), live, spans, BEGIN, BEGIN + 2 * DAY_MS)
    assert (arm["made"], arm["live"], arm["promoted"]) == (9, 8, 7)
    assert arm["live_by_half_day"] == [2, 2, 2, 2]
    assert (arm["longest_without_live_h"], arm["stale_h"]) == (6.5, 0)


def test_an_arm_whose_snapshots_are_held_from_the_second_day_on_is_stale_from_the_third() -> None:
    live = [snapshot(1, -1), snapshot(2, 23)]
    arm = of_arm("t2diff", Counts(28, 1, 26, 0), live, {"v000001": span(0, 26)}, BEGIN, BEGIN + 7 * DAY_MS)
    assert arm["live_by_half_day"] == [1, 0, 1] + 11 * [0]
    assert arm["longest_without_live_h"] == 7 * 24 - 26
    assert arm["stale_h"] == 7 * 24 - 47 + 3  # the first was a day old for three hours before it was replaced
    (sentence,) = warnings({"control": arm}, 168)
    assert sentence.startswith("control was stale for 124 of 168 h")


def test_a_hold_and_a_trial_are_told_with_when_they_began() -> None:
    standing = Standing()
    standing.see(Canary("v000002", 0.5, "v000002"), held=False, now_ms=10)
    standing.see(Canary("v000003", 0.5, "v000002"), held=False, now_ms=20)  # in its place: the same trial
    assert (standing.trial, standing.trial_since_ms, standing.held_since_ms) == ("v000003", 10, None)
    standing.see(None, held=True, now_ms=30)
    standing.see(Canary("v000004", 0.5, "v000004"), held=True, now_ms=40)
    assert (standing.trial, standing.trial_since_ms, standing.held_since_ms) == ("v000004", 40, 30)
    standing.see(None, held=False, now_ms=50)
    assert (standing.trial, standing.held_since_ms) == ("", None)
