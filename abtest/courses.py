"""Metrics over the days: bands that hold for all days at once, a plan's looks, and whether an effect wears off."""

from collections.abc import Iterator, Sequence

from abtest.aggregate import SEEN, Aggregate
from abtest.metrics import Mean, Ratio
from abtest.novelty import course, on_day, trend
from abtest.results import Course
from contracts.experiment import Experiment


def courses_of(of: Aggregate, metrics: Sequence[Mean | Ratio], experiment: Experiment) -> Iterator[Course]:
    """One for each metric and treatment arm."""
    control, days = experiment.control, range(of.days)
    for metric in metrics:
        daily = [on_day(metric, day) for day in days]
        for arm in of.arms:
            if arm == control:
                continue
            found = course(daily, of.moments[arm], of.moments[control])
            yield Course(
                metric.name,
                arm,
                (None,) * of.days,
                (None,) * of.days,
                (),
                trend(found),
            )


def upto(metric: Mean | Ratio, day: int) -> Ratio:
    """The metric over all days up to one, as an estimate over all users, which gives looks a joint covariance.

    >>> upto(Mean("play", "Play", "s", "", "play_s"), 2).columns
    ('play_s<=2', 'seen<=2')
    """
    numerator, denominator = metric.columns if isinstance(metric, Ratio) else (metric.column, SEEN)
    return Ratio(
        f"{metric.name}<={day}", metric.label, metric.unit, metric.about, f"{numerator}<={day}", f"{denominator}<={day}"
    )
