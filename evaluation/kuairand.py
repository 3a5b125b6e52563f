"""The KuaiRand-Pure log (Gao et al., CIKM 2022) as one stream of impressions in time, for test-then-train.

An effective view (`long_view`) is a positive. Ids are the log's plus one, as everywhere in the project.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.features import Ints, rows_of
from contracts.runtime.clock import DAY_MS
from evaluation.data import DataError, ItemTable, Query, Sequence
from evaluation.files import read_parquet
from world import logs
from world.base import WorldError
from world.kuairand import BEIJING_MS, read_catalogue, read_log

HISTORIES = "user_history_until_4_24.parquet"
_HISTORY_COLUMNS = ("user_id", "last_time_ms", "watch_seq", "long_watch_seq")
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Before:
    """What a user did before the log begins."""

    positives: Sequence  # all at the time of the last thing watched: the file has no other times
    seen: Ints  # rows


_NOBODY = Before(Sequence(_NOTHING, _NOTHING), _NOTHING)


@dataclass(frozen=True)
class Stream:
    """E impressions in event order: by time, equal times as in the log."""

    catalogue: ItemTable
    user_ids: Ints  # (E,)
    rows: Ints  # (E,) of the catalogue
    times_ms: Ints  # (E,)
    effective: npt.NDArray[np.bool_]  # (E,)
    before: dict[int, Before] = field(default_factory=dict)  # by user id

    def midnights_ms(self) -> Ints:
        """(D + 1,) begin of each day of the log in Beijing, and the end of the last.

        The first may be a day before the log's first `date`, which is that of the request and not of the play.
        """
        if not self.times_ms.size:
            return _NOTHING
        first, last = (int(self.times_ms[at] + BEIJING_MS) // DAY_MS for at in (0, -1))
        return np.arange(first, last + 2) * DAY_MS - BEIJING_MS


def stream(folder: Path, histories: bool = False) -> Stream:
    """Read the standard log; an impression that comes twice (user, video, time) is taken once.

    Args:
        folder: as Kuaishou ships it (CSV) or as parquet, see `world.kuairand`.
        histories: whether to read what users did before the log too, from user_history_until_4_24.parquet (user_id,
            last_time_ms; watch_seq and long_watch_seq, video ids with the oldest first).

    Raises:
        DataError: a file or a column is missing or unreadable, or no row has a time.

    """
    try:
        log = logs.place(read_log(folder), BEIJING_MS)
        videos = read_catalogue(folder, log)
    except WorldError as error:
        raise DataError(str(error)) from error
    placed = log["placed_ms"]
    user_ids = np.unique(log["user_id"].dropna().to_numpy(np.int64))
    seen = logs.observations(log, int(placed.min()), int(placed.max()) + 1, user_ids, videos.item_ids)
    return Stream(
        ItemTable(videos.item_ids, videos.categories),
        user_ids[seen.users],
        seen.items,
        seen.times_ms,
        seen.effective,
        _before(folder, videos.item_ids) if histories else {},
    )


def some(source: Stream, of: int) -> Stream:
    """One of every `of` users: those whose id is a multiple of it."""
    kept = source.user_ids % of == 0
    before = {user_id: each for user_id, each in source.before.items() if user_id % of == 0}
    return Stream(
        source.catalogue,
        source.user_ids[kept],
        source.rows[kept],
        source.times_ms[kept],
        source.effective[kept],
        before,
    )


def sequences(source: Stream, until_ms: int) -> list[Sequence]:
    """What each user with a positive before `until_ms` has viewed effectively by then, users by id.

    What was done before the log counts.
    """
    end = int(np.searchsorted(source.times_ms, until_ms))
    by_user = {user_id: _positives(source, at, user_id) for user_id, at in _users(source, end)}
    early = {user_id: b.positives for user_id, b in source.before.items() if user_id not in by_user}
    return [s for _, s in sorted((by_user | early).items()) if len(s)]


def queries(source: Stream, start_ms: int, end_ms: int) -> list[Query]:
    """Each effective view in [start_ms, end_ms) as a query, in event order.

    The history holds the user's effective views that came before it, of this log and before the log. All that the
    user had been shown by then is masked.
    """
    end = int(np.searchsorted(source.times_ms, end_ms))
    timed: list[tuple[int, Query]] = []
    for user_id, at in _users(source, end):
        wanted = np.flatnonzero(source.effective[at] & (source.times_ms[at] >= start_ms))
        if not wanted.size:
            continue
        positives = _positives(source, at, user_id)
        before = len(positives) - int(source.effective[at].sum())
        ends = before + np.cumsum(source.effective[at])[wanted] - 1
        shown = source.rows[at]
        early = source.before.get(user_id, _NOBODY).seen
        for place, until in zip(wanted.tolist(), ends.tolist(), strict=True):
            event = int(at[place])
            masked = np.unique(np.concatenate([early, shown[:place]]))
            time_ms, target = int(source.times_ms[event]), int(source.rows[event])
            timed.append((event, Query(user_id, positives.until(until), time_ms, target, masked)))
    return [query for _, query in sorted(timed, key=lambda pair: pair[0])]


def earlier(source: Stream) -> list[Query]:
    """Each positive of before the log as a query, to learn from: the file tells the order within a user alone.

    Users are laid side by side, each from first to last over the same time, so that no user is learned in one go.
    """
    placed: list[tuple[float, int, Query]] = []
    for user_id, behaviours in sorted(source.before.items()):
        did = behaviours.positives
        for i, (row, time_ms) in enumerate(zip(did.rows.tolist(), did.times_ms.tolist(), strict=True)):
            placed.append(((i + 0.5) / len(did), user_id, Query(user_id, did.until(i), time_ms, row, _NOTHING)))
    return [query for _, _, query in sorted(placed, key=lambda entry: entry[:2])]


def _users(source: Stream, end: int) -> Iterator[tuple[int, Ints]]:
    """Each user among the first `end` impressions, and which of them are the user's, in event order."""
    order = np.argsort(source.user_ids[:end], kind="stable")
    users, first = np.unique(source.user_ids[:end][order], return_index=True)
    if users.size:
        yield from zip(users.tolist(), np.split(order, first[1:]), strict=True)


def _positives(source: Stream, at: Ints, user_id: int) -> Sequence:
    """The effective ones among a user's impressions `at`, after those before the log."""
    early = source.before.get(user_id, _NOBODY).positives
    liked = at[source.effective[at]]
    return Sequence(
        np.concatenate([early.rows, source.rows[liked]]), np.concatenate([early.times_ms, source.times_ms[liked]])
    )


def _before(folder: Path, item_ids: Ints) -> dict[int, Before]:
    table = read_parquet(folder / HISTORIES, _HISTORY_COLUMNS)
    out = {}
    columns = (table[name].tolist() for name in _HISTORY_COLUMNS)
    for user_id, time_ms, watched, liked in zip(*columns, strict=True):
        seen, rows = (rows_of(np.asarray(ids, np.int64) + 1, item_ids) for ids in (watched, liked))
        seen, rows = seen[seen >= 0], rows[rows >= 0]
        out[int(user_id) + 1] = Before(Sequence(rows, np.full(rows.size, int(time_ms), np.int64)), np.unique(seen))
    return out
