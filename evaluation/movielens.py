"""MovieLens-1M (Harper and Konstan, TiiS 2015) as sequences, and the two protocols on it.

Every rating is a positive, whatever its stars. `file` order is that of ratings.dat inside a user: a hash order that
all users share, not time. `time` order is the true one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from contracts.features import Ints, rows_of
from contracts.runtime.clock import SECOND_MS
from evaluation.data import DataError, ItemTable, Query, Sequence
from evaluation.files import read_parquet

Order = Literal["time", "file"]

WINDOW = 50  # behaviours before a target
WINDOWS_PER_USER = 10
VALIDATION_USERS = 400

_COLUMNS = ("user_id", "movie_id", "timestamp", "file_row", "chrono_pos")
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Ratings:
    """All users' behaviours in one order."""

    catalogue: ItemTable
    user_ids: Ints  # (U,) sorted
    sequences: list[Sequence]  # U


@dataclass(frozen=True)
class OfficialSplit:
    """The T2Diff authors' 1,208 test users, and what the other 4,832 give to learn from. No item is masked."""

    catalogue: ItemTable
    sequences: list[Sequence]  # of the users to learn from, whole
    windows: list[Query]  # drawn from them, up to ten a user
    held_out: list[Sequence]  # of the users who validate, whole
    held_out_windows: list[Query]  # drawn from them as `windows` are, for a last fit on all 4,832
    validation: list[Query]  # one of each user who validates
    test: list[Query]  # one of each test user


@dataclass(frozen=True)
class LeaveOneOut:
    """Each user's last behaviour tests and the one before it validates; what a user has rated does not compete."""

    catalogue: ItemTable
    sequences: list[Sequence]  # U, without the last two
    validation: list[Query]  # U
    test: list[Query]  # U; the history ends with the validation target


def read(folder: Path, order: Order) -> Ratings:
    """Read the ratings and the movies that have one.

    Args:
        folder: holds movies.dat, and ratings.dat as GroupLens ships it or ratings.parquet with the columns user_id,
            movie_id, timestamp (s), file_row (line of ratings.dat) and chrono_pos (place in the user's time order).
            Of ratings.dat, equal times stand in the file's order.
        order: of each user's behaviours. In file order no times are told (all are 0): they would give away what the
            order hides, and the T2Diff authors' instances carry none.

    Returns:
        The catalogue's categories are the genres, numbered from 1 as they first appear in movies.dat.

    Raises:
        DataError: a file or a column is missing or unreadable, or a rated movie is not in movies.dat.

    """
    ratings = _ratings(folder)
    ratings = ratings.sort_values(["user_id", "chrono_pos" if order == "time" else "file_row"])
    movies = ratings["movie_id"].to_numpy(np.int64)
    item_ids = np.unique(movies)
    genres = _genres(folder / "movies.dat")
    unknown = [item_id for item_id in item_ids.tolist() if item_id not in genres]
    if unknown:
        raise DataError(f"{folder / 'movies.dat'} lacks movie {unknown[0]}, which has ratings.")
    user_ids, first = np.unique(ratings["user_id"].to_numpy(np.int64), return_index=True)
    rows = np.split(np.searchsorted(item_ids, movies), first[1:])
    times_ms = ratings["timestamp"].to_numpy(np.int64) * (SECOND_MS if order == "time" else 0)
    times = np.split(times_ms, first[1:])
    return Ratings(
        ItemTable(item_ids, tuple(genres[item_id] for item_id in item_ids.tolist())),
        user_ids,
        [Sequence(r, t) for r, t in zip(rows, times, strict=True)],
    )


def official(folder: Path, instances: Path, order: Order, seed: int = 0) -> OfficialSplit:
    """The split of the T2Diff authors, windows of the training users drawn anew.

    In file order the test queries are the authors' own, in their file's order. In time order they are drawn anew from
    the same users: the authors published none. Windows follow the rule that the authors' instances show: the target
    is at random one of the 50th to the last but one of a user's behaviours, the last where there are 50 or fewer,
    after up to 50 behaviours. A target's time is its rating's; in file order a behaviour's may be later.

    Nothing is masked: MODEL.md's figures of the Markov chains (R@2 .2376, R@20 .6987 first-order) come out to the
    digit with all items competing, transitions counted over the whole sequences of all 4,832 training users
    (`sequences` + `held_out`) and ties broken by popularity; with the history masked R@20 would be .6995.

    Args:
        folder: of MovieLens-1M, see `read`.
        instances: holds test_instances.parquet (user_id, history_item_idx, target_item_idx) and item_map.parquet
            (item_idx, movie_id).
        order: of the behaviours.
        seed: of the windows, and of who validates.

    Raises:
        DataError: a file or a column is missing or unreadable, or instances and ratings contradict each other.

    """
    ratings = read(folder, order)
    test_table = read_parquet(instances / "test_instances.parquet", ("user_id", "history_item_idx", "target_item_idx"))
    at = rows_of(test_table["user_id"].to_numpy(np.int64), ratings.user_ids)
    if (at < 0).any():
        raise DataError(f"{instances / 'test_instances.parquet'} names a user who has no ratings in {folder}.")
    others = np.setdiff1d(np.arange(ratings.user_ids.size), at)
    rng = np.random.default_rng(seed)
    held_out = np.sort(rng.permutation(others)[:VALIDATION_USERS])
    learn = np.setdiff1d(others, held_out)

    def drawn(users: Ints, count: int) -> list[Query]:
        return [q for u in users.tolist() for q in windows(ratings.user_ids[u], ratings.sequences[u], count, rng)]

    test = drawn(at, 1) if order == "time" else _instances(instances, test_table, at, ratings)
    return OfficialSplit(
        catalogue=ratings.catalogue,
        sequences=[ratings.sequences[u] for u in learn],
        windows=drawn(learn, WINDOWS_PER_USER),
        held_out=[ratings.sequences[u] for u in held_out],
        held_out_windows=drawn(held_out, WINDOWS_PER_USER),
        validation=drawn(held_out, 1),
        test=test,
    )


