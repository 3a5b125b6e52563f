import numpy as np

from world.randomness import uniforms


def test_numbers_look_uniform_and_independent_across_counters_lanes_streams_and_seeds():
    grid = uniforms(1, 0, np.arange(5000)[:, None], np.arange(8))
    assert 0 < grid.min() < grid.max() < 1
    assert abs(grid.mean() - 0.5) < 0.01
    assert abs(grid.var() - 1 / 12) < 0.002
    others = [
        uniforms(2, 0, np.arange(5000)[:, None], np.arange(8)),
        uniforms(1, 1, np.arange(5000)[:, None], np.arange(8)),
    ]
    for other in [*others, np.roll(grid, 1, axis=0), np.roll(grid, 1, axis=1)]:
        assert abs(np.corrcoef(grid.ravel(), other.ravel())[0, 1]) < 0.02


def test_a_number_is_a_function_of_its_counters_alone():
    together = uniforms(3, 1, np.arange(10)[:, None], np.arange(4))
    alone = [uniforms(3, 1, np.array([i]), np.array([j]))[0] for i in range(10) for j in range(4)]
    assert together.ravel().tolist() == alone
