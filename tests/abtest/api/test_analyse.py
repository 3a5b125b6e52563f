"""`abtest.analyse`: the figures of the command, from every kind of plan; and strangers' tables in a few lines."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import abtest
from benchmarks.abtest.published import COOKIE_CATS, HILLSTROM
from contracts.config.external import External, plan_of
from driftline.cli.app import app
from tests.abtest.test_golden import DATA

GATE = """
assignment: external
columns: {user: uid, arm: version}
control: gate_30
metrics:
  - {name: retention_7, kind: conversion, minimum_effect: 0.01}
  - {name: rounds, kind: count, column: sum_gamerounds, winsorize: {quantile: 0.999}}
"""


@pytest.fixture
def players() -> pd.DataFrame:
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "uid": [f"p{number}" for number in range(2_000)],
            "version": np.where(np.arange(2_000) % 2, "gate_30", "gate_40"),
            "sum_gamerounds": random.geometric(0.05, 2_000),
            "retention_7": random.random(2_000) < np.where(np.arange(2_000) % 2, 0.3, 0.5),
        }
    )


def test_the_figures_are_those_of_the_command(tmp_path, players):
    players.to_csv(tmp_path / "players.csv.gz", index=False)
    (tmp_path / "gate.yaml").write_text(GATE)
    options = ["-s", tmp_path / "gate.yaml", "--data", tmp_path / "players.csv.gz", "--out", tmp_path / "out"]
    shown = CliRunner().invoke(app, ["experiment", "report", *map(str, options)])
    assert shown.exit_code == 0, shown.output
    command = json.loads((tmp_path / "out" / "report.json").read_text())
    ours = json.loads(json.dumps(abtest.analyse(players, tmp_path / "gate.yaml").to_json()))
    assert {**ours, "context": None} == {**command, "context": None}
    assert ours["verdicts"][0]["decision"] == "ship"


def test_a_plan_is_a_mapping_a_file_or_an_experiment(tmp_path, players):
    (tmp_path / "gate.yaml").write_text(GATE)
    mapping = yaml.safe_load(GATE)
    experiment = plan_of(mapping, "plan")
    assert isinstance(experiment, External)
    plans = [mapping, tmp_path / "gate.yaml", str(tmp_path / "gate.yaml"), experiment]
    first, *others = [abtest.analyse(players, plan).to_json() for plan in plans]
    assert all(other == first for other in others)
    with pytest.raises(
        abtest.SettingsError, match="A plan is a mapping, the path of a YAML file or an experiment, not in"
    ):
        abtest.analyse(players, 7)


def test_a_report_is_a_page_a_frame_json_and_words(tmp_path, players):
    report = abtest.analyse(players, yaml.safe_load(GATE))
    assert [verdict.decision for verdict in report.verdicts] == ["ship"]
    assert str(report).startswith("Ship: gate_40. Retention 7 rose")
    frame = report.to_frame()
    assert frame["metric"].tolist() == ["retention_7", "rounds"]
    share = players.groupby("version")["retention_7"].mean()
    assert frame["control"].tolist()[0] == pytest.approx(share["gate_30"])
    assert frame["relative"].tolist()[0] == pytest.approx(share["gate_40"] / share["gate_30"] - 1, abs=0.01)
    assert (frame["ci_low"] < frame["relative"]).all()
    page = report._repr_html_()
    assert page.startswith("<iframe")
    assert page.count("<") == 2  # its own tags alone
    assert "&lt;h1&gt;experiment&lt;/h1&gt;" in page
    report.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json", "report.md"}


def test_values_that_differ_by_standard_errors_do_not_read_as_the_same():
    random = np.random.default_rng(3)
    arm = np.arange(4_000) % 2
    level = 100 + 0.02 * arm + random.normal(0, 0.1, 4_000)
    rows = pd.DataFrame({"variant": np.where(arm, "new", "old"), "level": level})
    plan = {
        "columns": {"arm": "variant"},
        "control": "old",
        "metrics": [{"name": "level", "kind": "mean", "unit": "K"}],
    }
    report = abtest.analyse(rows, plan)
    old, new = (level[arm == each].mean() for each in (0, 1))
    for text in (report.to_html(), report.to_markdown()):
        assert f"{old:.3f} K" in text
        assert f"{new:.3f} K" in text


def test_where_there_are_no_models_no_word_is_of_models(players):
    report = abtest.analyse(players, yaml.safe_load(GATE))
    for text in (report.to_html(), report.to_markdown()):
        words = text.partition("</style>")[2] or text
        for word in ("model", "recall", "snapshot", "exposure", "exposed", "salt", "1970"):
            assert word not in words.lower().replace("&#34;", '"').partition('"experiment": {')[0], word


def test_rows_of_driftline_s_own_experiments_are_read_with_what_users_did_before():
    from tests.abtest.read.read_cases import WEEK, people

    days, pre = people()
    report = abtest.analyse(days, WEEK, before=pre)
    assert report.result.pre_period
    with pytest.raises(abtest.DataError, match="before goes with rows of users and days"):
        abtest.analyse(days, yaml.safe_load(GATE), before=pre)


def test_no_rows_are_said_to_be_none(players):
    with pytest.raises(abtest.DataError, match="Column 'version' has no value in any row; an exp"):
        abtest.analyse(players.head(0), yaml.safe_load(GATE))
    nobody = players.head(0).astype({"uid": "string", "version": "string"})
    with pytest.raises(abtest.DataError, match="There are no rows"):
        abtest.analyse(nobody, {**yaml.safe_load(GATE), "arms": ["gate_30", "gate_40"]})


def test_the_manual_s_plan_makes_a_report_of_events():
    manual = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = manual.partition("## A table of your own")[2]
    plan = yaml.safe_load(section.split("```yaml\n")[1].split("```")[0])
    random = np.random.default_rng(8)
    user = random.integers(0, 900, 9_000)
    events = pd.DataFrame({"uid": user, "variant": np.where(user % 2, "old", "new")})
    events["at"] = pd.Timestamp("2026-03-01") + pd.to_timedelta(random.integers(0, 5 * 86_400, 9_000), unit="s")
    events["event"] = np.where(random.random(9_000) < 0.1, "buy", "see")
    events["amount"] = random.exponential(30, 9_000)
    report = abtest.analyse(events, plan)
    frame = report.to_frame().set_index("metric")
    bought = events[events["event"] == "buy"]
    sums = bought.groupby("variant")["amount"].agg(["sum", "count"])
    assert frame["control"]["basket"] == pytest.approx(sums["sum"]["old"] / sums["count"]["old"])
    users = events.groupby("variant")["uid"].nunique()
    assert frame["treatment"]["buyers"] == pytest.approx(
        bought.groupby("variant")["uid"].nunique()["new"] / users["new"]
    )
    assert [day.date for day in report.result.days] == [f"2026-03-0{day}" for day in range(1, 6)]


def public(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not there; DRIFTLINE_DATA names the folder of public data sets")
    return DATA / name


def test_cookie_cats_in_three_lines():
    plan = {"columns": {"user": "userid", "arm": "version"}, "control": "gate_30"}
    metrics = [{"name": "retention_7", "kind": "conversion"}, {"name": "sum_gamerounds", "kind": "count"}]
    report = abtest.analyse(public(COOKIE_CATS), {**plan, "metrics": metrics})
    assert [verdict.decision for verdict in report.verdicts] == ["hold"]
    frame = report.to_frame()
    assert (frame["control"][0], frame["treatment"][0]) == pytest.approx((0.190201, 0.182000), abs=1e-6)


def test_hillstrom_in_nine_lines_of_yaml(tmp_path):
    written = """
assignment: external
columns: {arm: segment}
control: No E-Mail
covariates: [history, recency]
metrics:
  - {name: visit, kind: conversion}
  - {name: spend, kind: revenue, unit: $}
"""
    assert len(written.strip().splitlines()) <= 10
    (tmp_path / "hillstrom.yaml").write_text(written)
    report = abtest.analyse(public(HILLSTROM), tmp_path / "hillstrom.yaml")
    assert report.result.arms == ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
    frame = report.to_frame().set_index(["metric", "arm"])
    assert frame.loc[("visit", "Mens E-Mail"), "treatment"] == pytest.approx(0.182757, abs=1e-6)
    assert frame.loc[("spend", "Womens E-Mail"), "treatment"] == pytest.approx(1.077202, abs=1e-6)
    assert {each.arm for each in report.result.pre_period} == {"Mens E-Mail", "Womens E-Mail"}
