"""What weights examples get by what came of them, and what a model learns of that."""

from pathlib import Path

import numpy as np
import pytest

from contracts.config.objective import ObjectiveSettings
from contracts.wire.events_pb2 import Example
from tests.trainer.trainer_cases import START_MS, make_catalogue, make_example, make_item, small_settings
from trainer.data.batches import encode
from trainer.data.catalogue import Announced
from trainer.engine import Engine
from trainer.learn.objective import HALF_LIFE, Objective
from trainer.meters import Meters


def outcomes(count: int, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    plays, follows = rng.lognormal(10.5, 1, count).astype(np.int64), rng.random(count) < 0.02
    return [Example(play_time_ms=int(play), follow=bool(follow)) for play, follow in zip(plays, follows, strict=True)]


@pytest.mark.parametrize("wanted", [{"play": 1}, {"play": 3, "follow": 20}, {"effective_view": 0, "play": 1}])
def test_the_mean_weight_is_one(wanted):
    objective = Objective(ObjectiveSettings(**wanted))
    examples = outcomes(12_800)
    weights = np.concatenate([objective.weigh(examples[at : at + 128]) for at in range(0, len(examples), 128)])
    assert weights[:128].mean() == pytest.approx(1, abs=1e-6)
    assert weights.mean() == pytest.approx(1, abs=0.02)
    assert weights.std() > 0.2


def test_a_weight_is_proportional_to_what_is_wanted_of_the_outcome():
    wanted = ObjectiveSettings(effective_view=1, play=2, follow=6, play_cap_ms=40_000)
    played = [(10_000, False), (40_000, False), (90_000, False), (10_000, True)]
    weights = Objective(wanted).weigh([Example(play_time_ms=play, follow=follow) for play, follow in played])
    values = np.array([1 + 2 * 0.4, 1 + 2 * 1.6, 1 + 2 * 1.6, 1 + 2 * 0.4 + 6])  # the mean of the capped plays is 25 s
    assert weights == pytest.approx(values / (1 + 2 + 6 / 4))


@pytest.mark.parametrize("wanted", [{}, {"effective_view": 5}])
def test_where_effective_views_alone_are_wanted_all_weigh_exactly_one(wanted):
    weights = Objective(ObjectiveSettings(**wanted)).weigh(outcomes(100))
    assert weights.dtype == np.float32
    assert (weights == 1).all()


def test_plays_that_nobody_reports_and_follows_that_nobody_does_weigh_one():
    weights = Objective(ObjectiveSettings(play=3, follow=2)).weigh([Example()] * 7)
    assert (weights == 1).all()


def test_the_one_play_that_is_reported_counts_ten_times_at_most():
    examples = [Example()] * 999 + [Example(play_time_ms=60_000)]
    assert Objective(ObjectiveSettings(effective_view=0, play=1)).weigh(examples).max() == 10


def test_the_calibration_follows_the_log():
    objective = Objective(ObjectiveSettings(effective_view=0, play=1))
    for _ in range(HALF_LIFE // 100):
        objective.weigh([Example(play_time_ms=10_000)] * 100)
    for _ in range(HALF_LIFE // 100):
        last = objective.weigh([Example(play_time_ms=40_000)] * 100)
    # After one half-life the old examples' weight is a third: ½ of it is left of Σ 2^(-n/h) over one, beside all of it.
    assert last[0] == pytest.approx(40 / ((40 * 2 + 10) / 3), rel=0.01)


def test_it_goes_on_from_its_state():
    one, other = (Objective(ObjectiveSettings(play=1, follow=1)) for _ in range(2))
    one.weigh(outcomes(300))
    other.restore(one.state())
    later = outcomes(50, seed=1)
    assert (one.weigh(later) == other.weigh(later)).all()
    assert not np.array_equal(Objective(ObjectiveSettings(play=1, follow=1)).weigh(later), one.weigh(later))


def page_share(root: Path, objective: dict[str, float], model: str) -> float:
    """How likely the model thinks item 2 beside item 3: both follow item 1 as often, and 3 is played thrice as long."""
    settings = small_settings(root, models=[model], objective=objective, model={"learning_rate": 0.01})
    engine = Engine(settings, Meters())
    catalogue = make_catalogue(3)
    for number in range(1, 4):
        engine.take_item(Announced(number, make_item(number)), START_MS, "items:0", number)
    for offset in range(8 * 200):
        example = make_example([1], 2 + offset % 2)
        example.play_time_ms = (10_000, 30_000)[offset % 2]
        engine.take(example, "examples:0", offset)
    asked = make_example([1], 2)
    asked.page.item_ids.extend([2, 3])
    asked.page.effective_views.extend([True, False])
    (loss,) = engine.lines[0].learner.page_losses(encode([asked], catalogue, settings.trainer.model.window))
    return float(np.exp(-loss))


@pytest.mark.parametrize("model", ["two_tower", "t2diff"])
def test_a_model_ranks_by_what_is_wanted(tmp_path, model):
    assert page_share(tmp_path / "views", {}, model) == pytest.approx(1 / 2, abs=0.04)
    assert page_share(tmp_path / "play", {"effective_view": 0, "play": 1}, model) == pytest.approx(1 / 4, abs=0.04)
