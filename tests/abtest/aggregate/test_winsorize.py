"""Tables with capped columns, by numbers worked out by hand and beside the users' capped sums themselves."""

import numpy as np
import pytest

from abtest.aggregate.aggregate import aggregate
from abtest.aggregate.archive import Counted, load, save
from abtest.aggregate.user_days import arranged
from abtest.aggregate.winsorize import capped, capped_sums, caps_of, pooled_sums, table_of
from abtest.collect.state import CollectorState, folded
from abtest.stats.columns import Column
from abtest.stats.jackknife import jackknife
from abtest.stats.metrics import Capped, Mean, capped_columns
from contracts.config.experiment import MetricPlan, SettingsError, Winsorize
from contracts.runtime.clock import DAY_MS, MINUTE_MS
from tests.abtest.abtest_cases import START, experiment, exposure, feedback, observe, rules

AT = Capped("x capped at 7", "x", Winsorize(at=7), "m")
POOLED = Capped("x capped at quantile 0.6", "x", Winsorize(quantile=0.6), "m")
FEW = {  # user: (arm, sums by day)
    1: (0, {0: 2.0, 1: 3.0, 2: 1.0}),
    2: (0, {0: 10.0, 2: 5.0}),
    3: (1, {1: 4.0, 2: 4.0}),
    4: (1, {0: 1.0}),
    5: (1, {0: 20.0, 1: -15.0, 2: 2.0}),
}


def few(which=tuple(FEW)):
    rows = [(day, place, x) for place, user in enumerate(which) for day, x in FEW[user][1].items()]
    day, user, x = (np.array(column) for column in zip(*rows, strict=True))
    arm = np.array([FEW[user][0] for user in which])
    return arranged(("a", "b"), ("x",), (), np.array(which), arm, np.zeros((len(which), 0)), day, user, x[:, None])


def with_cap(table, *wanted):
    return capped(table, caps_of(wanted, pooled_sums(table, wanted), {}, in_advance=True))


@pytest.mark.parametrize("wanted", [AT, POOLED])  # sums are 1, 6, 7, 8 and 15: three of five do not exceed 7
def test_five_users_capped_at_seven(wanted):
    table = with_cap(few(), wanted)
    user_of, by_user = table.user_id[table.user], {}
    for user, day, added in zip(user_of.tolist(), table.day.tolist(), table.values[:, 1].tolist(), strict=True):
        by_user.setdefault(user, {})[day] = added
    assert by_user == {
        1: {0: 2.0, 1: 3.0, 2: 1.0},
        2: {0: 7.0, 2: 0.0},
        3: {1: 4.0, 2: 3.0},
        4: {0: 1.0},
        5: {0: 7.0, 1: -2.0, 2: 2.0},  # what it loses below the threshold counts
    }
    assert table.values[:, 0].sum() == 37
    whole = aggregate(table)
    assert whole.caps[wanted.name].threshold == 7
    assert whole.caps[wanted.name].capped == {"a": 1, "b": 1}  # 15 and 8; 7 is not above 7
    metric = Mean("m", "m", "", "", wanted.name)
    means = [{arm: metric.estimate(m).value for arm, m in whole.through(day).items()} for day in range(3)]
    assert [each["a"] for each in means] == [4.5, 6.0, 6.5]
    assert [each["b"] for each in means] == pytest.approx([4.0, 10 / 3, 5.0], rel=1e-15)
    assert metric.estimate(whole.through(2)["a"]).variance == pytest.approx(0.25, rel=1e-14)  # of 6 and 7
    assert metric.estimate(whole.through(2)["b"]).variance == pytest.approx(4.0, rel=1e-14)  # of 7, 1 and 7


def test_a_cap_without_a_threshold_caps_nothing_and_says_so():
    nothing = few((4,))
    zero = caps_of([POOLED], {"x": np.zeros(3)}, {}, in_advance=True)
    table = capped(nothing, zero)
    assert table.values[:, 0].tolist() == table.values[:, 1].tolist()
    assert table.caps[POOLED.name].reason == "that quantile is 0, and at 0 nothing would be left"
    assert table.caps[POOLED.name].capped == {"a": 0, "b": 0}


def crowd(users=300, seed=3):
    random = np.random.default_rng(seed)
    user, day = np.nonzero(random.random((users, 5)) < 0.6)
    seen, user = np.unique(user, return_inverse=True)
    values = random.lognormal(1.0, 1.5, (len(user), 1))
    pre = random.lognormal(1.0, 1.5, (len(seen), 1))
    return arranged(("a", "b"), ("x",), ("pre.x",), seen, random.integers(0, 2, len(seen)), pre, day, user, values)


