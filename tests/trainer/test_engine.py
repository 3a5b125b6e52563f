from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.config.settings import Settings
from contracts.runtime.clock import HOUR_MS
from contracts.snapshots.delta import Delta, apply
from contracts.snapshots.snapshot import Snapshot, publish, write
from contracts.wire.events_pb2 import Example
from tests.trainer.trainer_cases import START_MS, make_example, make_item, markov_examples, small_settings
from trainer.data.catalogue import Announced
from trainer.engine import Engine, choose_device, learns_from
from trainer.meters import Meters

pytestmark = pytest.mark.usefixtures("trace_once")
ITEMS = 12


def announce(engine: Engine, item_ids: Iterable[int], time_ms: int = START_MS) -> None:
    for item_id in item_ids:
        engine.take_item(Announced(item_id, make_item(item_id)), time_ms, "items:0", item_id)


def run_engine(settings: Settings, examples: list[Example], meters: Meters | None = None) -> list[Snapshot]:
    engine = Engine(settings, meters or Meters())
    announce(engine, range(1, ITEMS + 1))
    snapshots = []
    for offset, example in enumerate(examples):
        snapshots += engine.take(example, "examples:0", offset)
    return snapshots


def test_snapshots_are_a_function_of_the_log(tmp_path: Path) -> None:
    """Same seed and examples: the same bytes in every file of every snapshot."""
    homes = []
    for name in ("one", "other"):
        settings = small_settings(tmp_path / name)
        snapshots = run_engine(settings, markov_examples(200, ITEMS))
        assert [(s.manifest.model, s.manifest.version) for s in snapshots] == [
            (model, f"v00000{n}") for n in (1, 2, 3) for model in ("two_tower", "t2diff")
        ]
        for snapshot in snapshots:
            write(settings.snapshots, snapshot)
        homes.append(settings.snapshots)
    files = [sorted(p.relative_to(home) for p in home.rglob("*") if p.is_file()) for home in homes]
    assert files[0] == files[1]
    assert len(files[0]) == 6 * 5
    for file in files[0]:
        assert (homes[0] / file).read_bytes() == (homes[1] / file).read_bytes(), file


def test_a_snapshot_holds_what_came_before_the_boundary_and_nothing_after(tmp_path: Path) -> None:
    examples = [make_example([1, 2], 3, START_MS + n, user_id=n + 1) for n in range(11)]
    after = make_example([1, 2], 4, START_MS + HOUR_MS)
    snapshots = run_engine(small_settings(tmp_path), [*examples, after])
    for snapshot in snapshots:
        manifest = snapshot.manifest
        assert manifest.examples == 11  # a full batch of 8 and the partial one that the boundary flushed
        assert manifest.offsets == {"examples:0": 11}
        assert manifest.event_time_ms == START_MS + 10
        assert manifest.metrics["examples"] == 11
        assert len(manifest.sent_at_ms) == 11
        assert snapshot.item_counts.tolist() == [0, 0, 11] + [0] * (ITEMS - 3)


def test_a_snapshot_fits_together(tmp_path: Path) -> None:
    (two_tower, t2diff) = run_engine(small_settings(tmp_path), markov_examples(61, ITEMS))
    assert two_tower.manifest.noise_shape == t2diff.manifest.noise_shape == ()
    assert two_tower.manifest.sampling_seed == t2diff.manifest.sampling_seed
    for snapshot in (two_tower, t2diff):
        assert snapshot.item_ids.tolist() == list(range(1, ITEMS + 1))
        assert snapshot.item_vectors.shape == (ITEMS, 8)
        assert np.isfinite(snapshot.item_vectors).all()


@pytest.mark.parametrize(
    ("learn_from", "two_tower", "t2diff"),
    [
        ("own", {"": 20, "control": 20}, {"": 20, "treatment": 20}),
        ("diverted", {"control": 20}, {"treatment": 20}),
        ("pooled", {"": 20, "control": 20, "treatment": 20}, {"": 20, "control": 20, "treatment": 20}),
        ("weighted", {"": 20, "control": 20, "treatment": 20}, {"": 20, "control": 20, "treatment": 20}),
    ],
)
def test_shares_say_whose_examples_were_learned_from(
    tmp_path: Path, learn_from: str, two_tower: dict[str, int], t2diff: dict[str, int]
) -> None:
    snapshots = run_engine(small_settings(tmp_path, learn_from=learn_from), markov_examples(61, ITEMS))
    manifests = {s.manifest.model: s.manifest for s in snapshots}
    assert manifests["two_tower"].shares == two_tower
    assert manifests["t2diff"].shares == t2diff
    for manifest in manifests.values():
        assert manifest.learn_from == learn_from
        assert manifest.examples == sum(manifest.shares.values())
        assert manifest.metrics["examples"] == 60  # both models are tested on everything
        assert {"recall@20/arm:control", "recall@20/arm:treatment", "recall@20/outside"} <= manifest.metrics.keys()