def leave_one_out(folder: Path, order: Order) -> LeaveOneOut:
    """Each user's last two behaviours against all items that the user had not rated before.

    Users with fewer than three behaviours are left out (MovieLens-1M has none).

    Raises:
        DataError: see `read`.

    """
    ratings = read(folder, order)
    users = [(u, s) for u, s in zip(ratings.user_ids.tolist(), ratings.sequences, strict=True) if len(s) >= 3]
    return LeaveOneOut(
        catalogue=ratings.catalogue,
        sequences=[s.until(len(s) - 2) for _, s in users],
        validation=[_query(user_id, s, len(s) - 2, masked=s.rows[: len(s) - 2]) for user_id, s in users],
        test=[_query(user_id, s, len(s) - 1, masked=s.rows[: len(s) - 1]) for user_id, s in users],
    )


def windows(user_id: int, sequence: Sequence, count: int, rng: np.random.Generator) -> list[Query]:
    """Up to `count` different targets of a user by the rule of `official`, in the sequence's order.

    A user with one behaviour has none.
    """
    if len(sequence) < 2:
        return []
    places = np.arange(WINDOW - 1, len(sequence) - 1)
    if not places.size:
        places = np.array([len(sequence) - 1])
    ends = np.sort(rng.choice(places, min(count, places.size), replace=False))
    return [_query(int(user_id), sequence, end, masked=_NOTHING, window=WINDOW) for end in ends.tolist()]


def _query(user_id: int, sequence: Sequence, end: int, *, masked: Ints, window: int | None = None) -> Query:
    begin = 0 if window is None else max(end - window, 0)
    history = Sequence(sequence.rows[begin:end], sequence.times_ms[begin:end])
    return Query(user_id, history, int(sequence.times_ms[end]), int(sequence.rows[end]), masked)


def _instances(folder: Path, test_table: pd.DataFrame, at: Ints, ratings: Ratings) -> list[Query]:
    """The authors' windows as they give them."""
    item_map = read_parquet(folder / "item_map.parquet", ("item_idx", "movie_id"))
    rows = rows_of(item_map["movie_id"].to_numpy(np.int64), ratings.catalogue.item_ids)
    row_of = dict(zip(item_map["item_idx"].tolist(), rows.tolist(), strict=True))
    out = []
    for user, history, target in zip(
        at.tolist(), test_table["history_item_idx"], test_table["target_item_idx"], strict=True
    ):
        sequence = ratings.sequences[user]
        rated = dict(zip(sequence.rows.tolist(), sequence.times_ms.tolist(), strict=True))
        window = [row_of.get(index, -1) for index in [*history, target] if index != 0]
        if any(row not in rated for row in window):
            raise DataError(
                f"{folder / 'test_instances.parquet'} holds a movie that user {ratings.user_ids[user]} did not rate."
            )
        sought = Sequence(np.array(window, np.int64), np.array([rated[row] for row in window], np.int64))
        out.append(_query(int(ratings.user_ids[user]), sought, len(window) - 1, masked=_NOTHING))
    return out


def _ratings(folder: Path) -> pd.DataFrame:
    path = folder / "ratings.dat"
    if not path.is_file():
        if not (folder / "ratings.parquet").is_file():
            raise DataError(f"{folder} has no ratings.dat (nor ratings.parquet).")
        return read_parquet(folder / "ratings.parquet", _COLUMNS)
    cells = _cells(path, 4)
    try:
        frame = pd.DataFrame(cells, columns=["user_id", "movie_id", "rating", "timestamp"]).astype(np.int64)
    except ValueError as error:
        raise DataError(f"{path} can't be read: {error}.") from error
    frame["file_row"] = np.arange(len(frame))
    by_time = frame.sort_values(["user_id", "timestamp"], kind="stable")
    frame["chrono_pos"] = by_time.groupby("user_id").cumcount()
    return frame


def _genres(path: Path) -> dict[int, tuple[int, ...]]:
    """Genre numbers of each movie.

    "Children's" is one of the names, so cells are not quoted; the file is Latin-1.
    """
    if not path.is_file():
        raise DataError(f"{path.parent} has no {path.name}.")
    numbers: dict[str, int] = {}
    out = {}
    for movie, _, names in _cells(path, 3):
        if not movie.isdecimal():
            raise DataError(f"{path} can't be read: {movie!r} is no movie id.")
        out[int(movie)] = tuple(numbers.setdefault(name, len(numbers) + 1) for name in names.split("|"))
    return out


def _cells(path: Path, width: int) -> list[list[str]]:
    lines = [line.split("::") for line in path.read_text("latin-1").splitlines() if line]
    for number, cells in enumerate(lines, 1):
        if len(cells) != width:
            raise DataError(f"{path} can't be read: entry {number} has {len(cells)} cells instead of {width}.")
    return lines
