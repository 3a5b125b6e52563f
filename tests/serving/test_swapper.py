"""A replica's swapper on real directories: what is live gets loaded, what is damaged never does."""

import asyncio
import gc
import json
import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from contracts.config.settings import Arm, Experiment, KafkaSettings, Settings
from contracts.features import Positives
from contracts.runtime.clock import ManualClock
from contracts.snapshots import canary, delta, snapshot, tower
from contracts.snapshots.canary import Canary
from serving.metrics import ServingMetrics
from serving.model import NOTHING_KEPT, LoadedModel, Want
from serving.swapper import Swapper
from tests.serving.serving_cases import make_delta, make_snapshot


class Rig:
    """A swapper of one model, and how often it has created a session."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        arms = {name: Arm(weight=1, model="two_tower") for name in ("a", "b")}
        settings = Settings(
            kafka=KafkaSettings(bootstrap_servers="nowhere:1"),
            feature_repo=root,
            snapshots=root,
            state=root,
            experiment=Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="a"),
        )
        self.root = root
        self.metrics = ServingMetrics()
        self.clock = ManualClock()
        self.swapper = Swapper(settings, list, self.metrics, self.clock, throw=lambda: 1.0)
        self.sessions = 0
        real = tower.onnxruntime.InferenceSession

        def counted(*arguments: object, **options: object) -> onnxruntime.InferenceSession:
            self.sessions += 1
            return real(*arguments, **options)

        monkeypatch.setattr(tower.onnxruntime, "InferenceSession", counted)

    def write(self, *sequences: int, number: int = 1) -> None:
        for sequence in sequences:
            if sequence:
                delta.write(self.root, make_delta(number=number, sequence=sequence))
            else:
                snapshot.write(self.root, make_snapshot(number=number))

    def damage(self, name: str) -> None:
        path = self.root / "two_tower" / name
        path.write_bytes(path.read_bytes()[:-1])

    def serve(self, version: str) -> LoadedModel:
        """Move the pointer, let the swapper look twice, and give what serves then."""
        (self.root / "two_tower" / "LIVE").write_text(version)
        self.look()
        return self.swapper.models["two_tower"]

    def try_out(self, version: str, share: float = 0.5) -> None:
        """Put a version on trial, whatever it is, and let the swapper look twice."""
        pointer = {"version": version, "share": share, "group": version.partition("+")[0]}
        (self.root / "two_tower" / "CANARY").write_text(json.dumps(pointer))
        self.look()

    def look(self) -> None:
        for _ in range(2):
            asyncio.run(self.swapper.check())

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": "two_tower", **labels})


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    rig = Rig(tmp_path, monkeypatch)
    rig.write(0, 1, 2, 3)
    return rig


def test_only_missing_deltas_are_read_and_the_session_stays(rig: Rig) -> None:
    first = rig.serve("v000001+001")
    rig.damage("v000001/tower.onnx")
    rig.damage("v000001+001/item_ids.npy")
    second = rig.serve("v000001+003")
    assert rig.sessions == 1
    assert second.manifest.version == "v000001+003"
    assert (first.items, second.items) == (7, 9), "the one that answers meanwhile stays as it was"
    watched = Want(1, Positives(np.array([1]), np.array([0])), NOTHING_KEPT, 0, 2, ())
    assert second.popular(watched).scores == [30, 6]
    assert second.recall([watched])[0].item_ids == [103, 102]
    assert (rig.value("serving_snapshot_version"), rig.value("serving_snapshot_delta")) == (1, 3)
    assert (rig.value("serving_swaps_total"), rig.value("serving_failed_loads_total")) == (2, 0)
    assert rig.metrics.registry.get_sample_value("serving_swap_seconds_count", {"kind": "delta"}) == 1


def test_a_new_full_snapshot_takes_the_place_of_base_and_deltas(rig: Rig) -> None:
    rig.serve("v000001+003")
    rig.write(0, number=2)
    assert rig.serve("v000002").items == 6
    assert (rig.sessions, rig.value("serving_snapshot_delta")) == (2, 0)


def test_where_deltas_do_not_fit_what_is_held_the_chain_is_read_from_disk(rig: Rig) -> None:
    base = make_snapshot()
    other = replace(base, manifest=replace(base.manifest, sampling_seed=99))
    rig.swapper.models["two_tower"] = LoadedModel(other)
    assert rig.serve("v000001+003").manifest.sampling_seed == 1
    assert rig.value("serving_failed_loads_total") == 1
    assert rig.swapper.status()[0].error == "", "what is live serves"


@pytest.mark.parametrize("damaged", ["item_vectors.npy", "manifest.json"])
def test_where_the_chain_is_damaged_what_is_held_serves_on(rig: Rig, damaged: str) -> None:
    before = rig.serve("v000001+001")
    rig.damage(f"v000001+002/{damaged}")
    assert rig.serve("v000001+003") is before
    assert rig.value("serving_failed_loads_total") == 2, "the deltas, then the whole chain, each once"
    rig.write(0, number=2)
    assert rig.serve("v000002").manifest.version == "v000002"


@pytest.mark.parametrize("missing", ["v000001+002", "v000001+003"])
def test_a_gap_leaves_what_is_held(rig: Rig, missing: str) -> None:
    before = rig.serve("v000001+001")
    path = rig.root / "two_tower" / missing
    path.rename(path.with_name(".away"))
    assert rig.serve("v000001+003") is before
    path.with_name(".away").rename(path)
    assert rig.serve("v000001+003") is before, "it is not tried again at once"
    rig.serve("v000001+001")
    assert rig.serve("v000001+003").items == 9, "but once LIVE has moved and come back"


@pytest.mark.parametrize("pointer", ["", "nonsense", "../two_tower/v000001", "v000009"])
def test_a_pointer_to_nothing_leaves_what_is_held(rig: Rig, pointer: str) -> None:
    before = rig.serve("v000001")
    assert rig.serve(pointer) is before


def test_a_pointer_that_cannot_be_read_leaves_what_is_held(rig: Rig) -> None:
    before = rig.serve("v000001")
    (rig.root / "two_tower" / "LIVE").unlink()
    (rig.root / "two_tower" / "LIVE").mkdir()
    asyncio.run(rig.swapper.check())
    assert rig.swapper.models["two_tower"] is before
    assert rig.value("serving_failed_loads_total") == 1


def test_when_the_trainer_last_published_is_told_by_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path, monkeypatch)
    told = "serving_snapshot_published_timestamp_seconds"
    asyncio.run(rig.swapper.check())
    assert rig.metrics.registry.get_sample_value(told, {"model": "two_tower"}) is None
    rig.write(0)
    (tmp_path / "two_tower" / "LIVE").write_text("v000001")
    os.utime(tmp_path / "two_tower" / "LIVE", (1000.0, 1234.5))
    asyncio.run(rig.swapper.check())
    assert rig.metrics.registry.get_sample_value(told, {"model": "two_tower"}) == 1234.5


def test_what_cannot_be_loaded_is_told_until_something_else_is_live(rig: Rig) -> None:
    rig.serve("v000001")
    (fine,) = rig.swapper.status()
    assert (fine.snapshot_version, fine.live_version, fine.error, fine.items) == ("v000001", "v000001", "", 6)
    rig.write(0, number=2)
    rig.damage("v000002/tower.onnx")
    rig.serve("v000002")
    (stuck,) = rig.swapper.status()
    assert (stuck.snapshot_version, stuck.live_version) == ("v000001", "v000002")
    assert stuck.error == "Snapshot two_tower/v000002: tower.onnx does not match its checksum."
    rig.serve("v000001")
    assert rig.swapper.status()[0].error == "", "a rollback is a swap like any other"


def test_the_old_one_goes_when_its_last_user_does(rig: Rig) -> None:
    rig.serve("v000001")
    pinned = dict(rig.swapper.models)  # as a batch does
    gone = weakref.ref(rig.swapper.models["two_tower"])
    rig.write(0, number=2)
    rig.serve("v000002")
    gc.collect()
    assert gone() is pinned["two_tower"]
    del pinned
    gc.collect()
    assert gone() is None


def test_what_is_on_trial_is_loaded_beside_what_is_live_and_moves_over_without_a_load(rig: Rig) -> None:
    live = rig.serve("v000001+001")
    rig.write(0, 1, number=2)
    rig.try_out("v000002", 0.25)
    assert rig.swapper.models["two_tower"] is live
    assert rig.swapper.canaries["two_tower"].canary == Canary("v000002", 0.25, "v000002")
    (status,) = rig.swapper.status()
    assert (status.snapshot_version, status.canary_version, status.canary_share) == ("v000001+001", "v000002", 0.25)
    assert (rig.value("serving_snapshot_version"), rig.value("serving_snapshot_delta")) == (1, 1)
    assert (rig.value("serving_canary_version"), rig.value("serving_canary_share")) == (2, 0.25)

    rig.damage("v000002/tower.onnx")  # from here on nothing that has it can be read
    rig.try_out("v000002+001", 0.5)
    tried = rig.swapper.canaries["two_tower"]
    assert (tried.model.manifest.version, tried.canary) == ("v000002+001", Canary("v000002+001", 0.5, "v000002"))
    assert canary.promote(rig.root, "two_tower", "v000002+001")
    rig.look()
    assert rig.swapper.models["two_tower"] is tried.model
    assert rig.swapper.canaries == {}
    assert (rig.sessions, rig.value("serving_failed_loads_total")) == (2, 0)
    assert (rig.value("serving_snapshot_version"), rig.value("serving_snapshot_delta")) == (2, 1)
    assert (rig.value("serving_canary_version"), rig.value("serving_canary_share")) == (0, 0)
    assert rig.value("serving_swaps_total") == 2, "what is on trial is not what is live"


def test_deltas_that_follow_a_promotion_go_onto_what_was_on_trial(rig: Rig) -> None:
    rig.serve("v000001")
    rig.write(0, 1, number=2)
    rig.try_out("v000002")
    rig.damage("v000002/tower.onnx")
    assert rig.serve("v000002+001").manifest.version == "v000002+001"
    assert rig.swapper.canaries == {}, "CANARY is still there, and what it names is live"
    assert rig.swapper.status()[0].error == ""


def test_what_is_withdrawn_is_dropped_and_the_share_is_followed(rig: Rig) -> None:
    live = rig.serve("v000001")
    rig.write(0, number=2)
    rig.try_out("v000002", 0.5)
    gone = weakref.ref(rig.swapper.canaries["two_tower"].model)
    rig.try_out("v000002", 0.125)
    assert rig.swapper.canaries["two_tower"].model is gone(), "the same one for other users"
    assert (rig.swapper.canaries["two_tower"].canary.share, rig.sessions) == (0.125, 2)
    canary.withdraw(rig.root, "two_tower")
    rig.look()
    gc.collect()
    assert (rig.swapper.canaries, gone()) == ({}, None)
    assert rig.swapper.models["two_tower"] is live
    assert rig.swapper.status()[0].canary_version == ""


def test_what_was_loaded_for_its_trial_is_not_loaded_for_the_next_ones(rig: Rig) -> None:
    rig.serve("v000001")
    for number in (2, 3):
        rig.write(0, number=number)
        rig.try_out(f"v00000{number}")
        assert rig.swapper.canaries["two_tower"].model.manifest.version == f"v00000{number}"
    assert rig.sessions == 3


def damaged_tower(rig: Rig) -> None:
    rig.write(0, number=2)
    rig.damage("v000002/tower.onnx")
    rig.try_out("v000002")


def missing(rig: Rig) -> None:
    rig.try_out("v000009")


def empty(rig: Rig) -> None:
    snapshot.write(rig.root, make_snapshot(number=2, rows=0))
    rig.try_out("v000002")


def damaged_pointer(rig: Rig) -> None:
    (rig.root / "two_tower" / "CANARY").write_text("{")
    rig.look()


def pointer_away(rig: Rig) -> None:
    (rig.root / "two_tower" / "CANARY").mkdir()
    rig.look()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (damaged_tower, "v000002 is not on trial here: Snapshot two_tower/v000002: tower.onnx does not match"),
        (missing, "v000009 is not on trial here: Snapshot two_tower/v000009 has no readable manifest.json."),
        (empty, "v000002 is not on trial here: The catalogue of snapshot two_tower/v000002 is empty."),
        (damaged_pointer, "Nothing is on trial: two_tower/CANARY cannot be read."),
        (pointer_away, "Nothing is on trial: two_tower/CANARY cannot be read."),
    ],
)
def test_what_cannot_be_tried_is_told_once_and_leaves_what_is_live(
    rig: Rig, wrong: Callable[[Rig], None], why: str
) -> None:
    live = rig.serve("v000001")
    wrong(rig)
    assert (rig.swapper.models["two_tower"], rig.swapper.canaries) == (live, {})
    (status,) = rig.swapper.status()
    assert status.error.startswith(why)
    assert (status.canary_version, status.canary_share) == ("", 0)
    assert rig.swapper.serves_live("two_tower")
    assert rig.value("serving_failed_loads_total") == 1
    path = rig.root / "two_tower" / "CANARY"
    path.rmdir() if path.is_dir() else path.unlink()
    rig.look()
    assert rig.swapper.status()[0].error == ""


def test_a_delta_that_cannot_be_applied_leaves_what_is_on_trial(rig: Rig) -> None:
    rig.serve("v000001")
    rig.write(0, 1, number=2)
    rig.try_out("v000002")
    before = rig.swapper.canaries["two_tower"].model
    rig.damage("v000002+001/item_ids.npy")
    rig.try_out("v000002+001")
    assert rig.swapper.canaries["two_tower"].model is before
    (status,) = rig.swapper.status()
    assert (status.canary_version, "v000002+001 is not on trial here" in status.error) == ("v000002", True)


def test_a_pointer_that_is_damaged_during_a_trial_ends_it_here_until_it_can_be_read(rig: Rig) -> None:
    rig.serve("v000001")
    rig.write(0, number=2)
    rig.try_out("v000002")
    damaged_pointer(rig)
    assert rig.swapper.canaries == {}
    rig.try_out("v000002")
    assert rig.swapper.canaries["two_tower"].model.manifest.version == "v000002"


def test_what_failed_on_trial_is_tried_once_more_when_it_goes_live(rig: Rig) -> None:
    rig.serve("v000001")
    rig.write(0, number=2)
    path = rig.root / "two_tower" / "v000002" / "tower.onnx"
    path.rename(path.with_name("away"))
    rig.try_out("v000002")
    path.with_name("away").rename(path)
    rig.look()
    assert rig.swapper.canaries == {}, "not again at once"
    assert canary.promote(rig.root, "two_tower", "v000002")
    rig.look()
    assert rig.swapper.models["two_tower"].manifest.version == "v000002"
    assert rig.swapper.status()[0].error == ""


def test_a_load_that_failed_is_tried_again_ever_less_often_and_serves_once_it_is_repaired(rig: Rig) -> None:
    before = rig.serve("v000001")
    rig.write(0, number=2)
    path = rig.root / "two_tower" / "v000002" / "tower.onnx"
    whole = path.read_bytes()
    rig.damage("v000002/tower.onnx")
    assert rig.serve("v000002") is before
    failed_at_s = []
    for second in range(1, 200):
        rig.clock.advance(1000)
        failures = rig.value("serving_failed_loads_total")
        rig.look()
        if rig.value("serving_failed_loads_total") != failures:
            failed_at_s.append(second)
    assert failed_at_s == [1, 3, 7, 15, 31, 63, 123, 183], "waits double up to a minute"
    assert rig.swapper.models["two_tower"] is before
    assert not rig.swapper.serves_live("two_tower")
    path.write_bytes(whole)
    rig.look()
    assert rig.swapper.models["two_tower"] is before, "its time has not come"
    rig.clock.advance(60_000)
    rig.look()
    assert rig.swapper.models["two_tower"].manifest.version == "v000002"
    assert (rig.swapper.serves_live("two_tower"), rig.swapper.status()[0].error) == (True, "")
    attempts = rig.value("serving_load_attempts_total")
    assert (attempts, rig.value("serving_failed_loads_total")) == (11, 9)
    rig.clock.advance(3600_000)
    rig.look()
    assert rig.value("serving_load_attempts_total") == attempts, "what serves is not loaded again"


def test_where_deltas_failed_these_are_tried_again_first_then_the_whole_chain(rig: Rig) -> None:
    rig.serve("v000001+001")
    path = rig.root / "two_tower" / "v000001+002" / "item_ids.npy"
    whole = path.read_bytes()
    rig.damage("v000001+002/item_ids.npy")
    rig.serve("v000001+003")
    rig.clock.advance(1000)
    rig.look()
    assert rig.value("serving_failed_loads_total") == 4, "both ways, twice"
    path.write_bytes(whole)
    rig.clock.advance(2000)
    sessions = rig.sessions
    rig.look()
    assert rig.swapper.models["two_tower"].manifest.version == "v000001+003"
    assert rig.sessions == sessions, "the deltas alone were read"


def test_it_is_tried_no_more_once_another_is_live(rig: Rig) -> None:
    rig.serve("v000001")
    rig.serve("v000009")
    rig.write(0, number=2)
    rig.serve("v000002")
    attempts = rig.value("serving_load_attempts_total")
    rig.clock.advance(3600_000)
    rig.look()
    assert rig.value("serving_load_attempts_total") == attempts
    rig.serve("v000009")
    rig.clock.advance(999)
    rig.look()
    assert rig.value("serving_failed_loads_total") == 2, "it comes back as if for the first time"
    rig.clock.advance(1)
    rig.look()
    assert rig.value("serving_failed_loads_total") == 3


def test_what_failed_on_trial_is_tried_again_while_it_is_on_trial(rig: Rig) -> None:
    live = rig.serve("v000001")
    rig.write(0, number=2)
    path = rig.root / "two_tower" / "v000002" / "tower.onnx"
    path.rename(path.with_name("away"))
    rig.try_out("v000002")
    path.with_name("away").rename(path)
    rig.look()
    assert rig.swapper.canaries == {}
    rig.clock.advance(1000)
    rig.look()
    assert rig.swapper.canaries["two_tower"].model.manifest.version == "v000002"
    assert rig.swapper.models["two_tower"] is live
    assert rig.swapper.status()[0].error == ""


def test_what_was_withdrawn_from_its_trial_is_tried_no_more(rig: Rig) -> None:
    rig.serve("v000001")
    rig.try_out("v000009")
    canary.withdraw(rig.root, "two_tower")
    rig.clock.advance(3600_000)
    rig.look()
    assert rig.value("serving_load_attempts_total") == 2
