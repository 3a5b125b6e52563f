import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trainer import roads
from contracts.runtime.clock import HOUR_MS
from evaluation.data import Query, Sequence
from tests.evaluation import toys


def query(length: int, time_ms: int = 0) -> Query:
    history = Sequence(np.arange(length), np.arange(length, dtype=np.int64))
    return Query(1, history, time_ms, 0, np.empty(0, np.int64))


def test_what_is_beyond_the_window_is_what_it_does_not_show() -> None:
    rows = roads.beyond([query(3), query(4), query(roads.BEYOND + 9)], window=3)
    assert [[row for row in each if row >= 0] for each in rows.tolist()] == [[], [0], [*range(6, roads.BEYOND + 6)]]


def test_the_context_tells_the_hour_in_beijing_and_the_wait() -> None:
    noon, evening, empty = roads.context_of([query(1, 4 * HOUR_MS), query(1, 10 * HOUR_MS), query(0, 4 * HOUR_MS)])
    assert noon[:2].tolist() == pytest.approx([0, -1], abs=1e-6)  # 12 h in Beijing
    assert evening[:2].tolist() == pytest.approx([-1, 0], abs=1e-6)
    assert evening[4].item() == pytest.approx(np.log1p(10) / 5)
    assert empty[4].item() > 0


def test_every_head_is_measured_beside_its_ablation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = toys.kuairand(tmp_path / "kuairand")
    out = tmp_path / "roads.json"
    assert roads.main(["--data", str(folder), "--seeds", "2", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == found
    for road, kinds in roads.HEADS.items():
        figures = found["roads"][road]
        assert {kind: len(each) for kind, each in figures["recall@20"].items()} == dict.fromkeys(kinds, 2)
        assert len(figures["against"]) == len(roads.ABLATIONS[road])
    assert found["roads"]["guidance"]["beyond the window"] == 0  # no toy history is as long
