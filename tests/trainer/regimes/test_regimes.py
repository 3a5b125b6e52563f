"""Real learners side by side: the stream decides which of them leads, and the same stream decides the same."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contracts.config.settings import Settings
from contracts.runtime.clock import HOUR_MS
from contracts.snapshots.delta import Delta
from contracts.snapshots.snapshot import Snapshot
from contracts.wire.events_pb2 import Example
from tests.trainer.trainer_cases import START_MS, make_example, make_item, small_settings
from trainer.data.catalogue import Announced
from trainer.engine import Engine, Publication
from trainer.meters import Meters

pytestmark = pytest.mark.usefixtures("trace_once")
ITEMS = 12
QUICK = {"model": {"learning_rate": 0.05, "page_loss": 1.0, "id_dim": 4}}
NEVER: dict[str, Any] = {"publish_every_ms": 10_000 * HOUR_MS}


def settings_of(root: Path, **trainer: Any) -> Settings:
    """A learner that hardly moves, and beside it a quick one."""
    regimes = {"variants": {"quick": QUICK}, "half_life": 150, "margin": 0.01, "lead": 60} | trainer.pop("regimes", {})
    model = {"learning_rate": 1e-6}
    return small_settings(root, models=["two_tower"], model=model, regimes=regimes, **(NEVER | trainer))


def pages(count: int, *, taught: bool, seed: int = 0, first: int = 0, arm: str = "") -> list[Example]:
    """Of four items one is watched: the one after the user's last where there is anything to be `taught`, else any."""
    rng = np.random.default_rng(seed)
    examples = []
    for n in range(first, first + count):
        last = int(rng.integers(1, ITEMS + 1))
        follower = last % ITEMS + 1
        others = [item for item in rng.permutation(ITEMS) + 1 if item not in (last, follower)][:3]
        page = sorted([follower, *map(int, others)])
        watched = follower if taught else int(rng.choice(page))
        example = make_example([last], watched, START_MS + n * 60_000, arm, user_id=n + 1)
        example.page.item_ids.extend(page)
        example.page.effective_views.extend(item == watched for item in page)
        examples.append(example)
    return examples


def engine_of(settings: Settings, meters: Meters | None = None) -> Engine:
    engine = Engine(settings, meters or Meters())
    for item_id in range(1, ITEMS + 1):
        engine.take_item(Announced(item_id, make_item(item_id)), START_MS, "items:0", item_id)
    return engine


def feed(engine: Engine, examples: Iterable[Example]) -> list[Publication]:
    publications = []
    for example in examples:
        publications += engine.take(example, "examples:0", example.user_id - 1)
    return publications


def leader(engine: Engine) -> str:
    return str(engine.lines[0].state()["regimes"]["choice"]["leader"])


def test_the_stream_changes_and_another_regime_leads(tmp_path: Path) -> None:
    meters = Meters()
    engine = engine_of(settings_of(tmp_path), meters)
    feed(engine, pages(400, taught=False))
    assert leader(engine) == "default"  # who learns from noise foresees worse than who does not learn
    feed(engine, pages(800, taught=True, first=400))
    assert leader(engine) == "quick"
    feed(engine, pages(1200, taught=False, first=1200))
    assert leader(engine) == "default"
    value = meters.registry.get_sample_value
    assert value("trainer_regime_changes", {"model": "two_tower"}) == 2
    assert value("trainer_regime_leads", {"model": "two_tower", "regime": "default"}) == 1
    assert value("trainer_regime_leads", {"model": "two_tower", "regime": "quick"}) == 0


def test_what_a_model_chose_itself_does_not_count(tmp_path: Path) -> None:
    """In the arm that the model serves, and where its own snapshot answered."""
    own = pages(800, taught=True, arm="control")
    answered = pages(800, taught=True)
    for example in answered:
        example.model = "two_tower"
    for examples in (own, answered):
        engine = engine_of(settings_of(tmp_path))
        feed(engine, examples)
        assert leader(engine) == "default"
        assert engine.lines[0].state()["regimes"]["evidence"]["weight"] == (0.0, 0.0)


def test_a_new_leader_is_published_whole_and_named(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, deltas_every_examples=80, publish_every_ms=5 * HOUR_MS, regimes={"lead": 500})
    engine = engine_of(settings)
    made = feed(engine, pages(1300, taught=True))
    named = ["quick" if each.manifest.metrics["leads/regime:quick"] else "default" for each in made]
    first = named.index("quick")
    assert set(named[first:]) == {"quick"}
    assert isinstance(made[first], Snapshot)
    assert {type(each) for each in made[:first]} == {type(each) for each in made[first:]} == {Snapshot, Delta}
    line = engine.lines[0]
    newest = [each for each in made if isinstance(each, Snapshot)][-1]
    assert newest.item_vectors.shape == (ITEMS, 8)
    assert line.learner.settings.id_dim == 4
    assert newest.manifest.metrics["page_loss/regime:quick"] < newest.manifest.metrics["page_loss/regime:default"]


