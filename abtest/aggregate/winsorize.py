"""A table with the columns that an experiment's metrics cap: made before it is aggregated, whatever it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from abtest.aggregate.user_days import PRE, UNKNOWN, Table, earlier, table
from abtest.collect.state import CollectorState
from abtest.stats.metrics import Capped, capped_columns, require_known_before
from abtest.stats.moments import Floats
from abtest.stats.winsorize import Cap, contributions, quantile_cap, value_cap
from contracts.config.experiment import Experiment


def table_of(state: CollectorState, experiment: Experiment) -> Table:
    """Columns of a state in which every request has been folded, with those that the experiment's metrics cap.

    A quantile of what users did before the start is that of everyone who was seen then, in the experiment or not.

    Raises:
        SettingsError: it is of a column that the collector does not watch before the start.

    """
    require_known_before(experiment, PRE)
    wanted, users = capped_columns(experiment), table(state)
    known = earlier(state) if any(each.how.of_pre for each in wanted) else np.zeros((0, len(PRE)))
    return capped(users, caps_of(wanted, pooled_sums(users, wanted), known_before(PRE, known), in_advance=True))


def known_before(covariates: Sequence[str], values: Floats) -> dict[str, Floats]:
    """By covariate (users, P), those of the users of whom something is known from before.

    >>> known_before(("pre.x", UNKNOWN), np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))["pre.x"].tolist()
    [3.0, 0.0]
    """
    if UNKNOWN in covariates:
        values = values[values[:, list(covariates).index(UNKNOWN)] != 1]
    return {name: values[:, place] for place, name in enumerate(covariates)}


def pooled_sums(users: Table, wanted: Sequence[Capped]) -> dict[str, Floats]:
    """By column that is capped at a pooled quantile, the users' sums over all days (U,), all arms together."""
    columns = dict.fromkeys(each.column for each in wanted if each.how.is_pooled)
    return {column: sums(users, column) for column in columns}


def sums(users: Table, column: str) -> Floats:
    """Users' sums of a column over all days (U,)."""
    place = users.columns.index(column)
    return np.bincount(users.user, users.values[:, place], len(users.arm)).astype(np.float64)


def caps_of(
    wanted: Sequence[Capped], pooled: Mapping[str, Floats], pre: Mapping[str, Floats], *, in_advance: bool
) -> dict[str, Cap]:
    """The caps, by the name of the capped column.

    Args:
        wanted: what is to be capped, and how.
        pooled: by column, all users' sums.
        pre: by covariate, what users did before.
        in_advance: whether `pre` is of the same users whoever comes later.

    """
    caps = {}
    for each in wanted:
        if each.how.at is not None:
            caps[each.name] = value_cap(each.column, each.how.at)
            continue
        quantile = each.how.quantile or 0.0
        if each.how.of_pre:
            known = pre[f"pre.{each.column}"]
            caps[each.name] = quantile_cap(each.column, known, quantile, "pre", in_advance=in_advance)
        else:
            caps[each.name] = quantile_cap(each.column, pooled[each.column], quantile, "pooled", in_advance=False)
    return caps


def capped(users: Table, caps: Mapping[str, Cap]) -> Table:
    """The table with a column more for each cap, what its rows add to the users' capped sums; and the caps, by arm."""
    if not caps:
        return users
    columns, counted = [users.values], {}
    for name, cap in caps.items():
        values = users.values[:, users.columns.index(cap.column)]
        added, totals = contributions(users.day, users.user, values, len(users.arm), cap.threshold)
        columns.append(added[:, None])
        above = np.zeros(len(totals), bool) if cap.threshold is None else totals > cap.threshold
        by_arm = np.bincount(users.arm[above], minlength=len(users.arms)).tolist()
        counted[name] = replace(cap, capped=dict(zip(users.arms, by_arm, strict=True)))
    return replace(users, columns=(*users.columns, *caps), values=np.hstack(columns), caps=counted)


def capped_sums(columns: Sequence[str], values: Floats, wanted: Sequence[Capped]) -> tuple[tuple[str, ...], Floats]:
    """Users' sums (users, K) of `columns` over one stretch of time, and of those of them that are to be capped: their
    names and (users, K + C). A quantile, pooled or not, is that of these very sums.
    """
    found = {each: values[:, columns.index(each.column)] for each in wanted if each.column in columns}
    own = {each.column: column for each, column in found.items()}
    pre = {f"pre.{name}": column for name, column in own.items()}
    caps = caps_of(list(found), own, pre, in_advance=True)
    capped_ones = [np.minimum(column, caps[each.name].threshold or np.inf) for each, column in found.items()]
    return (*columns, *(each.name for each in found)), np.column_stack([values, *capped_ones])
