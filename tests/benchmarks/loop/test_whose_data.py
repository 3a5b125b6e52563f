import numpy as np
import pytest

from benchmarks.loop.whose_data import APART, MODES, Found, as_json, of_seed, only, shown, summaries
from evaluation.lab.plan import WorldPlan
from tests.benchmarks.loop.test_main import outcome

LEAST = WorldPlan(users=40, items=60, days=1, warmup_days=1)


def test_bias_is_the_estimates_less_the_truth_and_paired_with_the_split_without_interference():
    rows = [
        Found("models", APART, 0, 0.10, 0.15, 0.05, 0.25, 0.2, 0.2),
        Found("models", "own", 0, 0.10, 0.17, 0.12, 0.22, 0.2, 0.2),
        Found("models", APART, 1, 0.20, 0.15, 0.05, 0.25, 0.2, 0.2),
        Found("models", "own", 1, 0.20, 0.17, 0.07, 0.27, 0.2, 0.2),
    ]
    own, apart = (summaries(rows)[mode] for mode in ("own", APART))
    assert own.bias.mean == pytest.approx(0.02)
    assert own.paired.mean == pytest.approx(0.02)
    assert own.paired.std_error == pytest.approx(0, abs=1e-9)
    assert own.bias.std_error > 0.01
    assert apart.paired.mean == 0
    assert (apart.covered, own.covered) == (1, 0.5)
    assert own.rmse == pytest.approx(np.sqrt((0.07**2 + 0.03**2) / 2))
    assert own.width == pytest.approx(0.15)
    assert as_json(LEAST, rows)["pairs"]["models"]["own"]["covered"] == 0.5
    assert "| own |" in shown("models", rows)


def test_an_arms_users_are_taken_out_of_a_week_that_everybody_had():
    everybody, arm = outcome("control", 20), outcome("control", 20)
    arm.views[1] = 0
    taken = only(everybody, arm)
    assert taken.views[:, 0].tolist() == [100, 0]
    assert taken.effective[:, 0].tolist() == [20, 0]


def test_one_seed_gives_every_mode_a_row_beside_one_truth():
    rows = of_seed("models", LEAST, 0, 1)
    assert [row.mode for row in rows] == [APART, *MODES]
    assert len({row.truth for row in rows}) == 1
    assert len({row.estimate for row in rows}) == len(rows)  # each learns from other data
    assert all(row.low < row.estimate < row.high for row in rows)
