"""What an arm's estimate rests on: how many events, and how much on its largest user. Looked at before the effect.

The effective number of events is value² / variance of the value: of k rare conversions it is k, of a heavy tail far
fewer than there were orders. The log ratio's variance is the sum of the arms' 1 / events, which is why its error stays
bounded while one order can make the ratio as large as it likes. The share of one user in an arm's squared error is the
Lindeberg condition of the central limit theorem, measured: where one user has much of it, no mean is normal [F71].

Sources:
    [F71] Feller: An Introduction to Probability Theory and Its Applications II. Wiley 1971, section VIII.4.
    [E82] Efron: The Jackknife, the Bootstrap and Other Resampling Plans. SIAM 1982, on leaving out one.
"""

from dataclasses import dataclass

import numpy as np

from abtest.stats.estimates import effective_events
from abtest.stats.largest import Largest
from abtest.stats.metrics import Metric
from abtest.stats.moments import Floats, Moments


@dataclass(frozen=True)
class Evidence:
    """Of one metric in one arm.

    `events`: the effective number of events. `error_share`: of the arm's squared error, that of the user who has most,
    from 0 to 1; None where the largest users are not known. `squared_error`: that user's part of the variance of the
    estimate. `share`: of the arm's sum of `column`, that of the user who has most; None where a sum is below 0, and
    `total` that sum, in the column's unit. `standouts` (users, K): who might have most, to be left out one by one.
    """

    events: float
    error_share: float | None = None
    squared_error: float = 0.0
    share: float | None = None
    column: str = ""
    total: float = 0.0
    standouts: Floats | None = None


def evidence(metric: Metric, moments: Moments, largest: Largest | None) -> Evidence:
    """What `metric` rests on in an arm of these users.

    Args:
        metric: of columns that the moments have.
        moments: of the arm's users.
        largest: of the same users and columns; None where it is not known.

    """
    estimate = metric.estimate(moments)
    events = effective_events(estimate)
    if largest is None or estimate.influence is None or moments.n < 2:
        return Evidence(events)
    names = [str(column) for column in metric.columns]
    standouts = largest.of_columns(names)
    if not len(standouts):
        return Evidence(events)
    squared = ((standouts - moments.means) @ estimate.influence) ** 2
    spread = float(estimate.influence @ moments.products @ estimate.influence)
    error_share = min(float(squared.max()) / spread, 1.0) if spread > 0 else 0.0
    share, column, total = None, "", 0.0
    ranked = len(largest.users) // 2
    for name in names:
        place, whole = largest.columns.index(name), moments.total(name)
        signed = not np.isnan(largest.users[ranked + place]).any()
        if not signed and whole > 0 and (share is None or largest.users[place, place] / whole > share):
            share, column, total = float(largest.users[place, place] / whole), name, whole
    return Evidence(events, error_share, error_share * (estimate.variance or 0.0), share, column, total, standouts)
