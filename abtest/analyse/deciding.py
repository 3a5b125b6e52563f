"""The comparison that decides, weighed by its evidence, and what speaks against it.

docs/verdict.md says the rule in plain sentences. Every claim ("it improved", "it lost more than allowed") is a bound
that the deciding statistic has to pass by its critical value; the other methods, and the same without any one user
who stands out, have to come at least `AGREE` as far.

Sources: see docs/verdict.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from abtest.analyse.results import ArmEffect, Claim, Deciding, MetricResult
from abtest.analyse.weighing import Users, Weighed, past, weigh
from abtest.stats.effects import LARGEST_LOG, compare, quantile, two_sided
from abtest.stats.evidence import evidence
from abtest.stats.metrics import FEW, Declared, Metric

NO_CLAIM = Claim(holds=False)
AGREE = 5 / 6  # of the critical value: 1.63 of 1.96, so about twice the level


def decided(
    results: Sequence[MetricResult], metrics: Sequence[Declared], users: Users, control: str, alpha: float
) -> tuple[MetricResult, ...]:
    """The results of a plan of one look with what decides beside each primary metric and guardrail.

    Two families keep `alpha`, each by Holm's procedure: the primary metric over all treatment arms, and the guardrails
    over all arms.
    """
    declared = {metric.name: metric for metric in metrics}
    weighed = [
        weigh(result, line, declared[result.metric], users, control, alpha, by_cuped=_by_cuped(line))
        for result in results
        if result.role != "diagnostic"
        for line in result.effects
    ]
    judged: dict[tuple[str, str], Deciding] = {}
    for role in ("primary", "guardrail"):
        family = [each for each in weighed if each.result.role == role]
        for each, level in zip(family, _levels(family, alpha), strict=True):
            judged[each.result.metric, each.line.arm] = judge(each, level, quantile(level / 2))
    return with_deciding(results, judged)


def with_deciding(
    results: Sequence[MetricResult], judged: Mapping[tuple[str, str], Deciding]
) -> tuple[MetricResult, ...]:
    """The results with what decides, by metric and arm, beside each comparison."""
    return tuple(
        replace(
            result,
            effects=tuple(replace(line, deciding=judged.get((result.metric, line.arm))) for line in result.effects),
        )
        for result in results
    )


def _by_cuped(line: ArmEffect) -> bool:
    return line.planned is not None and line.planned.by_cuped


def _levels(family: Sequence[Weighed], alpha: float) -> list[float]:
    """Each comparison's own two-sided level by Holm: alpha / m for the clearest of m, alpha / (m − 1) for the next …,
    and for all that follow the first that fails, its level. An interval at it excludes the bound where Holm rejects.
    """
    claims = ["better" if each.result.role == "primary" else "worse" for each in family]
    p_values = []
    for each, claim in zip(family, claims, strict=True):
        past = each.statistic_of(claim)
        if claim == "better":
            past = max(past, each.statistic_of("worse"))  # two-sided: a primary metric may hold as well
        p_values.append(1.0 if past <= 0 else two_sided(past)[0])
    levels, level, failed = [0.0] * len(family), alpha, False
    for rank, place in enumerate(sorted(range(len(family)), key=lambda place: p_values[place])):
        level = level if failed else alpha / (len(family) - rank)
        failed = failed or p_values[place] >= level
        levels[place] = level
    return levels


def judge(weighed: Weighed, level: float, critical: float, *, hidden: bool = True) -> Deciding:
    """The claims that a comparison bears, each bound to be passed by `critical` standard errors.

    Args:
        weighed: the comparison with its evidence.
        level: what the critical value stands for, two-sided; only told.
        critical: standard errors to each side of the estimate.
        hidden: whether to look for a user who makes a guardrail look sound.

    """
    statistic = weighed.statistic
    if statistic is None:
        return Deciding(reason=weighed.reason, level=level)
    low, high = (statistic.estimate + side * critical * statistic.std_error for side in (-1, 1))
    estimate, low, high = (
        math.expm1(min(end, LARGEST_LOG)) if statistic.on_log else end for end in (statistic.estimate, low, high)
    )
    shares = {arm: each.share for arm, each in weighed.by_arm.items()}
    worse, reason = _claim(weighed, "worse", critical, weighed.reason), weighed.reason
    guardrail = weighed.result.role == "guardrail"
    if guardrail and not worse.holds:
        reason = reason or weighed.ship_reason or (_hidden_loss(weighed, critical) if hidden else None)
    return Deciding(
        "log ratio" if statistic.on_log else "difference",
        estimate,
        low,
        high,
        level=level,
        critical=critical,
        control=statistic.control,
        events={arm: _finite(each.events) for arm, each in weighed.by_arm.items()},
        largest_share=shares,
        better=NO_CLAIM if guardrail else _claim(weighed, "better", critical, weighed.ship_reason or weighed.reason),
        worse=worse,
        short=NO_CLAIM if guardrail else _claim(weighed, "short", critical, weighed.reason),
        reason=reason,
    )


def _claim(weighed: Weighed, claim: str, critical: float, reason: str | None) -> Claim:
    holds = weighed.statistic_of(claim) > critical
    if not holds or reason is not None:
        return Claim(holds, reason)
    for name, other in weighed.others:
        if past(other, claim, weighed.result, weighed.sign) < AGREE * critical:
            return Claim(holds, name if name.startswith("without") else f"{name} does not agree")
    return Claim(holds)


def _hidden_loss(weighed: Weighed, critical: float) -> str | None:
    """Which user makes a guardrail look sound that has worsened for the others."""
    for name, other in weighed.others:
        if name.startswith("without") and past(other, "worse", weighed.result, weighed.sign) > critical:
            return f"it worsened {name.removesuffix(' that cannot be told')}".rstrip(",")
    return None


def _finite(events: float) -> float | None:
    return events if math.isfinite(events) else None


def told_apart(metric: Metric, users: Users, one: str, other: str, alpha: float) -> bool | None:
    """Whether two treatment arms differ, at two-sided `alpha`, by the same choice of method; None: not estimable."""
    by_arm = {arm: evidence(metric, users.moments[arm], users.largest.get(arm)) for arm in (one, other)}
    estimates = [metric.estimate(users.moments[arm]) for arm in (one, other)]
    effect = compare(estimates[0], estimates[1], (one, other), alpha)
    by_log = min(each.events for each in by_arm.values()) >= FEW and effect.p_value is not None
    p_value = effect.p_value if by_log else effect.difference_p_value
    return None if p_value is None else p_value < alpha
