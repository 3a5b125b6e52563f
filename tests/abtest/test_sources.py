"""Sources of one arm: against sums and resampling of the users, coverage, and merging."""

import numpy as np
import pytest

from abtest.interleaving import preference
from abtest.records import Tally
from abtest.sources import MEASURES, RATIOS, BySource, compare_sources

SOURCES = ("t2diff", "two_tower", "unseen")
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
        values[:, i, 4] = views * appetite * better * random.lognormal(0, 0.3, users)
    return values


def by_name(values, alpha=0.05):
    return {row.source: row for row in compare_sources(BySource.of(SOURCES, values), "two_tower", alpha)}


def test_values_are_sums_over_sums_and_users_those_who_were_shown_something():
    values = arm(np.random.default_rng(1), 500)
    found = by_name(values)
    for i, source in enumerate(SOURCES[:2]):
        assert found[source].users == (values[:, i, 0] > 0).sum()
        assert found[source].totals == pytest.approx(dict(zip(MEASURES, values[:, i].sum(axis=0), strict=True)))
        for name, above in RATIOS.items():
            direct = values[:, i, MEASURES.index(above)].sum() / values[:, i, 1].sum()
            assert found[source].values[name].estimate.value == pytest.approx(direct, rel=1e-12)


def test_errors_are_those_of_leaving_out_each_user_in_turn():
    values = arm(np.random.default_rng(2), 2000)
    found = by_name(values)["t2diff"]
    for name, above in RATIOS.items():
        sums = values[:, :, MEASURES.index(above)]
        without = (sums.sum(axis=0) - sums)[:, :2] / (values[:, :, 1].sum(axis=0) - values[:, :, 1])[:, :2]
        of = found.values[name]
        assert of.estimate.std_error == pytest.approx(_jackknife(without[:, 0]), rel=0.01)
        assert of.against.difference_std_error == pytest.approx(_jackknife(without[:, 0] - without[:, 1]), rel=0.01)
        log_error = np.log((1 + of.against.ci_high) / (1 + of.against.relative)) / 1.959963984540054
        assert log_error == pytest.approx(_jackknife(np.log(without[:, 0] / without[:, 1])), rel=0.01)


def test_what_users_share_makes_the_paired_difference_sharper():
    found = by_name(arm(np.random.default_rng(3), 2000))
    apart = np.hypot(*(found[source].values["play_per_view_s"].estimate.std_error for source in SOURCES[:2]))
    assert found["t2diff"].values["play_per_view_s"].against.difference_std_error < 0.6 * apart


def test_intervals_hold_the_planted_lift_and_equal_sources_stay_equal():
    """1,000 replicates: a coverage of .95 has a standard error of .007, so the band is 3.3 wide on each side."""
    random = np.random.default_rng(4)
    held, false, value = (dict.fromkeys(RATIOS, 0) for _ in range(3))
    truth = {"follow_rate": 0.03 * (1 + LIFT)}
    for _ in range(1000):
        lifted, equal = by_name(arm(random, 600))["t2diff"], by_name(arm(random, 600, 0.0))["t2diff"]
        for name in RATIOS:
            effect = lifted.values[name].against
            held[name] += effect.ci_low <= LIFT <= effect.ci_high
            false[name] += equal.values[name].against.p_value < 0.05
        for name, true in truth.items():
            value[name] += lifted.values[name].low <= true <= lifted.values[name].high
    assert value["follow_rate"] / 1000 == pytest.approx(0.95, abs=0.023)
    for name in RATIOS:
        assert held[name] / 1000 == pytest.approx(0.95, abs=0.023), name
        assert false[name] / 1000 == pytest.approx(0.05, abs=0.023), name


def test_preference_is_that_of_the_users_who_saw_one_of_the_two():
    values = arm(np.random.default_rng(5), 800)
    saw = (values[:, :2, 0] > 0).any(axis=1)
    assert 0 < saw.sum() < 800
    direct = preference(values[saw, 0, 2], values[saw, 1, 2])
    found = by_name(values)
    assert found["t2diff"].preference == direct
    assert found["two_tower"].preference is None
    assert found["two_tower"].values["evr"].against is None


def test_a_source_that_showed_nothing_has_reasons_not_numbers():
    unseen = by_name(arm(np.random.default_rng(6), 100))["unseen"]
    assert unseen.users == 0
    for value in unseen.values.values():
        assert (value.estimate.value, value.estimate.reason, value.low) == (None, "no views", None)
        assert value.against.reason == "no views of source unseen"
    assert unseen.preference.wins == 0


def test_too_few_users_or_no_events_are_said():
    one = compare_sources(BySource.of_tallies([{"a": Tally(1, 9, 4, 2), "b": Tally(1, 9, 4, 1)}]), "b")[0]
    assert one.values["evr"].against.difference == pytest.approx(0.25)
    assert "fewer than 2 users" in one.values["evr"].against.reason
    none = compare_sources(BySource.of_tallies([{"a": Tally(1, 9, 4, i), "b": Tally(1, 9, 4)} for i in (1, 2)]), "b")[0]
    assert none.values["evr"].against.reason == "not estimable: the value is 0 of source b"
    assert none.values["evr"].against.difference_low is not None
    with pytest.raises(ValueError, match="no source 'c'; there are a"):
        compare_sources(BySource.of_tallies([{"a": Tally()}]), "c")


def test_merged_parts_give_all_users_even_where_they_know_different_sources():
    random = np.random.default_rng(7)
    users = [
        {
            source: Tally(1, 9, int(views), int(views) // (2 + place), 0, 1000 * int(random.integers(9)))
            for place, (source, views) in enumerate(zip(known, random.poisson(3, 3), strict=False))
        }
        for known in (("a", "b"), ("c",), (), ("b", "c"), ("a", "b", "c"))
        for _ in range(20)
    ]
    whole = BySource.of_tallies(users)
    parts = [BySource.of_tallies(users[i : i + 20]) for i in range(0, 100, 20)]
    for order in (parts, parts[::-1], [parts[0] + parts[1], parts[2] + parts[3] + parts[4]]):
        merged = sum(order[1:], order[0])
        assert merged.sources == whole.sources
        assert merged.moments.n == whole.moments.n
        assert np.array_equal(merged.ahead, whole.ahead)
        assert np.array_equal(merged.met, whole.met)
        assert merged.moments.means == pytest.approx(whole.moments.means, rel=1e-12, abs=1e-12)
        assert merged.moments.products == pytest.approx(whole.moments.products, rel=1e-9, abs=1e-9)


def _jackknife(without):
    return np.sqrt((len(without) - 1) * without.var())
