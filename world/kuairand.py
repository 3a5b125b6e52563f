"""A folder of KuaiRand-Pure (Gao et al., CIKM 2022) as a world.

The first days are replayed as they happened; in the days after them users come when they came in the log, and what
they do with what they get comes from a response model fitted on the first days.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from contracts.features import Ints, rows_of
from contracts.runtime.clock import HOUR_MS
from world import logs
from world.base import (
    LogPage,
    Response,
    ResponseQuality,
    Visit,
    WorldCatalogue,
    WorldError,
    begin_times,
    next_visit_times,
)
from world.features import RECENT, Moment, Profiles
from world.randomness import uniforms
from world.response import ResponseModel, fit_and_measure

BEIJING_MS = 8 * HOUR_MS
_STREAM = 1  # of randomness; see world.randomness

_USER_COLUMNS = ("user_id", "user_active_degree", "register_days")
_VIDEO_COLUMNS = ("video_id", "video_duration", "tag")


@dataclass
class KuaiRandWorld:
    """Users of the log. Holds where each of them stands; everything else is fixed at the start."""

    name: str
    description: str
    catalogue: WorldCatalogue
    start_ms: int
    experiment_start_ms: int
    end_ms: int
    quality: ResponseQuality
    seed: int
    log: pd.DataFrame  # as `logs.place` gives it
    come: list[Visit]
    tabs: Ints  # (V,) of each visit
    user_ids: Ints  # (U,) sorted
    model: ResponseModel
    recent: Ints  # (U, RECENT) rows of the last effective views, newest first, -1 where there are fewer
    viewed_ms: Ints  # (U,) time of the newest of them
    shown: set[int]  # user row * N + item row
    simulated_log: bool = False
    day_offset_ms: int = BEIJING_MS

    def warmup(self) -> Iterator[LogPage]:
        return logs.pages(self.log, self.start_ms, self.experiment_start_ms)

    def visits(self) -> Sequence[Visit]:
        return self.come

    def respond(self, visits: Sequence[Visit], shown: Sequence[Ints]) -> list[Response]:
        if not visits:
            return []
        sizes = np.array([len(items) for items in shown])
        items = rows_of(np.concatenate(shown), self.catalogue.item_ids)
        if (items < 0).any():
            raise ValueError("an item that was shown is not in the catalogue")
        index = np.array([visit.index for visit in visits])
        visitors = rows_of(np.array([visit.user_id for visit in visits]), self.user_ids)
        users = np.repeat(visitors, sizes)
        times = np.repeat(np.array([visit.time_ms for visit in visits]), sizes)
        pairs = (users * self.catalogue.item_ids.size + items).tolist()
        again = np.fromiter((pair in self.shown for pair in pairs), bool, len(pairs))
        minutes = np.where(self.recent[users, 0] >= 0, (times - self.viewed_ms[users]) / 60_000, np.nan)
        moment = Moment(self.recent[users], minutes.astype(np.float32))
        p = self.model.probabilities(users, items, times, np.repeat(self.tabs[index], sizes), moment, again)
        first = np.cumsum(sizes) - sizes
        position = np.arange(items.size) - np.repeat(first, sizes)
        chance = uniforms(self.seed, _STREAM, np.repeat(index, sizes)[:, None], position[:, None] * 3 + np.arange(3))
        effective = chance[:, 0] < p
        plays = self.model.plays.draw(self.catalogue.durations_ms[items], effective, chance[:, 1])
        follows = chance[:, 2] < self.model.follow_rates[effective.astype(np.int64)]
        self.shown.update(pairs)
        out = []
        for at, (visit, begin, size) in enumerate(zip(visits, first.tolist(), sizes.tolist(), strict=True)):
            part = slice(begin, begin + size)
            starts = begin_times(visit.time_ms, plays[part], int(self._until[visit.index]))
            out.append(Response(starts, plays[part], effective[part], follows[part]))
            self._remember(visitors[at], items[part][effective[part]], starts[effective[part]])
        return out

    def logged_choice(self, visits: Sequence[Visit]) -> list[Ints]:
        return [self._logged[visit.index] for visit in visits]

    def affinities(self, visits: Sequence[Visit]) -> None:
        """Nothing: the response model would take an hour to judge the whole catalogue on every visit of a week."""

    @cached_property
    def _logged(self) -> list[Ints]:
        pages = logs.visit_items(self.log, self.experiment_start_ms, self.end_ms)
        known = self.catalogue.item_ids
        return [page[rows_of(page, known) >= 0][: visit.k] for page, visit in zip(pages, self.come, strict=True)]

    @cached_property
    def _until(self) -> Ints:
        return next_visit_times(self.come, self.end_ms)

    def _remember(self, user: int, viewed: Ints, times_ms: Ints) -> None:
        if viewed.size:
            self.recent[user] = np.concatenate([viewed[::-1], self.recent[user]])[:RECENT]
            self.viewed_ms[user] = times_ms[-1]


def kuairand(
    folder: Path, *, days: int = 7, warmup_days: int = 7, seed: int = 0, slate: int = 4, users: int | None = None
) -> KuaiRandWorld:
    """Make a world of a KuaiRand-Pure folder, as Kuaishou ships it (CSV) or as parquet.

    Args:
        folder: holds log_standard_*.csv, user_features_pure.csv and video_features_basic_pure.csv; or
            log_standard_*.parquet, user_features_pure.parquet and video_features_pure.parquet.
        days: of experiment, the last of the log.
        warmup_days: before them.
        seed: of the responses, and of the choice of `users`.
        slate: the fewest items that a visit asks for.
        users: how many of the log's users to keep; None keeps all.

    Raises:
        WorldError: a file or a column is missing or unreadable, or the log is too short.

    """
    log = logs.place(read_log(folder), BEIJING_MS)
    if users is not None:
        log = _some_users(log, users, seed)
    used = logs.period(log, warmup_days, days, BEIJING_MS)
    people = _read(folder, "user_features_pure", _USER_COLUMNS)
    catalogue = read_catalogue(folder, log)
    come, tabs = logs.visits(log, used.experiment_start_ms, used.end_ms, slate)
    user_ids, profiles = _profiles(people, log, catalogue)
    seen = logs.observations(log, used.start_ms, used.experiment_start_ms, user_ids, catalogue.item_ids)
    model, quality = fit_and_measure(seen, profiles, BEIJING_MS)
    recent, viewed_ms = _last_views(seen, user_ids.size)
    return KuaiRandWorld(
        name="kuairand-pure",
        description=(
            f"Users of the KuaiRand-Pure log: {warmup_days} days replayed as they happened, then {days} days of visits "
            "as in the log with simulated responses."
        ),
        catalogue=catalogue,
        start_ms=used.start_ms,
        experiment_start_ms=used.experiment_start_ms,
        end_ms=used.end_ms,
        quality=quality,
        seed=seed,
        log=log,
        come=come,
        tabs=tabs,
        user_ids=user_ids,
        model=model,
        recent=recent,
        viewed_ms=viewed_ms,
        shown=set((seen.users * catalogue.item_ids.size + seen.items).tolist()),
    )


def read_log(folder: Path) -> pd.DataFrame:
    """The standard log's rows as they are, in the columns that `logs.place` takes.

    Raises:
        WorldError: a file or a column is missing or unreadable.

    """
    for kind in ("csv", "parquet"):
        parts = sorted(folder.glob(f"log_standard_*.{kind}"))
        if parts:
            frames = [read_file(part, logs.COLUMNS) for part in parts]
            return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)
    raise WorldError(f"{folder} has no log_standard_*.csv (nor log_standard_*.parquet).")


def _read(folder: Path, stem: str, columns: tuple[str, ...]) -> pd.DataFrame:
    names = (f"{stem}.csv", f"{stem}.parquet", f"{stem.replace('_basic', '')}.parquet")
    for name in names:
        if (folder / name).is_file():
            return read_file(folder / name, columns)
    raise WorldError(f"{folder} has no {names[0]} (nor {names[-1]}).")


def read_file(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """These columns of a CSV or parquet file.

    Raises:
        WorldError: the file or a column is missing or unreadable.

    """
    try:
        frame = pd.read_csv(path, low_memory=False) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own errors are among them
        raise WorldError(f"{path} can't be read: {' '.join(str(error).split())}.") from error
    for name in columns:
        if name not in frame.columns:
            raise WorldError(f"{path} has no column {name}.")
    return frame[list(columns)]


def _some_users(log: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Rows of `count` users, and those that name no user."""
    ids = np.unique(log["user_id"].dropna().to_numpy(np.int64))
    chosen = np.random.default_rng(seed).permutation(ids)[:count].tolist()
    return log[log["user_id"].isin(chosen) | log["user_id"].isna()]


