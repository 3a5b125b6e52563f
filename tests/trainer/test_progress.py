import numpy as np
import pytest

from trainer.progress import Progress


def test_recall_by_scope_adds_up() -> None:
    progress = Progress()
    progress.add(np.array([1, 21, 101]), ["", "control", "control"])
    progress.add(np.array([20]), ["treatment"])
    metrics = progress.metrics()
    assert metrics["recall@20"] == pytest.approx(0.5)
    assert metrics["recall@100"] == pytest.approx(0.75)
    assert metrics["recall@20/outside"] == 1
    assert metrics["recall@100/arm:control"] == pytest.approx(0.5)
    assert metrics["examples/arm:treatment"] == 1
    assert metrics["examples"] == 4


def test_the_recent_window_forgets() -> None:
    progress = Progress()
    progress.add(np.full(5000, 1000), [""] * 5000)
    progress.add(np.full(5000, 1), [""] * 5000)
    metrics = progress.metrics()
    assert metrics["recall@20/recent"] == 1
    assert metrics["recall@20"] == pytest.approx(0.5)


def test_nothing_tested_is_no_number_at_all() -> None:
    assert Progress().metrics() == {}
