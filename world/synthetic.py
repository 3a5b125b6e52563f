"""A world from a seed: no data needed. Its warm-up is a log in KuaiRand's columns, read by the same code as KuaiRand's.

Like a real log it has defects, the same for the same seed: 0.1 % exact duplicate rows, and up to ten rows each with a
negative play time, a time stamp 400 days ahead, a video that is not in the catalogue, and no play time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from contracts.features import Ints, rows_of
from contracts.runtime.clock import DAY_MS, HOUR_MS
from world import latent, logs
from world.base import (
    Doubles,
    LogPage,
    Response,
    Visit,
    WorldCatalogue,
    WorldError,
    begin_times,
    next_visit_times,
    waves,
)
from world.turnover import Turnover, turn_over

START_MS = 1_704_067_200_000  # Monday 2024-01-01, 00:00 UTC
_WAVE_MS = 10 * 60_000
_SESSIONS = 1.4  # a day on which the user comes at all
_REQUESTS = 4.25  # a session
_DEFECTS = 10
_AHEAD_MS = 400 * DAY_MS
_BIRTHS = 1  # beside the seed, of what `births` draws

# Relative traffic of the hours of a day: quiet before dawn, a bump at noon, most in the evening.
_RHYTHM = np.array([5, 3, 2, 1, 1, 2, 4, 6, 7, 7, 7, 8, 10, 9, 8, 8, 8, 9, 11, 13, 15, 15, 12, 8], np.float64)

# The columns of KuaiRand's log that this world leaves at 0.
_EMPTY = (
    "is_comment",
    "is_forward",
    "is_hate",
    "profile_stay_time",
    "comment_stay_time",
    "is_profile_enter",
    "is_rand",
)


@dataclass
class SyntheticWorld:
    """Simulated users. Holds where each of them stands; everything else is fixed at the start."""

    name: str
    description: str
    catalogue: WorldCatalogue
    start_ms: int
    experiment_start_ms: int
    end_ms: int
    log: pd.DataFrame  # of the warm-up, in KuaiRand's columns
    come: list[Visit]
    users: latent.Users
    first_request: int  # requests before it were the warm-up's
    simulated_log: bool = True
    day_offset_ms: int = 0
    quality: None = None

    def warmup(self) -> Iterator[LogPage]:
        if self.log.empty:
            return iter(())
        placed = logs.place(self.log, self.day_offset_ms)
        return logs.pages(placed, self.start_ms, self.experiment_start_ms)

    def visits(self) -> Sequence[Visit]:
        return self.come

    def respond(self, visits: Sequence[Visit], shown: Sequence[Ints]) -> list[Response]:
        if not visits:
            return []
        items = rows_of(np.concatenate(shown), self.catalogue.item_ids)
        if (items < 0).any():
            raise ValueError("an item that was shown is not in the catalogue")
        return _answer(
            self.users, visits, items, np.array([len(ids) for ids in shown]), self._until, self.first_request
        )

    def logged_choice(self, visits: Sequence[Visit]) -> list[Ints]:
        pages = []
        for visit in visits:
            rng = np.random.Generator(np.random.Philox(key=[self.first_request + visit.index, self.users.seed]))
            rows = self.users.recommend(rng, np.array([visit.user_id - 1]), visit.k, visit.time_ms)[0]
            pages.append(self.catalogue.item_ids[rng.permutation(np.unique(rows))])
        return pages

    def affinities(self, visits: Sequence[Visit]) -> Doubles:
        index, users, times_ms = (
            np.array(column, np.int64)
            for column in zip(*((v.index, v.user_id, v.time_ms) for v in visits), strict=True)
        )
        return self.users.affinities(self.first_request + index, users - 1, times_ms)

    @cached_property
    def _until(self) -> Ints:
        return next_visit_times(self.come, self.end_ms)


def synthetic(
    seed: int = 0,
    *,
    days: int = 7,
    warmup_days: int = 2,
    users: int = 1000,
    items: int = 1500,
    slate: int = 4,
    births: float = 0.0,
) -> SyntheticWorld:
    """Make a world; the defaults give some 30,000 recalls and 150,000 impressions.

    `births` is the share of `items` that is born anew on each day, see `world.turnover`; 0: nothing changes.

    Raises:
        WorldError: it would be too small.

    """
    if users < 1 or items < latent.INTERESTS * slate or days < 1 or warmup_days < 0:
        raise WorldError(f"A synthetic world needs a day, a user and {latent.INTERESTS * slate} items at least.")
    rng = np.random.default_rng(seed)
    people = latent.population(rng, users, items)
    intercept, change = latent.base_intercept(rng, people), None
    if births:
        own = np.random.default_rng([seed, _BIRTHS])
        people, change = turn_over(own, people, births, START_MS, warmup_days + days)
    standing = latent.Users(people, seed, intercept, change)
    experiment_start_ms = START_MS + warmup_days * DAY_MS
    end_ms = experiment_start_ms + days * DAY_MS
    requests = _requests(rng, users, warmup_days + days, slate)
    early = [visit for visit in requests if visit.time_ms < experiment_start_ms]
    late = [visit for visit in requests if visit.time_ms >= experiment_start_ms]
    return SyntheticWorld(
        name="synthetic",
        description=(
            f"A synthetic world (seed {seed}): {users} users whose interests drift within a session, {items} items, "
            f"{f'of which {births:.1%} are born anew each day, ' if births else ''}"
            f"{warmup_days} days of warm-up and {days} days of experiment, all simulated."
        ),
        catalogue=_catalogue(people, change),
        start_ms=START_MS,
        experiment_start_ms=experiment_start_ms,
        end_ms=end_ms,
        log=_with_defects(rng, _log(rng, standing, early, slate, end_ms), people.items),
        come=[Visit(i, visit.user_id, visit.time_ms, visit.k) for i, visit in enumerate(late)],
        users=standing,
        first_request=len(early),
    )


def _catalogue(people: latent.Population, change: Turnover | None) -> WorldCatalogue:
    pairs = zip(people.item_cluster.tolist(), people.second_cluster.tolist(), strict=True)
    categories = tuple(tuple(cluster + 1 for cluster in pair if cluster >= 0) for pair in pairs)
    born_ms = None if change is None else change.born_ms
    return WorldCatalogue(np.arange(1, people.items + 1), categories, people.durations_ms, born_ms)


def _requests(rng: np.random.Generator, users: int, days: int, slate: int) -> list[Visit]:
    """Who asks when: on some days, in one or more sessions by the hours' rhythm, every few minutes in a session."""
    eager = rng.beta(3, 2, users)
    user, day = (rng.random((users, days)) < eager[:, None]).nonzero()
    sessions = 1 + rng.poisson(_SESSIONS - 1, user.size)
    user, day = np.repeat(user, sessions), np.repeat(day, sessions)
    hour = rng.choice(24, user.size, p=_RHYTHM / _RHYTHM.sum())
    begin = day * DAY_MS + hour * HOUR_MS + rng.integers(0, HOUR_MS, user.size)
    per_session = np.minimum(rng.geometric(1 / _REQUESTS, user.size), 30)
    user, begin = np.repeat(user, per_session), np.repeat(begin, per_session)
    pause = np.maximum(rng.lognormal(np.log(150_000), 0.6, user.size), 30_000).astype(np.int64)
    elapsed = np.cumsum(pause)
    first = np.repeat(np.cumsum(per_session) - per_session, per_session)
    time = START_MS + begin + elapsed - elapsed[first]
    within = time < START_MS + days * DAY_MS
    unique = np.unique(np.stack([time[within], user[within]]), axis=1)
    return [Visit(i, who + 1, at, slate) for i, (at, who) in enumerate(zip(*unique.tolist(), strict=True))]


