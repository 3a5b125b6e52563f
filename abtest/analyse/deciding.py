"""The comparison that decides, chosen from the evidence before the effect is looked at, and what speaks against it.

docs/verdict.md says the rule in plain sentences. Every claim ("it improved", "it lost more than allowed") is a bound
that the deciding statistic has to pass by its critical value; the other methods, and the same without any one user
who stands out, have to come at least `AGREE` as far.

Sources: see docs/verdict.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from abtest.analyse.results import ArmEffect, Claim, Deciding, MetricResult
from abtest.format import few_events
from abtest.format import share as percent
from abtest.stats.cuped import Adjustment
from abtest.stats.effects import LARGEST_LOG, Effect, compare, quantile, two_sided
from abtest.stats.evidence import Evidence, evidence
from abtest.stats.jackknife import Buckets, jackknife
from abtest.stats.largest import Largest, without
from abtest.stats.metrics import FEW, LARGEST_SHARE, Declared, Metric, Quantile
from abtest.stats.moments import Moments

AGREE = 5 / 6  # of the critical value: 1.63 of 1.96, so about twice the level
ONE_USER = 1 / FEW  # of the squared error of a difference: as if it rested on `FEW` users


@dataclass(frozen=True)
class Users:
    """What is known of the arms' users over the whole experiment: `moments` of columns and covariates, and those who
    stand out (empty where they are not known; buckets of users are left out in their place).
    """

    moments: Mapping[str, Moments]
    largest: Mapping[str, Largest]
    buckets: Mapping[str, Buckets]
    covariates: Sequence[str] = ()


@dataclass(frozen=True)
class _Statistic:
    """An estimate on the scale that it is judged on, log ratio or difference, with its standard error."""

    estimate: float
    std_error: float
    on_log: bool
    control: float  # the control's value

    def beyond(self, relative: float) -> float:
        """By how many standard errors it lies above a relative difference."""
        bound = math.log1p(relative) if self.on_log else relative * abs(self.control)
        return (self.estimate - bound) / self.std_error


@dataclass(frozen=True)
class _Weighed:
    """A metric in one arm before its level is known. `others`: by name, what has to agree."""

    result: MetricResult
    line: ArmEffect
    statistic: _Statistic | None
    others: tuple[tuple[str, _Statistic], ...]
    reason: str | None  # why nothing can be judged
    ship_reason: str | None  # why it cannot carry a "ship"
    by_arm: Mapping[str, Evidence]

    @property
    def sign(self) -> int:
        return 1 if self.result.direction == "increase" else -1

    def statistic_of(self, claim: str) -> float:
        """How far past the claim's bound the deciding statistic lies; minus infinity where there is none."""
        return -math.inf if self.statistic is None else _past(self.statistic, claim, self.result, self.sign)


def decided(
    results: Sequence[MetricResult],
    metrics: Sequence[Declared],
    users: Users,
    control: str,
    alpha: float,
    criticals: Mapping[str, float] | None = None,
) -> tuple[MetricResult, ...]:
    """The results with what decides beside each primary metric and guardrail.

    Two families keep `alpha`, each by Holm's procedure: the primary metric over all treatment arms, and the guardrails
    over all arms. In a sequential plan each has had Bonferroni's share of alpha at its looks already; `criticals` has,
    by role, the critical value now of those that could not be estimated as log ratios.
    """
    declared = {metric.name: metric for metric in metrics}
    weighed = [
        _weigh(result, line, declared[result.metric], users, control, alpha)
        for result in results
        if result.role != "diagnostic"
        for line in result.effects
    ]
    judged: dict[tuple[str, str], Deciding] = {}
    for role in ("primary", "guardrail"):
        family = [each for each in weighed if each.result.role == role]
        levels = _levels(family, alpha) if criticals is None else [alpha / max(len(family), 1)] * len(family)
        for each, level in zip(family, levels, strict=True):
            critical = None if criticals is None else criticals.get(role)
            judged[each.result.metric, each.line.arm] = _judge(each, level, critical)
    return tuple(
        replace(
            result,
            effects=tuple(replace(line, deciding=judged.get((result.metric, line.arm))) for line in result.effects),
        )
        for result in results
    )


