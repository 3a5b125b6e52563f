"""What to do, by a rule that is fixed before the experiment and printed beside its answer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from abtest.analyse.results import ArmEffect, Check, Deciding, Decision, MetricResult, Verdict
from abtest.format import difference, least, listed, signed
from contracts.config.experiment import AnalysisPlan

RULE_WITHOUT_MODELS = (
    "Invalid if a check of the trust panel says so. Otherwise by the deciding interval: that of the log ratio where "
    "both arms have at least 20 effective events, else that of the difference. The plan's error level holds over "
    "all arms (Holm), for the primary metric and, apart from it, for the guardrails. "
    "Hold if a guardrail has certainly worsened by more than the plan allows, if the primary metric has certainly "
    "worsened, or if it has certainly not gained the least that is worth shipping. "
    "Ship if it has certainly improved, and by at least that as far as can be told, and every guardrail can be judged. "
    "Certainly: the other methods agree, and it does not rest on one user. Else inconclusive; so too before a "
    "fixed-horizon experiment has ended."
)
RULE = (
    RULE_WITHOUT_MODELS.removesuffix(".")
    + ", where the arms' models learned from each other's users unless the plan says "
    "that they do, where of what an arm was shown positives alone are known, and where one arm's models were stale so "
    "much more than the other's that freshness may be all they differ by, unless the plan says that they shall."
)


def decide(
    arm: str,
    metrics: Sequence[MetricResult],
    checks: Sequence[Check],
    plan: AnalysisPlan,
    *,
    ended: bool,
    stopped: bool = False,
    interference: bool = False,
    stale: str = "",
    one_sided: str = "",
) -> Verdict:
    """Apply `RULE` to one treatment arm.

    Args:
        arm: the treatment arm.
        metrics: over the whole experiment, with what decides; exactly one is primary.
        checks: the trust panel.
        plan: how the experiment is analysed.
        ended: whether all days that the plan has are in.
        stopped: whether it was stopped, so that they are not to come.
        interference: whether an arm's model learned from another arm's users more than is tolerated.
        stale: what `abtest.analyse.model_age.unlike` says; empty where the arms' models were of like freshness.
        one_sided: what `abtest.analyse.shown.one_sided` says; empty where more than positives is known of both arms.

    """
    invalid = [check for check in checks if check.level == "invalid"]
    if invalid:
        return Verdict(arm, "invalid", f"{invalid[0].said} The arms cannot be compared.")
    lines = [(result, next(line for line in result.effects if line.arm == arm)) for result in metrics]
    guardrails = [(result, _deciding(line)) for result, line in lines if result.role == "guardrail"]
    broken = tuple(result.label for result, by in guardrails if by.worse.holds and not by.worse.doubt)
    open_ones = [(result.label, doubt) for result, by in guardrails if (doubt := not_judged(by))]
    open_labels = tuple(label for label, _ in open_ones)
    worsened = "; ".join(
        f"{result.label} {_moved(result, worse=True)} by more than the plan allows"
        for result, by in guardrails
        if result.label in broken
    )
    if plan.kind == "fixed" and not ended:
        text = "The experiment has not ended; its plan has one look, after the last day."
        if stopped:
            text = "The experiment was stopped before its end, where its plan has its one look."
        return Verdict(arm, "inconclusive", f"{text} {worsened}, so far." if broken else text, broken, open_labels)
    if broken:
        return Verdict(arm, "hold", f"{worsened}.", broken, open_labels)
    primary, line = next(result for result in lines if result[0].role == "primary")
    decision, text = _of_primary(primary, _deciding(line))
    if decision == "ship" and open_ones:
        label, doubt = open_ones[0]
        text = f"{text}, but the guardrail {label} cannot be judged: {doubt}"
        return Verdict(arm, "inconclusive", f"{text}.", (), open_labels)
    decision, text = _of_models(
        decision, text, interference and not plan.pooled_training, "" if plan.unlike_freshness else stale
    )
    if decision == "ship" and one_sided:
        decision, text = "inconclusive", f"{text}, but {one_sided}"
    if decision in ("ship", "hold"):
        text += _of_look(primary, _deciding(line))
    return Verdict(arm, decision, f"{text}.", (), open_labels)


def _of_models(decision: Decision, text: str, interference: bool, stale: str) -> tuple[Decision, str]:
    """What is left of a decision where the arms' models are not what the experiment takes them for."""
    if decision == "ship" and interference:
        return "inconclusive", f"{text}, but the arms' models learned from each other's users"
    if not stale:
        return decision, text
    if decision == "ship":
        return "inconclusive", f"{text}, but that may be freshness alone: {stale}"
    return decision, f"{text}. {'It may be freshness alone:' if decision == 'hold' else 'Besides,'} {stale}"


