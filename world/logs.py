"""From rows in KuaiRand's columns to pages, visits and observations. Bad rows pass through; nothing is repaired.

KuaiRand counts users, videos and categories from 0, the contracts from 1: every id here is the log's plus one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.features import Ints, rows_of
from contracts.runtime.clock import DAY_MS
from world.base import MAX_SLATE, VISIT_GAP_MS, Bools, LogPage, LogRow, Visit, WorldError

COLUMNS = ("user_id", "video_id", "date", "time_ms", "is_follow", "long_view", "play_time_ms", "duration_ms", "tab")

# A time this far from the log's median is a defect and not a day of the log: KuaiRand covers four weeks.
_PLAUSIBLE_MS = 45 * DAY_MS
_EXACT = 2**53  # a float beyond it is not an exact integer


@dataclass(frozen=True)
class Period:
    """The days that are used, in event time."""

    start_ms: int
    experiment_start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Observations:
    """Sound impressions, once each, in time order; all arrays (n,)."""

    users: Ints  # row among the known users
    items: Ints  # row in the catalogue
    times_ms: Ints
    tabs: Ints  # where in the app it was shown
    plays_ms: Ints
    effective: Bools
    follows: Bools

    def where(self, keep: Bools) -> "Observations":
        """Those of them that `keep` (n,) selects."""
        return Observations(
            self.users[keep],
            self.items[keep],
            self.times_ms[keep],
            self.tabs[keep],
            self.plays_ms[keep],
            self.effective[keep],
            self.follows[keep],
        )


def integers(column: "pd.Series[int]") -> "pd.Series[int]":
    """The column as nullable integers; what is not one becomes missing.

    >>> integers(pd.Series(["3", "x", None, "2.5"])).tolist()
    [3, <NA>, <NA>, <NA>]
    """
    numbers = pd.to_numeric(column, errors="coerce")
    if pd.api.types.is_float_dtype(numbers.dtype):
        numbers = numbers.astype("Float64").astype("float64")
        numbers = numbers.where((numbers % 1 == 0) & (numbers.abs() < _EXACT))
    return numbers.astype("Int64")


def place(raw: pd.DataFrame, day_offset_ms: int) -> pd.DataFrame:
    """Read a log in KuaiRand's columns and give every row a place in time.

    A row whose `time_ms` is missing or contradicts its `date` or the rest of the log keeps it, but stands at the time
    of the row before it in the file.

    Returns:
        Nullable integers user_id, item_id, date, time_ms, follow, effective_view, play_time_ms, duration_ms, tab;
        placed_ms (int64), the row's place in time; sound (bool), whether that is its own time. In the file's order.

    Raises:
        WorldError: no row has a time.

    """
    log = pd.DataFrame({name: integers(raw[name]) for name in COLUMNS}).reset_index(drop=True)
    log = log.rename(columns={"video_id": "item_id", "is_follow": "follow", "long_view": "effective_view"})
    log["user_id"] += 1
    log["item_id"] += 1
    for name in ("effective_view", "follow"):
        log[name] = log[name].where(log[name].isin([0, 1]))
    times = log["time_ms"].to_numpy(np.float64, na_value=np.nan)
    if np.isnan(times).all():
        raise WorldError("The log holds no row with a time.")
    days = np.floor((times + day_offset_ms) / DAY_MS)
    named = pd.to_datetime(log["date"].astype("string"), format="%Y%m%d", errors="coerce")
    stated_days = (named - pd.Timestamp(0)).dt.days.to_numpy(np.float64, na_value=np.nan)
    # `date` is that of the request and may be the day before or after that of the play.
    agrees = np.isnan(stated_days) | (np.abs(days - stated_days) <= 1)
    sound = (np.abs(times - np.nanmedian(times)) <= _PLAUSIBLE_MS) & agrees
    log["placed_ms"] = pd.Series(np.where(sound, times, np.nan)).ffill().bfill().astype("int64")
    log["sound"] = sound
    return log


def period(log: pd.DataFrame, warmup_days: int, days: int, day_offset_ms: int) -> Period:
    """The last `warmup_days` + `days` days of a log.

    Raises:
        WorldError: the log has fewer.

    """
    placed = (log["placed_ms"].to_numpy() + day_offset_ms) // DAY_MS
    first, last = int(placed.min()), int(placed.max())
    if last - first + 1 < warmup_days + days:
        raise WorldError(
            f"The log covers {last - first + 1} days, but {warmup_days} of warm-up and {days} of experiment are needed."
        )
    end_ms = (last + 1) * DAY_MS - day_offset_ms
    return Period(end_ms - (days + warmup_days) * DAY_MS, end_ms - days * DAY_MS, end_ms)


def pages(log: pd.DataFrame, start_ms: int, end_ms: int) -> Iterator[LogPage]:
    """Cut the rows placed in [start_ms, end_ms) into pages, in time order.

    A page ends where the user pauses for longer than a visit's gap, and before an item that comes again at another
    time: (request_id, item_id) then names one impression.
    """
    rows = _by_user(log, start_ms, end_ms)
    if rows.empty:
        return
    visit = _visit_numbers(rows)
    keys = pd.DataFrame({"visit": visit, "item_id": rows["item_id"], "time_ms": rows["time_ms"]})
    again = keys.duplicated(["visit", "item_id"]) & ~keys.duplicated()
    first = np.flatnonzero(np.diff(visit, prepend=-1).astype(bool) | again.to_numpy())
    last = np.append(first[1:], len(rows))
    placed = rows["placed_ms"].to_numpy()
    users = rows["user_id"].to_numpy(np.int64, na_value=0)
    cells = list(
        zip(
            _optional(rows["item_id"]),
            _optional(rows["time_ms"]),
            _optional(rows["play_time_ms"]),
            _optional(rows["effective_view"]),
            _optional(rows["follow"]),
            placed.tolist(),
            strict=True,
        )
    )
    for number, page in enumerate(np.argsort(placed[first], kind="stable")):
        head = first[page]
        yield LogPage(
            f"log-{number}",
            int(users[head]),
            int(placed[head]),
            tuple(
                LogRow(item, time, play, _truth(view), _truth(follow), received)
                for item, time, play, view, follow, received in cells[head : last[page]]
            ),
        )


def visits(log: pd.DataFrame, start_ms: int, end_ms: int, slate: int) -> tuple[list[Visit], Ints]:
    """Who came when in [start_ms, end_ms), and in which tab of the app each visit began.

    A visit asks for as many items as the user was shown in it, at least `slate` and at most 20.
    """
    rows, first, order = _visits(log, start_ms, end_ms)
    counts = np.diff(first, append=len(rows))
    heads = rows.iloc[first]
    users = heads["user_id"].to_numpy(np.int64)
    times = heads["placed_ms"].to_numpy(np.int64)
    tabs = heads["tab"].fillna(0).to_numpy(np.int64)
    sizes = np.clip(counts, slate, max(slate, MAX_SLATE))
    come = [Visit(i, int(users[at]), int(times[at]), int(sizes[at])) for i, at in enumerate(order)]
    return come, tabs[order]


def visit_items(log: pd.DataFrame, start_ms: int, end_ms: int) -> list[Ints]:
    """The items that each of `visits` was shown in the log, each once, in the order of the visits."""
    rows, first, order = _visits(log, start_ms, end_ms)
    items = rows["item_id"].to_numpy(np.int64, na_value=0)
    shown = [np.array([*dict.fromkeys(part.tolist())], np.int64) for part in np.split(items, first[1:])]
    return [shown[at] for at in order]


def _visits(log: pd.DataFrame, start_ms: int, end_ms: int) -> tuple[pd.DataFrame, Ints, Ints]:
    """The rows of visits by user, the place of each visit's first, and the visits in the order of their times."""
    rows = _by_user(log[log["sound"] & log["user_id"].gt(0).fillna(False)], start_ms, end_ms)
    rows = rows.drop_duplicates(["user_id", "item_id", "time_ms"])
    first = np.flatnonzero(np.diff(_visit_numbers(rows), prepend=-1)) if len(rows) else np.empty(0, np.int64)
    heads = rows.iloc[first]
    return rows, first, np.lexsort((heads["user_id"].to_numpy(np.int64), heads["placed_ms"].to_numpy(np.int64)))


