import json
from pathlib import Path

import pytest

from benchmarks.trainer import backfill
from tests.evaluation import toys


def test_both_ways_are_timed_on_the_same_views_of_some_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = toys.kuairand(tmp_path / "kuairand")
    assert backfill.main(["--data", str(folder), "--users", "3", "--rounds", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == {"users": 1, "views": 1, "windows": 1, "items": toys.ITEMS}
    assert set(found["cpu"]) == set(backfill.MODELS)
    assert all(each["one_by_one_s"] > 0 and each["packed_s"] > 0 for each in found["cpu"].values())
