"""Very many weeks in which nothing differs, judged by the whole rule: as few false words as stated."""

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.abtest.verdicts import measure, names_of, power

DATA = Path(os.environ["DRIFTLINE_DATA"]) if "DRIFTLINE_DATA" in os.environ else None
QUICK = ("clean", "payers_1000", "heavy_user", "five_arms")


@pytest.mark.parametrize("shape", QUICK)
def test_the_verdict_rarely_cries_wolf(shape):
    found = measure([shape], 200, 3, None)
    assert found["verdict_false_ship"][shape]["keeps"], found
    assert found["verdict_false_hold"][shape]["keeps"], found


def test_an_unknown_shape_is_left_out():
    assert measure(["hillstrom_500"], 1, 1, None)["verdict_false_ship"] == {}


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shape", names_of(DATA))
def test_the_verdict_keeps_its_level_by_shape(shape):
    found = measure([shape], 2000, 2, DATA)
    assert found["verdict_false_ship"][shape]["keeps"], found
    assert found["verdict_false_hold"][shape]["keeps"], found


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_clean_weeks_with_a_lift_ship_as_often_as_by_one_plain_interval():
    found = power(1000, np.random.default_rng(2))
    assert 0.3 < found["ships_today"] < 0.99  # else the comparison says nothing
    assert found["power_kept"] >= 0.97