def read_catalogue(folder: Path, log: pd.DataFrame) -> WorldCatalogue:
    """All videos of the feature file. A missing duration is the median of the log's for that video, else 0.

    Raises:
        WorldError: the file or a column is missing or unreadable.

    """
    videos = _read(folder, "video_features_basic_pure", _VIDEO_COLUMNS)
    ids = logs.integers(videos["video_id"]) + 1
    listed = videos.assign(item_id=ids)[ids.gt(0).fillna(False)].drop_duplicates("item_id").sort_values("item_id")
    item_ids = listed["item_id"].to_numpy(np.int64)
    stated = pd.to_numeric(listed["video_duration"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    logged = log[log["duration_ms"].gt(0).fillna(False)].groupby("item_id")["duration_ms"].median().reindex(item_ids)
    durations = np.where(stated > 0, stated, np.nan_to_num(logged.to_numpy(np.float64, na_value=np.nan)))
    return WorldCatalogue(item_ids, tuple(categories(tag) for tag in listed["tag"]), durations.astype(np.int64))


def categories(tag: object) -> tuple[int, ...]:
    """Category ids of a video's `tag`: KuaiRand's, plus one.

    >>> categories("20,43"), categories(7.0), categories("unknown"), categories(None)
    ((21, 44), (8,), (), ())
    """
    parts = (part.strip().removesuffix(".0") for part in str(tag).split(","))
    return tuple(dict.fromkeys(int(part) + 1 for part in parts if part.isdecimal()))


def _profiles(people: pd.DataFrame, log: pd.DataFrame, catalogue: WorldCatalogue) -> tuple[Ints, Profiles]:
    """The known users, sorted, and what is known of them and the items without any response."""
    people = people.assign(user_id=logs.integers(people["user_id"]) + 1).dropna(subset=["user_id"])
    people = people.drop_duplicates("user_id").set_index("user_id")
    logged = log["user_id"].dropna()
    user_ids = np.unique(np.concatenate([people.index.to_numpy(np.int64), logged[logged > 0].to_numpy(np.int64)]))
    people = people.reindex(user_ids)
    degrees = sorted(people["user_active_degree"].dropna().astype(str).unique())
    degree = people["user_active_degree"].map({name: float(code) for code, name in enumerate(degrees)})
    heads = [its_categories[0] if its_categories else 0 for its_categories in catalogue.categories]
    names, rows = np.unique(np.array([*heads, 0]), return_inverse=True)
    return user_ids, Profiles(
        degree.to_numpy(np.float32, na_value=np.nan),
        pd.to_numeric(people["register_days"], errors="coerce").to_numpy(np.float32, na_value=np.nan),
        rows[:-1].astype(np.int64),
        names.size,
        catalogue.durations_ms,
    )


def _last_views(seen: logs.Observations, users: int) -> tuple[Ints, Ints]:
    """Where each user stands after the warm-up."""
    recent = np.full((users, RECENT), -1, np.int64)
    viewed_ms = np.zeros(users, np.int64)
    views = seen.where(seen.effective)
    for user, item, time in zip(views.users.tolist(), views.items.tolist(), views.times_ms.tolist(), strict=True):
        recent[user, 1:] = recent[user, :-1].copy()
        recent[user, 0] = item
        viewed_ms[user] = time
    return recent, viewed_ms