def test_a_share_of_the_users_decides_and_the_leader_learns_from_all(tmp_path: Path) -> None:
    engine = engine_of(settings_of(tmp_path, regimes={"share": 0.5}))
    feed(engine, pages(1600, taught=True))
    assert leader(engine) == "quick"
    state = engine.lines[0].state()["regimes"]
    counts = {name: float(regime["learner"]["items"]["positives"].sum()) for name, regime in state["regimes"].items()}
    assert counts["default"] == counts["quick"] == pytest.approx(800, abs=80)
    # The leader took over with what its share had taught it, and has learned from everybody since.
    assert float(state["leading"]["learner"]["items"]["positives"].sum()) > counts["quick"] + 100
    assert engine.lines[0].learner.settings.learning_rate == 0.05


def test_one_that_diverges_never_leads_and_says_so(tmp_path: Path) -> None:
    meters = Meters()
    engine = engine_of(settings_of(tmp_path), meters)
    feed(engine, pages(40, taught=True))
    assert leader(engine) == "default"
    regime = engine.lines[0]._regimes._regimes["quick"]
    with torch.no_grad():
        for weight in regime.learner.model.parameters():
            weight.fill_(torch.nan)
    feed(engine, pages(400, taught=True, first=40))
    assert leader(engine) == "default"
    value = meters.registry.get_sample_value
    assert value("trainer_regime_diverged", {"model": "two_tower", "regime": "quick"}) == 1
    assert value("trainer_regime_diverged", {"model": "two_tower", "regime": "default"}) == 0
    assert value("trainer_nan_steps_total", {"model": "two_tower"}) == 0  # those are of what is published


def test_a_leader_that_diverges_gives_way(tmp_path: Path) -> None:
    engine = engine_of(settings_of(tmp_path))
    feed(engine, pages(1200, taught=True))
    assert leader(engine) == "quick"
    with torch.no_grad():
        for weight in engine.lines[0].learner.model.parameters():
            weight.fill_(torch.nan)
    feed(engine, pages(80, taught=True, first=1200))
    assert leader(engine) == "default"
    (snapshot,) = engine.snapshots()
    assert isinstance(snapshot, Snapshot)
    assert np.isfinite(snapshot.item_vectors).all()


def test_the_same_stream_decides_the_same_in_every_bit(tmp_path: Path) -> None:
    snapshots = []
    for name in ("one", "other"):
        engine = engine_of(settings_of(tmp_path / name, regimes={"share": 0.7}))
        feed(engine, pages(1500, taught=True))
        assert leader(engine) == "quick"
        snapshots += engine.snapshots()
    one, other = (each for each in snapshots if isinstance(each, Snapshot))
    assert one.manifest == other.manifest
    assert (one.item_vectors == other.item_vectors).all()
    assert one.tower == other.tower


def test_a_regime_that_learns_at_other_places_can_take_the_lead(tmp_path: Path) -> None:
    places = {"model": QUICK["model"] | {"learn_at": "last-k", "learn_at_last": 2}}
    engine = engine_of(settings_of(tmp_path, regimes={"variants": {"places": places}}))
    feed(engine, pages(800, taught=True))
    assert leader(engine) == "places"
    assert engine.lines[0].learner.settings.learn_at_last == 2


@pytest.mark.parametrize(("ablated", "led_by"), [(["guess"], []), ([], ["mean-start"])])
def test_a_leader_is_served_without_its_own_optional_part_alone(
    tmp_path: Path, ablated: list[str], led_by: list[str]
) -> None:
    """Regimes may differ in whether they have a guess that can be left out: what counts is the leader's."""
    quick = {"model": QUICK["model"] | {"without": led_by}}
    regimes = {"variants": {"quick": quick}, "half_life": 150, "margin": 0.01, "lead": 60}
    model = {"learning_rate": 1e-6, "without": ablated}
    settings = small_settings(tmp_path, models=["t2diff"], model=model, regimes=regimes, **NEVER)
    engine = engine_of(settings)
    (line,) = engine.lines
    assert line.learner.served.encoder.left_out == (not ablated)
    feed(engine, pages(600, taught=True))
    assert leader(engine) == "quick"
    assert line.learner.served.encoder.left_out == (not led_by), "it has not been measured, so it is not served"
