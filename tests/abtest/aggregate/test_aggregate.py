from functools import reduce
from operator import add

import numpy as np
import pytest

from abtest.aggregate.aggregate import BUCKETS, EXPOSED, aggregate
from abtest.aggregate.user_days import arranged
from abtest.stats.columns import Column
from abtest.stats.cumulative import FIRST, so_far
from abtest.stats.cuped import adjust
from abtest.stats.estimates import covariance
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Moments
from contracts.config.settings import SettingsError

COLUMNS, COVARIATES, DAYS = ("views", "ev"), ("pre.views", "pre.ev"), 4
EVR, VIEWS = Ratio("evr", "", "", "", "ev", "views"), Mean("views", "", "", "", "views")


def people(seed=1, users=300):
    """Users who come on some of four days: (user, day, column) with NaN where absent, arm and pre-period of each."""
    random = np.random.default_rng(seed)
    taste = random.beta(2, 3, users)
    views = random.poisson(5, (users, DAYS)) + 1.0
    seen = random.random((users, DAYS)) < 0.5
    seen[~seen.any(axis=1), 0] = True
    days = np.stack([views, random.binomial(views.astype(int), taste[:, None])], axis=2)
    before = random.poisson(20, users)
    pre = np.stack([before, random.binomial(before, taste)], axis=1) * (random.random(users) < 0.8)[:, None]
    return np.where(seen[..., None], days, np.nan), random.integers(0, 2, users), pre.astype(float)


def table_of(days, arm, pre, ids=None):
    user, day = np.nonzero(~np.isnan(days[..., 0]))
    ids = np.arange(len(arm)) + 1000 if ids is None else ids
    order = np.random.default_rng(0).permutation(len(user))
    user, day = user[order], day[order]
    return arranged(("a", "b"), COLUMNS, COVARIATES, ids, arm, pre, day, user, days[user, day])


@pytest.fixture(scope="module")
def crowd():
    return people()


@pytest.fixture(scope="module")
def whole(crowd):
    return aggregate(table_of(*crowd))


def assert_same(a: Moments, b: Moments, columns):
    assert a.n == b.n
    places, others = [a.place(c) for c in columns], [b.place(c) for c in columns]
    np.testing.assert_allclose(a.means[places], b.means[others], rtol=1e-12)
    np.testing.assert_allclose(
        a.products[np.ix_(places, places)], b.products[np.ix_(others, others)], rtol=1e-9, atol=1e-8
    )


@pytest.mark.parametrize("day", range(DAYS))
def test_one_day_is_as_if_only_its_users_had_been_looked_at(crowd, whole, day):
    days, arm, _ = crowd
    for i, name in enumerate("ab"):
        mine = days[(arm == i) & ~np.isnan(days[:, day, 0]), day]
        assert_same(whole.on(day)[name], Moments.of(COLUMNS, mine), COLUMNS)


@pytest.mark.parametrize("day", range(DAYS))
def test_all_days_so_far_are_as_if_only_users_seen_by_then_had_been_looked_at(crowd, whole, day):
    days, arm, pre = crowd
    for i, name in enumerate("ab"):
        inside = (arm == i) & ~np.isnan(days[:, : day + 1, 0]).all(axis=1)
        values = np.hstack((np.nansum(days[inside, : day + 1], axis=1), pre[inside]))
        assert_same(whole.through(day)[name], Moments.of((*COLUMNS, *COVARIATES), values), (*COLUMNS, *COVARIATES))


def test_looks_know_how_users_who_come_back_tie_them_together(crowd, whole):
    days, arm, _ = crowd
    mine = days[arm == 0]
    columns, parts = [], []
    for day in (1, 3):
        sums = np.nansum(mine[:, : day + 1], axis=1)
        seen = ~np.isnan(mine[:, : day + 1, 0]).all(axis=1)
        columns += [Column(name, through=day) for name in ("views", "ev", FIRST)]
        parts += [sums[:, 0], sums[:, 1], seen]
    direct = Moments.of(columns, np.stack(parts, axis=1).astype(float))
    found = whole.looks([1, 3])["a"]
    for metric in (EVR, VIEWS):
        pairs = [[so_far(metric, day).estimate(of) for day in (1, 3)] for of in (found, direct)]
        ours, theirs = (covariance(of, *pair) for of, pair in zip((found, direct), pairs, strict=True))
        assert ours == pytest.approx(theirs, rel=1e-9)
        assert [e.value for e in pairs[0]] == pytest.approx([e.value for e in pairs[1]], rel=1e-12)