def _answer(
    users: latent.Users, visits: Sequence[Visit], items: Ints, sizes: Ints, until: Ints, first_request: int
) -> list[Response]:
    """Responses of one wave; `items` (m,) are rows, those of the first visit first; `until` is by visit index."""
    index = np.array([visit.index for visit in visits])
    plays, effective, follows = users.respond(
        first_request + index,
        np.array([visit.user_id for visit in visits]) - 1,
        np.array([visit.time_ms for visit in visits]),
        items,
        sizes,
    )
    ends = np.cumsum(sizes).tolist()
    out = []
    for visit, begin, end in zip(visits, [0, *ends[:-1]], ends, strict=True):
        part = slice(begin, end)
        starts = begin_times(visit.time_ms, plays[part], int(until[visit.index]))
        out.append(Response(starts, plays[part], effective[part], follows[part]))
    return out


def _log(rng: np.random.Generator, users: latent.Users, visits: list[Visit], slate: int, end_ms: int) -> pd.DataFrame:
    """What the logging policy showed on `visits` and what came of it, in KuaiRand's columns, in time order."""
    until = next_visit_times(visits, end_ms)
    columns: list[Ints] = [np.empty((6, 0), np.int64)]
    for wave in waves(visits, _WAVE_MS):
        who = np.array([visit.user_id for visit in wave]) - 1
        pages = [np.unique(page) for page in users.recommend(rng, who, slate, wave[0].time_ms)]
        pages = [rng.permutation(page) for page in pages]
        sizes = np.array([page.size for page in pages])
        answers = _answer(users, wave, np.concatenate(pages), sizes, until, 0)
        for user, page, answer in zip(who, pages, answers, strict=True):
            same = np.full(page.size, user)
            view, follow = answer.effective_view, answer.follow
            columns.append(np.stack([same, page, answer.start_ms, answer.play_time_ms, view, follow]).astype(np.int64))
    user, item, time, play, effective, follows = np.concatenate(columns, axis=1)
    when = pd.to_datetime(pd.Series(time), unit="ms")
    log = pd.DataFrame(
        {
            "user_id": user,
            "video_id": item,
            "date": when.dt.strftime("%Y%m%d").astype(np.int64),
            "hourmin": when.dt.hour * 100,
            "time_ms": time,
            "is_click": (play >= 3000).astype(np.int64),
            "is_like": ((effective == 1) & (rng.random(user.size) < 0.05)).astype(np.int64),
            "is_follow": follows,
            "long_view": effective,
            "play_time_ms": play,
            "duration_ms": users.population.durations_ms[item],
            "tab": np.ones(user.size, np.int64),
        }
        | {name: np.zeros(user.size, np.int64) for name in _EMPTY}
    )
    return log.sort_values(["time_ms", "user_id"], kind="stable", ignore_index=True)


def _with_defects(rng: np.random.Generator, log: pd.DataFrame, items: int) -> pd.DataFrame:
    """Spoil up to ten rows of each kind, never more than one in a hundred, and duplicate others."""
    each = min(_DEFECTS, len(log) // 100)
    chosen = rng.permutation(len(log))
    negative, ahead, unknown, missing, copied = np.split(
        chosen[: 4 * each + -(-len(log) // 1000)], np.arange(1, 5) * each
    )
    spoiled = log.astype({"play_time_ms": "Int64"})
    spoiled.loc[negative, "play_time_ms"] = -1 - spoiled.loc[negative, "play_time_ms"]
    spoiled.loc[ahead, "time_ms"] += _AHEAD_MS
    spoiled.loc[unknown, "video_id"] += items
    spoiled.loc[missing, "play_time_ms"] = pd.NA
    return pd.concat([spoiled, spoiled.loc[copied]]).sort_index(kind="stable").reset_index(drop=True)
