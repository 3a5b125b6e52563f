"""Very many weeks in which nothing differs, looked at every day and every hour: as many false alarms as stated."""

import numpy as np
import pytest

from benchmarks.abtest.peeking import HOURS, hourly, looks, measure, splits, week


@pytest.fixture(scope="module")
def population():
    return week(3000)


def test_users_of_the_week_come_back_and_new_ones_come_to_the_end(population):
    came = population.hours[..., 0].reshape(len(population.first), -1, HOURS).any(axis=2)
    assert 2.5 < came.sum(axis=1).mean() < 5
    assert (np.bincount(population.first // HOURS, minlength=7) > 20).all()


def test_group_sequential_looks_cry_wolf_less_often_than_naive_ones(population):
    found = looks(population, 1000, (4, 0), 300)
    for metric in ("evr", "app_usage"):
        assert found["group_sequential"][metric] <= 300 * 0.05 + 4 * np.sqrt(300 * 0.05 * 0.95)
        assert found["always_valid"][metric] <= 300 * 0.02 + 4 * np.sqrt(300 * 0.02)
        assert found["naive"][metric] > found["group_sequential"][metric]
        assert found["naive"][metric] >= 300 * 0.07


def test_a_confidence_sequence_stands_hourly_peeks(population):
    found = hourly(population, 1000, 5, 600)
    for metric in ("evr", "app_usage"):
        assert found["always_valid"][metric] <= 600 * 0.05
        assert found["naive"][metric] >= 600 * 0.13


@pytest.mark.parametrize("weights", [np.ones(2), np.array([0.9, 0.05, 0.05])])
def test_a_sequential_split_test_stands_a_look_after_every_user(population, weights):
    found = splits(population, 1000, 6, 1000, weights)
    assert found["daily"] <= found["every_user"] <= 6  # 1 is expected at most


@pytest.mark.proof
@pytest.mark.timeout(1500)
def test_a_week_of_peeking_cries_wolf_as_often_as_stated():
    """20,000 weeks: a rate of .05 has a standard error of .0015."""
    found = measure(20_000, 4_000, seed=1, processes=2)["peeking_false_positive"]
    for metric, level in found["group_sequential"].items():
        assert 0.045 <= level["rate"] <= 0.053, (metric, level)
    for peeks, metrics in found["confidence_sequence"].items():
        for metric, level in metrics.items():
            assert level["rate"] <= 0.05, (peeks, metric, level)
    for peeks, level in found["sequential_srm"].items():
        assert level["rate"] <= 0.001, (peeks, level)
    for metric, level in found["fixed_horizon_peeked_naively"]["daily"].items():
        assert level["low"] > 0.1, (metric, level)
