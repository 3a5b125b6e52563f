"""Trials through the worker: what users do moves the pointers that replicas read."""

import shutil
from pathlib import Path

import pytest

from contracts.config.settings import Settings
from contracts.runtime.clock import HOUR_MS, MINUTE_MS
from contracts.snapshots import canary
from contracts.snapshots.canary import Canary, answers
from contracts.snapshots.retention import roll_back
from contracts.snapshots.snapshot import live
from contracts.wire.events_pb2 import ExposedItem, Exposure
from tests.trainer.conftest import MakeRig
from tests.trainer.trainer_cases import START_MS, make_example, small_settings
from tests.trainer.trainer_rig import EXPOSURES, Rig

pytestmark = pytest.mark.usefixtures("trace_once")
ITEMS, USERS = 12, 100


def page(
    user_id: int, version: str, request: str, time_ms: int, arm: str = "control", model: str = "two_tower"
) -> bytes:
    exposure = Exposure(schema_version=1, event_id=request, request_id=request, user_id=user_id, time_ms=time_ms)
    exposure.arm, exposure.model, exposure.snapshot_version = arm, model, version
    exposure.items.extend([ExposedItem(item_id=1 + i) for i in range(4)])
    return exposure.SerializeToString()


class Visitors:
    """Users of the arm control, answered as replicas would that read the pointers now."""

    def __init__(self, settings: Settings, rig: Rig) -> None:
        self.root, self.rig = settings.snapshots, rig
        self.now_ms, self.requests = START_MS, 0
        rig.add_items(ITEMS)

    def come(self, requests: int, tried_views: bool = True) -> None:
        """Each request views one item, or none of what is on trial; an example of another arm comes beside it."""
        for _ in range(requests):
            self.requests += 1
            self.now_ms += MINUTE_MS // 6
            user, request = 1 + self.requests % USERS, f"r{self.requests}"
            on_trial = canary.on_trial(self.root, "two_tower")
            tried = on_trial is not None and answers("two_tower", on_trial, user, self.now_ms)
            version = on_trial.version if on_trial and tried else live(self.root, "two_tower")
            if version is not None:
                self.rig.log.append(EXPOSURES[user % 2], page(user, version, request, self.now_ms), self.now_ms)
            if tried_views or not tried:
                example = make_example([1 + user % ITEMS], 1 + (user + 1) % ITEMS, self.now_ms, "control", user)
                example.request_id = request
                self.rig.add_examples([example])
            if self.requests % 20 == 0:
                self.rig.steps(12)
        self.rig.steps(12)

    def until(self, hour: int, *, tried_views: bool = True) -> None:
        while self.now_ms < START_MS + hour * HOUR_MS:
            self.come(20, tried_views)


def visiting(root: Path, make_rig: MakeRig) -> tuple[Settings, Rig, Visitors]:
    gate = {"canary": {"items": 400, "least_items": 200}}
    settings = small_settings(root, models=("two_tower",), gate=gate)
    rig = make_rig(settings)
    return settings, rig, Visitors(settings, rig)


def test_what_is_on_trial_goes_live_when_nothing_is_against_it(tmp_path: Path, make_rig: MakeRig) -> None:
    settings, rig, visitors = visiting(tmp_path, make_rig)
    visitors.until(1)
    visitors.come(20)
    assert live(settings.snapshots, "two_tower") == "v000001"  # nobody had been answered
    visitors.until(2)
    visitors.come(20)
    assert canary.on_trial(settings.snapshots, "two_tower") == Canary("v000002", 0.5, "v000002")
    assert live(settings.snapshots, "two_tower") == "v000001"
    visitors.come(260)  # both sides are shown 400 items
    assert canary.on_trial(settings.snapshots, "two_tower") is None
    assert live(settings.snapshots, "two_tower") == "v000002"
    noted = canary.noted(settings.snapshots, "two_tower", "v000002")
    assert noted is not None
    assert noted.promoted
    assert "no harm: EVR" in noted.reason
    assert rig.value("trainer_trials_total", model="two_tower", outcome="promoted") == 1
    assert rig.value("trainer_snapshots_published_total", model="two_tower", kind="full") == 2


