"""Killed anywhere and started again, the trainer comes to what an undisturbed one comes to, bit for bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contracts.config.settings import Settings, SettingsError
from contracts.messages.events import SCHEMA_VERSION
from contracts.runtime.clock import HOUR_MS
from contracts.snapshots.canary import Canary, answers, on_trial
from contracts.snapshots.snapshot import live
from contracts.wire.events_pb2 import Example, Exposure
from tests.trainer.conftest import MakeRig
from tests.trainer.trainer_cases import START_MS, markov_examples, small_settings
from tests.trainer.trainer_rig import EXAMPLES, EXPOSURES, MemoryLog, Rig

pytestmark = pytest.mark.usefixtures("trace_once")
COUNT = 400
QUICK = {"model": {"learning_rate": 0.01, "page_loss": 0.5, "id_dim": 4}}
REGIMES = {"variants": {"quick": QUICK}, "half_life": 40, "margin": 0.01, "lead": 10}
ALL_STATE = {
    "gate": {"canary": {"items": 20, "least_items": 10}},
    "model": {"learning_rate": 0.001},
    "replay": {"batches": 2, "size": 50},
    "average": 0.95,
    "learn_from": "weighted",
    "objective": {"play": 1.0, "follow": 2.0},
}


def answered_by(example: Example) -> str:
    """As replicas would answer if each snapshot were on trial for the hour after it was made."""
    hour = (example.time_ms - START_MS) // HOUR_MS
    tried = Canary(f"v{max(hour, 1):06d}", 0.5, f"v{max(hour, 1):06d}")
    tries = answers("t2diff", tried, example.user_id, example.time_ms - 1)
    return tried.version if tries else f"v{max(hour - 1, 1):06d}"


def fill(log: MemoryLog) -> None:
    """Examples, and items that arrive while they flow."""
    for item_id in range(1, 13):
        log.append_item(item_id, START_MS + (item_id - 1) * 600_000)
    for number, example in enumerate(markov_examples(COUNT, 12)):
        example.request_id, example.user_id = f"r{number}", 1 + number % 80
        example.play_time_ms, example.follow = 5000 * (1 + number % 7), number % 5 == 0
        exposure = Exposure(event_id=f"r{number}", request_id=f"r{number}", user_id=example.user_id, arm="treatment")
        exposure.schema_version, exposure.time_ms = SCHEMA_VERSION, example.time_ms - 1
        exposure.model, exposure.snapshot_version = "t2diff", answered_by(example)
        exposure.items.add(item_id=example.item_id)
        log.append(EXPOSURES[example.user_id % 2], exposure.SerializeToString(), example.time_ms)
        log.append(EXAMPLES[example.user_id % 2], example.SerializeToString(), example.time_ms)


def run(rig: Rig, steps: int = 200) -> None:
    rig.worker.resume()
    rig.steps(steps)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from leaves(part, f"{path}/{i}")
    else:
        yield path, value


def assert_equal(one: Any, other: Any, at_least: int = 100) -> None:
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    assert len(pairs) >= at_least
    for (path, a), (path_too, b) in pairs:
        assert path == path_too
        if isinstance(a, torch.Tensor | np.ndarray):
            assert np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True), path
        else:
            assert a == b, path


def files(settings: Settings) -> dict[str, bytes]:
    home = settings.snapshots
    return {str(p.relative_to(home)): p.read_bytes() for p in sorted(home.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(("seed", "share"), [(0, 1.0), (1, 0.6)])
def test_killed_anywhere_it_comes_to_the_same_weights_and_snapshots(
    tmp_path: Path, make_rig: MakeRig, seed: int, share: float
) -> None:
    changes = {**ALL_STATE, "regimes": {**REGIMES, "share": share}}
    settings = [small_settings(tmp_path / name, checkpoint_every_examples=30, **changes) for name in ("calm", "killed")]
    calm = make_rig(settings[0], per_poll=7)
    fill(calm.log)
    run(calm)

    rng = np.random.default_rng(seed)
    rig = make_rig(settings[1], per_poll=5)
    log = rig.log
    fill(log)
    kills = 0
    while not kills or rng.random() < 0.9:
        run(rig, steps=int(rng.integers(1, 40)))
        rig.close()
        kills += 1
        log.rewind()
        rig = make_rig(settings[1], log=log)
    run(rig)

    assert calm.engine.tested == rig.engine.tested
    assert calm.engine.tested > COUNT - 20
    choices = [calm.engine.state()["pupils"][name]["regimes"]["choice"] for name in ("two_tower", "t2diff")]
    assert any(choice["changes"] for choice in choices)
    assert_equal(calm.engine.state(), rig.engine.state())
    assert files(settings[0]) == files(settings[1])
    assert live(settings[0].snapshots, "t2diff") == "v000005"
    assert on_trial(settings[0].snapshots, "t2diff") == Canary("v000006", 0.5, "v000006")
    assert calm.value("trainer_trials_total", model="t2diff", outcome="promoted") > 2


def test_a_model_that_comes_or_goes_leaves_what_the_others_have_learned(tmp_path: Path, make_rig: MakeRig) -> None:
    alone, both = (small_settings(tmp_path, models=models) for models in (("two_tower",), ("two_tower", "t2diff")))
    first = make_rig(alone, per_poll=5)
    fill(first.log)
    run(first, steps=6)
    first.worker.keep()
    learned = first.engine.state()["pupils"]["two_tower"]
    first.close()

    first.log.rewind()
    joined = make_rig(both, log=first.log)
    joined.worker.resume()
    pupils = joined.engine.state()["pupils"]
    assert_equal(pupils["two_tower"], learned)
    assert pupils["t2diff"]["shares"] == {}
    joined.steps(200)
    tested, learned_from = joined.engine.tested, sum(joined.engine.lines[1].shares.values())
    assert 0 < learned_from < tested, "it learns from what has come since"
    joined.worker.keep()
    learned = joined.engine.state()["pupils"]["two_tower"]
    joined.close()

    first.log.rewind()
    left = make_rig(alone, log=first.log)
    left.worker.resume()
    assert left.engine.state()["pupils"].keys() == {"two_tower"}
    assert_equal(left.engine.state()["pupils"]["two_tower"], learned)


def test_what_the_log_lost_after_the_checkpoint_is_said(tmp_path: Path, make_rig: MakeRig) -> None:
    settings = small_settings(tmp_path)
    rig = make_rig(settings)
    fill(rig.log)
    run(rig)
    rig.worker.keep()
    rig.close()
    rig.log.first = COUNT // 2 + 5
    again = make_rig(settings, log=rig.log)
    again.worker.resume()
    learned = rig.engine.offsets
    lost = sum(rig.log.first - learned[name] for name in learned if learned[name] < rig.log.first)
    assert lost > 0
    assert again.value("trainer_lost_examples_total") == lost


def test_a_log_that_is_another_one_is_refused(tmp_path: Path, make_rig: MakeRig) -> None:
    settings = small_settings(tmp_path)
    rig = make_rig(settings)
    fill(rig.log)
    run(rig)
    rig.worker.finish()
    rig.close()
    again = make_rig(settings)
    again.add_items(3)
    again.worker.resume()
    with pytest.raises(SettingsError, match="where the broker has no such log"):
        again.steps(1)


def test_a_stop_keeps_what_was_learned(tmp_path: Path, make_rig: MakeRig) -> None:
    settings = small_settings(tmp_path, checkpoint_every_examples=100_000)
    rig = make_rig(settings)
    fill(rig.log)
    run(rig)
    rig.worker.keep()
    rig.close()
    rig.log.rewind()
    again = make_rig(settings, log=rig.log)
    again.worker.resume()
    assert_equal(again.engine.state(), rig.engine.state())
    again.steps(5)
    assert again.value("trainer_examples_total") == 0
