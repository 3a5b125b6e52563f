import numpy as np
import torch

from benchmarks.trainer.deltas import Student, day, due
from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.runtime.clock import DAY_MS, MINUTE_MS
from evaluation.data import ItemTable, Query, Sequence
from evaluation.fit import trainer_catalogue
from evaluation.progressive import batch_of

ITEMS, BATCHES, BATCH = 30, 12, 8
SHAPE = ModelSettings(dim=8, category_dim=4, window=6, session_length=3, learning_rate=0.05, batch_size=BATCH)
CATALOGUE = trainer_catalogue(ItemTable(np.arange(1, ITEMS + 1), tuple((i % 3,) for i in range(ITEMS))))
SINCE_MS = 4 * 10 * MINUTE_MS  # of the fifth batch; there is one every ten minutes


def followed(tolerance: float) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    walks = rng.integers(ITEMS, size=(BATCHES * BATCH, 5))
    queries = [Query(i, Sequence(row[:-1], np.arange(4)), 9, int(row[-1]), row[:0]) for i, row in enumerate(walks)]
    batches = [(n * 10 * MINUTE_MS, batch_of(queries[n * BATCH : (n + 1) * BATCH], 6)) for n in range(BATCHES)]
    student = Student("two_tower", TrainerSettings(model=SHAPE), CATALOGUE, torch.device("cpu"))
    found = day(student, batches, SINCE_MS, [1, 60], tolerance)
    return found["beats"] | {"full": {"bytes": found["full_bytes"]}}


def test_a_delta_is_due_before_the_first_batch_of_another_beat_and_at_the_end() -> None:
    assert due(np.array([1, 2, 11, 12, 35]), 10).tolist() == [1, 3, 4]
    assert due(np.array([1, 2, 11, 12, 35]), 1).tolist() == [0, 1, 2, 3, 4]


def test_every_beat_has_its_own_line() -> None:
    found = followed(0.0)
    assert found["1"]["deltas"] == BATCHES - 4
    assert found["60"]["deltas"] == 2


def test_without_a_tolerance_a_delta_holds_all_and_is_smaller_than_a_full_snapshot() -> None:
    found = followed(0.0)
    assert found["1"]["share_of_items"] == 1
    assert 0 < found["1"]["bytes_per_delta"] < found["full"]["bytes"]
    spent = found["1"]["bytes_per_delta"] * found["1"]["deltas"] * MINUTE_MS / DAY_MS
    assert found["1"]["bytes_per_min"] == round(spent)


def test_with_a_large_tolerance_only_what_is_counted_anew_is_left() -> None:
    found = followed(1e6)
    assert found["1"]["share_of_items"] <= BATCH / ITEMS
