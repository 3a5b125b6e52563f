import numpy as np
import pytest

from trainer.data.decayed import DecayedSample

HALF_LIFE = 1000


def filled(serials: range, size: int = 200, seed: int = 0) -> DecayedSample[int]:
    sample = DecayedSample[int](size, HALF_LIFE, seed)
    for serial in serials:
        sample.offer(serial, serial, serial)
    return sample


def test_a_value_of_a_half_life_ago_is_half_as_likely() -> None:
    values = np.concatenate([filled(range(6000), seed=seed).values() for seed in range(5)])
    of_each_half_life = np.bincount(values // HALF_LIFE, minlength=6)
    assert of_each_half_life[5] / of_each_half_life[4] == pytest.approx(2, rel=0.15)
    assert of_each_half_life[4] / of_each_half_life[3] == pytest.approx(2, rel=0.15)


def test_a_sample_is_a_function_of_what_was_offered_and_not_of_the_order() -> None:
    forth, back = filled(range(2000)), filled(range(1999, -1, -1))
    assert forth.values() == back.values() == sorted(forth.values())
    assert len(forth) == 200
    assert filled(range(2000), seed=1).values() != forth.values()


def test_samples_of_two_parts_make_the_sample_of_the_whole() -> None:
    first, second = filled(range(1000)), filled(range(1000, 2000))
    first.absorb(second)
    assert first.values() == filled(range(2000)).values()
    assert second.values() == []


def test_a_sample_goes_on_from_its_state_as_if_undisturbed() -> None:
    restored = filled(range(0))
    restored.restore(filled(range(1000)).state())
    for serial in range(1000, 2000):
        restored.offer(serial, serial, serial)
    assert restored.values() == filled(range(2000)).values()
