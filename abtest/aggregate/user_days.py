"""Users and their days as columns: what an aggregate is made of, wherever it came from."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from abtest.collect.activity import Interval
from abtest.collect.records import EventSums
from abtest.collect.state import CollectorState, UserRecord
from abtest.stats.metrics import STREAMED, STREAMED_BEFORE
from abtest.stats.moments import Floats
from abtest.stats.winsorize import Cap
from contracts.runtime.clock import SECOND_MS

Ints: TypeAlias = npt.NDArray[np.int64]
PRE = tuple(f"pre.{column}" for column in STREAMED_BEFORE)
UNKNOWN = "pre.unknown"  # a covariate, 0 or 1: nothing was recorded of the user before, so its others are 0


@dataclass(frozen=True)
class Parts:
    """A user's sums cut another way than by days, such as by candidate source: R rows, at most one a user and part."""

    names: tuple[str, ...]
    part: Ints  # (R,) index into `names`
    user: Ints  # (R,) index into the table's users
    values: Floats  # (R, len(EventSums._fields))


@dataclass(frozen=True)
class Table:
    """U users of exactly one arm, and R rows, at most one a user and day.

    Users are sorted by arm and first day (a user's number is its place), rows by day and user. Users seen in two arms
    are left out, and counted: they saw both treatments, so they belong to neither; and since which arm they met second
    is chance, to leave them out does not favour one.
    """

    arms: tuple[str, ...]
    columns: tuple[str, ...]  # K
    covariates: tuple[str, ...]  # P
    user_id: Ints  # (U,)
    arm: Ints  # (U,) index into `arms`
    first: Ints  # (U,) first day with a row
    pre: Floats  # (U, P) a user's sums from before the experiment
    day: Ints  # (R,) day of the experiment
    user: Ints  # (R,) index into `arm`
    values: Floats  # (R, K)
    in_two_arms: int = 0
    parts: Mapping[str, Parts] = field(default_factory=dict)  # "source", "age", "version", "replica"
    left_out: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # ids of those in two arms, where they matter
    caps: Mapping[str, Cap] = field(default_factory=dict)  # by column that is another one capped


def arranged(
    arms: Sequence[str],
    columns: Sequence[str],
    covariates: Sequence[str],
    user_id: Ints,
    arm: Ints,
    pre: Floats,
    day: Ints,
    user: Ints,
    values: Floats,
    in_two_arms: int = 0,
    parts: Mapping[str, Parts] | None = None,
) -> Table:
    """A table from users and rows in any order; every user needs a row.

    >>> found = arranged(["a"], ["x"], [], np.array([7, 8]), np.array([0, 0]), np.zeros((2, 0)),
    ...     np.array([3, 1, 3]), np.array([0, 1, 1]), np.array([[1.0], [2.0], [3.0]]))
    >>> found.user_id.tolist(), found.day.tolist(), found.user.tolist(), found.values[:, 0].tolist()
    ([8, 7], [1, 3, 3], [0, 0, 1], [2.0, 3.0, 1.0])
    """
    first = np.full(len(arm), np.iinfo(np.int64).max)
    np.minimum.at(first, user, day)
    by_id = np.argsort(user_id, kind="stable")
    order = by_id[_by_small((arm * (first.max(initial=0) + 1) + first)[by_id])]
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    user = place[user]
    rows = _by_day(day, user, len(arm))
    return Table(
        arms=tuple(arms),
        columns=tuple(columns),
        covariates=tuple(covariates),
        user_id=user_id[order],
        arm=arm[order],
        first=first[order],
        pre=pre[order],
        day=day[rows],
        user=user[rows],
        values=values.take(rows, axis=0),
        in_two_arms=in_two_arms,
        parts={
            name: Parts(part.names, part.part, place[part.user], part.values) for name, part in (parts or {}).items()
        },
    )


def _by_small(keys: Ints) -> Ints:
    """The stable order by keys from 0 on: counted, not compared, where they are as few as arms by days are."""
    return np.argsort(keys.astype(np.min_scalar_type(int(keys.max(initial=0)))), kind="stable")