def test_parts_that_share_no_user_merge_into_the_whole_in_any_order(crowd, whole):
    days, arm, pre = crowd
    ids = np.arange(len(arm)) + 1000
    cut = [slice(0, 90), slice(90, 200), slice(200, 300)]
    parts = [aggregate(table_of(days[c], arm[c], pre[c], ids[c]), days=DAYS) for c in cut]
    for found in (parts[0] + parts[1] + parts[2], parts[2] + (parts[0] + parts[1])):
        for name in "ab":
            assert_same(found.moments[name], whole.moments[name], whole.moments[name].columns)
            np.testing.assert_allclose(found.buckets[name].sums, whole.buckets[name].sums)
            for segment in whole.segments:
                assert found.segments[segment][name].n == whole.segments[segment][name].n


@pytest.mark.parametrize("cut", [(slice(0, 300),), (slice(0, 90), slice(90, 200), slice(200, 300))])
def test_who_stood_out_after_a_look_is_as_if_the_days_after_had_not_come(crowd, cut):
    days, arm, pre = crowd
    ids = np.arange(len(arm)) + 1000
    found = reduce(add, (aggregate(table_of(days[c], arm[c], pre[c], ids[c]), looks=range(DAYS)) for c in cut))
    for day in range(DAYS):
        early = days.copy()
        early[:, day + 1 :] = np.nan
        by_then = ~np.isnan(early[..., 0]).all(axis=1)
        expected = aggregate(table_of(early[by_then], arm[by_then], pre[by_then], ids[by_then]), days=DAYS)
        largest, buckets = found.standouts(day)
        for name in "ab":
            np.testing.assert_array_equal(largest[name].users, expected.largest[name].users)
            np.testing.assert_array_equal(buckets[name].sums, expected.buckets[name].sums)
            np.testing.assert_array_equal(buckets[name].counts, expected.buckets[name].counts)


def test_a_look_that_was_not_kept_is_told(whole):
    with pytest.raises(SettingsError, match="does not look after day 2; make it again by this plan"):
        whole.standouts(1)


def test_a_piece_that_saw_fewer_days_merges_into_one_that_saw_more(crowd):
    days, arm, pre = crowd
    early = days.copy()
    early[:, 2:] = np.nan
    early = early[:100]
    kept = ~np.isnan(early[..., 0]).all(axis=1)
    piece = aggregate(table_of(early[kept], arm[:100][kept], pre[:100][kept]))
    other = aggregate(table_of(days[100:], arm[100:], pre[100:], np.arange(200) + 5000))
    both = piece + other
    assert (piece.days, both.days) == (2, DAYS)
    assert both.users["a"] == piece.users["a"] + other.users["a"]
    assert both.moments["a"].total(Column(EXPOSED, 3)) == other.moments["a"].total(Column(EXPOSED, 3))


def test_buckets_hold_every_user_once_and_do_not_follow_the_arms(crowd, whole):
    counts = [whole.buckets[name].counts for name in "ab"]
    assert [int(c.sum()) for c in counts] == list(whole.users.values())
    assert all(len(c) == BUCKETS for c in counts)


def test_cuped_at_any_look_uses_those_seen_by_then(crowd, whole):
    days, arm, pre = crowd
    seen = ~np.isnan(days[:, 0, 0])
    direct = {}
    for i, name in enumerate("ab"):
        inside = (arm == i) & seen
        direct[name] = Moments.of((*COLUMNS, *COVARIATES), np.hstack((days[inside, 0], pre[inside])))
    ours, theirs = (adjust(of, EVR, COVARIATES) for of in (whole.through(0), direct))
    for name in "ab":
        assert ours.estimates[name].value == pytest.approx(theirs.estimates[name].value, rel=1e-10)
        assert ours.estimates[name].variance == pytest.approx(theirs.estimates[name].variance, rel=1e-9)


def test_other_columns_do_not_merge(crowd, whole):
    with pytest.raises(ValueError, match="do not merge"):
        whole + aggregate(table_of(*crowd), columns=["views"])


def test_nobody_at_all_is_an_aggregate_of_nothing():
    nobody = np.zeros(0, np.int64)
    empty = aggregate(
        arranged(("a", "b"), COLUMNS, COVARIATES, nobody, nobody, np.zeros((0, 2)), nobody, nobody, np.zeros((0, 2)))
    )
    assert (empty.days, empty.users) == (1, {"a": 0, "b": 0})
