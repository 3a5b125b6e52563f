"""Very many experiments: as many false alarms as stated, and intervals that hold the truth as often as stated."""

import numpy as np
import pytest

from benchmarks.abtest.aa import LIFTS, measure, only, replicate, synthetic


def test_a_replicate_has_an_effect_for_every_metric_way_and_lift():
    population = synthetic(5000)
    effects = replicate(population, 4000, LIFTS, np.random.default_rng(0))
    assert len(effects) == len(population.metrics) * 2 * len(LIFTS)
    for (_, _, lift), effect in effects.items():
        assert effect.ci_low < effect.relative < effect.ci_high
        assert effect.relative == pytest.approx(
            lift, abs=8 * effect.difference_std_error / effect.difference * lift + 0.5
        )
    for metric in population.metrics:
        raw, cuped = (effects[metric.name, way, 0.0].difference_std_error for way in ("raw", "cuped"))
        assert cuped < 1.02 * raw


def test_a_metric_alone_has_the_effects_that_it_has_among_others():
    population = synthetic(2000)
    alone = only(population, ["app_usage"])
    assert alone.columns == ("usage_s", "pre.usage_s")
    one, other = (replicate(of, 400, (0.0, 0.2), np.random.default_rng(5)) for of in (alone, population))
    for key, effect in one.items():
        assert effect.p_value == pytest.approx(other[key].p_value)


def test_the_same_seed_gives_the_same_figures():
    population = synthetic(2000)
    one, two = (measure(population, 5, 200, seed=3) for _ in range(2))
    assert one["aa_false_positive"] == two["aa_false_positive"]
    assert one["coverage"] == two["coverage"]


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_equal_arms_are_told_apart_as_often_as_stated():
    """100,000 replicates: a rate of .05 has a standard error of .0007, so the band is 4.4 of them wide on each side.

    At 20,000 one of twenty true levels of .05 would fall outside by chance.
    """
    found = measure(synthetic(), 100_000, 4_000, seed=2, lifts=(0.0,))
    for metric, ways in found["aa_false_positive"].items():
        for way, tests in ways.items():
            for test, level in tests.items():
                assert 0.047 <= level["rate"] <= 0.053, (metric, way, test, level)
                assert level["uniform_p"] > 0.01, (metric, way, test, level)


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_relative_intervals_hold_planted_lifts_as_often_as_stated():
    """20,000 replicates at each lift: the band is 3.2 standard errors wide on each side.

    CUPED's interval may cover more often where the effect is large (`abtest.stats.cuped` says why), never less.
    """
    found = measure(synthetic(), 20_000, 4_000, seed=1)
    for metric, ways in found["coverage"].items():
        for way, lifts in ways.items():
            for lift, covered in lifts.items():
                highest = 0.955 if way == "raw" or float(lift) <= 0.05 else 1.0
                for interval, share in covered.items():
                    assert 0.945 <= share <= highest, (metric, way, lift, interval, share)
