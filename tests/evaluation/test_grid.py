from dataclasses import replace
from pathlib import Path

import pytest

from evaluation import grid
from evaluation import movielens as movielens_data
from evaluation.results import path_of, read
from evaluation.tasks import Task
from tests.evaluation import toys

TASKS = [
    Task("official", "markov", "file"),
    Task("official", "two_tower", "file", 0, toys.SHAPE, toys.PLAN),
    Task("progressive", "popularity"),
]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(movielens_data, "VALIDATION_USERS", 5)
    monkeypatch.setattr(grid, "tasks", lambda preset: TASKS)
    folders = {
        "--ml-1m": toys.movielens(tmp_path / "ml"),
        "--official": toys.instances(tmp_path / "official"),
        "--kuairand": toys.kuairand(tmp_path / "kuairand"),
        "--results": tmp_path / "results",
    }
    return [*(str(word) for pair in folders.items() for word in pair), "--jobs", "1"]


def test_what_is_done_is_not_done_again_unless_it_is_another_task(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ran() -> list[str]:
        assert grid.main(arguments) == 0
        return [line.split("] ")[1].split(":")[0] for line in capsys.readouterr().err.splitlines() if "] " in line]

    assert grid.main([*arguments, "--only", "official-*/m*"]) == 0
    assert "[1/1, about 0 min left] official-file/markov: recall@2 1.0000" in capsys.readouterr().err
    assert ran() == ["official-file/two_tower-d4-s0", "progressive-time/popularity"]
    assert ran() == []
    path_of(tmp_path / "results", TASKS[0]).write_text("{}")
    longer = replace(TASKS[1], plan=replace(toys.PLAN, epochs=1))
    monkeypatch.setattr(grid, "tasks", lambda preset: [TASKS[0], longer, TASKS[2]])
    assert ran() == ["official-file/markov", "official-file/two_tower-d4-s0"]
    assert read(path_of(tmp_path / "results", longer)).epochs == 1


def test_a_run_that_fails_does_not_stop_the_others(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "official" / "item_map.parquet").unlink()
    assert grid.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.count("failed: ") == 2
    assert "has no item_map.parquet." in said
    assert [p.name for p in (tmp_path / "results").glob("*/*")] == ["popularity.json"]
