"""Sources of one arm: against sums and resampling of the users, coverage, and merging."""

import numpy as np
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.sources import RATIOS, Votes, compare_sources
from abtest.aggregate.user_days import Parts, arranged
from abtest.aggregate.user_parts import MET
from abtest.collect.records import EventSums
from abtest.stats.columns import Column
from abtest.stats.interleaving import preference
from abtest.stats.moments import Moments

SOURCES = ("t2diff", "two_tower", "unseen")
MEASURES = ("recalls", "views", "effective_views", "follows", "play_ms")
LIFT = 0.2


def arm(random, users, lift=LIFT):
    """(users, sources, measures): two sources share each user's activity and taste; the third shows nothing."""
    activity, taste = random.gamma(1.0, 1.0, users), random.beta(2, 6, users)
    appetite = random.lognormal(2.5, 0.7, users)
    values = np.zeros((users, len(SOURCES), len(MEASURES)))
    for i, (share, better) in enumerate(((8, 1 + lift), (16, 1.0))):
        views = random.poisson(share * activity)
        values[:, i, 0] = views + random.poisson(3 * activity)
        values[:, i, 1] = views
        values[:, i, 2] = random.binomial(views, np.minimum(taste * better, 1))
        values[:, i, 3] = random.binomial(views, 0.03 * better)
        values[:, i, 4] = 1000 * views * appetite * better * random.lognormal(0, 0.3, users)
    return values


def moments(values):
    columns = [Column(column, part=source) for source in SOURCES for column in MEASURES]
    return Moments.of(columns, values.reshape(len(values), len(columns)))


def votes(values, sources=SOURCES):
    return Votes.of(sources, values[:, :, 2], values[:, :, 0] > 0)


def by_name(values):
    return {row.source: row for row in compare_sources(moments(values), "two_tower", votes(values))}


def test_values_are_sums_over_sums():
    values = arm(np.random.default_rng(1), 500)
    results = by_name(values)
    for i, source in enumerate(SOURCES[:2]):
        views, effective, follows, play_ms = values[:, i, 1:].sum(axis=0)
        of = {name: value.estimate.value for name, value in results[source].values.items()}
        assert of == pytest.approx(
            {"evr": effective / views, "follow_rate": follows / views, "play_s_per_view": play_ms / 1000 / views}
        )


def test_an_aggregates_part_is_what_sources_are_compared_by():
    values = arm(np.random.default_rng(8), 300)
    user, part = (values[:, :, 0] > 0).nonzero()
    tallies = np.zeros((len(user), len(EventSums._fields)))
    tallies[:, [EventSums._fields.index(column) for column in MEASURES]] = values[user, part]
    numbers, none = np.arange(300), np.zeros((300, 0))
    table = arranged(
        ["a"], [], [], numbers, 0 * numbers, none, 0 * numbers, numbers, none,
        parts={"source": Parts(SOURCES, part, user, tallies)},
    )  # fmt: skip
    of = aggregate(table).parts["source"]["a"]
    assert Column(MET, part="t2diff") in of.columns
    direct = {row.source: row for row in compare_sources(moments(values), "two_tower")}
    for row in compare_sources(of, "two_tower"):
        for name, value in row.values.items():
            other = direct[row.source].values[name]
            assert value.low == (other.low and pytest.approx(other.low, rel=1e-9))
            assert (value.against is None) == (row.source == "two_tower")
            if row.source == "t2diff":
                assert value.against.p_value == pytest.approx(other.against.p_value, rel=1e-6)


def test_errors_are_those_of_leaving_out_each_user_in_turn():
    values = arm(np.random.default_rng(2), 2000)
    results = by_name(values)["t2diff"]
    for name, (above, unit) in RATIOS.items():
        sums = unit * values[:, :, MEASURES.index(above)]
        without = (sums.sum(axis=0) - sums)[:, :2] / (values[:, :, 1].sum(axis=0) - values[:, :, 1])[:, :2]
        of = results.values[name]
        assert of.estimate.std_error == pytest.approx(_jackknife(without[:, 0]), rel=0.01)
        assert of.against.difference_std_error == pytest.approx(_jackknife(without[:, 0] - without[:, 1]), rel=0.01)
        log_error = np.log((1 + of.against.ci_high) / (1 + of.against.relative)) / 1.959963984540054
        assert log_error == pytest.approx(_jackknife(np.log(without[:, 0] / without[:, 1])), rel=0.01)