def played(count: int) -> list[Example]:
    examples = markov_examples(count, ITEMS)
    for number, example in enumerate(examples):
        example.play_time_ms = 1000 * (1 + number % 9)
    return examples


def test_effective_views_alone_are_wanted_by_default_bit_for_bit(tmp_path: Path) -> None:
    plain, scaled, without = (
        run_engine(small_settings(tmp_path, objective=objective), examples)
        for objective, examples in (
            ({}, played(200)),
            ({"effective_view": 7}, played(200)),
            ({}, markov_examples(200, ITEMS)),
        )
    )
    for one, other, third in zip(plain, scaled, without, strict=True):
        assert one.item_vectors.tobytes() == other.item_vectors.tobytes() == third.item_vectors.tobytes()


def test_what_is_wanted_changes_what_all_models_learn_and_not_what_they_are_tested_on(tmp_path: Path) -> None:
    plain, wanting = (
        run_engine(small_settings(tmp_path, objective=objective), played(130)) for objective in ({}, {"play": 1})
    )
    for one, other in zip(plain, wanting, strict=True):
        assert not np.array_equal(one.item_vectors, other.item_vectors)
        assert one.manifest.metrics["examples"] == other.manifest.metrics["examples"]
        assert one.manifest.shares == other.manifest.shares


def test_an_example_that_gives_nothing_of_what_is_wanted_is_tested_and_not_learned(tmp_path: Path) -> None:
    examples = markov_examples(61, ITEMS)
    for number, example in enumerate(examples):
        example.play_time_ms = 1000 * (number % 2)
    settings = small_settings(tmp_path, learn_from="pooled", objective={"effective_view": 0, "play": 1})
    for snapshot in run_engine(settings, examples):
        assert snapshot.manifest.metrics["examples"] == 60
        assert snapshot.manifest.examples == 30


def test_an_arm_of_another_experiment_is_nobodys_own(tmp_path: Path) -> None:
    arms = small_settings(tmp_path).experiment.arms
    assert learns_from("t2diff", ["stranger"], "own", arms).tolist() == [False]
    assert learns_from("t2diff", ["stranger"], "weighted", arms).tolist() == [False]
    assert learns_from("t2diff", ["stranger"], "pooled", arms).tolist() == [True]


def test_an_example_whose_item_is_unknown_is_counted_and_skipped(tmp_path: Path) -> None:
    meters = Meters()
    examples = [make_example([1], 99), *markov_examples(61, ITEMS)]
    snapshots = run_engine(small_settings(tmp_path), examples, meters)
    assert meters.registry.get_sample_value("trainer_skipped_examples_total") == 1
    assert snapshots[0].manifest.metrics["examples"] == 60
    assert snapshots[0].manifest.offsets == {"examples:0": 61}


def test_a_batch_of_unknown_items_and_an_empty_catalogue_are_survived(tmp_path: Path) -> None:
    meters = Meters()
    engine = Engine(small_settings(tmp_path), meters)
    for offset in range(8):
        assert engine.take(make_example([1], 2), "examples:0", offset) == []
    assert meters.registry.get_sample_value("trainer_skipped_examples_total") == 8
    for snapshot in engine.take(make_example([1], 2, START_MS + HOUR_MS), "examples:0", 8):
        assert snapshot.item_ids.shape == (0,)
        assert snapshot.item_vectors.shape == (0, 8)


def test_steps_that_are_no_number_are_counted_and_not_called_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meters = Meters()
    engine = Engine(small_settings(tmp_path), meters)
    announce(engine, range(1, ITEMS + 1))
    broken = next(p.learner for p in engine.lines if p.learner.name == "t2diff")
    monkeypatch.setattr(broken, "learn", lambda batch: False)
    for offset, example in enumerate(markov_examples(16, ITEMS)):
        engine.take(example, "examples:0", offset)
    value = meters.registry.get_sample_value
    assert value("trainer_nan_steps_total", {"model": "t2diff"}) == 2
    assert value("trainer_learned_total", {"model": "t2diff"}) is None
    assert (value("trainer_learned_total", {"model": "two_tower"}) or 0) > 0