def _levels(family: Sequence[_Weighed], alpha: float) -> list[float]:
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


def _weigh(
    result: MetricResult, line: ArmEffect, metric: Declared, users: Users, control: str, alpha: float
) -> _Weighed:
    """Choose the deciding statistic by the evidence."""
    planned = line.planned
    by_cuped = planned is not None and planned.by_cuped and line.adjusted is not None
    effect = line.adjusted if by_cuped and line.adjusted is not None else line.effect
    if isinstance(metric, Quantile):
        statistic = _of_log(effect, alpha, 1.0)
        reason = None if statistic else effect.reason or "it cannot be estimated"
        return _Weighed(result, line, statistic, (), reason, None, {})
    arms = (line.arm, control)
    by_arm = {arm: evidence(metric, users.moments[arm], users.largest.get(arm)) for arm in arms}
    value = metric.estimate(users.moments[control]).value
    if value is None or effect.difference is None:
        return _Weighed(result, line, None, (), effect.reason or "it cannot be estimated", None, by_arm)
    if effect.difference_std_error is None:
        return _Weighed(result, line, None, (), effect.reason or "it cannot be estimated", None, by_arm)
    if not effect.difference_std_error:
        return _alike(result, line, effect.difference, value, by_arm, min(users.moments[arm].n for arm in arms))
    on_log = _of_log(effect, alpha, value)
    difference = _Statistic(effect.difference, effect.difference_std_error, on_log=False, control=value)
    events = min(each.events for each in by_arm.values())
    by_log = on_log is not None and events >= FEW
    statistic = on_log if by_log and on_log is not None else difference
    others: list[tuple[str, _Statistic]] = []
    if by_log:
        others.append(("the difference", difference))
    elif on_log is not None and events > quantile(alpha / 2) ** 2:  # else a value is not told from 0: no ratio is known
        others.append(("the log ratio", on_log))
    others += _jackknifed(metric, line, statistic, users, arms)
    others += _without_one(metric, by_arm, statistic, users, arms, alpha, by_cuped=by_cuped)
    reason, ship_reason = _one_user(by_arm, by_log=by_log)
    if not by_log and ship_reason is None and not users.largest and events < FEW:
        ship_reason = few_events(events)
    return _Weighed(result, line, statistic, tuple(others), reason, ship_reason, by_arm)


def _alike(
    result: MetricResult, line: ArmEffect, difference: float, control: float, by_arm: Mapping[str, Evidence], users: int
) -> _Weighed:
    """All users of an arm have one value: where the arms' values differ, users enough make that certain."""
    if not difference:
        return _Weighed(result, line, None, (), "all users are alike", None, by_arm)
    if users < FEW:
        return _Weighed(result, line, None, (), f"all users of an arm are alike, and only {users}", None, by_arm)
    certain = _Statistic(difference, abs(difference) * 1e-9, on_log=False, control=control)
    return _Weighed(result, line, certain, (), None, None, by_arm)


def _one_user(by_arm: Mapping[str, Evidence], *, by_log: bool) -> tuple[str | None, str | None]:
    """Why nothing may be judged, and why nothing may ship, because one user has too much of it.

    What worsens is stopped on less than what ships: there a user counts against the users of both arms together.
    """
    reason = ship_reason = None
    together = sum(each.total for each in by_arm.values())
    for arm, each in by_arm.items():
        if each.share is None or each.share <= LARGEST_SHARE:
            continue
        few = f"{few_events(each.events)} in arm {arm}, where " if each.events < FEW else ""
        there = "" if few else f" in arm {arm}"
        ship_reason = f"{few}one user has {percent(each.share)} of {_words(each.column)}{there}"
        if together and each.share * each.total > LARGEST_SHARE * together:
            reason = ship_reason
    if by_log:
        return reason, ship_reason
    variance = sum(each.squared_error / each.error_share for each in by_arm.values() if each.error_share)
    for arm, each in by_arm.items():
        if each.error_share is None:
            continue
        few = f"{few_events(each.events)} in arm {arm}, and one user has"
        few = few if each.events < FEW else f"one user of arm {arm} has"
        if each.error_share > ONE_USER or each.error_share == 0:
            ship_reason = ship_reason or (
                f"{few} {percent(each.error_share)} of its squared error"
                if each.error_share
                else f"no effective events in arm {arm}"
            )
        if variance and each.squared_error > ONE_USER * variance:
            reason = reason or f"{few} {percent(each.squared_error / variance)} of the difference's squared error"
    return reason, ship_reason or reason


