"""What to do, by a rule that is fixed before the experiment and printed beside its answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from abtest.format import threshold
from abtest.novelty import BIAS_ALPHA
from abtest.stats import SRM_ALPHA, Effect, Split

Decision = Literal["ship", "hold", "inconclusive", "invalid"]

RULE = (
    f"Invalid if the traffic split fails its check ({threshold(SRM_ALPHA)}) or the arms already differed before the "
    f"experiment ({threshold(BIAS_ALPHA)}). Otherwise by the 95 % interval of the "
    "primary metric's relative difference: ship if all of it lies above zero, hold if all of it lies below, else "
    "inconclusive. With too few users or events for that interval to hold, inconclusive too."
)


@dataclass(frozen=True)
class Verdict:
    """The decision on one treatment arm and the sentence that gives its grounds."""

    arm: str
    decision: Decision
    because: str


def decide(
    split: Split, metric: str, arm: str, effect: Effect, cautions: Sequence[str] = (), *, biased: bool = False
) -> Verdict:
    """Apply `RULE`. `biased`: the arms already differed before the experiment.

    >>> split = Split({"a": 1, "b": 1}, {"a": 1.0, "b": 1.0}, 0.5, mismatch=False)
    >>> decide(split, "EVR", "a", Effect(relative=0.1, ci_low=0.05, ci_high=0.15)).decision
    'ship'
    """
    if split.mismatch or biased:
        why = "Users did not fall into the arms as planned" if split.mismatch else "The arms differed before the start"
        return Verdict(arm, "invalid", f"{why}, so the arms cannot be compared.")
    if effect.ci_low is None or effect.ci_high is None:
        return Verdict(arm, "inconclusive", f"{metric}: {effect.reason}.")
    if cautions:
        return Verdict(arm, "inconclusive", f"{metric}: {cautions[0]}, too few to decide on.")
    if effect.ci_low > 0:
        return Verdict(arm, "ship", f"{metric} rose; its 95 % interval lies above zero.")
    if effect.ci_high < 0:
        return Verdict(arm, "hold", f"{metric} fell; its 95 % interval lies below zero.")
    return Verdict(arm, "inconclusive", f"{metric} may have risen or fallen; its 95 % interval includes zero.")