def test_what_goes_while_it_is_on_trial_ends_no_trainer(tmp_path: Path, make_rig: MakeRig) -> None:
    settings, _, visitors = visiting(tmp_path, make_rig)
    visitors.until(2)
    visitors.come(20)
    shutil.rmtree(settings.snapshots / "two_tower" / "v000002")
    visitors.come(260)
    assert canary.on_trial(settings.snapshots, "two_tower") is None
    assert live(settings.snapshots, "two_tower") == "v000001"
    visitors.until(3)
    visitors.come(20)
    assert canary.on_trial(settings.snapshots, "two_tower") == Canary("v000003", 0.5, "v000003")


def test_what_users_do_not_view_is_rolled_back_and_the_next_has_a_trial_of_its_own(
    tmp_path: Path, make_rig: MakeRig
) -> None:
    settings, rig, visitors = visiting(tmp_path, make_rig)
    visitors.until(2)
    visitors.come(240, tried_views=False)
    assert canary.on_trial(settings.snapshots, "two_tower") is None
    assert live(settings.snapshots, "two_tower") == "v000001"
    noted = canary.noted(settings.snapshots, "two_tower", "v000002")
    assert noted is not None
    assert not noted.promoted
    assert noted.reason.startswith("users view less of what it shows: EVR 0.0")
    assert rig.value("trainer_gate_open", model="two_tower") == 0
    assert rig.value("trainer_snapshots_rejected_total", model="two_tower") == 1
    visitors.until(3)
    visitors.come(20)
    assert canary.on_trial(settings.snapshots, "two_tower") == Canary("v000003", 0.5, "v000003")
    visitors.come(300)
    assert live(settings.snapshots, "two_tower") == "v000003"
    assert rig.value("trainer_gate_open", model="two_tower") == 1


def test_what_other_arms_and_other_models_show_is_no_evidence(tmp_path: Path, make_rig: MakeRig) -> None:
    """Where the control's model stands in for another arm's, that arm's users are no sample of the control's."""
    settings, rig, visitors = visiting(tmp_path, make_rig)
    visitors.until(1)
    at_ms = visitors.now_ms
    for number, (arm, model) in enumerate([("treatment", "two_tower"), ("control", "t2diff"), ("other", "two_tower")]):
        rig.log.append(EXPOSURES[0], page(2, "v000001", f"x{number}", at_ms, arm, model), at_ms)
    rig.log.append(EXPOSURES[0], b"no exposure", at_ms)  # the stream rejects it; here it is left out
    rig.add_examples([make_example([1], 2, at_ms + n * HOUR_MS, "control", 1 + n % 2) for n in range(3)])
    rig.steps(12)
    assert live(settings.snapshots, "two_tower") == "v000003"
    assert not rig.outbox.sent


def test_people_who_roll_back_end_the_trial_and_nothing_is_tried_while_they_hold(
    tmp_path: Path, make_rig: MakeRig
) -> None:
    settings, _, visitors = visiting(tmp_path, make_rig)
    visitors.until(2)
    visitors.come(20)
    assert canary.on_trial(settings.snapshots, "two_tower") is not None
    roll_back(settings.snapshots, "two_tower", "v000001", "people know more")
    visitors.until(4)
    assert canary.on_trial(settings.snapshots, "two_tower") is None
    assert live(settings.snapshots, "two_tower") == "v000001"


def test_the_trial_of_a_model_that_is_no_longer_learned_ends_with_the_next_start(
    tmp_path: Path, make_rig: MakeRig
) -> None:
    settings, rig, visitors = visiting(tmp_path, make_rig)
    visitors.until(2)
    visitors.come(20)
    assert canary.on_trial(settings.snapshots, "two_tower") == Canary("v000002", 0.5, "v000002")
    rig.worker.keep()
    rig.close()

    rig.log.rewind()
    without = make_rig(small_settings(tmp_path, models=("t2diff",)), log=rig.log)
    without.worker.resume()
    assert canary.on_trial(settings.snapshots, "two_tower") is None
    assert canary.noted(settings.snapshots, "two_tower", "v000002") == canary.Trial(
        promoted=False, reason="two_tower is no longer in trainer.models"
    )
    assert live(settings.snapshots, "two_tower") == "v000001"
