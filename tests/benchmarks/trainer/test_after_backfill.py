import json
from pathlib import Path

import pytest

from benchmarks.trainer import after_backfill
from tests.evaluation import toys


def test_both_models_are_measured_in_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = toys.kuairand(tmp_path / "kuairand")
    assert after_backfill.main(["--data", str(folder), "--seeds", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["ways"]) == set(after_backfill.WAYS)
    for figures in found["ways"].values():
        assert {model: len(each) for model, each in figures["recall@20"].items()} == {"two_tower": 2, "t2diff": 2}
