import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trainer import backfill
from evaluation import kuairand
from evaluation.data import ItemTable, Sequence
from tests.evaluation import toys


def test_both_ways_are_timed_on_the_same_views_of_some_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = toys.kuairand(tmp_path / "kuairand")
    assert backfill.main(["--data", str(folder), "--users", "3", "--runs", "two_tower"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == {"users": 3, "views": 1, "items": toys.ITEMS}
    assert all(found["cpu"]["two_tower"][each] > 0 for each in ("nothing_s", "one_by_one_s", "packed_s"))


def test_each_view_is_learned_once_packed_and_one_by_one(tmp_path: Path) -> None:
    history = kuairand.Before(Sequence(np.arange(12) % 5, np.zeros(12, np.int64)), np.arange(5))
    catalogue = ItemTable(np.arange(10, 16), ((1,),) * 6)
    empty = np.empty(0, np.int64)
    source = kuairand.Stream(catalogue, empty, empty, empty, empty > 0, dict.fromkeys(range(1, 13), history))
    found = [*backfill.examples(source, 12)]
    assert [len(e.history.item_ids) for e in found if e.user_id == 7] == [*range(12)]
    backfill.archive(tmp_path, found)
    models = backfill.RUNS["two_tower"]
    assert backfill.learn(tmp_path, catalogue, models)[1] == 144
    assert backfill.learn(tmp_path, catalogue, models, one_by_one=True)[1] == 128  # in whole batches
