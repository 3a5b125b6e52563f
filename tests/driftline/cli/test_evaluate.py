"""`driftline evaluate`, from the words to the exit code."""

import json
import sys
from pathlib import Path

import pytest

from driftline.cli.app import main
from evaluation import movielens as movielens_data
from evaluation.results import read_all
from tests.evaluation import toys

SMALL = ["--dim", "4", "--window", "6", "--epochs", "1", "--batch-size", "16"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toys.movielens(tmp_path / "ml")


def evaluate(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["driftline", "evaluate", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_table_says_what_was_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(monkeypatch, "--data", folder, "--model", "markov", "--model", "two_tower", *SMALL) == 0
    shown = capsys.readouterr()
    (row,) = [line for line in shown.out.splitlines() if "markov" in line and "(" in line]
    assert row.split()[1:3] == ["1.0000", "(1.0000–1.0000)"]
    assert "leave-one-out, time order, 24 queries among 12 items" in shown.out
    assert "[2/2] two_tower seed 0: " in shown.err


def test_json_holds_one_object_a_model_and_results_are_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(movielens_data, "VALIDATION_USERS", 5)
    official = ["--protocol", "official", "--order", "file", "--official", toys.instances(tmp_path / "official")]
    words = ["--model", "markov", "--model", "two_tower", "--seeds", 2, "--json", "--out", tmp_path / "out", *SMALL]
    assert evaluate(monkeypatch, "--data", folder, *official, *words) == 0
    markov, tower = json.loads(capsys.readouterr().out)
    assert (markov["model"], markov["seeds"], markov["metrics"]["recall@2"]["value"]) == ("markov", 1, 1.0)
    assert (tower["model"], tower["seeds"], tower["queries"]) == ("two_tower", 2, 4)
    found = tower["metrics"]["mrr@20"]
    assert found["low"] <= found["value"] <= found["high"]
    names = [r.task.name for r in read_all(tmp_path / "out")]
    assert names == [f"official-file/{name}" for name in ("markov", "two_tower-d4-s0", "two_tower-d4-s1")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "sasrek"], "There is no model 'sasrek'; there are popularity, "),
        (["--model", "ease", "--protocol", "progressive", "--order", "file"], "it has no file order."),
        (["--model", "ease", "--protocol", "official"], "--protocol official needs --official, "),
        (["--model", "ease", "--official", "x"], "--official goes with --protocol official, not with leave-one-out."),
        (["--model", "t2diff", "--without", "hope"], "--without: input should be 'guess', 'end-to-end', "),
        (["--model", "ease", "--learning-rate", "2"], "--learning-rate: input should be less than 1."),
        (["--model", "ease", "--protocol", "progressive"], "log_standard_"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_exit_code_2(
    words: list[str], sentence: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(monkeypatch, "--data", folder, *words) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[1/1]")]
    assert len(said) == 1
    assert said[0].startswith("driftline: ")
    assert sentence in said[0]


def test_a_folder_of_the_wrong_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(monkeypatch, "--data", tmp_path, "--model", "ease") == 2
    assert "has no ratings.dat (nor ratings.parquet)." in capsys.readouterr().err


def test_ctrl_c_says_what_was_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluation.runs.fit", interrupted)
    words = ["--model", "markov", "--model", "two_tower", *SMALL, "--out", folder / "out"]
    assert evaluate(monkeypatch, "--data", folder, *words) == 130
    assert f"driftline: interrupted; 1 of 2 results are in {folder / 'out'}." in capsys.readouterr().err
