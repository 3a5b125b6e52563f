"""Errors by leaving out one bucket of users at a time: no formula of the metric is needed, and they hold where users of
one bucket depend on each other. A check beside the delta method, from sums by bucket alone.

Sources:
    [E82] Efron: The Jackknife, the Bootstrap and Other Resampling Plans. SIAM 1982, section 3.
    [C10] Chamandy, Muralidharan, Najmi, Naidu: Estimating Uncertainty for Massive Data Streams. Google, 2012.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from abtest.stats.effects import ALPHA, LARGEST_LOG, quantile, two_sided
from abtest.stats.estimates import SMALLEST
from abtest.stats.metrics import Metric
from abtest.stats.moments import Floats


@dataclass(frozen=True)
class Buckets:
    """One arm's users by bucket: `sums` (B, k) of the columns, `counts` (B,) of users. A user is in one bucket."""

    columns: tuple[str, ...]
    sums: Floats
    counts: npt.NDArray[np.int64]

    def __add__(self, other: "Buckets") -> "Buckets":
        """Of both, which must not share a user.

        Raises:
            ValueError: their columns or numbers of buckets differ.

        """
        if self.columns != other.columns or self.sums.shape != other.sums.shape:
            raise ValueError("buckets of other columns or another number do not merge")
        return Buckets(self.columns, self.sums + other.sums, self.counts + other.counts)


@dataclass(frozen=True)
class Jackknife:
    """A comparison of two arms with jackknife errors. What cannot be had is None, and `reason` says why.

    `buckets`: those with users, B. Intervals are Student's t with B − 1 degrees of freedom. `difference` is in the
    metric's unit; `relative`, `ci_low` and `ci_high` are fractions of the control's value, by way of the log ratio,
    whose standard error is `log_std_error` and whose p-value is `p_value`.
    """

    buckets: int
    difference: float | None = None
    difference_std_error: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    difference_p_value: float | None = None
    relative: float | None = None
    log_std_error: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    reason: str | None = None


def jackknife(metric: Metric, treatment: Buckets, control: Buckets, alpha: float = ALPHA) -> Jackknife:
    """`metric` in two arms, compared; bucket i is left out of both arms at once.

    Args:
        metric: what is compared.
        treatment: the arm that is judged.
        control: the arm it is judged against, in the same buckets.
        alpha: the intervals miss the truth with this probability.

    Raises:
        ValueError: the arms have different columns or numbers of buckets.

    >>> from abtest.stats.metrics import Mean
    >>> def arm(*users):
    ...     return Buckets(("x",), np.array(users)[:, None], np.ones(len(users), np.int64))
    >>> comparison = jackknife(Mean("x", "x", "", "", "x"), arm(3.0, 5.0, 4.0), arm(2.0, 2.0, 5.0))
    >>> comparison.difference, round(comparison.difference_std_error, 4)  # that of the three paired differences' mean
    (1.0, 1.1547)

    """
    if treatment.columns != control.columns or treatment.sums.shape != control.sums.shape:
        raise ValueError("the arms' buckets are not the same; a paired jackknife needs the same columns and buckets")
    seen = (treatment.counts > 0) | (control.counts > 0)
    size = int(seen.sum())
    if size < 2:
        return Jackknife(size, reason="users in fewer than 2 buckets")
    t, t_without = _values(metric, treatment, seen)
    c, c_without = _values(metric, control, seen)
    if not (math.isfinite(t) and math.isfinite(c)):
        return Jackknife(size, reason="no value in one of the arms")
    difference = t - c
    if not (np.isfinite(t_without).all() and np.isfinite(c_without).all()):
        return Jackknife(size, difference, reason="no value in one of the arms without one of the buckets")
    df = size - 1
    q = quantile(alpha / 2, df)
    error = std_error(t_without - c_without)
    comparison = Jackknife(
        size,
        difference,
        error,
        difference - q * error,
        difference + q * error,
        two_sided(difference / error, df)[0] if error else None,
        reason=None if error else "all buckets alike, no variance",
    )
    if min(t, c, t_without.min(), c_without.min()) < SMALLEST:
        return replace(comparison, reason="no relative difference: a value is not above 0")
    log_ratio, log_error = math.log(t / c), std_error(np.log(t_without / c_without))
    if abs(log_ratio) + q * log_error > LARGEST_LOG:
        return replace(comparison, reason="no relative difference: the values are too near 0 for their errors")
    return replace(
        comparison,
        relative=t / c - 1,
        log_std_error=log_error,
        ci_low=math.expm1(log_ratio - q * log_error),
        ci_high=math.expm1(log_ratio + q * log_error),
        p_value=two_sided(log_ratio / log_error, df)[0] if log_error else None,
    )


def std_error(without: Floats) -> float:
    """Standard error from the estimates without each of the B buckets (B,): √((B−1)/B Σ (θ₍ᵢ₎ − θ₍·₎)²), [E82] eq. 3.3.

    >>> round(std_error(np.array([2.5, 2.0, 1.5])) ** 2, 6)  # the mean of 1, 2, 3: s²/n
    0.333333
    """
    size = len(without)
    return math.sqrt((size - 1) / size * float(((without - without.mean()) ** 2).sum()))


def _values(metric: Metric, arm: Buckets, seen: npt.NDArray[np.bool_]) -> tuple[float, Floats]:
    """The metric over all buckets, and over all but each that was seen (B,). NaN where there are no users."""
    sums, counts = arm.sums[seen], arm.counts[seen].astype(np.float64)
    all_sums, all_counts = sums.sum(axis=0), counts.sum()
    whole = _of(metric, arm.columns, all_sums[None], np.array([all_counts]))
    return float(whole[0]), _of(metric, arm.columns, all_sums - sums, all_counts - counts)


def _of(metric: Metric, columns: Sequence[str], sums: Floats, counts: Floats) -> Floats:
    means = np.divide(sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0)
    return metric.values(columns, means)