def _judge(weighed: _Weighed, level: float, critical: float | None) -> Deciding:
    """`critical`: of a sequential plan, for a comparison that has none of its own; None where there is one look."""
    planned, statistic = weighed.line.planned, weighed.statistic
    if planned is None or planned.kind == "fixed":
        critical = quantile(level / 2)
    elif statistic is not None and statistic.on_log and weighed.by_arm:  # else a quantile, which has no looks
        if planned.critical is None or planned.relative is None:
            return Deciding(reason=planned.reason or "the plan has not looked yet", level=level)
        critical = planned.critical
        weighed = _at_look(weighed, statistic, _looked(planned.low, planned.high, critical))
        statistic = weighed.statistic
    if critical is None:
        return Deciding(reason=(planned and planned.reason) or "the plan has not looked yet", level=level)
    if statistic is None:
        return Deciding(reason=weighed.reason, level=level)
    low, high = (statistic.estimate + side * critical * statistic.std_error for side in (-1, 1))
    estimate, low, high = (
        math.expm1(min(end, LARGEST_LOG)) if statistic.on_log else end for end in (statistic.estimate, low, high)
    )
    shares = {arm: each.share for arm, each in weighed.by_arm.items()}
    worse, reason = _claim(weighed, "worse", critical, weighed.reason), weighed.reason
    if weighed.result.role == "guardrail" and not worse.holds:
        reason = reason or weighed.ship_reason or _hidden_loss(weighed, critical)
    if planned is not None and planned.kind != "fixed" and statistic.on_log and planned.relative is not None:
        estimate = planned.relative  # a confidence sequence's interval need not lie evenly about it
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
        better=_claim(weighed, "better", critical, weighed.ship_reason or weighed.reason),
        worse=worse,
        short=_claim(weighed, "short", critical, weighed.reason),
        reason=reason,
    )


def _at_look(weighed: _Weighed, now: _Statistic, looked: _Statistic | None) -> _Weighed:
    """As the plan's look had it; what one user or the jackknife changes now is changed there."""
    if looked is None:
        return replace(weighed, statistic=None, reason="nothing may be concluded from this look")
    looked = replace(looked, control=now.control)
    others = tuple(
        (
            name,
            replace(
                looked,
                estimate=looked.estimate + other.estimate - now.estimate,
                std_error=looked.std_error * other.std_error / now.std_error,
            ),
        )
        for name, other in weighed.others
        if other.on_log
    )
    return replace(weighed, statistic=looked, others=others)


def _claim(weighed: _Weighed, claim: str, critical: float, reason: str | None) -> Claim:
    holds = weighed.statistic_of(claim) > critical
    if not holds or reason is not None:
        return Claim(holds, reason)
    for name, other in weighed.others:
        if _past(other, claim, weighed.result, weighed.sign) < AGREE * critical:
            return Claim(holds, name if name.startswith("without") else f"{name} does not agree")
    return Claim(holds)


def _hidden_loss(weighed: _Weighed, critical: float) -> str | None:
    """Which user makes a guardrail look sound that has worsened for the others."""
    for name, other in weighed.others:
        if name.startswith("without") and _past(other, "worse", weighed.result, weighed.sign) > critical:
            return f"it worsened {name.removesuffix(' that cannot be told')}".rstrip(",")
    return None


def _past(statistic: _Statistic, claim: str, result: MetricResult, sign: int) -> float:
    """Standard errors by which a claim's bound is passed: better than none, worse than is allowed, short of the least
    that is worth shipping.
    """
    least = result.minimum_effect
    if claim == "better":
        return sign * statistic.beyond(0.0)
    bound = least if claim == "short" else -least if result.role == "guardrail" else 0.0
    bound = max(sign * bound, -1 + 1e-12)
    return -sign * statistic.beyond(bound)


