"""Experiments beside each other: literal pairs, the sentence on each."""

from pathlib import Path

import pytest
import yaml

from abtest.assignment.layers import conflicts, exclusive, files, read
from contracts.config.experiment import Holdout, SettingsError
from tests.abtest.abtest_cases import START, experiment

A, B = Path("a.yaml"), Path("b.yaml")
FIRST = {"name": "first", "salt": "one", "slots": (0.0, 0.5)}
SECOND = {"name": "second", "salt": "other", "slots": (0.5, 1.0)}
LATER = {"start_ms": START + 10**10, "end_ms": START + 2 * 10**10}


def said(first: dict, second: dict) -> list[str]:
    return conflicts({A: experiment(**FIRST, **first), B: experiment(**{**SECOND, **second})})


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ({}, "disjoint slots of one layer"),
        ({"slots": (0.0, 1.0), "layer": "ranking"}, "layers overlap"),
        ({"slots": (0.0, 1.0), **LATER}, "one after the other"),
        ({"salt": "one"}, "one salt, but no user in common"),
        ({"holdout": Holdout(salt="h", share=0.1), **LATER}, "a holdout that begins when the other has ended"),
    ],
)
def test_these_stand_beside_each_other(second: dict, why: str) -> None:
    assert said({}, second) == [], why


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ({"name": "first"}, "name: both are called 'first'"),
        ({"slots": (0.4, 1.0)}, "slots: both take 0.4 to 0.5 of layer 'recall' at the same time"),
        ({"salt": "one", "layer": "ranking"}, "salt: both use 'one', so the arms of one follow those of the other"),
        ({"salt": "one", "slots": (0.0, 1.0), **LATER}, "salt: both use 'one'"),
        ({"holdout": Holdout(salt="h", share=0.1)}, "holdout: they run at the same time with different ones"),
    ],
)
def test_these_do_not_and_the_sentence_names_both_files_and_the_field(second: dict, complaint: str) -> None:
    (only,) = said({}, second)
    assert only.startswith(f"a.yaml, b.yaml: {complaint}")


def test_a_holdout_that_grows_later_is_told() -> None:
    (only,) = said(
        {"holdout": Holdout(salt="h", share=0.1)}, {"holdout": Holdout(salt="h", share=0.2), **LATER, "layer": "x"}
    )
    assert "salt 'h' has a share of 0.1 and of 0.2" in only


def test_a_tester_of_two_experiments_that_exclude_each_other_is_told() -> None:
    (only,) = said({"overrides": {"treatment": (5, 6)}}, {"overrides": {"control": (6,)}})
    assert "user 6 is a tester of both" in only


def test_three_experiments_are_compared_in_pairs() -> None:
    three = {Path(name): experiment(name=name, salt=name) for name in "abc"}
    assert len(conflicts(three)) == 3
    assert not exclusive(three[Path("a")], three[Path("b")])


def test_a_folder_gives_its_files_and_each_file_is_read_once(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "notes.txt"):
        (tmp_path / name).write_text(yaml.safe_dump(experiment(name=name).model_dump(mode="json")))
    assert files([tmp_path, tmp_path / "a.yaml"]) == [tmp_path / "a.yaml", tmp_path / "b.yml"]
    experiments, errors = read([tmp_path])
    assert ([each.name for each in experiments.values()], errors) == (["a.yaml", "b.yml"], [])


def test_every_file_that_is_wrong_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    (tmp_path / "b.yaml").write_text("- 1\n")
    experiments, errors = read([tmp_path, tmp_path / "absent.yaml"])
    assert experiments == {}
    assert [error.split(": ")[0].rsplit("/", 1)[-1] for error in errors] == ["a.yaml", "b.yaml", "absent.yaml"]


def test_a_folder_without_experiments_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no experiment file"):
        files([tmp_path])
