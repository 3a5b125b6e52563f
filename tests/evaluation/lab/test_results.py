"""What weeks come to, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from contracts.runtime.clock import DAY_MS, HOUR_MS
from evaluation.lab.policy import Published
from evaluation.lab.report import as_json, shares_of_omniscient, tables
from evaluation.lab.results import Audience, Outcome, audience, difference, over_seeds, shared_effect
from evaluation.lab.shown import Shown, overlap
from world.base import Response, WorldCatalogue


def outcome(policy, effective, views=None, **other):
    effective = np.array(effective)
    views = np.full_like(effective, 10) if views is None else np.array(views)
    users = len(effective)
    by_item = (np.array([each]) for each in (1000, int(views.sum()), int(effective.sum()), 0))
    values = {
        "policy": policy, "seed": 0, "everybody": True, "user_ids": np.arange(users), "views": views,
        "effective": effective, "shown": Shown(*by_item, *np.zeros((2, users), np.int64)), "publications": (),
        "learned": 0, "born_ms": {}, "viewed_ms": {}, "start_ms": 0, "end_ms": 7 * DAY_MS, "cpu_s": 1.0,
        "world_cpu_s": 0.5,
    }  # fmt: skip
    return Outcome(**(values | other))


RNG = np.random.default_rng(0)
WORSE = RNG.binomial(10, 0.3, (200, 2))
BETTER = outcome("better", np.minimum(WORSE + RNG.binomial(1, 0.4, (200, 2)), 10))
WORSE = outcome("worse", WORSE)


def test_rates_are_sums_over_sums_and_a_day_without_views_has_none():
    week = outcome("x", [[1, 0], [3, 0]], [[4, 0], [4, 0]])
    assert week.evr == 0.5
    assert week.evr_by_day == [0.5, None]


def test_a_paired_difference_is_that_of_a_bootstrap_over_users():
    apart = difference(BETTER, WORSE)
    assert apart.difference == pytest.approx(BETTER.evr - WORSE.evr)
    assert apart.relative == pytest.approx(BETTER.evr / WORSE.evr - 1)
    draws = np.random.default_rng(1).integers(0, 200, (4000, 200))
    ours, theirs = (each.effective.sum(1)[draws].sum(1) / 4000 for each in (BETTER, WORSE))
    assert apart.std_error == pytest.approx((ours - theirs).std(), rel=0.08)
    reach = apart.relative_high - apart.relative
    assert reach == pytest.approx(1.972 * (ours / theirs).std(), rel=0.08)
    assert apart.low < apart.difference < apart.high


def test_pairs_tell_more_than_arms_of_the_same_size():
    shared = shared_effect(WORSE, BETTER)
    assert shared.difference == pytest.approx(BETTER.evr - WORSE.evr)
    assert shared.difference_std_error > 2 * difference(BETTER, WORSE).std_error


def test_other_users_are_not_compared_by_pairs():
    with pytest.raises(ValueError, match="same users"):
        difference(BETTER, outcome("x", WORSE.effective, user_ids=np.arange(200) + 1))
    with pytest.raises(ValueError, match="same users"):
        difference(BETTER, outcome("x", WORSE.effective, seed=1))


def test_an_audience_is_found_with_the_fifth_effective_view():
    born = {1: 0, 2: 10 * HOUR_MS, 3: 2 * DAY_MS}
    views = {1: tuple(hour * HOUR_MS for hour in (1, 2, 3, 4, 9, 30)), 2: (11 * HOUR_MS,) * 4}
    found = audience(outcome("x", [[1]], born_ms=born, viewed_ms=views))
    assert found == Audience(3, 1, None)  # of three, one is in time: half of them never get there
    views |= {2: (12 * HOUR_MS,) * 5, 3: (2 * DAY_MS + 4 * HOUR_MS,) * 7}
    assert audience(outcome("x", [[1]], born_ms=born, viewed_ms=views)) == Audience(3, 3, 4.0)  # of 9, 2 and 4 hours


def test_the_start_is_not_counted_among_the_publications():
    said = (Published(0, "v1", True, ""), Published(5, "v2", True, ""), Published(9, "v3", False, "worse"))
    week = outcome("x", [[1]], publications=said)
    assert (week.live, week.held) == (1, 1)


def test_seeds_are_averaged_and_tables_and_json_tell_the_same():
    weeks = [WORSE, BETTER]
    again = [outcome(each.policy, each.effective[::-1] // 2, seed=1) for each in weeks]
    found = as_json([*weeks, *again])
    evr = found["policies"]["better"]["evr"]
    assert evr["mean"] == pytest.approx(over_seeds([BETTER.evr, again[1].evr]).mean)
    assert evr["std_error"] > 0
    assert [each["seed"] for each in found["differences"]] == [0, 1]
    policies, days, _, apart = tables([*weeks, *again])
    assert policies.rows[1][1].startswith(f"{evr['mean']:.4f}"[1:])
    assert len(days.header) == 3
    assert apart.rows[0][0] == "better"
    assert "over 2 seeds" in apart.rows[0][3]


def test_a_share_of_the_omniscient_policy_needs_one():
    weeks = {"worse": [WORSE], "omniscient": [BETTER]}
    assert shares_of_omniscient({"worse": [WORSE]}) == {}
    assert shares_of_omniscient(weeks)["worse"].mean == pytest.approx(WORSE.evr / BETTER.evr)


def test_what_is_shown_is_counted_by_item_and_by_user():
    catalogue = WorldCatalogue(np.array([3, 5, 8]), ((1, 2), (2,), ()), np.array([10_000, 30_000, 0]))
    shown = Shown.nothing(catalogue, users=2)
    ints = np.array([1, 2, 3])
    shown.note(
        catalogue,
        1,
        [8, 3, 5],
        Response(ints, ints * 1000, np.array([True, False, True]), np.array([False, False, True])),
    )
    shown.note(catalogue, 0, [5], Response(ints[:1], ints[:1] * 500, np.array([False]), np.array([False])))
    assert shown.views.tolist() == [1, 2, 1]
    assert shown.effective.tolist() == [0, 1, 1]
    assert shown.item_play_ms.tolist() == [2000, 3500, 1000]
    assert (shown.play_ms.tolist(), shown.follows.tolist()) == ([500, 6000], [0, 1])
    assert (shown.items, shown.top_share) == (3, 0.5)
    assert shown.duration_s == pytest.approx((10 + 2 * 30) / 3)  # the third item's is not known
    assert shown.mean_overlap == pytest.approx(overlap((1, 2), (2,)) / 3)


def test_play_time_and_follows_are_compared_by_pairs_as_effective_views_are():
    rng = np.random.default_rng(3)
    plays = rng.lognormal(9, 1, (2, 200)).astype(np.int64)
    follows = np.stack([np.zeros(200, np.int64), rng.binomial(1, 0.1, 200)])
    weeks = [
        replace(each, shown=replace(each.shown, play_ms=play, follows=follow))
        for each, play, follow in zip((WORSE, BETTER), plays, follows, strict=True)
    ]
    apart = difference(weeks[1], weeks[0], "play_s")
    means = plays.sum(1) / 4000 / 1000
    assert apart.difference == pytest.approx(means[1] - means[0])
    draws = np.random.default_rng(1).integers(0, 200, (4000, 200))
    theirs, ours = (play[draws].sum(1) / 4000 / 1000 for play in plays)
    assert apart.std_error == pytest.approx((ours - theirs).std(), rel=0.08)
    assert apart.relative_high - apart.relative == pytest.approx(1.972 * (ours / theirs).std(), rel=0.08)
    assert weeks[1].rate("follow_rate") == follows[1].sum() / 4000
    found = as_json(weeks)
    assert found["policies"]["better"]["play_s"]["mean"] == pytest.approx(means[1])
    (play,), (follow,) = found["differences_of"]["play_s"], found["differences_of"]["follow_rate"]
    assert play["relative"] == pytest.approx(means[1] / means[0] - 1)
    assert follow["difference"] > 0
    assert follow["relative"] is None  # nobody followed under the other policy
    shown, beside = tables(weeks)[2:]
    assert shown.rows[1][1:3] == (f"{means[1]:.2f}", f"{1000 * follows[1].sum() / 4000:.2f}")
    assert beside.rows[0][4] == f"{means[1] / means[0] - 1:+.1%}"
