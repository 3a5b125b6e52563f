"""Team-draft interleaving: which of two candidate sources a user's attention prefers, when both fill one list.

Each user is one vote, so that one busy user counts no more than another and the interval is clustered on the user.

Sources:
    [R08] Radlinski, Kurup, Joachims: How Does Clickthrough Data Reflect Retrieval Quality? CIKM 2008 (team draft).
    [C12] Chapelle, Joachims, Radlinski, Yue: Large-Scale Validation and Analysis of Interleaved Search Evaluation.
          ACM TOIS 30(1), 2012 (the preference Δ and its ties).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from abtest.moments import Floats


@dataclass(frozen=True)
class Preference:
    """Users for whom the first source won, lost or tied, and what follows.

    `share`: wins plus half of the ties over all users, [C12] section 3.1 (there less a half); `low`, `high` its
    interval and `p_value` against no preference, large-sample normal; None, with a `reason`, where they cannot be had.
    """

    wins: int
    losses: int
    ties: int
    share: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    reason: str | None = None


def preference(first: Floats, second: Floats, alpha: float = 0.05) -> Preference:
    """Compare what two sources earned from the same users.

    Args:
        first: (users,) what the first source's items earned from each user, such as effective views.
        second: (users,) the same of the other source.
        alpha: 1 − level of the interval.

    Raises:
        ValueError: the two are not of the same users.

    >>> preference(np.array([2.0, 1, 0, 3]), np.array([1.0, 1, 1, 0])).share
    0.625

    """
    if first.shape != second.shape:
        raise ValueError(f"{first.size} users of one source and {second.size} of the other cannot be compared")
    users = first.size
    wins, losses = int((first > second).sum()), int((first < second).sum())
    ties = users - wins - losses
    if not users:
        return Preference(0, 0, 0, reason="no users")
    votes = 0.5 + 0.5 * np.sign(first - second)
    share = float(votes.mean())
    if wins + losses == 0 or users < 2:
        return Preference(wins, losses, ties, share, reason="all users alike" if users > 1 else "fewer than 2 users")
    error = float(votes.std(ddof=1)) / math.sqrt(users)
    if error == 0:
        return Preference(wins, losses, ties, share, reason="all users alike")
    margin = float(norm.isf(alpha / 2)) * error
    p_value = 2 * float(norm.sf(abs(share - 0.5) / error))
    return Preference(wins, losses, ties, share, max(share - margin, 0.0), min(share + margin, 1.0), p_value)
