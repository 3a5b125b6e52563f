import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trainer import retrieval
from evaluation.data import Query, Sequence
from tests.evaluation import toys


def query(length: int) -> Query:
    history = Sequence(np.arange(length), np.arange(length, dtype=np.int64))
    return Query(1, history, 0, 0, np.empty(0, np.int64))


def test_what_is_beyond_the_window_is_what_it_does_not_show() -> None:
    rows = retrieval.beyond([query(3), query(4), query(retrieval.BEYOND + 9)], window=3)
    assert [[row for row in each if row >= 0] for each in rows.tolist()] == [[], [0], [*range(6, retrieval.BEYOND + 6)]]


def test_every_head_is_measured_beside_its_ablation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = toys.kuairand(tmp_path / "kuairand")
    out = tmp_path / "retrieval.json"
    assert retrieval.main(["--data", str(folder), "--seeds", "2", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert {kind: len(each) for kind, each in found["recall@20"].items()} == dict.fromkeys(retrieval.HEADS, 2)
    assert len(found["beside"]) == len(retrieval.ABLATIONS)
    assert found["queries"] > 0
