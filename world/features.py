"""What the response model knows about a user, an item and the moment, as one row of numbers.

Statistics of responses (rates, affinities, tastes) are fitted on some impressions and looked up for others. Whoever
trains on them sees to it that an impression's own response is not among those that describe it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from contracts.features import Floats, Ints
from contracts.runtime.clock import HOUR_MS
from world.logs import Observations

RECENT = 5  # how many of a user's last effective views make the moment
RANK = 32  # width of item vectors

# Name of each column and the direction in which it may move the probability: a better match never earns less.
COLUMNS: dict[str, int] = {
    "user_rate": 1,
    "user_views": 0,
    "item_rate": 1,
    "item_views": 0,
    "category_rate": 1,
    "category_affinity": 1,
    "taste": 1,
    "recent_taste": 1,
    "recent_category": 1,
    "minutes_since_view": 0,
    "duration_s": 0,
    "hour": 0,
    "tab": 0,
    "active_degree": 0,
    "register_days": 0,
}


@dataclass(frozen=True)
class Profiles:
    """What is known of users and items without any response of theirs; U users, N items, C categories."""

    active_degree: Floats  # (U,) a code; nan where unknown
    register_days: Floats  # (U,) nan where unknown
    category: Ints  # (N,) the first category of each item, as a row in 0 .. C - 1; the last row is "none"
    categories: int  # C
    durations_ms: Ints  # (N,)

    @property
    def users(self) -> int:
        """U."""
        return self.active_degree.size

    @property
    def items(self) -> int:
        """N."""
        return self.category.size


@dataclass(frozen=True)
class Statistics:
    """What some impressions say about users and items. Rates are smoothed towards the overall rate."""

    user_rate: Floats  # (U,)
    user_views: Floats  # (U,) impressions counted
    item_rate: Floats  # (N,)
    item_views: Floats  # (N,)
    category_rate: Floats  # (C,)
    affinity: Floats  # (U, C) how far above the category's rate the user's own is
    vectors: Floats  # (N, RANK) unit vectors; close where the same users viewed effectively
    tastes: Floats  # (U, RANK) mean vector of the user's effective views


@dataclass(frozen=True)
class Moment:
    """Where users stand when n impressions are made."""

    recent: Ints  # (n, RECENT) rows of the last effective views, newest first, -1 where there are fewer
    minutes: Floats  # (n,) since the newest of them; nan where there is none


def statistics(seen: Observations, profiles: Profiles) -> Statistics:
    """Fit the statistics on impressions."""
    views = seen.effective.astype(np.float64)
    overall = float(views.mean()) if views.size else 0.0
    category = profiles.category[seen.items]
    user_rate, user_views = _rate(seen.users, views, profiles.users, 5, overall)
    item_rate, item_views = _rate(seen.items, views, profiles.items, 10, overall)
    category_rate, _ = _rate(category, views, profiles.categories, 20, overall)
    cell = seen.users * profiles.categories + category
    cells = profiles.users * profiles.categories
    excess = np.bincount(cell, views - category_rate[category], cells) / (np.bincount(cell, minlength=cells) + 3)
    vectors, tastes = _tastes(seen, profiles)
    return Statistics(
        user_rate,
        user_views,
        item_rate,
        item_views,
        category_rate,
        excess.reshape(profiles.users, profiles.categories).astype(np.float32),
        vectors,
        tastes,
    )


def matrix(
    users: Ints, items: Ints, times_ms: Ints, tabs: Ints, moment: Moment, stats: Statistics, profiles: Profiles
) -> Floats:
    """Describe n impressions: (n, len(COLUMNS)). `times_ms` includes the offset of the local day."""
    category = profiles.category[items]
    present = moment.recent >= 0  # (n, RECENT)
    some = present.any(axis=1)
    # einsum sums each row by itself: a row's value does not depend on what else is in the batch, as in a BLAS product.
    taste = np.einsum("nd,nd->n", stats.tastes[users], stats.vectors[items])
    close = np.einsum("nrd,nd->nr", stats.vectors[np.maximum(moment.recent, 0)], stats.vectors[items])
    closest = np.where(present, close, -1).max(axis=1)
    same = present & (profiles.category[np.maximum(moment.recent, 0)] == category[:, None])
    share = same.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    columns = {
        "user_rate": stats.user_rate[users],
        "user_views": stats.user_views[users],
        "item_rate": stats.item_rate[items],
        "item_views": stats.item_views[items],
        "category_rate": stats.category_rate[category],
        "category_affinity": stats.affinity[users, category],
        "taste": taste,
        "recent_taste": np.where(some, closest, np.nan),
        "recent_category": np.where(some, share, np.nan),
        "minutes_since_view": moment.minutes,
        "duration_s": np.where(profiles.durations_ms[items] > 0, profiles.durations_ms[items] / 1000, np.nan),
        "hour": times_ms // HOUR_MS % 24,
        "tab": tabs,
        "active_degree": profiles.active_degree[users],
        "register_days": profiles.register_days[users],
    }
    return np.stack([columns[name] for name in COLUMNS], axis=1).astype(np.float32)


def moments(seen: Observations) -> Moment:
    """Where each user stood just before each of these impressions, from the impressions before it."""
    n = seen.users.size
    order = np.lexsort((np.arange(n), seen.users))
    users, views = seen.users[order], seen.effective[order]
    viewed = np.flatnonzero(views)  # in user order
    before: Ints = np.cumsum(views) - views  # effective views of all users up to here: index into `viewed`
    starts = np.searchsorted(users[viewed], users)  # the user's own first among them
    at = before[:, None] - 1 - np.arange(RECENT)
    own = at >= starts[:, None]
    rows = np.full((n, RECENT), -1, np.int64)
    minutes = np.full(n, np.nan, np.float32)
    if viewed.size:
        source = order[viewed]
        picked = source[np.where(own, at, 0)]
        rows = np.where(own, seen.items[picked], -1)
        age = (seen.times_ms[order] - seen.times_ms[picked[:, 0]]) / 60_000
        minutes = np.where(own[:, 0], age, np.nan).astype(np.float32)
    recent = np.empty_like(rows)
    recent[order] = rows
    ages = np.empty_like(minutes)
    ages[order] = minutes
    return Moment(recent, ages)


def _rate(rows: Ints, views: npt.NDArray[np.float64], size: int, prior: float, overall: float) -> tuple[Floats, Floats]:
    count = np.bincount(rows, minlength=size).astype(np.float64)
    rate = (np.bincount(rows, views, size) + prior * overall) / (count + prior)
    return rate.astype(np.float32), count.astype(np.float32)


def _tastes(seen: Observations, profiles: Profiles) -> tuple[Floats, Floats]:
    """Item vectors from a truncated SVD of who effectively viewed what, popular items and busy users damped."""
    shape = (profiles.users, profiles.items)
    users, items = seen.users[seen.effective], seen.items[seen.effective]
    vectors = np.zeros((profiles.items, RANK), np.float32)
    if not users.size:
        return vectors, np.zeros((profiles.users, RANK), np.float32)
    viewed = sparse.csr_matrix((np.ones(users.size, np.float32), (users, items)), shape=shape)
    viewed.data[:] = 1
    by_user = sparse.diags(1 / np.sqrt(np.asarray(viewed.sum(axis=1)).ravel() + 1))
    by_item = sparse.diags(1 / np.sqrt(np.asarray(viewed.sum(axis=0)).ravel() + 5))
    _, weight, right = randomized_svd(by_user @ viewed @ by_item, min(RANK, *shape), random_state=0)
    vectors[:, : weight.size] = right.T * weight
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-3
    tastes = np.asarray(viewed @ vectors)
    tastes /= np.linalg.norm(tastes, axis=1, keepdims=True) + 0.5
    return vectors, tastes.astype(np.float32)
