"""A replica's swapper on real directories: what is live gets loaded, what is damaged never does."""

import asyncio
import gc
import os
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from contracts.config.settings import Arm, Experiment, KafkaSettings, Settings
from contracts.features import Positives
from contracts.runtime.clock import ManualClock
from contracts.snapshots import delta, snapshot, tower
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
        self.swapper = Swapper(settings, list, self.metrics, ManualClock())
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
        for _ in range(2):
            asyncio.run(self.swapper.check())
        return self.swapper.models["two_tower"]

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
    assert (rig.value("serving_swaps_total"), rig.value("serving_failed_loads_total")) == (2, None)
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
    assert rig.serve("v000001+003") is before, "it is not tried again while LIVE names it"
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
