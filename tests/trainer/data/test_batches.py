import numpy as np

from tests.trainer.trainer_cases import START_MS, make_catalogue, make_example
from trainer.data.batches import encode
from trainer.data.catalogue import Catalogue


def test_rows_are_those_of_arrival_and_histories_end_at_the_right_edge() -> None:
    catalogue = Catalogue()
    for item_id in (30, 10, 20):
        catalogue.put(item_id, [])
    batch = encode([make_example([10, 30], target=20)], catalogue, window=4)
    assert batch.rows.tolist() == [[-1, -1, 1, 0]]
    assert batch.targets.tolist() == [2]
    assert batch.mask.tolist() == [[0, 0, 1, 1]]
    assert np.allclose(batch.lag[0, 2:], np.log1p([120, 60]))


def test_only_positives_are_inputs_but_all_items_count_as_seen() -> None:
    example = make_example([1, 2, 99], target=3)
    example.history.effective_views[:] = [True, False, True]
    batch = encode([example], make_catalogue(5), window=4)
    assert batch.rows.tolist() == [[-1, -1, -1, 0]]
    assert batch.seen[0].tolist() == [0, 1]


def test_part_of_a_batch_is_the_batch_of_a_part() -> None:
    catalogue = make_catalogue(9)
    examples = [make_example(list(range(1, n)), n, START_MS + n, arm=str(n), user_id=n) for n in range(1, 6)]
    keep = np.array([True, False, True, False, True])
    part = encode(examples, catalogue, 3).only(keep)
    whole = encode([e for e, kept in zip(examples, keep, strict=True) if kept], catalogue, 3)
    assert len(part) == 3
    for name in ("rows", "mask", "lag", "targets", "user_ids"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)), name
    assert part.arms == whole.arms
    assert all(np.array_equal(a, b) for a, b in zip(part.seen, whole.seen, strict=True))
