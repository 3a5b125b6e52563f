"""Capped sums that add up over days, and what is a cap."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abtest.stats.winsorize import Cap, capped_column, contributions, quantile_cap, value_cap
from contracts.config.experiment import Winsorize

ROWS = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(0, 9)),  # day and user
    st.floats(-1e6, 1e6) | st.integers(-50, 200).map(float),
    max_size=60,
)


@given(ROWS, st.floats(0.01, 1e6) | st.integers(1, 300).map(float))
def test_through_any_day_a_user_s_contributions_are_the_smaller_of_sum_and_threshold(rows, threshold):
    day, user, values = (
        np.array([get(key) for key in sorted(rows)], dtype)
        for get, dtype in ((lambda k: k[0], int), (lambda k: k[1], int), (rows.get, float))
    )
    added, sums = contributions(day, user, values, 10, threshold)
    for last in range(7):
        for each in range(10):
            mine = (user == each) & (day <= last)
            total = np.cumsum(values[mine])[-1] if mine.any() else 0.0
            assert added[mine].sum() == pytest.approx(min(total, threshold), rel=1e-9, abs=1e-6)
            if last == 6:
                assert sums[each] == total


def test_below_the_threshold_a_row_stays_the_very_number_that_it_is():
    values = np.array([0.1, 0.2, 0.3])
    added, _ = contributions(np.arange(3), np.zeros(3, int), values, 1, 0.7)
    assert added.tolist() == [0.1, 0.2, 0.3]  # (0.1 + 0.2) - 0.1 is not 0.2 in doubles
    uncapped, _ = contributions(np.arange(3), np.zeros(3, int), values, 1, None)
    assert uncapped.tolist() == values.tolist()


@pytest.mark.parametrize(("quantile", "threshold"), [(0.51, 3.0), (0.6, 3.0), (0.61, 4.0), (0.8, 4.0), (0.999, 50.0)])
def test_a_quantile_is_the_least_value_that_so_many_users_do_not_exceed(quantile, threshold):
    cap = quantile_cap("x", np.array([4.0, 1.0, 50.0, 2.0, 3.0]), quantile, "pooled", in_advance=False)
    assert (cap.threshold, cap.among, cap.reason) == (threshold, 5, None)


@pytest.mark.parametrize(
    ("values", "of", "reason"),
    [
        ([0.0, 0.0, 0.0, 9.0], "pooled", "that quantile is 0, and at 0 nothing would be left"),
        ([-3.0, -2.0, -1.0], "pre", "that quantile is -2, and at -2 nothing would be left"),
        ([], "pooled", "there are no users yet"),
        ([], "pre", "nobody is known from before"),
    ],
)
def test_where_no_sum_is_capped_the_reason_is_given(values, of, reason):
    cap = quantile_cap("x", np.array(values), 0.6, of, in_advance=True)
    assert (cap.threshold, cap.reason) == (None, reason)


def test_names_tell_caps_apart_and_are_no_metric_s_own():
    hows = [Winsorize(at=1200), Winsorize(at=0.5), Winsorize(quantile=0.99), Winsorize(quantile=0.99, of="pre")]
    names = [capped_column("play_s", how) for how in hows]
    assert names == [
        "play_s capped at 1200",
        "play_s capped at 0.5",
        "play_s capped at quantile 0.99",
        "play_s capped at quantile 0.99 of pre",
    ]


def test_caps_at_one_threshold_add_up_and_others_are_refused():
    one, other = (replace(value_cap("x", 5.0), capped={"a": n, "b": 1}) for n in (2, 3))
    assert (one + other).capped == {"a": 5, "b": 2}
    for unlike in (value_cap("x", 6.0), Cap("x", "pooled", 0.9, 5.0, among=10), Cap("y", "value", threshold=5.0)):
        with pytest.raises(ValueError, match="capped at different thresholds, or at quantiles of different users"):
            one + unlike
