"""What to do, by a rule that is fixed before the experiment and printed beside its answer."""

from collections.abc import Sequence
from typing import NamedTuple

from abtest.analyse.results import ArmEffect, Check, Decision, MetricResult, Planned, Verdict
from abtest.format import share
from contracts.config.experiment import AnalysisPlan

RULE = (
    "Invalid if a check of the trust panel says so. Otherwise by the interval that the plan names. "
    "Hold if a guardrail has certainly lost more than the plan allows, if the primary metric has certainly worsened, "
    "or if it has certainly not gained the least that is worth shipping. "
    "Ship if it has certainly improved, and by at least that as far as can be told. Else inconclusive; so too before a "
    "fixed-horizon experiment has ended, with too few users or events for an interval to hold, and where the arms' "
    "models learned from each other's users unless the plan says that they do."
)


def decide(
    arm: str,
    metrics: Sequence[MetricResult],
    checks: Sequence[Check],
    plan: AnalysisPlan,
    *,
    ended: bool,
    interference: bool = False,
) -> Verdict:
    """Apply `RULE` to one treatment arm.

    Args:
        arm: the treatment arm.
        metrics: over the whole experiment, with planned comparisons; exactly one is primary.
        checks: the trust panel.
        plan: how the experiment is analysed.
        ended: whether all days that the plan has are in.
        interference: whether an arm's model learned from another arm's users more than is tolerated.

    """
    invalid = [check for check in checks if check.level == "invalid"]
    if invalid:
        return Verdict(arm, "invalid", f"{invalid[0].said} The arms cannot be compared.")
    lines = [(result, next(line for line in result.effects if line.arm == arm)) for result in metrics]
    broken = tuple(result.label for result, line in lines if result.role == "guardrail" and _broken(result, line))
    lost = f"{', '.join(broken)}: lost more than the plan allows"
    if plan.kind == "fixed" and not ended:
        text = "The experiment has not ended; its plan has one look, after the last day."
        return Verdict(arm, "inconclusive", f"{text} {lost}, so far." if broken else text, broken)
    if broken:
        return Verdict(arm, "hold", f"{lost}.", broken)
    primary, line = next(result for result in lines if result[0].role == "primary")
    decision, text = _of_primary(primary, line)
    if decision == "ship" and interference and not plan.pooled_training:
        return Verdict(arm, "inconclusive", f"{text}, but the arms' models learned from each other's users.")
    return Verdict(arm, decision, f"{text}.")


def _of_primary(result: MetricResult, line: ArmEffect) -> tuple[Decision, str]:
    """What the primary metric says by itself."""
    gains, label = _gains(result, line), result.label
    if gains is None or line.cautions:
        why = _planned(line).reason if gains is None else f"{line.cautions[0]}, too few to decide on"
        return "inconclusive", f"{label}: {why}"
    if gains.high < 0:
        return "hold", f"{label} worsened; its interval lies on the wrong side of zero"
    if gains.high < result.minimum_effect:
        return "hold", f"{label} has not gained the {share(result.minimum_effect)} that are worth shipping"
    if gains.low <= 0:
        return "inconclusive", f"{label} may have risen or fallen; its interval includes zero"
    if gains.estimate < result.minimum_effect:
        return "inconclusive", f"{label} improved, perhaps by less than is worth shipping"
    return "ship", f"{label} improved; its interval lies on the right side of zero"


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """Of a command that made a report: 2 where the data are invalid, 3 where a guardrail is broken, else 0.

    >>> exit_code([Verdict("a", "ship", "."), Verdict("b", "hold", ".", ("Play duration",))])
    3
    """
    if any(verdict.decision == "invalid" for verdict in verdicts):
        return 2
    return 3 if any(verdict.broken for verdict in verdicts) else 0


class _Gains(NamedTuple):
    """A planned comparison with the good direction upwards."""

    estimate: float
    low: float
    high: float


def _gains(result: MetricResult, line: ArmEffect) -> _Gains | None:
    planned = _planned(line)
    if planned.relative is None or planned.low is None or planned.high is None:
        return None
    if result.direction == "increase":
        return _Gains(planned.relative, planned.low, planned.high)
    return _Gains(-planned.relative, -planned.high, -planned.low)


def _broken(result: MetricResult, line: ArmEffect) -> bool:
    gains = _gains(result, line)
    return gains is not None and not line.cautions and gains.high < -result.minimum_effect


def _planned(line: ArmEffect) -> Planned:
    if line.planned is None:
        raise ValueError("the whole experiment's results come with planned comparisons")
    return line.planned