def test_a_snapshot_that_the_gate_rejects_says_why_and_the_metrics_do_too(tmp_path: Path) -> None:
    """Labels dealt out at random close the gate; the freshness of what they held back is told by a later snapshot."""
    gate = {"judge": "recall", "k": 1, "anchor": 400, "window": 200}
    good = markov_examples(1500, ITEMS, step_ms=6000)
    labels = np.random.default_rng(0).permutation([e.item_id for e in good[900:]]).tolist()
    for example, label in zip(good[900:], labels, strict=True):
        example.item_id = label
    meters = Meters()
    settings = small_settings(tmp_path, models=("two_tower",), gate=gate, publish_every_ms=HOUR_MS // 4)
    snapshots = run_engine(settings, good, meters)
    rejected = [snapshot.manifest for snapshot in snapshots if snapshot.manifest.rejected]
    passed = [snapshot.manifest for snapshot in snapshots[:4]]
    assert [manifest.gate["passed"] for manifest in passed] == [True] * 4
    assert rejected[-1] == snapshots[-1].manifest
    assert "below v00000" in str(rejected[-1].gate["reason"])
    assert {"fresh_difference", "anchor_high"} <= rejected[-1].gate.keys()
    if len(rejected) > 1:
        assert rejected[-1].sent_at_ms[0] == rejected[-2].sent_at_ms[0]
    value = meters.registry.get_sample_value
    assert value("trainer_gate_open", {"model": "two_tower"}) == 0
    assert value("trainer_snapshots_rejected_total", {"model": "two_tower"}) == len(rejected)
    high = value("trainer_gate_difference", {"model": "two_tower", "on": "anchor", "what": "high"})
    assert high == rejected[-1].gate["anchor_high"]
    assert (value("trainer_progressive_loss", {"model": "two_tower", "scope": "recent/outside"}) or 0) > 1
    assert value("trainer_calibration_error", {"model": "two_tower", "scope": "items:old"}) is not None


def test_a_trainer_that_starts_from_nothing_is_measured_by_what_is_live(tmp_path: Path) -> None:
    settings = small_settings(tmp_path, models=("two_tower",), gate={"judge": "recall", "k": 1})
    taught = run_engine(settings, markov_examples(1201, ITEMS, step_ms=3000))[-1]
    write(settings.snapshots, taught)
    publish(settings.snapshots, "two_tower", taught.manifest.version)
    beginner = run_engine(settings, markov_examples(80, ITEMS, seed=1))[0].manifest
    assert beginner.rejected
    assert f"below {taught.manifest.version}" in str(beginner.gate["reason"])


def test_auto_takes_cuda_where_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_device("auto").type == expected
    assert choose_device("cpu").type == "cpu"


def test_a_removed_item_is_in_no_later_snapshot_and_a_tester_of_nothing(tmp_path: Path) -> None:
    meters = Meters()
    engine = Engine(small_settings(tmp_path), meters)
    announce(engine, range(1, ITEMS + 1))
    for offset in range(9):
        engine.take(make_example([1, 3], 2, START_MS + offset), "examples:0", offset)
    for gone in (2, 3, 999):
        engine.take_item(Announced(gone, None), START_MS, "items:0", ITEMS + gone)
    for snapshot in engine.take(make_example([1], 4, START_MS + HOUR_MS), "examples:0", 9):
        left = [1, *range(4, ITEMS + 1)]
        assert snapshot.item_ids.tolist() == left
        assert snapshot.item_vectors.shape == (len(left), 8)
        assert snapshot.item_counts.tolist() == [0] * len(left)
    assert meters.registry.get_sample_value("trainer_skipped_examples_total") == 1  # it waited when its item went


def test_items_that_nobody_watches_expire_by_event_time(tmp_path: Path) -> None:
    meters = Meters()
    settings = small_settings(tmp_path, vocabulary={"expire_after_ms": 10 * HOUR_MS})
    engine = Engine(settings, meters)
    announce(engine, range(1, ITEMS + 1))
    announce(engine, [50], START_MS + 9 * HOUR_MS)
    snapshots = []
    for hour in range(13):
        for n in range(8):
            example = make_example([7], 1 + n % 3, START_MS + hour * HOUR_MS + n)
            snapshots += engine.take(example, "examples:0", 8 * hour + n)
    known = {s.manifest.event_time_ms // HOUR_MS: s.item_ids.tolist() for s in snapshots}
    start = START_MS // HOUR_MS
    assert known[start + 9] == [*range(1, ITEMS + 1), 50]
    assert known[start + 11] == [1, 2, 3, 50]
    assert meters.registry.get_sample_value("trainer_expired_items_total") == ITEMS - 3
    assert meters.registry.get_sample_value("trainer_skipped_examples_total") == 0


def test_deltas_lead_from_snapshot_to_snapshot_and_give_what_a_snapshot_would(tmp_path: Path) -> None:
    """With no tolerance, a snapshot with its deltas has the vectors that a full one of that moment has."""
    settings = small_settings(tmp_path, deltas_every_examples=16, delta_tolerance=0.0)
    engine = Engine(settings, Meters())
    announce(engine, range(1, ITEMS + 1))
    made = []
    for offset, example in enumerate(markov_examples(108, ITEMS)):
        if offset == 90:
            announce(engine, [40])
        made += engine.take(example, "examples:0", offset)
    two_tower = [one for one in made if one.manifest.model == "two_tower"]
    versions = [one.manifest.version for one in two_tower]
    assert versions == ["v000001", "v000001+001", "v000001+002"]
    base, *deltas = two_tower
    assert isinstance(base, Snapshot)
    served = apply(base, *(one for one in deltas if isinstance(one, Delta)))
    line = engine.lines[0]
    assert served.item_ids.tolist() == [*range(1, ITEMS + 1), 40]
    np.testing.assert_array_equal(served.item_vectors, line.learner.item_vectors(engine._catalogue))
    assert served.tower == base.tower
    assert served.manifest.examples == sum(line.shares.values()) > base.manifest.examples


def test_a_delta_leaves_out_what_has_hardly_moved(tmp_path: Path) -> None:
    sizes = []
    for tolerance in (0.0, 0.5):
        root = tmp_path / str(tolerance)
        settings = small_settings(root, deltas_every_examples=8, delta_tolerance=tolerance)
        engine = Engine(settings, Meters())
        announce(engine, range(1, ITEMS + 1))
        made = [p for n, e in enumerate(markov_examples(90, ITEMS)) for p in engine.take(e, "examples:0", n)]
        sizes.append(sum(one.changes.item_ids.size for one in made if isinstance(one, Delta)))
    assert 0 < sizes[1] < sizes[0] / 2


def test_without_anything_served_there_is_no_delta_but_a_snapshot(tmp_path: Path) -> None:
    engine = Engine(small_settings(tmp_path), Meters())
    announce(engine, range(1, ITEMS + 1))
    for offset, example in enumerate(markov_examples(16, ITEMS)):
        engine.take(example, "examples:0", offset)
    assert engine.deltas() == []
    assert [one.manifest.version for one in engine.snapshots()] == ["v000001", "v000001"]
    assert engine.snapshots() == []
    for offset, example in enumerate(markov_examples(16, ITEMS, seed=1)):
        engine.take(example, "examples:0", 16 + offset)
    assert [one.manifest.version for one in engine.deltas()] == ["v000001+001"] * 2
    engine.not_served("t2diff")
    for offset, example in enumerate(markov_examples(8, ITEMS, seed=2)):
        engine.take(example, "examples:0", 32 + offset)
    assert [one.manifest.model for one in engine.deltas()] == ["two_tower"]


def test_the_guess_is_published_as_soon_as_it_is_of_use(tmp_path: Path) -> None:
    """At first without, as nothing is known of it; a state in which it was found to be of use publishes it."""
    engine = Engine(small_settings(tmp_path), Meters())
    announce(engine, range(1, ITEMS + 1))
    for offset, example in enumerate(markov_examples(40, ITEMS)):
        engine.take(example, "examples:0", offset)
    state = engine.state()
    two_tower, bare = engine.snapshots()
    state["pupils"]["t2diff"]["part"]["served"] = True
    engine.restore(state)
    _, whole = engine.snapshots()
    assert isinstance(two_tower, Snapshot)
    assert isinstance(bare, Snapshot)
    assert isinstance(whole, Snapshot)
    assert "served:guess" not in two_tower.manifest.metrics
    assert [each.manifest.metrics["served:guess"] for each in (bare, whole)] == [0, 1]
    assert [b"denoiser" in each.tower for each in (bare, whole)] == [False, True]
    assert np.array_equal(bare.item_vectors, whole.item_vectors)