def _by_day(day: Ints, user: Ints, users: int) -> Ints:
    """The order by day and then user, of at most one row each: counted too, unless most of the days are empty."""
    cell = day * users + user
    cells = users * (int(day.max(initial=-1)) + 1)
    if cells > 8 * len(cell):
        return np.argsort(cell)
    row = np.full(cells, -1)
    row[cell] = np.arange(len(cell))
    return row[row >= 0]


def table(state: CollectorState) -> Table:
    """Columns of a state in which every request has been folded."""
    arms = tuple(state.rules.experiment.arms)
    met = {user_id: user for user_id, user in state.users.items() if user.arms}  # others were seen before the start
    users = {user_id: user for user_id, user in met.items() if len(user.arms) == 1}
    rows: list[tuple[float, ...]] = []
    for i, user in enumerate(users.values()):
        usage = _usage_ms(user.days.keys(), user.sessions, state)
        rows.extend((day, i, *_day(sums, usage[day])) for day, sums in user.days.items())
    days = np.array(rows, np.float64).reshape(-1, 2 + len(STREAMED))
    return arranged(
        arms,
        STREAMED,
        PRE,
        user_id=np.array(list(users), np.int64),
        arm=np.array([arms.index(next(iter(user.arms))) for user in users.values()], np.int64),
        pre=np.array([_before(user.pre) for user in users.values()], np.float64).reshape(-1, len(PRE)),
        day=days[:, 0].astype(np.int64),
        user=days[:, 1].astype(np.int64),
        values=days[:, 2:],
        in_two_arms=len(met) - len(users),
        parts={
            "source": _parts([user.sources for user in users.values()]),
            "age": _parts([{str(age): sums for age, sums in user.ages.items()} for user in users.values()]),
            "version": _parts([_versions(user) for user in users.values()]),
            "replica": _parts([dict.fromkeys(user.replicas, EventSums(1)) for user in users.values()]),
        },
    )


def earlier(state: CollectorState) -> Floats:
    """(users, len(PRE)) what everyone did before the experiment who did something then, in it or not."""
    seen = [user.pre for user in state.users.values() if user.pre.recalls]
    return np.array([_before(pre) for pre in seen], np.float64).reshape(-1, len(PRE))


def did_something_before(covariates: Sequence[str], pre: Floats) -> npt.NDArray[np.bool_]:
    """Which users (U,) of covariates (U, P) are known from before the experiment for something that they did."""
    measured = [place for place, name in enumerate(covariates) if name != UNKNOWN]
    return np.asarray(pre[:, measured].any(axis=1))


def _versions(user: UserRecord) -> dict[str, EventSums]:
    return {version: sums for (_, version), sums in user.versions.items()}


def _parts(sums_by_part: Sequence[Mapping[str, EventSums]]) -> Parts:
    names = tuple(sorted({name for by_part in sums_by_part for name in by_part}))
    place = {name: i for i, name in enumerate(names)}
    rows = [(place[name], i, *sums) for i, by_part in enumerate(sums_by_part) for name, sums in by_part.items()]
    columns = np.array(rows, np.float64).reshape(-1, 2 + len(EventSums._fields))
    return Parts(names, columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), columns[:, 2:])


def _day(sums: EventSums, usage_ms: int) -> tuple[float, ...]:
    return (
        sums.recalls,
        sums.views,
        sums.effective_views,
        sums.follows,
        sums.play_ms / SECOND_MS,
        usage_ms / SECOND_MS,
        sums.timed,
        sums.answer_us / 1000,
    )


def _before(pre: EventSums) -> tuple[float, ...]:
    return pre.recalls, pre.views, pre.effective_views, pre.follows, pre.play_ms / SECOND_MS


def _usage_ms(days: Iterable[int], sessions: Iterable[Interval], state: CollectorState) -> dict[int, int]:
    """Length of a user's sessions by the day they start on.

    A session that starts on a day without an exposure (feedback long after one) counts on the last day before with
    one, so that a day's users are those exposed on it, whatever the metric.
    """
    exposed = sorted(days)
    usage = dict.fromkeys(exposed, 0)
    for start, end in sessions:
        at = bisect_right(exposed, state.rules.day(start)) - 1
        usage[exposed[at]] += end - start
    return usage