def _of_log(effect: Effect, alpha: float, control: float) -> _Statistic | None:
    if effect.relative is None or effect.ci_low is None or effect.ci_high is None:
        return None
    return _looked(effect.ci_low, effect.ci_high, quantile(alpha / 2), control)


def _looked(low: float | None, high: float | None, critical: float, control: float = 1.0) -> _Statistic | None:
    """From an interval, which lies evenly about its estimate on the log scale."""
    if low is None or high is None or low <= -1 or not high > low:
        return None
    below, above = math.log1p(low), math.log1p(high)
    return _Statistic((below + above) / 2, (above - below) / (2 * critical), on_log=True, control=control)


def _jackknifed(
    metric: Metric, line: ArmEffect, statistic: _Statistic, users: Users, arms: tuple[str, str]
) -> Iterator[tuple[str, _Statistic]]:
    """The deciding estimate with its error as many times larger as the jackknife's is than the plain one."""
    compared = line.jackknife
    if compared is None and users.buckets:
        compared = jackknife(metric, users.buckets[arms[0]], users.buckets[arms[1]])
    plain = line.effect.difference_std_error
    if compared is None or compared.difference_std_error is None or not plain:
        return
    inflation = compared.difference_std_error / plain
    if statistic.on_log and compared.log_std_error:
        inflation = max(inflation, compared.log_std_error / (_plain_log_error(line.effect) or math.inf))
    if inflation > 1:
        yield "the jackknife", replace(statistic, std_error=statistic.std_error * inflation)


def _plain_log_error(effect: Effect) -> float | None:
    log = _of_log(effect, effect.alpha, 1.0)
    return log.std_error if log else None


def _without_one(
    metric: Metric,
    by_arm: Mapping[str, Evidence],
    statistic: _Statistic,
    users: Users,
    arms: tuple[str, str],
    alpha: float,
    *,
    by_cuped: bool,
) -> Iterator[tuple[str, _Statistic]]:
    """The comparison without each user who stands out, or without the bucket that moves it most."""
    if not users.largest:
        yield from _without_bucket(metric, statistic, users, arms)
        return
    for arm in arms:
        standouts = by_arm[arm].standouts
        for user in standouts if standouts is not None else ():
            left = {**users.moments, arm: without(users.moments[arm], user)}
            if by_cuped:
                estimates = Adjustment.of(left, users.covariates).of_metric(metric).estimates
            else:
                estimates = {name: metric.estimate(left[name]) for name in arms}
            effect = compare(estimates[arms[0]], estimates[arms[1]], arms, alpha)
            value = estimates[arms[1]].value or 0.0
            name = f"without one user of arm {arm}{_has(by_arm[arm])} that cannot be told"
            log = _of_log(effect, alpha, value) if statistic.on_log else None
            if log is not None:
                yield name, log
            elif effect.difference is not None and effect.difference_std_error:
                yield name, _Statistic(effect.difference, effect.difference_std_error, on_log=False, control=value)


def _without_bucket(
    metric: Metric, statistic: _Statistic, users: Users, arms: tuple[str, str]
) -> Iterator[tuple[str, _Statistic]]:
    """Where no user is known by name: without the hundredth of the users of an arm that moves its value most."""
    for arm, sign in zip(arms, (1, -1), strict=True):
        if arm not in users.buckets:
            continue
        buckets = users.buckets[arm]
        counts = buckets.counts.sum() - buckets.counts
        sums = (buckets.sums.sum(axis=0) - buckets.sums)[counts > 0]
        values = metric.values(buckets.columns, sums / counts[counts > 0, None])
        value = metric.estimate(users.moments[arm]).value
        if value is None or not len(values) or not np.isfinite(values).all():
            continue
        moved = float(values[np.argmax(np.abs(values - value))])
        if statistic.on_log and moved <= 0:
            continue
        shift = math.log(moved / value) if statistic.on_log else moved - value
        name = f"without one hundredth of the users of arm {arm} that cannot be told"
        yield name, replace(statistic, estimate=statistic.estimate + sign * shift)


def _has(arm: Evidence) -> str:
    return "" if arm.share is None else f", who has {percent(arm.share)} of {_words(arm.column)},"


def _words(column: str) -> str:
    return column.replace("_", " ")


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
