"""Two real experiments beside what was published of them: Cookie Cats' gate and Hillstrom's e-mails.

Numbers are compared as they were printed: ours must round to the same digits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from abtest.analyse.analysis import compare_arms
from abtest.analyse.results import MetricResult
from abtest.stats.metrics import Mean
from abtest.stats.moments import Moments
from abtest.stats.split import split_check

COOKIE_CATS = "cookie-cats/cookie_cats.parquet"
HILLSTROM = "hillstrom/hillstrom.parquet"
KEPT = {"retention_1": ("0.448188", "0.442283"), "retention_7": ("0.190201", "0.182000")}  # gate_30, gate_40
MAILED = {  # users, then means of visit, conversion, spend
    "Mens E-Mail": (21_307, "0.182757", "0.012531", "1.422617"),
    "Womens E-Mail": (21_387, "0.151400", "0.008837", "1.077202"),
    "No E-Mail": (21_306, "0.106167", "0.005726", "0.652789"),
}
OUTCOMES = {"visit": "0.14678", "conversion": "0.00903", "spend": "1.05091"}  # means over all


class Printed(NamedTuple):
    """One number, ours and as it was printed."""

    what: str
    ours: float
    printed: str

    @property
    def agrees(self) -> bool:
        """Whether ours rounds to what was printed.

        >>> Printed("p", 0.07441, "0.0744").agrees, Printed("p", 0.0745, "0.0744").agrees
        (True, False)
        """
        return f"{self.ours:.{len(self.printed.partition('.')[2])}f}" == self.printed


def published(folder: Path) -> Iterator[Printed]:
    """Every number that was published of the data sets in `folder`.

    Raises:
        FileNotFoundError: a data set is not there.

    """
    yield from cookie_cats(pd.read_parquet(folder / COOKIE_CATS))
    yield from hillstrom(pd.read_parquet(folder / HILLSTROM))


def cookie_cats(frame: pd.DataFrame) -> Iterator[Printed]:
    """Players kept for a day and for a week with the gate at level 30, against 40. Published tests pool the variance,
    ours does not: at this many players that moves z by .0003, so of the second p-value only z is compared.
    """
    metrics = results(frame, "version", tuple(KEPT), "gate_40")
    tests = {}
    for name, values in KEPT.items():
        for arm, value in zip(("gate_30", "gate_40"), values, strict=True):
            yield Printed(f"cookie cats, {name} of {arm}", _value(metrics[name], arm), value)
        tests[name] = metrics[name].effects[0].effect
    first, second = tests.values()
    yield Printed("cookie cats, p of retention_1", _known(first.difference_p_value), "0.0744")
    z = _known(second.difference) / _known(second.difference_std_error)
    yield Printed("cookie cats, z of retention_7", z, "3.164")
    users = {str(arm): int(count) for arm, count in frame["version"].value_counts().items()}
    for arm, count in (("gate_30", "44700"), ("gate_40", "45489")):
        yield Printed(f"cookie cats, users of {arm}", users[arm], count)
    split = split_check(users, dict.fromkeys(users, 1.0))
    yield Printed("cookie cats, p of the split", _known(split.p_value), "0.0086")


def hillstrom(frame: pd.DataFrame) -> Iterator[Printed]:
    """Customers who visited, bought and what they spent, by the e-mail that they got."""
    metrics = results(frame, "segment", tuple(OUTCOMES), "No E-Mail")
    for place, (name, mean) in enumerate(OUTCOMES.items(), start=1):
        whole = 0.0
        for arm, figures in MAILED.items():
            value = _value(metrics[name], arm)
            whole += figures[0] * value
            yield Printed(f"hillstrom, {name} of {arm}", value, str(figures[place]))
        yield Printed(f"hillstrom, {name} over all", whole / len(frame), mean)
    for line in next(iter(metrics.values())).arms:
        yield Printed(f"hillstrom, users of {line.arm}", line.users, str(MAILED[line.arm][0]))


def results(frame: pd.DataFrame, arm: str, columns: tuple[str, ...], control: str) -> dict[str, MetricResult]:
    """By column, the comparison of its means between the arms of a table with a row per user."""
    moments = {
        str(name): Moments.of(columns, rows[list(columns)].to_numpy(np.float64)) for name, rows in frame.groupby(arm)
    }
    metrics = tuple(Mean(column, column, "", "", column) for column in columns)
    return {result.metric: result for result in compare_arms(metrics, moments, control)}


def _value(result: MetricResult, arm: str) -> float:
    return next(_known(line.value) for line in result.arms if line.arm == arm)


def _known(number: float | None) -> float:
    if number is None:
        raise ValueError("a number that was published cannot be had from the data")
    return number