def beside_each_other(
    verdicts: Sequence[Verdict], primary: MetricResult, differ: Callable[[str, str, float], bool | None], alpha: float
) -> tuple[Verdict, ...]:
    """The verdicts, and where several arms would ship, how each stands to the one that improved most.

    Args:
        verdicts: on all treatment arms.
        primary: the metric's comparisons, with what decides.
        differ: whether two arms differ at a two-sided level; None where that cannot be told.
        alpha: over all these comparisons together, by Bonferroni.

    """
    gains = {line.arm: _gain(primary, _deciding(line)) for line in primary.effects if line.deciding}
    shipping = sorted(
        (verdict.arm for verdict in verdicts if verdict.decision == "ship"), key=lambda arm: gains[arm], reverse=True
    )
    if len(shipping) < 2:
        return tuple(verdicts)
    best, *rest = shipping
    less = {arm: bool(differ(best, arm, alpha / len(rest))) for arm in rest}
    equal = [arm for arm in rest if not less[arm]]
    beside = {arm: f"{arm} improved less than {best}." for arm in rest if less[arm]}
    beside |= {arm: f"{arm} cannot be told from {best}." for arm in equal}
    beside[best] = f"Ship {best}; {listed(equal)} cannot be told from it." if equal else f"{best} improved most."
    return tuple(replace(verdict, beside=beside.get(verdict.arm, "")) for verdict in verdicts)


def _of_look(result: MetricResult, by: Deciding) -> str:
    """When a sequential plan decided, where there were looks after it, and whether the effect stayed."""
    if by.look is None or by.last is None:
        return ""
    text = f". Decided after day {by.look + 1}; later looks are overrun and change nothing"
    if by.since is None:
        return text
    moved = signed(by.since) if by.method == "log ratio" else difference(by.since, result.unit)
    return f"{text}, but the effect has changed since: {moved} after day {by.last + 1}"


def decides(result: MetricResult, by: Deciding) -> bool:
    """Whether the primary metric by itself says ship or hold."""
    return _of_primary(result, by)[0] != "inconclusive"


def _of_primary(result: MetricResult, by: Deciding) -> tuple[Decision, str]:
    """What the primary metric says by itself."""
    label, why = result.label, by.reason or by.better.doubt
    decision: Decision = "inconclusive"
    if by.method is None:
        text = f"{label}: {why or 'it cannot be estimated'}"
    elif by.worse.holds:
        decision, text = _unless(by.worse.doubt, "hold", f"{label} {_moved(result, worse=True)}", "wrong")
    elif by.short.holds and not by.short.doubt:
        short = "gained" if result.direction == "increase" else "fallen by"
        decision, text = "hold", f"{label} has not {short} the {least(result.minimum_effect)} that are worth shipping"
    elif not by.better.holds:
        text = f"{label} may have risen or fallen; {why or 'its interval includes zero'}"
    elif not by.better.doubt and _gain(result, by) < result.minimum_effect:
        text = f"{label} {_moved(result, worse=False)}, perhaps by less than is worth shipping"
    else:
        decision, text = _unless(by.better.doubt, "ship", f"{label} {_moved(result, worse=False)}", "right")
    return decision, text


def _unless(doubt: str | None, decision: Decision, text: str, side: str) -> tuple[Decision, str]:
    if doubt:
        return "inconclusive", f"{text}, but a verdict must not rest on this: {doubt}"
    return decision, f"{text}; its interval lies on the {side} side of zero"


def _gain(result: MetricResult, by: Deciding) -> float:
    """The estimate with the good direction upwards, as a fraction of the control's value."""
    estimate = by.estimate or 0.0
    if by.method == "difference":
        estimate = estimate / abs(by.control) if by.control else math.copysign(math.inf, estimate)
    return estimate if result.direction == "increase" else -estimate


def _moved(result: MetricResult, *, worse: bool) -> str:
    """What happened to it in words that say which way it went.

    >>> _moved(MetricResult("e", "Error rate", "%", "", "guardrail", "decrease", 0.0, (), ()), worse=True)
    'rose'
    """
    return "fell" if worse == (result.direction == "increase") else "rose"


def not_judged(by: Deciding) -> str | None:
    """Why nothing can be said about a guardrail."""
    if by.method is None or by.reason:
        return by.reason or "it cannot be estimated"
    return by.worse.doubt if by.worse.holds else None


def _deciding(line: ArmEffect) -> Deciding:
    if line.deciding is None:
        raise ValueError("the whole experiment's results come with what decides")
    return line.deciding


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """Of a command that made a report: 2 where the data are invalid, 3 where a guardrail is broken, else 0.

    >>> exit_code([Verdict("a", "ship", "."), Verdict("b", "hold", ".", ("Play duration",))])
    3
    """
    if any(verdict.decision == "invalid" for verdict in verdicts):
        return 2
    return 3 if any(verdict.broken for verdict in verdicts) else 0
