import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.data import Examples, Query, Sequence, encode
from evaluation.draws import learns_everywhere, shuffled, side_by_side, some_targets
from tests.evaluation.toys import SHAPE

lengths = st.lists(st.integers(1, 40), max_size=5)


def sequences(sizes: list[int]) -> list[Sequence]:
    """All rows differ; a second lies between behaviours."""
    starts = np.cumsum([0, *sizes])
    return [Sequence(np.arange(a, a + n), 1_000 * np.arange(n)) for a, n in zip(starts[:-1], sizes, strict=True)]


def encoded(parts: list[Sequence], found: Examples, window: int) -> Examples:
    """The same windows by way of `encode`, which knows them by their targets."""
    ends = [(s, int(end)) for t in found.targets for s in parts for end in np.flatnonzero(s.rows == t)]
    times = np.array([s.times_ms[end] for s, end in ends], np.int64)
    return encode([s.until(end) for s, end in ends], times, found.targets, window)


@given(sizes=lengths, window=st.integers(1, 12), seed=st.integers(0, 9))
def test_windows_side_by_side_reach_every_behaviour_but_the_first(sizes: list[int], window: int, seed: int) -> None:
    parts = sequences(sizes)
    found = side_by_side(parts, window, np.random.default_rng(seed))
    inner = [row for rows, mask in zip(found.rows, found.mask, strict=True) for row in rows[mask > 0][1:].tolist()]
    assert {*inner, *found.targets.tolist()} == {row for s in parts for row in s.rows[1:].tolist()}
    same = encoded(parts, found, window)
    for one, other in zip(vars(found).values(), vars(same).values(), strict=True):
        assert one.dtype == other.dtype
        assert np.allclose(one, other)


@given(sizes=lengths, count=st.integers(1, 12))
def test_some_targets_are_different_and_as_many_as_there_can_be(sizes: list[int], count: int) -> None:
    parts = sequences(sizes)
    found = some_targets(parts, 6, count, np.random.default_rng(0)).targets.tolist()
    assert len(found) == len(set(found)) == sum(min(count, n - 1) for n in sizes)
    assert not {int(s.rows[0]) for s in parts} & set(found)


def test_an_epoch_has_the_same_windows_in_another_order() -> None:
    (s,) = sequences([30])
    asked = [Query(1, s.until(end), int(s.times_ms[end]), int(s.rows[end]), s.rows[:0]) for end in range(1, 30)]
    rng = np.random.default_rng(0)
    draw = shuffled(asked, 4)
    one, other = draw(rng), draw(rng)
    assert one.targets.tolist() != other.targets.tolist()
    assert sorted(one.targets.tolist()) == sorted(other.targets.tolist()) == list(range(1, 30))
    assert all(rows[-1] == target - 1 for rows, target in zip(one.rows, one.targets, strict=True))


@pytest.mark.parametrize("name", ["sasrec", "two_tower", "t2diff"])
def test_a_model_is_asked_where_it_learns(name: str) -> None:
    assert not learns_everywhere(name, SHAPE)
    assert not learns_everywhere(name, SHAPE.model_copy(update={"learn_at": "last-k", "learn_at_last": 4}))
    assert learns_everywhere(name, SHAPE.model_copy(update={"learn_at": "every"}))


def test_a_model_that_hides_what_it_learns_reads_whole_sequences() -> None:
    assert learns_everywhere("bert4rec", SHAPE.model_copy(update={"window": 50}))
    assert not learns_everywhere("t2diff-paper", SHAPE)
