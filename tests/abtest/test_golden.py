"""The statistics beside those of other libraries, and published experiments: the numbers of their readmes."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from abtest.stats.cuped import adjust
from abtest.stats.effects import compare
from abtest.stats.metrics import Mean
from abtest.stats.moments import Moments
from abtest.stats.split import split_check
from benchmarks.abtest import golden
from benchmarks.abtest.published import COOKIE_CATS, HILLSTROM, cookie_cats, hillstrom, results

DATA = Path(os.environ.get("DRIFTLINE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def check(pairs):
    found = list(pairs)
    assert found
    worst = max(found, key=lambda pair: pair.error)
    assert worst.error < 1e-9, worst


@pytest.mark.parametrize("oracle", [golden.means, golden.ratios, golden.cuped, golden.exact])
def test_effects_intervals_and_p_values_are_those_of_the_oracles(oracle):
    check(oracle(golden.users()))


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_other_users_make_no_difference(seed):
    check(golden.means(golden.users(seed)))
    check(golden.cuped(golden.users(seed)))


def test_effects_intervals_and_p_values_are_those_of_tea_tasting():
    pytest.importorskip("tea_tasting", reason="tea-tasting is not installed; it is an oracle of the tests only")
    check(golden.tea_tasting(golden.users()))


def test_the_largest_error_of_all_is_one_number():
    assert 0 < golden.golden_max_relative_error() < 1e-9


def read(name: str) -> pd.DataFrame:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not there; DRIFTLINE_DATA names the folder of public data sets")
    return pd.read_parquet(path)


def same(numbers):
    found = list(numbers)
    assert found
    assert [each for each in found if not each.agrees] == []


def test_cookie_cats_gives_what_was_published():
    frame = read(COOKIE_CATS)
    same(cookie_cats(frame))
    seven = results(frame, "version", ("retention_7",), "gate_40")["retention_7"].effects[0].effect
    assert seven.difference_p_value == pytest.approx(0.00155, abs=1e-5)  # published: with the variance pooled
    assert seven.ci_low > 0
    assert not split_check(frame["version"].value_counts().to_dict(), {"gate_30": 1, "gate_40": 1}).mismatch


def test_hillstrom_gives_what_was_published():
    frame = read(HILLSTROM)
    same(hillstrom(frame))
    for result in results(frame, "segment", ("visit", "conversion", "spend"), "No E-Mail").values():
        assert {line.arm for line in result.effects} == {"Mens E-Mail", "Womens E-Mail"}
        assert all(line.effect.ci_low > 0 for line in result.effects)


def test_a_number_that_was_not_published_so_is_told():
    arms = ["gate_30", "gate_40"] * 2
    frame = pd.DataFrame({"version": arms, "retention_1": [0, 1, 1, 1], "retention_7": [0, 1, 1, 0]})
    wrong = [each.what for each in cookie_cats(frame) if not each.agrees]
    assert "cookie cats, users of gate_30" in wrong


def test_hillstroms_spend_adjusted_by_what_was_spent_before_is_the_regressions():
    """CUPED by `history` (dollars in the year before) and `recency`, beside statsmodels on the customers' rows."""
    frame = read(HILLSTROM)
    frame = frame[frame["segment"] != "Womens E-Mail"]
    columns, covariates = ("spend", "visit", "history", "recency"), ["history", "recency"]
    treated = (frame["segment"] == "Mens E-Mail").to_numpy()
    values = frame[list(columns)].to_numpy(np.float64)
    moments = {"mens": Moments.of(columns, values[treated]), "none": Moments.of(columns, values[~treated])}
    for place, name in enumerate(("spend", "visit")):
        found = adjust(moments, Mean(name, name, "", "", name), covariates)
        y, X = values[:, place], values[:, 2:]
        theta = sm.OLS(y, sm.add_constant(X)).fit().params[1:]
        residual = y - (X - X.mean(axis=0)) @ theta
        oracle = CompareMeans(DescrStatsW(residual[treated]), DescrStatsW(residual[~treated]))
        effect = compare(found.estimates["mens"], found.estimates["none"])
        z, p_value = oracle.ztest_ind(usevar="unequal")
        assert effect.difference / effect.difference_std_error == pytest.approx(z, rel=1e-9)
        assert effect.difference_p_value == pytest.approx(p_value, rel=1e-9)
        assert effect.difference_low == pytest.approx(oracle.zconfint_diff(usevar="unequal")[0], rel=1e-9)
        assert 0 < found.variance_removed < 0.05
