"""`abtest.aa`: the experiment's own users shuffled, to see how often its analysis finds something where nothing is."""

from dataclasses import asdict, dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

from abtest.analyse.context import FalseAlarms
from abtest.analyse.one_look import false_alarms, shuffled_verdicts
from abtest.api.inputs import Frame, Plan, planned, rows_of
from abtest.plan.aa import Level, replay_table, trusted
from abtest.read.problems import DataError
from abtest.read.rows import everyone
from abtest.read.shape import shaped
from abtest.report.wording import cried_wolf
from abtest.stats.metrics import Quantile, of_experiment
from contracts.config.experiment import SettingsError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class AA:
    """How often metrics, and the verdict, found a difference between users who were shuffled.

    `levels`: one a metric, and one more by CUPED. `verdicts`: of the whole rule.
    """

    levels: tuple[Level, ...]
    verdicts: FalseAlarms

    @property
    def trusted(self) -> bool | None:
        """Whether every metric is significant as often as the plan's alpha says; None where that cannot be told."""
        return trusted(self.levels)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "trusted": self.trusted,
            "levels": [asdict(level) for level in self.levels],
            "verdicts": asdict(self.verdicts),
        }

    def to_frame(self) -> "pd.DataFrame":
        """A row a metric and way: the share of `false_positives` with its exact 99 % interval, `low` to `high`."""
        import pandas as pd

        return pd.DataFrame([asdict(level) for level in self.levels])

    def _repr_html_(self) -> str:
        return f"{self.to_frame().to_html(index=False, na_rep='–')}<p>{cried_wolf(self.verdicts)}</p>"

    def __str__(self) -> str:
        return f"{self.to_frame().to_string(index=False)}\n{cried_wolf(self.verdicts)}"

    __repr__ = __str__


def aa(frame: Frame, plan: Plan, *, replicates: int = 1000, seed: int = 0) -> AA:
    """Shuffle the rows' users into arms anew, many times over. No arm differs then but by chance.

    >>> import abtest
    >>> found = abtest.aa(
    ...     {"variant": ["a", "b"] * 50, "spend": list(range(100))},
    ...     {"columns": {"arm": "variant"}, "control": "a", "metrics": [{"name": "spend", "kind": "revenue"}]},
    ...     replicates=200,
    ... )
    >>> found.trusted, 0.01 < found.levels[0].false_positives < 0.11
    (True, True)

    Args:
        frame: as of `abtest.analyse`; all users are held in memory.
        plan: as of `abtest.analyse`.
        replicates: how often users are shuffled.
        seed: of the shuffles.

    Raises:
        DataError: the rows cannot be used, or there are fewer than four users.
        SettingsError: the plan or a number cannot be used.

    """
    numbers: dict[str, tuple[Any, int]] = {"replicates": (replicates, 1), "seed": (seed, 0)}
    for name, (number, least) in numbers.items():
        if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
            raise SettingsError(f"{name} is {number!r:.40}; it must be a whole number, {least} or more.")
    checked = planned(plan)
    found = shaped(rows_of(frame, checked), checked)
    users = everyone(found.table, found.experiment, found.called)
    if len(users.arm) < 4:
        raise DataError(f"There are {len(users.arm)} users in the rows; to shuffle takes four or more.")
    experiment = found.experiment
    metrics = [each for each in of_experiment(experiment, users.columns) if not isinstance(each, Quantile)]
    plan_, weights = experiment.analysis, {arm: spec.weight for arm, spec in experiment.arms.items()}
    levels = replay_table(users, metrics, replicates, seed, plan_.alpha)
    weeks = shuffled_verdicts(users, metrics, weights, experiment.control, plan_, replicates, seed)
    return AA(tuple(levels), replace(false_alarms(weeks), users=len(users.arm)))
