"""Team-draft interleaving: which of two candidate sources a user's attention prefers, when both fill one list.

Each user is one vote, so that one busy user counts no more than another and the interval is clustered on the user.

Sources:
    [R08] Radlinski, Kurup, Joachims: How Does Clickthrough Data Reflect Retrieval Quality? CIKM 2008 (team draft).
    [C12] Chapelle, Joachims, Radlinski, Yue: Large-Scale Validation and Analysis of Interleaved Search Evaluation.
          ACM TOIS 30(1), 2012 (the preference Δ and its ties).
"""

import math
from dataclasses import dataclass

from scipy.special import ndtr, ndtri

from abtest.stats.moments import Floats


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

    >>> import numpy as np
    >>> preference(np.array([2.0, 1, 0, 3]), np.array([1.0, 1, 1, 0])).share
    0.625

    """
    if first.shape != second.shape:
        raise ValueError(f"{first.size} users of one source and {second.size} of the other cannot be compared")
    wins, losses = int((first > second).sum()), int((first < second).sum())
    return preference_of_votes(wins, losses, first.size - wins - losses, alpha)


def preference_of_votes(wins: int, losses: int, ties: int, alpha: float = 0.05) -> Preference:
    """The same from counts of users, which merge by addition.

    >>> import numpy as np
    >>> preference_of_votes(2, 1, 1) == preference(np.array([2.0, 1, 0, 3]), np.array([1.0, 1, 1, 0]))
    True
    """
    users = wins + losses + ties
    if not users:
        return Preference(0, 0, 0, reason="no users")
    share = (wins + ties / 2) / users
    if users < 2:
        return Preference(wins, losses, ties, share, reason="fewer than 2 users")
    if users in {wins, losses, ties}:
        return Preference(wins, losses, ties, share, reason="all users alike")
    squares = wins * (1 - share) ** 2 + losses * share**2 + ties * (0.5 - share) ** 2
    error = math.sqrt(squares / (users - 1) / users)
    margin = -float(ndtri(alpha / 2)) * error
    p_value = 2 * float(ndtr(-abs(share - 0.5) / error))
    return Preference(wins, losses, ties, share, max(share - margin, 0.0), min(share + margin, 1.0), p_value)
