import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.results import ResultError, path_of, read, read_all, write
from evaluation.tasks import Task
from tests.evaluation.toys import PLAN, SHAPE, result

TASK = Task("official", "t2diff", "file", 1, SHAPE, PLAN)


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    kept = result(TASK, [1, 70_000, 3], history=[{"epoch": 1, "loss": 2.5}], study={"step": [2, 1]})
    path = write(tmp_path, kept)
    assert path == tmp_path / "official-file" / "t2diff-d4-s1.json" == path_of(tmp_path, TASK)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    found = read(path)
    assert found.ranks.tolist() == [1, 70_000, 3]
    assert found.values("recall@2").tolist() == [1, 0, 0]
    told = [{k: v for k, v in vars(r).items() if not isinstance(v, np.ndarray)} for r in (kept, found)]
    assert told[0] == told[1]
    assert json.loads(path.read_text())["metrics"]["recall@2"] == pytest.approx(1 / 3, abs=1e-6)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write(tmp_path, result(TASK, [1]))
    with pytest.raises(TypeError):
        write(tmp_path, result(TASK, [2], device=object()))
    assert read(path_of(tmp_path, TASK)).ranks.tolist() == [1]
    assert len(list(path_of(tmp_path, TASK).parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda told: "{", r"is not a result: .*"),
        (lambda told: "[]", r"is not a result: .*"),
        (lambda told: json.dumps({k: v for k, v in told.items() if k != "device"}), r"is not a result: 'device'\."),
        (lambda told: json.dumps(told | {"ranks": {"dtype": "<u2", "zlib_base64": "eA=="}}), r"is not a result: .*"),
        (lambda told: json.dumps(told | {"ranks": told["two"]}), r"is not a result: it has 2 ranks of 1 users\."),
        (lambda told: json.dumps(told | {"task": {}}), r"is not a result: It does not hold a task: .*"),
    ],
)
def test_what_is_no_result_is_one_sentence(tmp_path: Path, spoil, sentence: str) -> None:  # type: ignore[no-untyped-def]
    two = json.loads(write(tmp_path, result(TASK, [1, 2])).read_text())["ranks"]
    path = write(tmp_path, result(TASK, [1]))
    path.write_text(spoil(json.loads(path.read_text()) | {"two": two}))
    with pytest.raises(ResultError, match=rf"t2diff-d4-s1\.json {sentence}$"):
        read_all(tmp_path)


def test_a_result_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"can't be read: No such file or directory\.$"):
        read(tmp_path / "none.json")