def test_what_users_share_makes_the_paired_difference_sharper():
    results = by_name(arm(np.random.default_rng(3), 2000))
    apart = np.hypot(*(results[source].values["play_s_per_view"].estimate.std_error for source in SOURCES[:2]))
    assert results["t2diff"].values["play_s_per_view"].against.difference_std_error < 0.6 * apart


def test_intervals_hold_the_planted_lift_and_equal_sources_stay_equal():
    """600 replicates: a coverage of .95 has a standard error of .009, so the band is 3 wide on each side."""
    random = np.random.default_rng(4)
    held, false, value = (dict.fromkeys(RATIOS, 0) for _ in range(3))
    truth = {"follow_rate": 0.03 * (1 + LIFT)}
    for _ in range(600):
        lifted, equal = by_name(arm(random, 600))["t2diff"], by_name(arm(random, 600, 0.0))["t2diff"]
        for name in RATIOS:
            effect = lifted.values[name].against
            held[name] += effect.ci_low <= LIFT <= effect.ci_high
            false[name] += equal.values[name].against.p_value < 0.05
        for name, true in truth.items():
            value[name] += lifted.values[name].low <= true <= lifted.values[name].high
    assert value["follow_rate"] / 600 == pytest.approx(0.95, abs=0.027)
    for name in RATIOS:
        assert held[name] / 600 == pytest.approx(0.95, abs=0.027), name
        assert false[name] / 600 == pytest.approx(0.05, abs=0.027), name


def test_preference_is_that_of_the_users_who_saw_one_of_the_two():
    values = arm(np.random.default_rng(5), 800)
    saw = (values[:, :2, 0] > 0).any(axis=1)
    assert 0 < saw.sum() < 800
    direct = preference(values[saw, 0, 2], values[saw, 1, 2])
    results = by_name(values)
    assert results["t2diff"].preference == direct
    assert results["two_tower"].preference is None
    assert results["two_tower"].values["evr"].against is None


def test_a_source_that_showed_nothing_has_reasons_not_numbers():
    unseen = by_name(arm(np.random.default_rng(6), 100))["unseen"]
    for value in unseen.values.values():
        assert (value.estimate.value, value.estimate.reason, value.low) == (None, "no views", None)
        assert value.against.reason == "no views of source unseen"
    assert unseen.preference.wins == 0
    assert compare_sources(moments(np.zeros((0, 3, 5))), "unseen")[0].values["evr"].estimate.reason == "no users"


def test_too_few_users_no_events_or_no_noise_are_said():
    values = np.array([[[9.0, 4, 2, 0, 0], [9, 4, 1, 0, 0], [0] * 5], [[9, 4, 1, 0, 0], [9, 4, 2, 0, 0], [0] * 5]])
    one, many = by_name(values[:1])["t2diff"].values, by_name(values)["t2diff"].values
    assert one["evr"].against.difference == pytest.approx(0.25)
    assert "fewer than 2 users" in one["evr"].against.reason
    assert many["evr"].against.difference_p_value == 1
    assert many["follow_rate"].against.reason == "not estimable: the value is 0 of source t2diff"
    same = by_name(values[:, [0, 0, 2]])["t2diff"].values["evr"].against
    assert (same.relative, same.ci_low) == (0, None)
    assert same.reason == "not estimable: all users alike, no variance"
    with pytest.raises(ValueError, match="no source 'c'; there are t2diff, two_tower, unseen"):
        compare_sources(moments(values), "c")


def test_merged_votes_are_those_of_all_users_even_where_they_know_different_sources():
    random = np.random.default_rng(7)
    values = arm(random, 100)
    values[:, 2] = values[random.permutation(100), 0]
    values[:50, 2] = 0
    values[50:, 1] = 0
    whole = votes(values)
    first = votes(values[:50, [1, 0]], ("two_tower", "t2diff"))
    second, third = votes(values[50:60, [0, 2]], ("t2diff", "unseen")), votes(values[60:])
    empty = votes(np.zeros((0, 0, 5)), ())
    for merged in (first + second + third, third + (first + second), empty + second + (third + first)):
        assert merged.sources == whole.sources
        assert np.array_equal(merged.ahead, whole.ahead)
        assert np.array_equal(merged.met, whole.met)
    assert (first + empty).between("t2diff", "two_tower") == votes(values[:50]).between("t2diff", "two_tower")


def _jackknife(without):
    return np.sqrt((len(without) - 1) * without.var())
