"""From a user's behaviours to the arrays that a user tower takes.

The trainer and the serving replica both call this, so a tower sees in production what it saw in training.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]

SECOND_MS = 1000
MOMENTS = 64  # to a factor of e: how finely a served tower tells waits since the last behaviour apart


class Positives(NamedTuple):
    """A user's positive behaviours (effective views), oldest first; both arrays (m,)."""

    item_ids: Ints
    times_ms: Ints


class TowerInputs(NamedTuple):
    """What a user tower takes, apart from the item vectors that `rows` selects. B users, n = window.

    Histories end at the right edge; the left is padding (row -1, mask 0, lag 0).
    """

    rows: Ints  # (B, n) row of each behaviour's item in the item matrix, -1 where there is none
    mask: Floats  # (B, n) 1 where there is a behaviour
    lag: Floats  # (B, n) log1p of the seconds between the behaviour and the request


def positives(item_ids: Ints, times_ms: Ints, effective_views: npt.NDArray[np.bool_]) -> Positives:
    """Keep the effective views of a behaviour sequence; all arrays (m,)."""
    return Positives(item_ids[effective_views], times_ms[effective_views])


def tower_inputs(users: list[Positives], now_ms: Ints, item_ids: Ints, window: int) -> TowerInputs:
    """Cut each user's last `window` behaviours and look their items up.

    Args:
        users: B users.
        now_ms: (B,) event time of each request.
        item_ids: (N,) sorted ids; the position of an id is its row in the item matrix. Behaviours whose item is
            not among them are left out before the cut.
        window: n.

    """
    rows, age_ms = windows(users, now_ms, item_ids, window)
    return TowerInputs(rows, (rows >= 0).astype(np.float32), lag_of(age_ms))


def windows(users: list[Positives], now_ms: Ints, item_ids: Ints, window: int) -> tuple[Ints, Ints]:
    """Rows of the items of each user's last behaviours and their ages in ms; both (B, n), and age 0 where row is -1.

    The arguments are those of `tower_inputs`.
    """
    rows = np.full((len(users), window), -1, np.int64)
    age_ms = np.zeros((len(users), window), np.int64)
    # Looked up all at once: a call for each user would cost more than the lookup.
    found = rows_of(np.concatenate([user.item_ids for user in users]), item_ids) if users else np.empty(0, np.int64)
    start = 0
    for b, user in enumerate(users):
        of_user = found[start : start + user.item_ids.size]
        start += user.item_ids.size
        known = of_user >= 0
        tail = of_user[known][-window:]
        if tail.size:
            age_ms[b, -tail.size :] = now_ms[b] - user.times_ms[known][-window:]
            rows[b, -tail.size :] = tail
    return rows, age_ms


def lag_of(age_ms: Ints) -> Floats:
    """Ages as towers know them, of the same shape: log1p of seconds; a behaviour after the request has age 0."""
    return np.log1p(np.maximum(age_ms / SECOND_MS, 0)).astype(np.float32)


def moment_of(positives: Positives, now_ms: int) -> int:
    """The time that a served tower is given instead of the request's: the wait since the last behaviour, to 1.6 %.

    Towers know time by its logarithm, log1p of seconds; this rounding moves it by at most 1/128. A user who asks again
    soon asks at the same moment, and gets the same vector without the tower's being run.

    >>> last = Positives(np.array([7]), np.array([1_000_000]))
    >>> [moment_of(last, 1_000_000 + ms) for ms in (0, 2_000, 600_000, 603_000)]
    [1000000, 1001985, 1604618, 1604618]
    """
    if not positives.times_ms.size:
        return 0
    last_ms = int(positives.times_ms[-1])
    steps = round(MOMENTS * float(np.log1p(max(now_ms - last_ms, 0) / SECOND_MS)))
    return last_ms + round(SECOND_MS * float(np.expm1(steps / MOMENTS)))


def rows_of(wanted: Ints, item_ids: Ints) -> Ints:
    """Rows of `wanted` ids in the sorted `item_ids`; -1 where an id is not there.

    >>> rows_of(np.array([7, 8]), np.array([3, 7, 9])).tolist()
    [1, -1]
    """
    if not item_ids.size:
        return np.full(wanted.shape, -1, np.int64)
    at = np.minimum(np.searchsorted(item_ids, wanted), item_ids.size - 1)
    return np.where(item_ids[at] == wanted, at, -1)


def gather(rows: Ints, vectors: Floats) -> Floats:
    """Item vectors of `rows`: (B, n) and (N, d) give (B, n, d), zeros where the row is -1."""
    out = vectors[np.maximum(rows, 0)]
    out[rows < 0] = 0
    return out


def sampling_noise(user_id: int, seed: int, shape: tuple[int, ...]) -> Floats:
    """Standard normal noise that is a function of (user, snapshot seed): asking twice gives one answer."""
    return np.random.Generator(np.random.Philox(key=[user_id, seed])).standard_normal(shape, np.float32)
