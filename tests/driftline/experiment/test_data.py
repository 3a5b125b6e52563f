import json

import numpy as np
import pandas as pd
import pytest
import yaml

from driftline.cli.app import main
from driftline.experiment.data import public
from tests.abtest.abtest_cases import into_sqlite

EXPERIMENT = {
    "name": "week",
    "salt": "week",
    "start": "2026-03-01T00:00:00+00:00",
    "end": "2026-03-08T00:00:00+00:00",
    "arms": {"control": {"weight": 1, "model": "two_tower"}, "treatment": {"weight": 1, "model": "t2diff"}},
    "control": "control",
    "metrics": [{"name": "play", "kind": "mean", "columns": ["play_s"], "role": "primary"}],
}


def run(*arguments, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["driftline", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code or 0, capsys.readouterr()


@pytest.fixture
def week(tmp_path):
    """An experiment's file, rows of users and days, and what the users did before."""
    (tmp_path / "week.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    random = np.random.default_rng(4)
    user, day = np.nonzero(random.random((200, 7)) < 0.6)
    arm = np.where(user % 2 == 0, "control", "treatment")
    play = random.exponential(60.0, len(user)) * np.where(user % 2 == 0, 1.0, 1.4)
    days = pd.DataFrame({"user_id": user, "arm": arm, "day": day, "play_s": play})
    days.to_parquet(tmp_path / "days.parquet", index=False)
    pre = pd.DataFrame({"user_id": np.arange(200), "play_s": random.exponential(60.0, 200)})
    into_sqlite(tmp_path / "days.sqlite", days=days, pre=pre)
    return tmp_path


def effects(folder):
    found = json.loads((folder / "report.json").read_text())
    return {key: found[key] for key in ("metrics", "days", "courses", "split", "counts", "verdicts")}


def test_a_report_is_made_of_rows_wherever_they_are_and_again_of_what_was_saved(week, capsys, monkeypatch):
    command = ("experiment", "report", "-s", week / "week.yaml")
    saved = week / "state.npz"
    url = f"sqlite://{week}/days.sqlite"
    for out, options in {
        "parquet": ("--data", week / "days.parquet", "--pre", url, "--pre-table", "pre", "--save-state", saved),
        "sqlite": ("--data", url, "--table", "SELECT * FROM days", "--pre-table", "pre"),
        "saved": ("--state", saved),
    }.items():
        code, said = run(*command, *options, "--out", week / out, capsys=capsys, monkeypatch=monkeypatch)
        assert (code, said.err) == (0, "")
    parquet = effects(week / "parquet")
    assert parquet == effects(week / "sqlite") == effects(week / "saved")
    assert parquet["counts"]["rows"] == len(pd.read_parquet(week / "days.parquet"))
    (line,) = parquet["metrics"][0]["effects"]
    assert line["adjusted"] is not None
    assert line["effect"]["ci_low"] > 0


def test_a_day_is_added_to_those_kept_and_the_report_is_that_of_all(week, capsys, monkeypatch):
    days = pd.read_parquet(week / "days.parquet")
    first = sorted(days.day.unique())[:4]
    days[days.day.isin(first)].to_parquet(week / "first.parquet")
    days[~days.day.isin(first)].to_parquet(week / "rest.parquet")
    command = ("experiment", "report", "-s", week / "week.yaml")
    kept = ("--keep", week / "kept")
    for out, options in {
        "first": ("--data", week / "first.parquet", *kept),
        "added": ("--data", week / "rest.parquet", *kept),
        "again": ("--data", week / "days.parquet", *kept),
        "whole": ("--data", week / "days.parquet"),
    }.items():
        code, said = run(*command, *options, "--out", week / out, capsys=capsys, monkeypatch=monkeypatch)
        assert (code, said.err) == (0, "")
    added, whole = effects(week / "added"), effects(week / "whole")
    assert added == effects(week / "again")
    assert added["counts"] == whole["counts"]
    for one, other in zip(added["metrics"], whole["metrics"], strict=True):
        for name in ("relative", "ci_low", "fieller_high", "p_value"):
            found, expected = (of["effects"][0]["effect"][name] for of in (one, other))
            assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--table", "days"), "Give --data or --state, one of them."),
        (("--state", "none.npz"), "There is no saved aggregate at none.npz."),
        (("--state", "none.npz", "--table", "days"), "--table, --pre, --pre-table and --keep go with --data."),
        (("--state", "none.npz", "--keep", "kept"), "--table, --pre, --pre-table and --keep go with --data."),
        (("--data", "none.parquet", "--keep", __file__), "is a file; --keep takes a folder."),
        (("--data", "none.parquet"), "There is no Parquet or CSV file at none.parquet."),
        (("--data", "none.parquet", "--state", "none.npz"), "Give --data or --state, one of them."),
        (("--data", "duckdb:////none/x.duckdb", "--table", "days"), "There is no file /none/x.duckdb."),
        ((), "For a report on rows or on an aggregate, add --data or --state."),
    ],
)
def test_what_cannot_be_done_is_one_sentence(week, capsys, monkeypatch, options, said):
    code, output = run(
        "experiment", "report", "-s", week / "week.yaml", *options, capsys=capsys, monkeypatch=monkeypatch
    )
    assert code == 2
    assert said in output.err


def test_a_file_without_rows_is_one_sentence(week, capsys, monkeypatch):
    days = pd.read_parquet(week / "days.parquet").head(0)
    typed, untyped = week / "typed.parquet", week / "untyped.parquet"
    days.astype({"arm": "string"}).to_parquet(typed, index=False)
    days.assign(arm=pd.Series([], dtype=object)).to_parquet(untyped, index=False)
    said = {
        typed: f"There are no rows in {typed}.",
        untyped: "Column 'arm' of the table has no type, as where there are no rows; it must be text.",
    }
    for path, sentence in said.items():
        for command in (("report", "-s"), ("plan",)):
            code, output = run(
                "experiment", *command, week / "week.yaml", "--data", path, capsys=capsys, monkeypatch=monkeypatch
            )
            assert (code, output.err) == (2, f"driftline: {sentence}\n")


def test_a_password_in_a_url_does_not_reach_the_report():
    assert public("postgres://me:secret@db.example.org:5432/x?a=b") == "postgres://me:***@db.example.org:5432/x?a=b"
    assert public("/data/rows@2026.parquet") == "/data/rows@2026.parquet"
