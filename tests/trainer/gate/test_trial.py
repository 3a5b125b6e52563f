"""Trials of snapshots on users who are simulated one request at a time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from contracts.config.settings import CanarySettings, GateSettings
from contracts.runtime.clock import HOUR_MS, MINUTE_MS
from contracts.snapshots.canary import answers
from contracts.wire.events_pb2 import Example, ExposedItem, Exposure
from trainer.checkpoint import dumps, loads
from trainer.gate.trial import Outcome, Trials, compare, harms

GATE = GateSettings(canary=CanarySettings(items=2000, least_items=500))
LIVE, TRIED = "v000001", "v000002"
PAGE = 4


def page(user_id: int, version: str, request: int, time_ms: int = 0) -> Exposure:
    items = [ExposedItem(item_id=1 + i) for i in range(PAGE)]
    return Exposure(
        request_id=f"r{request}",
        user_id=user_id,
        time_ms=time_ms,
        model="two_tower",
        snapshot_version=version,
        items=items,
    )


@dataclass
class Traffic:
    """Users who come back, each with a liking of their own for what they are shown."""

    trials: Trials = field(default_factory=lambda: Trials("two_tower", GATE, live=True))
    seed: int = 0
    users: int = 300
    live: float = 0.3  # EVR
    tried: float = 0.3
    step_ms: int = MINUTE_MS
    now_ms: int = HOUR_MS
    requests: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.liking = self.rng.beta(4, 4, self.users) * 2  # mean 1: users differ

    def come(self, requests: int) -> Iterator[None]:
        for _ in range(requests):
            user = int(self.rng.integers(self.users))
            canary = self.trials.on_trial(TRIED)
            self.requests += 1
            self.now_ms += self.step_ms
            tried = canary is not None and answers("two_tower", canary, user + 1, self.now_ms)
            self.trials.show(page(user + 1, TRIED if tried else LIVE, self.requests, self.now_ms))
            chance = self.liking[user] * (self.tried if tried else self.live)
            for _ in range(int(self.rng.binomial(PAGE, min(chance, 1.0)))):
                self.trials.view(Example(request_id=f"r{self.requests}", user_id=user + 1))
            yield

    def outcome(self, requests: int = 10_000, every: int = 20) -> Outcome | None:
        for n, _ in enumerate(self.come(requests), 1):
            if n % every == 0 and (outcome := self.trials.outcome()) is not None:
                return outcome
        return None


def begun(**traffic: float) -> Traffic:
    """Traffic on what is live, and a snapshot that has just been made."""
    made = Traffic(**traffic)  # type: ignore[arg-type]
    for _ in made.come(5):
        pass
    trial, _ = made.trials.admit(TRIED)
    assert trial is not None
    return made


def test_what_users_view_less_of_is_rolled_back_before_many_have_seen_it() -> None:
    for seed in range(20):
        traffic = begun(seed=seed, tried=0.12)
        outcome = traffic.outcome()
        assert outcome is not None
        assert not outcome.promoted, seed
        assert traffic.requests < 700
        assert traffic.trials.held


def test_what_is_as_good_goes_live_and_is_rolled_back_no_oftener_than_alpha_says() -> None:
    """400 trials that are looked at every 20 requests; users differ, which is what makes pages of one user alike."""
    outcomes = [begun(seed=seed).outcome() for seed in range(400)]
    rolled_back = sum(outcome is not None and not outcome.promoted for outcome in outcomes)
    assert all(outcome is not None for outcome in outcomes)
    # 3 standard errors of 400 trials are .028
    assert rolled_back / 400 <= GATE.canary.alpha + GATE.canary.early_alpha + 0.028


def test_what_is_better_goes_live_after_the_items_that_were_asked_for() -> None:
    traffic = begun(tried=0.5, step_ms=10_000)
    outcome = traffic.outcome()
    assert outcome is not None
    assert outcome.promoted
    assert "no harm: EVR" in outcome.reason
    assert 2 * GATE.canary.items / PAGE <= traffic.requests < 3 * GATE.canary.items / PAGE


def test_what_shows_nothing_that_anybody_views_is_rolled_back() -> None:
    outcome = begun(tried=0.0).outcome()
    assert outcome is not None
    assert not outcome.promoted


def test_without_anybody_to_answer_a_snapshot_goes_live_at_once() -> None:
    trials = Trials("two_tower", GATE, live=False)
    trials.show(page(1, "v000000", 1))  # of a log that is older than the snapshots on the disk
    assert trials.admit(LIVE) == (None, "it is the first")
    assert trials.admit(TRIED) == (None, "nobody was answered since the last one")


def test_a_trial_that_few_come_to_ends_with_time() -> None:
    traffic = begun(users=10, step_ms=HOUR_MS)
    outcome = traffic.outcome(every=1)
    assert outcome is not None
    assert outcome.promoted
    assert outcome.reason == "no harm: too few users"


def test_what_no_replica_answers_from_does_not_go_live_and_neither_does_the_next() -> None:
    trials = Trials("two_tower", GATE, live=True)
    trials.show(page(1, LIVE, 1))
    ended = []
    for hour in range(100):
        if not trials.running:
            trial, _ = trials.admit(TRIED)
            assert trial is not None
        trials.show(page(1 + hour, LIVE, 2 + hour, hour * HOUR_MS))
        ended += [outcome] if (outcome := trials.outcome()) else []
    assert len(ended) == 8
    assert {(each.promoted, each.reason) for each in ended} == {(False, "no replica has answered from it for 12 h")}
    assert trials.held


def test_one_user_decides_no_trial() -> None:
    """A user who is shown thousands of items on trial and views none moves little, and ends nothing."""
    traffic = begun()
    for _ in traffic.come(200):
        pass
    for number in range(2000):
        traffic.trials.show(page(10**6, TRIED, 10**6 + number, traffic.now_ms))
    assert traffic.trials.outcome(next_is_due=True) is None
    rolled_back = 0
    for seed in range(40):
        traffic = begun(seed=seed, step_ms=10_000)
        for number in range(2000):
            traffic.trials.show(page(10**6, TRIED, 10**6 + number, traffic.now_ms))
        outcome = traffic.outcome()
        rolled_back += outcome is not None and not outcome.promoted
    assert rolled_back <= 4


def test_a_request_that_another_user_has_too_is_the_first_ones() -> None:
    trials = Trials("two_tower", GATE, live=True)
    trials.show(page(1, LIVE, 0))
    trials.admit(TRIED)
    for user in (1, 2):
        trials.show(page(user, TRIED, 1))
        trials.view(Example(request_id="r1", user_id=user))
    assert trials.state()["trial"]["sums"] == {1: [0, 0, PAGE, 1]}


def test_a_snapshot_that_falls_due_takes_the_place_on_trial_and_its_users() -> None:
    traffic = begun(live=0.3, tried=0.12)
    for _ in traffic.come(100):
        pass
    before = traffic.trials.on_trial(TRIED)
    after, reason = traffic.trials.admit("v000003")
    assert before is not None
    assert after is not None
    assert (after.group, after.share) == (before.group, before.share)
    assert reason == "on trial in the place of the one before, since v000002"
    outcome = traffic.outcome()
    assert outcome is not None
    assert (outcome.promoted, outcome.bases) == (False, (TRIED, "v000003"))


def test_a_hold_ends_after_patience_and_until_then_each_snapshot_has_a_trial_of_its_own() -> None:
    traffic = begun(tried=0.1)
    assert traffic.outcome() is not None
    held_ms, groups = traffic.now_ms, set()
    for _ in range(100):
        for _ in traffic.come(30):
            pass
        trial, reason = traffic.trials.admit(TRIED)
        if trial is None:
            break
        groups.add(trial.group)
        traffic.outcome()
    assert reason == "snapshots were rolled back for 12 h: this is the new normal"
    assert GATE.patience_ms <= traffic.now_ms - held_ms < GATE.patience_ms + 2 * HOUR_MS
    assert not traffic.trials.held


def test_a_request_counts_once_and_from_the_first_answer_of_what_is_on_trial() -> None:
    trials = Trials("two_tower", GATE, live=True)
    trials.show(page(1, LIVE, 0))
    trials.admit(TRIED)
    trials.show(page(1, LIVE, 1))
    for version in (f"{TRIED}+001", f"{TRIED}+001"):
        trials.show(page(2, version, 2))
    trials.show(page(2, LIVE, 3))
    trials.show(page(3, LIVE, 4))
    for request, viewer in ((1, 1), (2, 2), (3, 2), (4, 3), (5, 3)):
        trials.view(Example(request_id=f"r{request}", user_id=viewer))
    assert trials.state()["trial"]["sums"] == {2: [PAGE, 1, PAGE, 1], 3: [PAGE, 1, 0, 0]}


def test_the_next_snapshot_ends_a_trial_that_knows_enough_and_takes_the_place_in_one_that_does_not() -> None:
    traffic = begun()
    for _ in traffic.come(100):
        pass
    assert traffic.trials.outcome(next_is_due=True) is None
    for _ in traffic.come(200):
        pass
    assert traffic.trials.outcome() is None
    outcome = traffic.trials.outcome(next_is_due=True)
    assert outcome is not None
    assert outcome.promoted


@pytest.mark.parametrize("at", [0, 40, 150, 260])
def test_a_trial_that_is_restored_comes_to_the_same_end(at: int) -> None:
    straight, broken = begun(tried=0.2, seed=3), begun(tried=0.2, seed=3)
    for _ in broken.come(at):
        pass
    for _ in straight.come(at):
        pass
    twin = Trials("two_tower", GATE, live=True)
    twin.restore(loads(dumps(broken.trials.state())))
    broken.trials = twin
    assert straight.outcome() == broken.outcome()
    assert json.dumps(straight.trials.state()) == json.dumps(broken.trials.state())


def test_of_requests_that_were_served_only_items_served_count_on_both_sides() -> None:
    """The rate is then effective views per item served: what was shown, exposures do not tell."""
    trials = Trials("two_tower", GATE, live=True)
    trials.show(page(1, LIVE, 1))
    assert trials.admit(TRIED)[0] is not None
    for request, version in ((2, TRIED), (3, LIVE), (4, TRIED)):
        served = page(1, version, request)
        served.served_only = True
        trials.show(served)
    trials.view(Example(request_id="r4", user_id=1))
    assert trials.state()["trial"]["sums"] == {1: [PAGE, 0, 2 * PAGE, 1]}


def test_few_users_tell_nothing_and_many_who_are_all_alike_tell_what_they_did() -> None:
    alike = np.tile([8.0, 4.0, 8.0, 0.0], (100, 1))
    assert compare(alike[:29]) is None
    assert compare(alike * ([[1, 1, 1, 1]] * 29 + [[1, 1, 0, 0]] * 71)) is None  # few have it, of many
    finding = compare(alike)
    assert finding is not None
    assert (finding.difference, finding.std_error) == (-0.5, 0.0)
    assert harms(finding, CanarySettings(), at_the_end=False)


def test_a_user_who_has_been_answered_from_both_is_compared_with_himself() -> None:
    """Of users who differ widely and behave alike on both sides, the difference is known far better than the rates."""
    views = np.arange(100) % 9.0
    paired = compare(np.stack([np.full(100, 8.0), views, np.full(100, 8.0), views], axis=1))
    halves = np.zeros((200, 4))
    halves[:100, 0] = halves[100:, 2] = 8.0
    halves[:100, 1] = halves[100:, 3] = views
    apart = compare(halves)
    assert paired is not None
    assert apart is not None
    assert paired.std_error < 1e-6
    assert apart.std_error > 0.04
