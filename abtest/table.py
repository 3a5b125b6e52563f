"""From a folded state to columns: one row per user and day, and one per user and source. What reports are made of."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from abtest.intervals import Interval
from abtest.metrics import COLUMNS
from abtest.records import Tally
from abtest.state import State
from abtest.stats import Floats

Ints: TypeAlias = npt.NDArray[np.int64]
SECOND_MS = 1000
PRE = tuple(f"pre.{column}" for column in ("recalls", "views", "effective_views", "follows", "play_s"))


@dataclass(frozen=True)
class Table:
    """Users of exactly one arm, U of them, and their rows. Users seen in two arms are left out, and counted.

    They saw both treatments, so they belong to neither; and since which arm they met second is chance, to leave them
    out does not favour one.
    """

    arms: tuple[str, ...]
    arm: Ints  # (U,) index into `arms`
    day: Ints  # (rows,) day of the experiment, ascending
    user: Ints  # (rows,) index into `arm`
    values: Floats  # (rows, len(COLUMNS))
    pre: Floats  # (U, len(PRE)) a user's sums over the days before the experiment
    sources: tuple[str, ...]
    source: Ints  # (source rows,) index into `sources`
    source_user: Ints  # (source rows,)
    source_values: Floats  # (source rows, len(Tally._fields))
    users_in_two_arms: int


def table(state: State) -> Table:
    """Columns of a state in which every request has been folded."""
    arms = tuple(state.rules.experiment.arms)
    met = [user for _, user in sorted(state.users.items()) if user.arms]  # others were seen before the start alone
    users = [user for user in met if len(user.arms) == 1]
    rows: list[tuple[float, ...]] = []
    source_rows: list[tuple[float, ...]] = []
    sources = sorted({source for user in users for source in user.sources})
    place = {source: i for i, source in enumerate(sources)}
    for i, user in enumerate(users):
        usage = _usage_ms(user.days.keys(), user.sessions, state)
        rows.extend(
            (day, i, t.recalls, t.views, t.effective_views, t.follows, t.play_ms / SECOND_MS, usage[day] / SECOND_MS)
            for day, t in user.days.items()
        )
        source_rows.extend((place[name], i, *tally) for name, tally in user.sources.items())
    days = np.array(sorted(rows), np.float64).reshape(-1, 2 + len(COLUMNS))
    by_source = np.array(source_rows, np.float64).reshape(-1, 2 + len(Tally._fields))
    return Table(
        arms=arms,
        arm=np.array([arms.index(next(iter(user.arms))) for user in users], np.int64),
        day=days[:, 0].astype(np.int64),
        user=days[:, 1].astype(np.int64),
        values=days[:, 2:],
        pre=np.array([_before(user.pre) for user in users], np.float64).reshape(-1, len(PRE)),
        sources=tuple(sources),
        source=by_source[:, 0].astype(np.int64),
        source_user=by_source[:, 1].astype(np.int64),
        source_values=by_source[:, 2:],
        users_in_two_arms=len(met) - len(users),
    )


def _before(pre: Tally) -> tuple[float, ...]:
    return pre.recalls, pre.views, pre.effective_views, pre.follows, pre.play_ms / SECOND_MS


def _usage_ms(days: Iterable[int], sessions: Iterable[Interval], state: State) -> dict[int, int]:
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