def test_looks_buckets_and_the_largest_user_are_those_of_the_capped_sums():
    table = with_cap(crowd(), AT)
    whole, metric = aggregate(table), Mean("m", "m", "", "", AT.name)
    jointly = whole.looks(range(5))
    final = np.zeros(0)
    for last in range(5):
        upto = table.day <= last
        sums = np.minimum(np.bincount(table.user[upto], table.values[upto, 0], len(table.arm)), 7)
        for i, arm in enumerate(table.arms):
            mine = sums[table.arm == i]
            assert jointly[arm].total(Column(AT.name, through=last)) == pytest.approx(mine.sum(), rel=1e-12)
            place = jointly[arm].place(Column(AT.name, through=last))
            spread = jointly[arm].products[place, place]
            assert spread == pytest.approx(((mine - mine.mean()) ** 2).sum(), rel=1e-9)
        final = sums
    direct = arranged(
        ("a", "b"),
        (AT.name,),
        ("pre.x",),
        table.user_id,
        table.arm,
        table.pre,
        np.zeros(len(final), int),
        np.arange(len(final)),
        final[:, None],
    )
    of_sums = aggregate(direct)
    for arm in table.arms:
        np.testing.assert_allclose(whole.buckets[arm].sums[:, 1], of_sums.buckets[arm].sums[:, 0], rtol=1e-12)
        assert whole.largest[arm].users[1, 1] == pytest.approx(7.0, rel=1e-12)
    ours = jackknife(metric, whole.buckets["b"], whole.buckets["a"])
    theirs = jackknife(metric, of_sums.buckets["b"], of_sums.buckets["a"])
    assert ours.difference_std_error == pytest.approx(theirs.difference_std_error, rel=1e-9)


def test_aggregates_of_one_threshold_merge_and_of_different_ones_do_not(tmp_path):
    parts = [few((1, 3)), few((2, 4, 5))]
    merged = aggregate(with_cap(parts[0], AT)) + aggregate(with_cap(parts[1], AT))
    assert merged.caps == aggregate(with_cap(few(), AT)).caps
    assert merged.moments["b"].total(Column(AT.name, 0)) == 8.0
    apart = [aggregate(with_cap(part, POOLED)) for part in parts]
    with pytest.raises(ValueError, match="capped at different thresholds"):
        apart[0] + apart[1]
    with pytest.raises(ValueError, match="other arms or columns"):
        apart[0] + aggregate(parts[1])
    save(Counted(merged), experiment(), tmp_path / "a.npz")
    assert load(tmp_path / "a.npz", experiment()).aggregate.caps == merged.caps


def plays(*sums):
    """Users 1, 2, … who play so many seconds on the first three days, users of an even number in the treatment."""
    for user, days in enumerate(sums, start=1):
        for day, seconds in enumerate(days):
            at, request = START + day * DAY_MS + user * MINUTE_MS, f"{user} on {day}"
            yield exposure(user, "control" if user % 2 else "treatment", at, request)
            yield feedback(user, at + MINUTE_MS, request, 1, play_ms=seconds * 1000)


def play(**winsorize):
    return experiment(
        metrics=(MetricPlan(name="p", kind="mean", columns=("play_s",), role="primary", winsorize=winsorize),)
    )


def test_a_collector_s_users_are_capped_at_their_pooled_quantile():
    wanted = play(quantile=0.6)
    table = table_of(folded(observe(CollectorState(rules()), *plays((2, 3), (9, 1), (4, 1), (1, 1)))), wanted)
    (cap,) = table.caps.values()
    assert (cap.threshold, cap.among, cap.capped) == (5.0, 4, {"control": 0, "treatment": 1})  # of 2, 5, 5 and 10
    assert not cap.in_advance


def test_a_quantile_of_what_users_did_before_is_of_all_who_did_something_then():
    wanted = play(quantile=0.6, of="pre")
    before = [
        event
        for user, seconds in enumerate((5, 6, 7, 8, 90), start=2)
        for event in (
            exposure(user, "", START - 2 * DAY_MS + user * MINUTE_MS, f"{user} before", experiment=""),
            feedback(user, START - 2 * DAY_MS + (user + 1) * MINUTE_MS, f"{user} before", play_ms=seconds * 1000),
        )
    ]
    state = folded(observe(CollectorState(rules()), *before, *plays((20, 3), (9, 1), (4, 1))))
    (cap,) = table_of(state, wanted).caps.values()
    assert (cap.threshold, cap.among) == (7.0, 5)  # users 4, 5 and 6 have not come, and user 1 was not there before
    assert cap.capped == {"control": 1, "treatment": 1}
    assert cap.in_advance


def test_what_the_collector_does_not_know_from_before_is_refused():
    plan = MetricPlan(
        name="u", kind="mean", columns=("usage_s",), role="primary", winsorize={"quantile": 0.9, "of": "pre"}
    )
    with pytest.raises(SettingsError, match=r"Metric 'u' is capped .* there is no 'pre.usage_s'; known from before"):
        table_of(CollectorState(rules()), experiment(metrics=(plan,)))


def test_sums_over_one_stretch_of_time_are_capped_at_their_own_quantile_or_value():
    columns, values = capped_sums(("x", "y"), np.array([[1.0, 1], [6, 1], [7, 1], [8, 1], [15, 1]]), [AT, POOLED])
    assert columns == ("x", "y", AT.name, POOLED.name)
    assert values[:, 2].tolist() == values[:, 3].tolist() == [1, 6, 7, 7, 7]
    assert capped_sums(("y",), values[:, :1], [AT])[0] == ("y",)


def test_two_metrics_of_one_cap_have_one_column():
    plans = [
        MetricPlan(name="a", kind="mean", columns=("x",), role="primary", winsorize={"at": 7}),
        MetricPlan(name="b", kind="ratio", columns=("x", "y"), winsorize={"at": 7}),
        MetricPlan(name="c", kind="mean", columns=("x",)),
    ]
    assert capped_columns(experiment(metrics=plans)) == (Capped("x capped at 7", "x", Winsorize(at=7), "a"),)