def observations(log: pd.DataFrame, start_ms: int, end_ms: int, user_ids: Ints, item_ids: Ints) -> Observations:
    """The sound rows of known users and items in [start_ms, end_ms), duplicates once."""
    rows = log[log["sound"] & log["placed_ms"].between(start_ms, end_ms - 1)]
    rows = rows[rows["play_time_ms"].ge(0).fillna(False)]
    rows = rows.dropna(subset=["user_id", "item_id", "effective_view", "follow"])
    rows = rows.drop_duplicates(["user_id", "item_id", "time_ms"]).sort_values("placed_ms", kind="stable")
    users = rows_of(rows["user_id"].to_numpy(np.int64), user_ids)
    items = rows_of(rows["item_id"].to_numpy(np.int64), item_ids)
    return Observations(
        users,
        items,
        rows["placed_ms"].to_numpy(np.int64),
        rows["tab"].fillna(0).to_numpy(np.int64),
        rows["play_time_ms"].to_numpy(np.int64),
        rows["effective_view"].to_numpy(np.int64) == 1,
        rows["follow"].to_numpy(np.int64) == 1,
    ).where((users >= 0) & (items >= 0))


def _by_user(log: pd.DataFrame, start_ms: int, end_ms: int) -> pd.DataFrame:
    inside = log[log["placed_ms"].between(start_ms, end_ms - 1)]
    return inside.sort_values(["user_id", "placed_ms"], kind="stable").reset_index(drop=True)


def _visit_numbers(rows: pd.DataFrame) -> Ints:
    """Number visits in rows sorted by user and time, from 0; a row that names no user is one by itself."""
    users = rows["user_id"].to_numpy(np.int64, na_value=-1)
    placed = rows["placed_ms"].to_numpy(np.int64)
    nobody = rows["user_id"].isna().to_numpy()
    new = np.ones(len(rows), bool)
    new[1:] = (users[1:] != users[:-1]) | (np.diff(placed) > VISIT_GAP_MS) | nobody[1:]
    return np.cumsum(new) - 1


def _optional(column: "pd.Series[int]") -> list[int | None]:
    missing = column.isna().to_numpy()
    numbers = column.to_numpy(np.int64, na_value=0)
    return [None if absent else number for absent, number in zip(missing.tolist(), numbers.tolist(), strict=True)]


def _truth(bit: int | None) -> bool | None:
    return None if bit is None else bit == 1
