"""A metric as it stands after each of several days: estimates over the same users, which gives looks a covariance."""

from collections.abc import Sequence

from abtest.stats.columns import Column, on_days
from abtest.stats.metrics import Mean, Ratio

FIRST = "first"  # a column: 1 on the day of a user's first exposure, 0 on others


def so_far(metric: Mean | Ratio, day: int) -> Ratio:
    """The metric over the days up to `day` (counted from 0), of the columns that `sums_so_far` makes.

    A mean is over the users exposed so far: a ratio of sums over all users, those yet to come adding nothing to either.

    >>> so_far(Mean("play", "Play", "s", "", "play_s"), 2).columns
    (<play_s<=2>, <first<=2>)
    """
    numerator, denominator = (Column(name, through=day) for name in _names(metric))
    return Ratio(f"{metric.name}<={day}", metric.label, metric.unit, metric.about, numerator, denominator)


def sums_so_far(metrics: Sequence[Mean | Ratio], days: Sequence[int]) -> list[tuple[Column, list[Column]]]:
    """What `Moments.sums` needs, given moments of columns by day, for `so_far`'s columns.

    >>> sums_so_far([Mean("play", "Play", "s", "", "play_s")], [0, 1])[-1]
    (<first<=1>, [<first@0>, <first@1>])
    """
    columns = dict.fromkeys(name for metric in metrics for name in _names(metric))
    return [(Column(name, through=day), on_days(name, range(day + 1))) for name in columns for day in days]


def _names(metric: Mean | Ratio) -> tuple[str, str]:
    above, below = metric.columns if isinstance(metric, Ratio) else (metric.column, FIRST)
    return str(above), str(below)
