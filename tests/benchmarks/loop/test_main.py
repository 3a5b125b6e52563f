from dataclasses import replace

import numpy as np
import pytest

from benchmarks.loop.__main__ import clean_published, figures, longest_stale_h
from evaluation.lab.policy import Published
from evaluation.lab.results import Outcome
from evaluation.lab.shown import Shown


def outcome(policy: str, effective: int, seed: int = 0, passed: tuple[bool, ...] = ()) -> Outcome:
    publications = tuple(Published(place + 1, f"v{place}", each, "") for place, each in enumerate(passed))
    shown = Shown(*np.zeros((4, 1), np.int64), *np.zeros((2, 2), np.int64))
    return Outcome(
        policy, seed, True, np.arange(2), np.full((2, 1), 100), np.array([[effective], [effective + 2]]),
        shown, publications, 0, {}, {}, 0, 10, 1.0, 0.1,
    )  # fmt: skip


WEEKS = [
    outcome("frozen", 19), outcome("online", 29, passed=(True, True, False, True)), outcome("omniscient", 59),
    outcome("frozen", 19, 1), outcome("online", 39, 1, passed=(True,)), outcome("omniscient", 79, 1),
]  # fmt: skip


def test_figures_are_means_over_seeds_with_their_standard_errors():
    found = figures("synthetic", WEEKS)
    assert set(found) == {"synthetic.online_over_frozen", "synthetic.share_of_omniscient"}
    assert found["synthetic.online_over_frozen"].mean == pytest.approx((0.5 + 1.0) / 2)
    assert found["synthetic.online_over_frozen"].std_error == pytest.approx(0.25)
    assert found["synthetic.share_of_omniscient"].mean == pytest.approx(0.5)


def test_a_world_without_omniscience_has_no_share_and_another_learner_is_compared_with_todays():
    known = [week for week in WEEKS if week.policy != "omniscient"]
    plain = [outcome("plain", 24), outcome("plain", 39, 1)]
    with_plain = sorted(
        [*known, *plain], key=lambda week: (week.seed, ["frozen", "plain", "online"].index(week.policy))
    )
    found = figures("kuairand", with_plain)
    assert set(found) == {"kuairand.online_over_frozen", "kuairand.online_over_today"}
    assert found["kuairand.online_over_today"].mean == pytest.approx((0.2 + 0.0) / 2)


def test_what_the_gate_held_of_clean_weeks_is_missing_from_their_share():
    assert clean_published(WEEKS).mean == pytest.approx((0.75 + 1) / 2)


def test_the_longest_time_without_a_live_publication_counts_from_the_start_and_to_the_end():
    hour = 3_600_000
    week = outcome("online", 30)
    for times, longest in (((), 10), ((4,), 6), ((4, 9), 5), ((1, 2), 8)):
        publications = tuple(Published(at * hour, f"v{at}", True, "") for at in times)
        held = (Published(3 * hour, "v3", False, "worse"),)
        found = replace(week, publications=(*publications, *held), start_ms=0, end_ms=10 * hour)
        assert longest_stale_h([found, outcome("frozen", 1)]) == longest
