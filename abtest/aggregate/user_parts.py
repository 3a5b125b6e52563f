"""A table's users cut another way than by days: by candidate source, snapshot age and version, replica."""

import numpy as np
import numpy.typing as npt

from abtest.aggregate.sources import Votes
from abtest.aggregate.user_days import Parts, Table
from abtest.collect.records import EventSums
from abtest.stats.columns import Column
from abtest.stats.moments import Moments

SOURCE_COLUMNS = ("recalls", "served", "views", "effective_views", "follows", "play_ms", "age_ms")
MET = "users"  # 0 or 1: whether the user has a recall of the part; a source has none of what it served and nobody saw


def parts_of(table: Table, parts: Parts) -> dict[str, Moments]:
    """By arm, moments of ``column@part``; a user without a row of a part did nothing with it."""
    columns = [Column(column, part=name) for name in parts.names for column in (*SOURCE_COLUMNS, MET)]
    places = [EventSums._fields.index(column) for column in SOURCE_COLUMNS]
    moments = {}
    for i, arm in enumerate(table.arms):
        begin, end = np.searchsorted(table.arm, [i, i + 1])
        inside = (begin <= parts.user) & (parts.user < end)
        dense = np.zeros((end - begin, len(parts.names), len(places) + 1))
        dense[parts.user[inside] - begin, parts.part[inside], :-1] = parts.values[inside][:, places]
        dense[parts.user[inside] - begin, parts.part[inside], -1] = _met(parts)[inside]
        moments[arm] = Moments.of(columns, dense.reshape(end - begin, len(columns)))
    return moments


def votes_of(table: Table) -> dict[str, Votes]:
    """By arm, whose items users gave more effective views."""
    if "source" not in table.parts:
        return {}
    parts, votes = table.parts["source"], {}
    for i, arm in enumerate(table.arms):
        begin, end = np.searchsorted(table.arm, [i, i + 1])
        inside = (begin <= parts.user) & (parts.user < end)
        at = parts.user[inside] - begin, parts.part[inside]
        earned = np.zeros((end - begin, len(parts.names)))
        earned[at] = parts.values[inside, EventSums._fields.index("effective_views")]
        seen = np.zeros(earned.shape, bool)
        seen[at] = _met(parts)[inside]
        votes[arm] = Votes.of(parts.names, earned, seen)
    return votes


def _met(parts: Parts) -> npt.NDArray[np.bool_]:
    """(R,) which rows have a recall."""
    return np.asarray(parts.values[:, EventSums._fields.index("recalls")] > 0)


def replicas_of(table: Table) -> dict[str, dict[str, int]]:
    if "replica" not in table.parts:
        return {}
    parts = table.parts["replica"]
    counts = np.zeros((len(parts.names), len(table.arms)), np.int64)
    np.add.at(counts, (parts.part, table.arm[parts.user]), 1)
    return {
        name: dict(zip(table.arms, row, strict=True)) for name, row in zip(parts.names, counts.tolist(), strict=True)
    }


def versions_of(table: Table) -> dict[str, dict[str, Moments]]:
    if "version" not in table.parts:
        return {}
    parts = table.parts["version"]
    values = parts.values[:, [EventSums._fields.index(column) for column in SOURCE_COLUMNS]]
    arm_of = table.arm[parts.user]
    return {
        version: {
            arm: Moments.of(SOURCE_COLUMNS, values[(parts.part == i) & (arm_of == j)])
            for j, arm in enumerate(table.arms)
        }
        for i, version in enumerate(parts.names)
    }
