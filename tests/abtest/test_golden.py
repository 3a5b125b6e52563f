"""Published experiments: the numbers of their readmes from our own accumulator."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from abtest.analysis import compare_arms
from abtest.metrics import Mean
from abtest.stats import Moments, split_check

DATA = Path(os.environ.get("DRIFTLINE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def read(name: str) -> pd.DataFrame:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not there; DRIFTLINE_DATA names the folder of public data sets")
    return pd.read_parquet(path)


def analyse(frame: pd.DataFrame, arm: str, columns: tuple[str, ...], control: str):
    moments = {
        str(name): Moments.of(columns, rows[list(columns)].to_numpy(np.float64)) for name, rows in frame.groupby(arm)
    }
    metrics = tuple(Mean(column, column, "", "", column) for column in columns)
    return {result.metric: result for result in compare_arms(metrics, moments, control)}


def test_cookie_cats():
    frame = read("cookie-cats/cookie_cats.parquet")
    results = analyse(frame, "version", ("retention_1", "retention_7"), "gate_30")
    one, seven = results["retention_1"], results["retention_7"]
    assert {arm.arm: arm.users for arm in one.arms} == {"gate_30": 44_700, "gate_40": 45_489}
    assert [round(arm.value, 6) for arm in one.arms] == [0.448188, 0.442283]
    assert [round(arm.value, 6) for arm in seven.arms] == [0.190201, 0.182000]
    assert one.effects[0].effect.p_value == pytest.approx(0.0744, abs=2e-4)  # published: pooled z-test
    assert seven.effects[0].effect.p_value == pytest.approx(0.00155, abs=2e-5)
    split = split_check(frame["version"].value_counts().to_dict(), {"gate_30": 1, "gate_40": 1})
    assert round(split.p_value, 4) == 0.0086
    assert not split.mismatch


def test_hillstrom():
    frame = read("hillstrom/hillstrom.parquet")
    results = analyse(frame, "segment", ("visit", "conversion", "spend"), "No E-Mail")
    published = {
        "Mens E-Mail": (21_307, 0.182757, 0.012531, 1.422617),
        "Womens E-Mail": (21_387, 0.151400, 0.008837, 1.077202),
        "No E-Mail": (21_306, 0.106167, 0.005726, 0.652789),
    }
    for i, result in enumerate(results.values()):
        for arm in result.arms:
            assert arm.users == published[arm.arm][0]
            assert round(arm.value, 6) == published[arm.arm][i + 1]
        assert {line.arm for line in result.effects} == {"Mens E-Mail", "Womens E-Mail"}
        assert all(line.effect.ci_low > 0 for line in result.effects)
