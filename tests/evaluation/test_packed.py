"""Histories in few windows: each behaviour is a target once, with what came before it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evaluation.data import Query, Sequence
from evaluation.packed import Packed, batches, packed
from evaluation.progressive import batch_of
from trainer.data.batches import Batch
from trainer.data.packed import pieces

WINDOW = 6
lengths = st.lists(st.integers(0, 40), max_size=6)


def histories(sizes: list[int]) -> dict[int, Sequence]:
    """All items differ; a second lies between behaviours."""
    starts = np.cumsum([0, *sizes])
    return {
        user: Sequence(np.arange(a, a + n), 1_000 * np.arange(n))
        for user, (a, n) in enumerate(zip(starts, sizes, strict=False), 1)
    }


def taught(batch: Batch) -> list[tuple[int, list[int]]]:
    """What is learned at each new place, and the behaviours that are known there."""
    assert batch.last is not None
    out = []
    for rows, target, count in zip(batch.rows, batch.targets.tolist(), batch.last.tolist(), strict=True):
        whole = [*rows.tolist(), target]
        new = range(len(whole) - count, len(whole))
        out += [(whole[place], [row for row in whole[:place] if row >= 0]) for place in new]
    return out


@given(sizes=lengths, window=st.integers(1, 12), seed=st.integers(0, 3), places=st.integers(1, 60))
def test_every_behaviour_is_a_target_once_after_what_came_before_it(
    sizes: list[int], window: int, seed: int, places: int
) -> None:
    did = histories(sizes)
    learned = [each for batch in batches(packed(did, window, seed), window, places) for each in taught(batch)]
    assert sorted(target for target, _ in learned) == list(range(sum(sizes)))
    starts = {row: int(s.rows[0]) for s in did.values() for row in s.rows.tolist()}
    for target, before in learned:
        expected = list(range(starts[target], target))
        assert before == expected[len(expected) - len(before) :]
        assert len(before) >= min(len(expected), window // 2)


@given(length=st.integers(0, 60), window=st.integers(1, 12))
def test_pieces_end_where_the_history_ends_and_fit_the_window(length: int, window: int) -> None:
    cut = pieces(length, window)
    assert sum(piece.count for piece in cut) == length
    assert [piece.end for piece in cut][-1:] == ([length - 1] if length else [])
    assert all(1 <= piece.count <= window for piece in cut)


def test_the_items_that_are_new_are_counted_once_and_again_where_they_come_again() -> None:
    did = {1: Sequence(np.array([3, 3, 5, 3, 3, 5, 5, 3]), np.arange(8))}
    counted = np.concatenate([batch.taught for batch in batches(packed(did, WINDOW, 0), WINDOW)])
    assert sorted(counted.tolist()) == sorted(did[1].rows.tolist())


def test_a_batch_without_packing_teaches_its_targets() -> None:
    query = Query(1, Sequence(np.array([4, 5]), np.arange(2)), 3, 6, np.empty(0, np.int64))
    assert batch_of([query], WINDOW).taught.tolist() == [6]


def test_a_part_of_a_packed_batch_knows_its_new_places() -> None:
    (batch,) = batches(packed(histories([2, 3, 4]), WINDOW, 0), WINDOW)
    part = batch.only(batch.targets == 4)  # the last behaviour of the second user
    assert part.last is not None
    assert part.last.tolist() == [3]
    assert part.taught.tolist() == [2, 3, 4]


def test_a_users_windows_come_oldest_first_and_among_those_of_others() -> None:
    order = packed(histories([30] * 20), WINDOW, seed=0)
    own: dict[int, list[int]] = {}
    for one in order:
        own.setdefault(one.query.user_id, []).append(one.query.target)
    assert all(targets == sorted(targets) for targets in own.values())
    assert len({one.query.user_id for one in order[:20]}) == 20


def test_a_step_has_as_many_windows_as_it_takes() -> None:
    query = Query(1, Sequence(np.array([1]), np.array([0])), 3, 2, np.empty(0, np.int64))
    windows = [Packed(query, count) for count in (3, 3, 1, 5, 2)]
    sizes = [batch.last.tolist() for batch in batches(windows, WINDOW, 5) if batch.last is not None]
    assert sorted(sizes) == [[1, 2, 3], [3, 5]]


def test_a_batch_is_no_wider_than_its_longest_history() -> None:
    """So there is little padding, though histories are of all lengths."""
    did = histories([1, 2, 3, 25] * 40)
    made = [*batches(packed(did, 32, 0), 32, places=64)]
    widths = [batch.rows.shape[1] for batch in made]
    assert min(widths) <= 3
    assert max(widths) == 24
    assert sum(batch.mask.size for batch in made) < len(did) * 32 / 2
