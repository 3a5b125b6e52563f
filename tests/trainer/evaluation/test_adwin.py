"""Our ADWIN beside River's, which is the reference."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.drift import ADWIN

from trainer.evaluation.adwin import Adwin

stretches = st.lists(
    st.tuples(st.integers(1, 700), st.floats(0, 1)), min_size=1, max_size=6
)  # how many values, and their mean


def _stream(stretches: list[tuple[int, float]], seed: int, *, hits: bool) -> list[float]:
    rng = np.random.default_rng(seed)
    values = [rng.random(n) < mean if hits else rng.normal(mean, 0.1, n) for n, mean in stretches]
    return [float(value) for value in np.concatenate(values)]


@given(stretches, st.integers(0, 2**32), st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_is_rivers_bit_for_bit_and_goes_on_from_its_state(
    stretches: list[tuple[int, float]], seed: int, hits: bool
) -> None:
    values = _stream(stretches, seed, hits=hits)
    ours, reference = Adwin(0.002), ADWIN(delta=0.002)
    for at, value in enumerate(values):
        changed = ours.update(value)
        reference.update(value)
        assert (changed, ours.mean) == (reference.drift_detected, reference.estimation)
        assert ours.state()["variance"] == reference.variance
        if at % 97 == 0:
            restored = Adwin(0.002)
            restored.restore(ours.state())
            assert restored.state() == ours.state()
            ours = restored


def test_changes_are_found_where_river_finds_them() -> None:
    values = _stream([(3000, 0.3), (2000, 0.2), (2000, 0.4)] * 4, 5, hits=True)
    ours, reference = Adwin(0.002), ADWIN(delta=0.002)
    found: list[list[int]] = [[], []]
    for at, value in enumerate(values):
        if ours.update(value):
            found[0].append(at)
        reference.update(value)
        if reference.drift_detected:
            found[1].append(at)
    assert found[0] == found[1]
    assert len(found[0]) >= 11
    assert all(after > before for before, after in pairwise(found[0]))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": []},
        {"rows": [[[0.0, 0.0]] * 6]},
        {"rows": [[[0.0]]]},
        {"rows": [[[0.0, float("nan")]]]},
        {"rows": [[[0.0, 0.0]], []]},
        {"rows": [[[0.0, 0.0]]] * 61},
        {"rows": 7},
        {"total": float("inf")},
        {"total": "many"},
        {"variance": None},
        {"tick": -1},
        {"tick": 0.5},
        {"changed": 1},
    ],
)
def test_what_is_no_state_of_it_changes_nothing(change: dict[str, Any]) -> None:
    window = Adwin(0.002)
    for value in _stream([(500, 0.3)], 1, hits=True):
        window.update(value)
    before = window.state()
    with pytest.raises(ValueError, match="the state of a drift detector"):
        window.restore({**before, **change})
    assert window.state() == before
