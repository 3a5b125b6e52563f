from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation.data import DataError, Query, Sequence
from evaluation.movielens import leave_one_out, official, read, windows


def line(length: int) -> Sequence:
    """Row i at time i."""
    return Sequence(np.arange(length), np.arange(length))


def test_time_order_and_file_order_of_the_same_ratings(movielens: Path) -> None:
    by_time, by_file = read(movielens, "time"), read(movielens, "file")
    assert by_time.user_ids.tolist() == [1, 7]
    assert [s.rows.tolist() for s in by_time.sequences] == [[1, 0, 2], [1, 0, 2]]
    assert [s.rows.tolist() for s in by_file.sequences] == [[0, 2, 1], [2, 1, 0]]
    assert by_time.sequences[1].times_ms.tolist() == [100_000, 200_000, 300_000]
    assert by_file.sequences[1].times_ms.tolist() == [0, 0, 0]


def test_the_catalogue_holds_rated_movies_and_genres_numbered_as_the_file_names_them(movielens: Path) -> None:
    catalogue = read(movielens, "time").catalogue
    assert catalogue.item_ids.tolist() == [2, 3, 9]
    assert catalogue.categories == ((3,), (1,), (1, 2))


def test_leave_one_out_hides_the_last_two_and_masks_what_was_rated(movielens: Path) -> None:
    split = leave_one_out(movielens, "time")
    assert [s.rows.tolist() for s in split.sequences] == [[1], [1]]
    query, test = split.validation[1], split.test[1]
    assert (query.user_id, query.history.rows.tolist(), query.target, query.time_ms) == (7, [1], 0, 200_000)
    assert (test.history.rows.tolist(), test.target, test.masked.tolist()) == ([1, 0], 2, [1, 0])


def test_the_authors_instances_are_taken_as_they_are(movielens: Path, instances: Path) -> None:
    (query,) = official(movielens, instances, "file").test
    assert (query.user_id, query.history.rows.tolist(), query.target) == (7, [2, 1], 0)
    assert (query.history.times_ms.tolist(), query.time_ms) == ([0, 0], 0)
    assert query.masked.size == 0


@pytest.mark.parametrize(
    ("length", "count", "ends"),
    [
        (1, 10, []),
        (20, 10, [19]),
        (50, 10, [49]),
        (51, 10, [49]),
        (53, 10, [49, 50, 51]),
    ],
)
def test_windows_by_the_authors_rule(length: int, count: int, ends: list[int]) -> None:
    found = windows(3, line(length), count, np.random.default_rng(0))
    assert [q.target for q in found] == ends
    for q in found:
        assert q.history.rows.tolist() == list(range(max(q.target - 50, 0), q.target))


def test_a_long_sequence_gives_ten_different_windows_all_over_it() -> None:
    found = [q.target for q in windows(3, line(2_000), 10, np.random.default_rng(0))]
    assert len(set(found)) == 10
    assert 49 <= min(found) < 1_000 < max(found) < 1_999


def lose(name: str) -> Callable[[Path, Path], None]:
    return lambda data, split: next(f / name for f in (data, split) if (f / name).exists()).unlink()


def write(name: str, text: str) -> Callable[[Path, Path], None]:
    return lambda data, split: ((data if name.endswith("dat") else split) / name).write_text(text) and None


def drop(name: str, column: str) -> Callable[[Path, Path], None]:
    return lambda data, split: pd.read_parquet(split / name).drop(columns=column).to_parquet(split / name)


def strange_user(data: Path, split: Path) -> None:
    pd.read_parquet(split / "test_instances.parquet").assign(user_id=8).to_parquet(split / "test_instances.parquet")


def strange_movie(data: Path, split: Path) -> None:
    pd.read_parquet(split / "item_map.parquet").assign(movie_id=[9, 3, 5]).to_parquet(split / "item_map.parquet")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lose("ratings.dat"), r"ml has no ratings\.dat \(nor ratings\.parquet\)\."),
        (lose("movies.dat"), r"ml has no movies\.dat\."),
        (lose("item_map.parquet"), r"instances has no item_map\.parquet\."),
        (drop("test_instances.parquet", "target_item_idx"), r"test_instances\.parquet has no column target_item_idx\."),
        (write("item_map.parquet", "no"), r"item_map\.parquet can't be read: .*"),
        (write("ratings.dat", "1::2::3\n"), r"ratings\.dat can't be read: entry 1 has 3 cells instead of 4\."),
        (write("ratings.dat", "1::2::3::x\n"), r"ratings\.dat can't be read: .*"),
        (write("movies.dat", "9::Nine::Drama\n3::Three::War\n"), r"movies\.dat lacks movie 2, which has ratings\."),
        (strange_user, r"names a user who has no ratings in .*"),
        (strange_movie, r"test_instances\.parquet holds a movie that user 7 did not rate\."),
    ],
)
def test_a_folder_of_the_wrong_kind_is_one_sentence(
    movielens: Path, instances: Path, spoil: Callable[[Path, Path], None], sentence: str
) -> None:
    spoil(movielens, instances)
    with pytest.raises(DataError, match=sentence):
        official(movielens, instances, "file")


def test_the_real_ratings_and_both_orders_of_the_official_split(real_movielens: Path, real_instances: Path) -> None:
    by_file = official(real_movielens, real_instances, "file")
    by_time = official(real_movielens, real_instances, "time")
    for split in (by_file, by_time):
        assert (len(split.test), len(split.sequences), len(split.held_out)) == (1_208, 4_432, 400)
        assert split.catalogue.item_ids.size == 3_706
        assert max(g for genres in split.catalogue.categories for g in genres) == 18
        users = [{q.user_id for q in part} for part in (split.windows, split.validation, split.test)]
        assert [len(part) for part in users] == [4_432, 400, 1_208]
        assert len(set.union(*users)) == 6_040
    assert [q.user_id for q in by_time.test] == [q.user_id for q in by_file.test]
    assert sum(map(len, by_time.sequences)) + sum(map(len, by_time.held_out)) < 1_000_209
    assert all((np.diff(q.history.times_ms) >= 0).all() for q in by_time.test)
    ratings = read(real_movielens, "file")
    whole = dict(zip(ratings.user_ids.tolist(), ratings.sequences, strict=True))
    assert all(follows_in(whole[q.user_id], q) for q in by_file.test)


def follows_in(sequence: Sequence, query: Query) -> bool:
    """Whether the query is what `windows` would have drawn at its target."""
    end = int(np.flatnonzero(sequence.rows == query.target)[0])
    inside = 49 <= end < len(sequence) - 1 if len(sequence) > 50 else end == len(sequence) - 1
    return inside and np.array_equal(query.history.rows, sequence.rows[max(end - 50, 0) : end])
