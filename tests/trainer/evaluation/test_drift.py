import numpy as np
import pytest

from trainer.evaluation.drift import DriftDetector, Drifts


def test_drift_is_seen_in_both_directions_and_a_steady_stream_is_quiet() -> None:
    rng = np.random.default_rng(3)
    detector = DriftDetector()
    assert detector.add(rng.random(20_000) < 0.3) == Drifts(0, 0)
    assert detector.add(rng.random(2000) < 0.2) == Drifts(better=0, worse=1)
    assert detector.add(rng.random(2000) < 0.3) == Drifts(better=1, worse=0)


def test_a_detector_goes_on_from_its_state_as_if_undisturbed() -> None:
    rng = np.random.default_rng(3)
    undisturbed, restored = DriftDetector(), DriftDetector()
    undisturbed.add(rng.random(2000) < 0.3)
    restored.restore(undisturbed.state())
    hits = rng.random(2000) < 0.2
    found = [[each.add(hits[at : at + 50]) for at in range(0, 2000, 50)] for each in (undisturbed, restored)]
    assert found[0] == found[1]
    assert Drifts(better=0, worse=1) in found[0]
    assert undisturbed.mean == restored.mean


def test_a_window_that_was_pickled_is_never_unpickled() -> None:
    detector = DriftDetector()
    detector.restore({"adwin": b"cos\nsystem\n(S'exit 1'\ntR."})
    assert detector.mean == 0
    with pytest.raises(ValueError, match="lacks its window"):
        detector.restore({})
