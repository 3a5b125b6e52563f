import math

import numpy as np
import pytest

from contracts.features import Floats, Ints
from trainer.evaluation.progressive import HALF_LIFE, MAX_ARMS, NEW_BELOW, Progress
from trainer.evaluation.ranking import Foresight


def foresight(ranks: Ints, losses: float | Floats = 1.0, chances: float | Floats = 0.5) -> Foresight:
    return Foresight(ranks, *(np.broadcast_to(np.float32(v), ranks.shape) for v in (losses, chances)))


def add(progress: Progress, ranks: Ints, arm: str = "", learned: int = 0) -> None:
    progress.add(foresight(ranks), [arm] * len(ranks), np.full(len(ranks), learned, np.float32))


def test_recall_by_scope_adds_up() -> None:
    progress = Progress()
    progress.add(foresight(np.array([1, 21, 101])), ["", "control", "control"], np.array([0, NEW_BELOW, 0], np.float32))
    add(progress, np.array([20]), "treatment", learned=NEW_BELOW - 1)
    metrics = progress.metrics()
    assert metrics["recall@20"] == pytest.approx(0.5)
    assert metrics["recall@100"] == pytest.approx(0.75)
    assert metrics["recall@20/outside"] == 1
    assert metrics["recall@100/arm:control"] == pytest.approx(0.5)
    assert metrics["recall@20/items:new"] == pytest.approx(2 / 3)
    assert metrics["recall@100/items:old"] == 1
    assert metrics["examples/arm:treatment"] == 1
    assert metrics["examples"] == 4


def test_a_recent_example_counts_half_after_a_half_life_however_it_is_cut_into_batches() -> None:
    whole, parts = Progress(), Progress()
    ranks = np.concatenate([np.full(HALF_LIFE, 1000), np.full(HALF_LIFE, 1)])
    add(whole, ranks, "a")
    for part in np.array_split(ranks, 7):
        add(parts, part, "a")
    for progress in (whole, parts):
        metrics = progress.metrics()
        assert metrics["recall@20"] == pytest.approx(0.5)
        assert metrics["recall@20/recent"] == pytest.approx(2 / 3)  # 1 beside ½
        assert metrics["recall@20/recent/arm:a"] == pytest.approx(2 / 3)
        assert metrics["examples/recent"] == pytest.approx(0.75 * HALF_LIFE / math.log(2), rel=1e-3)


def test_calibration_sees_a_model_that_is_right_on_average_and_wrong_about_whom() -> None:
    ranks = np.array([1, 1, 1000, 1000])
    knows, guesses, mistakes = Progress(), Progress(), Progress()
    for progress, chances in ((knows, [0.99, 0.99, 0.01, 0.01]), (guesses, [0.5] * 4), (mistakes, [0, 0, 1, 1])):
        progress.add(foresight(ranks, 1.0, np.array(chances)), [""] * 4, np.zeros(4, np.float32))
    assert [p.metrics()["expected_recall@20"] for p in (knows, guesses, mistakes)] == pytest.approx([0.5] * 3)
    errors = [p.metrics()["calibration_error"] for p in (knows, guesses, mistakes)]
    assert errors == pytest.approx([0.01, 0, 1], abs=1e-6)


def test_arms_without_number_take_no_memory_without_number() -> None:
    progress = Progress()
    for arm in range(3 * MAX_ARMS):
        add(progress, np.array([1]), f"arm-{arm}")
    metrics = progress.metrics()
    assert sum(name.startswith("examples/arm:") for name in metrics) == MAX_ARMS
    assert metrics["examples/arms:other"] == 2 * MAX_ARMS


def test_progress_goes_on_from_its_state_as_if_undisturbed() -> None:
    rng = np.random.default_rng(0)
    undisturbed, before, after = Progress(), Progress(), Progress()
    for progress in (undisturbed, before):
        add(progress, np.arange(1, 300), "a")
    after.restore(before.state())
    add(before, np.arange(1, 300), "spoils no state that was given away")
    more = rng.integers(1, 300, 200)
    for progress in (undisturbed, after):
        add(progress, more, "b", learned=99)
    assert after.metrics() == undisturbed.metrics()


def test_nothing_tested_is_no_number_at_all() -> None:
    assert Progress().metrics() == {}
