"""The verdict of one look at users as they are: no stream, no days. For replays, simulations and tests of the rule."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from abtest.aggregate.aggregate import bucket_of, bucketed
from abtest.aggregate.user_days import Table
from abtest.analyse.analysis import compare_arms
from abtest.analyse.context import FalseAlarms
from abtest.analyse.deciding import decided
from abtest.analyse.planned import planned
from abtest.analyse.results import Verdict
from abtest.analyse.verdict import decide
from abtest.analyse.weighing import Users
from abtest.stats.largest import Largest
from abtest.stats.metrics import Mean, Ratio
from abtest.stats.moments import Floats, Moments
from contracts.config.experiment import AnalysisPlan


def users_of(columns: Sequence[str], by_arm: Mapping[str, Floats], covariates: Sequence[str] = ()) -> Users:
    """What the rule has to know of users.

    Args:
        columns: K names, covariates last.
        by_arm: (users, K) sums of each arm's users.
        covariates: those of the columns that are from before the experiment.

    """
    names, ranked = tuple(columns), len(columns) - len(covariates)
    ids = iter(np.split(np.arange(sum(map(len, by_arm.values()))), np.cumsum([len(v) for v in by_arm.values()])[:-1]))
    return Users(
        {arm: Moments.of(names, values) for arm, values in by_arm.items()},
        {arm: Largest.of(names, values, ranked) for arm, values in by_arm.items()},
        {arm: bucketed(names[:ranked], bucket_of(next(ids)), values[:, :ranked]) for arm, values in by_arm.items()},
        tuple(covariates),
    )


def verdicts_on(metrics: Sequence[Mean | Ratio], users: Users, control: str, plan: AnalysisPlan) -> tuple[Verdict, ...]:
    """One verdict a treatment arm, by `plan` as if it had one look and had ended, and no check spoke against it."""
    plan = plan.model_copy(update={"kind": "fixed", "looks": ()})
    covariates = users.covariates if plan.cuped else ()
    compared = compare_arms(metrics, users.moments, control, covariates, plan.alpha)
    results = decided(planned(compared, (), plan), metrics, users, control, plan.alpha)
    return tuple(decide(arm, results, (), plan, ended=True) for arm in users.moments if arm != control)


def false_alarms(weeks: Iterable[Sequence[Verdict]]) -> FalseAlarms:
    """Counted over weeks, each with the verdicts on its arms.

    Raises:
        ValueError: there is no week.

    """
    counts, size = [0, 0, 0], 0
    for verdicts in weeks:
        size += 1
        counts[0] += any(verdict.decision == "ship" for verdict in verdicts)
        counts[1] += any(verdict.decision == "hold" for verdict in verdicts)
        counts[2] += any(verdict.broken for verdict in verdicts)
    if not size:
        raise ValueError("false alarms are counted over one week or more")
    from scipy.stats import binomtest  # a third of a second to import

    intervals = [binomtest(count, size).proportion_ci(0.99) for count in counts]
    ship, hold, broken = (
        (count / size, (float(interval.low), float(interval.high)))
        for count, interval in zip(counts, intervals, strict=True)
    )
    return FalseAlarms(size, *ship, *hold, *broken)


def shuffled_verdicts(
    table: Table,
    metrics: Sequence[Mean | Ratio],
    weights: Mapping[str, float],
    control: str,
    plan: AnalysisPlan,
    replicates: int,
    seed: int,
) -> Iterator[tuple[Verdict, ...]]:
    """The verdicts on the table's users dealt into the arms anew by their `weights`, `replicates` times: no arm differs
    but by chance, so that every "ship" and every broken guardrail is a false alarm.
    """
    totals = np.zeros((len(table.arm), len(table.columns)))
    np.add.at(totals, table.user, table.values)
    varying = [place for place, covariate in enumerate(table.pre.T) if np.ptp(covariate) > 0] if len(table.arm) else []
    covariates = [table.covariates[place] for place in varying]
    values, columns = np.hstack((totals, table.pre[:, varying])), (*table.columns, *covariates)
    random, arms = np.random.default_rng(seed), list(weights)
    shares = np.array(list(weights.values())) / sum(weights.values())
    for _ in range(replicates):
        arm: npt.NDArray[np.int64] = random.choice(len(arms), len(values), p=shares)
        by_arm = {name: values[arm == place] for place, name in enumerate(arms)}
        yield verdicts_on(metrics, users_of(columns, by_arm, covariates), control, plan)
